"""What an append costs with many writers of one stream, each a process of its own as each Lambda environment is.

Measured in simulated time (`bench.simulated`): the engines on one machine take some hundred requests a second, and what
an append costs depends on how many others arrive while a spill is under way.
"""

import asyncio
import sys
from dataclasses import dataclass
from typing import Final

from bench.simulated import PARTITION_UNITS_S, SimulatedLoop, SimulatedTable, simulate, simulated_store
from fluvial.model.command import Append, Create
from fluvial.model.commit import Applied
from fluvial.model.errors import StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_create
from fluvial.storage.dynamodb.store import DynamoDbStore

NAME: Final = StreamName("cost/many-writers")
CONTENT_TYPE: Final = "application/octet-stream"
APPEND_BYTES: Final = 100

#: What each paced writer appends a second: 64 of them stay below what one partition takes.
PACE_S: Final = 5.0
SECONDS: Final = 20.0

#: A client that is refused comes back after Retry-After, and spreads its return.
RETRY_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Written:
    """What writers did: `units` of all appends, those of what was refused and repeated included."""

    writer_count: int
    seconds: float
    appended: int
    rejected: int
    units: float
    requests: int
    refused: int
    throttled: int

    @property
    def units_each(self) -> float:
        """Write units per acknowledged append."""
        return self.units / self.appended

    @property
    def appended_s(self) -> float:
        """Acknowledged appends a second."""
        return self.appended / self.seconds


async def writers_units(writer_count: int, append_bytes: int = APPEND_BYTES) -> float:
    """Write units per append of so many writers at PACE_S each: what `make cost` ends with."""
    return (await written_by(writer_count, append_bytes=append_bytes)).units_each


async def written_by(writer_count: int, pace_s: float = PACE_S, append_bytes: int = APPEND_BYTES) -> Written:
    """Writers that each append at their own pace, at random moments; nobody is throttled."""
    return await asyncio.to_thread(simulate, lambda loop: _run(loop, writer_count, pace_s, append_bytes))


async def written_fast_by(writer_count: int) -> Written:
    """Writers that append as fast as they can, to a partition with its limit and nothing saved up."""
    return await asyncio.to_thread(simulate, lambda loop: _run(loop, writer_count, None, APPEND_BYTES))


async def _run(loop: SimulatedLoop, writer_count: int, pace_s: float | None, append_bytes: int) -> Written:
    table = SimulatedTable(loop.time, None if pace_s else PARTITION_UNITS_S, burst_s=0.1)
    stores = [simulated_store(loop, table) for _ in range(writer_count)]
    clock = loop.clock()
    await stores[0].apply(NAME, plan_create(Create(name=NAME, content_type=CONTENT_TYPE), clock.new_incarnation(), 0))
    before = table.units, table.requests, table.refused, table.throttled
    data, until_s = b"x" * append_bytes, loop.time() + SECONDS
    counts = await asyncio.gather(*(_write(loop, store, pace_s, until_s, data) for store in stores))
    for store in stores:
        await store.close()
    appended, rejected = (sum(column) for column in zip(*counts, strict=True))
    after = table.units, table.requests, table.refused, table.throttled
    units, requests, refused, throttled = (now - then for now, then in zip(after, before, strict=True))
    return Written(writer_count, SECONDS, appended, rejected, units, int(requests), int(refused), int(throttled))


async def _write(
    loop: SimulatedLoop, store: DynamoDbStore, pace_s: float | None, until_s: float, data: bytes
) -> tuple[int, int]:
    """Append until then; how often it was acknowledged, and how often refused."""
    clock, appended, rejected = loop.clock(), 0, 0
    append = Append(name=NAME, content_type=CONTENT_TYPE, data=data)
    while True:
        if pace_s is not None:
            await asyncio.sleep(loop.rng.expovariate(pace_s))
        if loop.time() >= until_s:
            return appended, rejected
        try:
            assert isinstance(await store.apply(NAME, plan_append(append, clock.now_ms())), Applied)
            appended += 1
        except StoreUnavailable:
            rejected += 1
            await asyncio.sleep(RETRY_AFTER_S * (1 + loop.rng.random()))


async def main() -> None:
    """Print a table."""
    out = sys.stdout.write
    out(f"{'writers':>8}{'appends/s':>11}{'units':>8}{'requests':>10}{'refused':>9}{'throttled':>11}{'503':>7}\n")
    for count in (1, 4, 16, 64):
        for written in (await written_by(count), await written_fast_by(count)):
            row = f"{count:>8}{written.appended_s:>11.0f}{written.units_each:>8.2f}"
            row += f"{written.requests / written.appended:>10.2f}{written.refused:>9}{written.throttled:>11}"
            out(f"{row}{written.rejected:>7}\n")


if __name__ == "__main__":
    asyncio.run(main())
