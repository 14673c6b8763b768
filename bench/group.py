"""What an append costs when one process, such as a relay or a queue's consumer, writes many of them to one stream.

Measured in simulated time (`bench.simulated`), where each partition has its limit, and with `--local` on AWS's own
engine, which on one machine takes some hundred requests a second. Units are of appends and spills, not of rotation.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.meter import Meter
from bench.simulated import PARTITION_UNITS_S, SimulatedLoop, SimulatedTable, simulate, simulated_store
from fluvial.clock import Clock
from fluvial.model.command import Append, Create
from fluvial.model.commit import Applied
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import ProducerStamp
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_create
from fluvial.storage.dynamodb.store import DynamoDbStore

NAME: Final = StreamName("cost/group")
CONTENT_TYPE: Final = "application/octet-stream"
APPEND_BYTES: Final = 100
SECONDS: Final = 10.0

#: Appends that wait for their answer at the same time: connections of a relay, or requests of pipelining producers.
WRITERS: Final = (1, 4, 16, 64, 256)
PRODUCERS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Grouped:
    """What writers of one process did: appends a second, and the units and requests of each."""

    label: str
    appended_s: float
    units_each: float
    requests_each: float
    p50_ms: float
    p99_ms: float
    rejected: int


@dataclass
class _Counts:
    latencies_s: list[float]
    rejected: int = 0


async def _write(
    store: DynamoDbStore, now_s: Callable[[], float], until_s: float, counts: _Counts, producer: str | None = None
) -> None:
    """Append one after the other until then."""
    clock, seq = store._clock, 0
    while now_s() < until_s:
        stamp = None if producer is None else ProducerStamp(producer, 0, seq)
        append = Append(name=NAME, content_type=CONTENT_TYPE, data=b"x" * APPEND_BYTES, producer=stamp)
        began_s = now_s()
        try:
            assert isinstance(await store.apply(NAME, plan_append(append, clock.now_ms())), Applied)
        except StoreUnavailable:
            counts.rejected += 1
            await asyncio.sleep(0.1)
        else:
            counts.latencies_s.append(now_s() - began_s)
            seq += 1


async def _write_all(
    store: DynamoDbStore, now_s: Callable[[], float], writers: int, *, with_producers: bool, seconds: float
) -> _Counts:
    counts, until_s = _Counts([]), now_s() + seconds
    names = [f"writer-{number:06}" if with_producers else None for number in range(writers)]
    await asyncio.gather(*(_write(store, now_s, until_s, counts, name) for name in names))
    return counts


def _grouped(label: str, counts: _Counts, seconds: float, units: float, requests: float) -> Grouped:
    latencies = sorted(counts.latencies_s)
    count = len(latencies)
    p50, p99 = (1_000 * latencies[int(count * share)] for share in (0.5, 0.99))
    return Grouped(label, count / seconds, units / count, requests / count, p50, p99, counts.rejected)


def grouped_by(writers: int, *, with_producers: bool = False) -> Grouped:
    """Writers of one process, to a table whose partitions have their limit and nothing saved up."""

    async def run(loop: SimulatedLoop) -> Grouped:
        table = SimulatedTable(loop.time, PARTITION_UNITS_S, burst_s=0.1)
        store, clock = simulated_store(loop, table), loop.clock()
        await store.apply(NAME, plan_create(Create(name=NAME, content_type=CONTENT_TYPE), clock.new_incarnation(), 0))
        units, requests = table.units, table.requests
        counts = await _write_all(store, loop.time, writers, with_producers=with_producers, seconds=SECONDS)
        await store.close()
        label = f"{writers} at once{', producers' if with_producers else ''}"
        return _grouped(label, counts, SECONDS, table.units - units, table.requests - requests)

    return simulate(run)


async def grouped_locally_by(writers: int) -> Grouped:
    """The same in real time on AWS's own engine."""
    from bench.cost import opened_store  # noqa: PLC0415  it needs moto, and Java

    with opened_store() as (store, _, _):
        clock, meter = Clock(), Meter()
        await store.apply(NAME, plan_create(Create(name=NAME, content_type=CONTENT_TYPE), clock.new_incarnation(), 0))
        meter.watch(store._aws.writes)
        counts = await _write_all(store, time.perf_counter, writers, with_producers=False, seconds=SECONDS)
        await store.close()
        return _grouped(f"{writers} at once, real", counts, SECONDS, meter.units, meter.requests)


def main() -> None:
    """Print a table, and the figures of 64 writers."""
    out = sys.stdout.write
    out(f"{'of 100 B':<24}{'appends/s':>11}{'units':>8}{'requests':>10}{'p50, ms':>10}{'p99, ms':>10}{'503':>6}\n")
    rows = [grouped_by(writers) for writers in WRITERS]
    rows += [grouped_by(writers, with_producers=True) for writers in WRITERS if writers <= PRODUCERS_MAX]
    if "--local" in sys.argv:
        rows += [asyncio.run(grouped_locally_by(writers)) for writers in WRITERS]
    for row in rows:
        figures = f"{row.appended_s:>11,.0f}{row.units_each:>8.2f}{row.requests_each:>10.3f}"
        out(f"{row.label:<24}{figures}{row.p50_ms:>10.1f}{row.p99_ms:>10.1f}{row.rejected:>6}\n")
    many = next(row for row in rows if row.label == "64 at once")
    out(f"group_appends_s={many.appended_s:.0f} group_write_units={many.units_each:.2f}\n")


if __name__ == "__main__":
    main()
