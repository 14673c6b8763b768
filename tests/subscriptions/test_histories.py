"""Random histories of whole processes: hostile receivers, crashes at any moment, deletions, and time that passes.

What is checked while it happens: no cursor goes back, none moves but by an ack of the wake of now, and generations only
grow. What is checked at the end, when receivers answer again: every append was acked, and then nothing is due.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from fluvial.model.names import StreamName
from fluvial.model.subscriptions.moves import Refusal
from fluvial.model.subscriptions.state import Subscription, is_after, tail_of
from fluvial.storage.memory import MemoryStore
from fluvial.storage.memory_subscriptions import MemorySubscriptions
from fluvial.subscriptions.limits import WakeLimits
from fluvial.subscriptions.receivers import Answer, DeliveryError
from fluvial.subscriptions.service import Claimed
from fluvial.wire.subscriptions import claim_fields
from tests.support.budget import luck, seeds
from tests.support.clocks import FixedClock
from tests.support.subscriptions import path, pull_wake, webhook
from tests.support.wakes import BROKEN, DONE, TAKEN, Receivers, WakeProcess

IDS = ["globs", "explicit", "pull"]
NAMES = ["events/a", "events/b", "deep/x/y", "other/z"]
STEPS = 120


class WatchedSubscriptions(MemorySubscriptions):
    """Checks each change that is stored."""

    async def replace(self, before: Subscription, after: Subscription) -> bool:
        """See MemorySubscriptions."""
        await asyncio.sleep(0)  # as a disk would let other tasks run
        is_done = await super().replace(before, after)
        if is_done:
            assert after.version == before.version + 1
            assert after.generation - before.generation in {0, 1}
            for name, link in after.links.items():
                former = before.links.get(name)
                assert former is None or not is_after(former.acked, link.acked)
                if former is not None and link.acked != former.acked:
                    assert before.wake is not None, "only a wake's ack moves a cursor"
        return is_done


@dataclass
class History:
    """One history, by its seed."""

    random: random.Random
    still: FixedClock = field(default_factory=FixedClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    wakes: list[dict[str, Any]] = field(default_factory=list)
    is_hostile: bool = True
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Start the first process."""
        self.store.subscriptions = WatchedSubscriptions()
        self.clock = self.still.own_clock()
        self.process = self.start()

    def start(self) -> WakeProcess:
        """A process that knows nothing of an earlier one."""
        limits = WakeLimits(retry_s=0.0, answer_timeout_s=0.005, deliveries_per_target=2)
        return WakeProcess(self.store, self.clock, Receivers(self.answer), limits=limits)

    async def answer(self, _url: str, body: dict[str, Any]) -> Answer:
        """Answer as receivers do that are of no good: or, at the end, of good ones."""
        self.wakes.append(body)
        if not self.is_hostile:
            return DONE
        match self.random.randrange(7):
            case 0:
                raise DeliveryError("connection refused")
            case 1:
                await self.hanging.wait()
            case 2:
                return Answer(200, b'{"done": "perhaps"}')
            case 3:
                await self.call_back(body)
            case 4:
                return DONE
            case 5:
                return Answer(307, b"elsewhere")
            case _:
                pass
        return self.random.choice([BROKEN, TAKEN])

    async def call_back(self, wake: dict[str, Any]) -> None:
        """A callback or an ack, of this wake or of an old one; an accepted one is of the wake of now."""
        name = wake["id"] if "id" in wake else wake["subscription_id"]
        known = self.process.ledger.catalog.entries.get(path(f"__ds/{name}"))  # type: ignore[call-overload]
        current = None if known is None or known.wake is None else known.wake.wake_id
        result = await self.process.acknowledge(wake, is_done=self.random.random() < 0.6, name=name)
        if not isinstance(result, Refusal):
            assert current in {wake["wake_id"], None}, "an ack of a stale wake was accepted"

    async def step(self) -> None:
        """Something happens."""
        match self.random.randrange(12):
            case 0 | 1 | 2 | 3:
                await self.process.append(self.random.choice(NAMES), b"x" * self.random.randrange(1, 4))
            case 4 | 5:
                self.still.time.advance(self.random.choice([1, 300, 1_000, 2_500, 61_000]))
                await self.process.driver.check_due()
            case 6 if self.wakes:
                await self.call_back(self.random.choice(self.wakes[-5:]))
            case 7:
                claimed = await self.process.claim(name="pull")
                if isinstance(claimed, Claimed) and claimed.subscription.wake is not None:
                    fields = claim_fields(claimed.subscription, claimed.subscription.wake, claimed.token)
                    self.wakes.append({**fields, "id": "pull"})
            case 8:
                await self.process.delete(self.random.choice(NAMES))
            case 9:  # kill -9, with whatever is under way
                await self.process.driver.stop()
                self.process = self.start()
                await self.process.driver.recover()
            case _:
                for _ in range(self.random.randrange(5)):
                    await asyncio.sleep(0)

    async def run(self) -> None:
        """The whole history."""
        process = self.process
        await process.append("wake/pool", b"begin ")
        await process.create(webhook(pattern="**", lease_ms=2_000, webhook_url="https://a.example"), "globs")
        explicit = (path("events/a"), path("other/z"))
        await process.create(webhook(pattern=None, streams=explicit, lease_ms=1_000), "explicit")
        await process.create(pull_wake(lease_ms=1_500), "pull")
        for _ in range(STEPS):
            await self.step()
        self.is_hostile = False
        self.hanging.set()
        for _ in range(40):
            self.still.time.advance(61_000)
            await self.process.run()
            claimed = await self.process.claim(name="pull")
            if isinstance(claimed, Claimed) and claimed.subscription.wake is not None:
                fields = claim_fields(claimed.subscription, claimed.subscription.wake, claimed.token)
                await self.process.acknowledge(fields, name="pull")
            await self.process.run()
        for name in IDS:
            await self.check_settled(await self.process.shown(name))

    async def check_settled(self, subscription: Subscription) -> None:
        """Every append was acked, and nothing is left to do."""
        heads = {name: await self.store.head(StreamName(name)) for name in NAMES}
        for name, head in heads.items():
            link = subscription.links.get(path(name))
            is_wanted = subscription.configuration.matches(path(name)) or name in subscription.configuration.streams
            assert (link is not None) or not is_wanted or head is None, f"{name} is not linked"
            if link is not None and head is not None and head.tail:
                assert link.acked == tail_of(head), f"{name} is not acked by {subscription.id}"
        assert subscription.due_ms is None, f"{subscription.id} waits for something"
        await self.process.driver.stop()


@luck
@pytest.mark.medium
@seeds(12)
def test_every_append_is_acked_in_the_end(seed: int) -> None:
    """See the module."""
    asyncio.run(run_history(seed))


async def run_history(seed: int) -> None:
    """A history, on a loop of its own."""
    await History(random.Random(seed)).run()
