"""`make overload`: one stream that is asked for twice what its partition takes, and for a quarter before and after.

The appends come at random moments from a crowd of clients that do not wait for one another. As on Lambda, each is
carried out by a store of its own: one that is idle, or a new one. By default the stores share AWS's own engine behind a
limiter (`bench.limiter`), whose partitions take as much as this machine can keep up with; with `--simulated` they share
a simulated table, whose partitions take 1,000 units a second as DynamoDB's do.

`goodput` are the acknowledged appends a second under overload, as a part of the units a second that the partition
takes: an append takes a unit at least. `recovered_s` is how long after the overload the last append was refused or took
more than three times as long as the slowest of a hundred took before.
"""

import asyncio
import logging
import os
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import quantiles
from typing import Final

from tests.aws_local.__main__ import CREDENTIALS, local_aws
from tests.aws_local.dynamodb_local import dynamodb_local

from bench.limiter import Limiter
from bench.simulated import PARTITION_UNITS_S, SimulatedLoop, SimulatedTable, simulate, simulated_store
from fluvial.clock import Clock
from fluvial.model.command import Append, Create
from fluvial.model.commit import Applied
from fluvial.model.errors import StoreBusy, StoreError
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_create
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints

NAME: Final = StreamName("cost/overload")
CONTENT_TYPE: Final = "application/octet-stream"
APPEND_BYTES: Final = 100

#: What a partition takes a second in front of AWS's own engine on two cores, which takes some hundred requests.
LOCAL_UNITS_S: Final = 40.0

#: Lambda environments at the same time; what comes beyond is refused by the service.
STORES_MAX: Final = 300

#: Stores that are there before the load: to make one takes this machine as long as some dozen appends.
STORES_AT_FIRST: Final = 40

#: The first seconds of the overload do not count: in them the stores find out about it.
SETTLING_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A load: appends a second, as a part of what the partition takes."""

    label: str
    share: float
    seconds: float


PHASES: Final = (Phase("before", 0.25, 6.0), Phase("overload", 2.0, 20.0), Phase("after", 0.25, 10.0))


@dataclass(frozen=True, slots=True)
class Sent:
    """One append: when it began, how long it took, and whether it was acknowledged, or refused without a request."""

    began_s: float
    seconds: float
    is_acknowledged: bool
    is_shed: bool


@dataclass
class Crowd:
    """Clients of one stream, and the stores that carry out what they send."""

    units_s: float
    new_store: Callable[[], DynamoDbStore]
    billed: Callable[[], float]
    rng: random.Random
    sent: list[Sent] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)
    units: list[float] = field(default_factory=list)
    idle: list[DynamoDbStore] = field(default_factory=list)
    store_count: int = 0

    async def run(self, phases: Sequence[Phase]) -> None:
        """Send every phase's load, and wait for the answers."""
        now_s, tasks = asyncio.get_running_loop().time, set[asyncio.Task[None]]()
        self.idle = [self.new_store() for _ in range(STORES_AT_FIRST)]
        self.store_count, first = STORES_AT_FIRST, self.idle[-1]
        incarnation = first._clock.new_incarnation()
        await first.apply(NAME, plan_create(Create(name=NAME, content_type=CONTENT_TYPE), incarnation, 0))
        self.ends_s, self.units, due_s = [now_s()], [self.billed()], now_s()
        for phase in phases:
            end_s = due_s + phase.seconds
            while due_s < end_s:
                due_s += self.rng.expovariate(phase.share * self.units_s)
                await asyncio.sleep(max(0.0, due_s - now_s()))
                task = asyncio.create_task(self._append())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            self.ends_s.append(now_s())
            self.units.append(self.billed())
        await asyncio.gather(*tasks)
        for store in self.idle:
            await store.close()

    def _take(self) -> DynamoDbStore:
        if self.idle:
            return self.idle.pop()
        self.store_count += 1
        return self.new_store()

    async def _append(self) -> None:
        now_s, is_shed = asyncio.get_running_loop().time, False
        began_s = now_s()
        if not self.idle and self.store_count >= STORES_MAX:
            self.sent.append(Sent(began_s, 0.0, is_acknowledged=False, is_shed=True))
            return
        store = self._take()
        append = Append(name=NAME, content_type=CONTENT_TYPE, data=b"x" * APPEND_BYTES)
        try:
            outcome = await store.apply(NAME, plan_append(append, store._clock.now_ms()))
            is_acknowledged = isinstance(outcome, Applied)
        except StoreBusy as exc:
            is_acknowledged, is_shed = False, exc.__cause__ is None
        except StoreError:
            is_acknowledged = False
        self.sent.append(Sent(began_s, now_s() - began_s, is_acknowledged, is_shed))
        self.idle.append(store)

    def during(self, index: int) -> list[Sent]:
        """What a phase sent."""
        return [one for one in self.sent if self.ends_s[index] <= one.began_s < self.ends_s[index + 1]]

    @property
    def goodput(self) -> float:
        """Acknowledged appends a second under overload, as a part of what the partition takes."""
        began_s, ended_s = self.ends_s[1] + SETTLING_S, self.ends_s[2]
        acknowledged = sum(one.is_acknowledged for one in self.during(1) if one.began_s >= began_s)
        return acknowledged / (ended_s - began_s) / self.units_s

    @property
    def recovered_s(self) -> float:
        """How long after the overload the last append was refused, or slow."""
        calm_s = 3 * _percentile(self.during(0), 99)
        late = (one.began_s for one in self.during(2) if not one.is_acknowledged or one.seconds > calm_s)
        return max(late, default=self.ends_s[2]) - self.ends_s[2]


def _percentile(sent: Sequence[Sent], percent: int) -> float:
    seconds = [one.seconds for one in sent if one.is_acknowledged]
    return quantiles(seconds, n=100)[percent - 1] if len(seconds) > 1 else 0.0


def simulate_overload(units_s: float = PARTITION_UNITS_S, phases: Sequence[Phase] = PHASES) -> Crowd:
    """The crowd in simulated time: the same result each time."""

    async def main(loop: SimulatedLoop) -> Crowd:
        table = SimulatedTable(loop.time, units_s, burst_s=0.1)
        crowd = Crowd(units_s, lambda: simulated_store(loop, table), lambda: table.units, loop.rng)
        await crowd.run(phases)
        return crowd

    return simulate(main)


async def overload_engine(units_s: float = LOCAL_UNITS_S, phases: Sequence[Phase] = PHASES) -> Crowd:
    """The crowd on AWS's own engine, behind a limiter."""
    os.environ.update(CREDENTIALS)
    with dynamodb_local() as url, local_aws(url) as environment:
        table, s3 = environment["FLUVIAL_TABLE"], environment["FLUVIAL_S3_ENDPOINT_URL"]
        limiter = Limiter(units_s, burst_s=0.5)

        def new_store() -> DynamoDbStore:
            store = DynamoDbStore(DynamoDbConfig(table, table, Endpoints(url, s3), threads_max=4), Clock())
            limiter.watch(store._aws.writes)
            return store

        crowd = Crowd(units_s, new_store, lambda: limiter.units, random.Random(1))
        await crowd.run(phases)
        return crowd


def report(crowd: Crowd, phases: Sequence[Phase], write: Callable[[str], object]) -> None:
    """Print a table, and a last line for programs."""
    write(f"a partition that takes {crowd.units_s:.0f} units a second; {crowd.store_count} stores\n")
    columns = ("", "offered/s", "acknowledged/s", "refused early/s", "refused late/s", "p50 ms", "p99 ms", "units each")
    write(f"{columns[0]:<10}" + "".join(f"{column:>17}" for column in columns[1:]) + "\n")
    for index, (phase, (began_s, ended_s)) in enumerate(zip(phases, pairwise(crowd.ends_s), strict=True)):
        sent, seconds = crowd.during(index), ended_s - began_s
        acknowledged, shed = sum(one.is_acknowledged for one in sent), sum(one.is_shed for one in sent)
        units = (crowd.units[index + 1] - crowd.units[index]) / max(1, acknowledged)
        counts = (len(sent), acknowledged, shed, len(sent) - acknowledged - shed)
        row = "".join(f"{count / seconds:>17.0f}" for count in counts)
        row += "".join(f"{_percentile(sent, percent) * 1_000:>17.0f}" for percent in (50, 99))
        write(f"{phase.label:<10}{row}{units:>17.2f}\n")
    write(f"goodput={crowd.goodput:.2f} recovered_s={crowd.recovered_s:.1f}\n")


async def main() -> None:
    """Measure, and print."""
    logging.disable(logging.WARNING)
    crowd: Awaitable[Crowd]
    crowd = asyncio.to_thread(simulate_overload) if "--simulated" in sys.argv[1:] else overload_engine()
    report(await crowd, PHASES, sys.stdout.write)


if __name__ == "__main__":
    asyncio.run(main())
