"""Publishing: an append to a stream with followers is followed by deliveries.

- The append stands whatever becomes of its deliveries: `publish` raises nothing, and tells how they went.
- Up to INLINE_SUBSCRIBERS_MAX followers are delivered to before the publisher is answered. A source with more of them,
  or one whose deliveries failed, is put into the backlog.
- Appends may come faster than deliveries. So the publishers of a source form a queue, and rounds of deliveries run one
  after the other: each delivers up to the furthest tail of those who wait when it begins, and serves them all.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.replication import Source
from fluvial.model.command import Append, Close
from fluvial.model.commit import Applied, Outcome
from fluvial.model.errors import StoreError
from fluvial.model.head import Incarnation, StreamStatus, stream_status
from fluvial.storage.contract import Store

log = logging.getLogger(__name__)


class FanOutMode(StrEnum):
    """When followers are delivered to."""

    INLINE = "inline"  # before the publisher is answered
    QUEUED = "queued"  # soon after
    DEFERRED = "deferred"  # when the store can list them again


@dataclass(frozen=True, slots=True)
class FanOutReport:
    """How many followers a stream has, and how many of them were delivered to or failed.

    QUEUED followers are not counted: `count` is then INLINE_SUBSCRIBERS_MAX + 1, and there are at least so many.
    """

    count: int
    successes: int
    failures: int
    mode: FanOutMode


class Backlog(Protocol):
    """Keeps sources whose deliveries no publisher waits for."""

    async def put(self, source: Source) -> None:
        """Have all followers delivered to soon. Raises StoreUnavailable when that cannot be promised."""
        ...

    async def mark_delivered(self, source: Source) -> None:
        """Note that all followers have everything up to the source's tail. Raises StoreUnavailable, StoreUncertain."""
        ...


@dataclass(frozen=True, slots=True)
class _Round:
    """Deliveries up to the source's tail; `guess` is the position where most followers are."""

    source: Source
    guess: int | None


@dataclass(frozen=True, slots=True)
class _EndedRound:
    """The report of a round that reached a tail; `number` counts the rounds of a queue in their order."""

    number: int
    tail: int
    report: FanOutReport


@dataclass(slots=True)
class _Queue:
    """The publishers of one incarnation, one of which runs a round; the queue is dropped with the last of them."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    publisher_count: int = 0
    next: _Round | None = None
    last: _EndedRound | None = None

    @property
    def ended_count(self) -> int:
        """How many rounds have ended."""
        return 0 if self.last is None else self.last.number

    def join(self, source: Source, before: int | None) -> None:
        """Have the next round reach the source's tail; the first append that it serves tells where followers are."""
        if self.next is None:
            self.next = _Round(source, before)
        elif self.next.source.head.tail < source.head.tail:
            self.next = _Round(source, self.next.guess)

    def leave(self, source: Source) -> None:
        """Drop the next round if an earlier one has reached its tail."""
        if self.next is not None and self.next.source.head.tail <= source.head.tail:
            self.next = None

    def take(self, source: Source, before: int | None) -> _Round:
        """The next round, to be run now."""
        taken, self.next = self.next, None
        return taken or _Round(source, before)

    def end(self, ended: _Round, report: FanOutReport) -> None:
        """Keep the report for those who wait."""
        self.last = _EndedRound(self.ended_count + 1, ended.source.head.tail, report)


class Publisher:
    """Runs the rounds of every source that this process appends to."""

    def __init__(self, store: Store, deliveries: Deliveries, backlog: Backlog) -> None:
        """`backlog` takes the sources whose followers are not all delivered to inline."""
        self._store, self._deliveries, self._backlog = store, deliveries, backlog
        self._queues: dict[Incarnation, _Queue] = {}

    async def publish(self, source: Source, before: int | None = None) -> FanOutReport | None:
        """Deliver up to the source's tail, or have it done; None when the stream has no followers.

        `before` is the position before the append, where most followers will be. Raises nothing.
        """
        incarnation = source.head.incarnation
        if source.head.delivered is None:
            return None
        queue = self._queues.setdefault(incarnation, _Queue())
        queue.publisher_count += 1
        try:
            return await self._run_or_share_round(queue, source, before)
        finally:
            queue.publisher_count -= 1
            if not queue.publisher_count:
                del self._queues[incarnation]

    async def _run_or_share_round(self, queue: _Queue, source: Source, before: int | None) -> FanOutReport:
        """The report of a round that reaches the source's tail and ends after this call began.

        A failed round serves all who wait at its end, too: with a follower that hangs for ten seconds, ten publishers
        would otherwise be answered after 10, 20, … 100 seconds. But it serves no later call. Suppose that an append is
        answered with one failure, and its client sends it again; the retry is a duplicate, with the same tail. If it
        were served by the failed round because that reached its tail, it would deliver nothing, and repeat a failure
        that may be over.
        """
        ended_before = queue.ended_count
        queue.join(source, before)
        async with queue.lock:
            last = queue.last
            if last is not None and last.number > ended_before and last.tail >= source.head.tail:
                queue.leave(source)
                return last.report
            taken = queue.take(source, before)
            report = await self._run(taken)
            queue.end(taken, report)
            return report

    async def _run(self, taken: _Round) -> FanOutReport:
        """Deliver, or put the source into the backlog."""
        source = taken.source
        try:
            return await self._deliver_inline(taken)
        except StoreError as exc:
            log.warning("fan_out_deferred", extra={"stream": source.name, "reason": str(exc.__cause__ or exc)})
        except Exception:  # an unforeseen error of the deliveries does not fail the append
            log.exception("fan_out_deferred", extra={"stream": source.name})
        with contextlib.suppress(StoreError):  # the source's head also tells that it is behind
            await self._backlog.put(source)
        return FanOutReport(0, 0, 0, FanOutMode.DEFERRED)

    async def _deliver_inline(self, taken: _Round) -> FanOutReport:
        source, inline_max = taken.source, self._deliveries.limits.inline_subscribers_max
        followers = await self._store.followers(source.head.incarnation, "", inline_max + 1)
        if len(followers) > inline_max:
            await self._backlog.put(source)
            return FanOutReport(len(followers), 0, 0, FanOutMode.QUEUED)
        guess = None if taken.guess is None else source.at(taken.guess)
        undelivered = await self._deliveries.deliver_to(source, followers, guess)
        if undelivered:
            await self._backlog.put(source)
        else:
            await self._backlog.mark_delivered(source)
        return FanOutReport(len(followers), len(followers) - len(undelivered), len(undelivered), FanOutMode.INLINE)


async def publish_append(
    publisher: Publisher, command: Append | Close, outcome: Outcome, now_ms: int
) -> FanOutReport | None:
    """Deliver an append to the stream's followers; a retry delivers what the first attempt may have left.

    None when there are no followers or is nothing to deliver. Raises nothing.
    """
    head = outcome.head
    if head is None or head.delivered is None:
        return None
    before = None
    if isinstance(outcome, Applied):
        before = head.tail - len(command.data) if isinstance(command, Append) else None
    elif head.delivered == head.tail or stream_status(head, now_ms) is not StreamStatus.EXISTS:
        return None
    return await publisher.publish(Source(command.name, head), before)
