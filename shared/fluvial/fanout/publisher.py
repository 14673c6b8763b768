"""Publishing: what follows an append to a stream that is followed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from cachetools import LRUCache

from fluvial.clock import Clock
from fluvial.fanout.limits import FAN_OUT_LIMITS, FanOutLimits
from fluvial.fanout.replication import Delivery, Source, deliver
from fluvial.model.errors import StoreError
from fluvial.model.followers import Follower
from fluvial.model.head import Incarnation, SourcePosition
from fluvial.model.names import StreamName
from fluvial.storage.contract import Store
from fluvial.storage.keyed_lock import KeyedLock

log = logging.getLogger(__name__)

#: Sources whose last round is remembered.
ROUNDS_MAX: Final = 4_096


class FanOutMode(StrEnum):
    """When followers are delivered to."""

    INLINE = "inline"  # before the publisher is answered
    QUEUED = "queued"  # soon after
    DEFERRED = "deferred"  # when the store can say again who they are


@dataclass(frozen=True, slots=True)
class FanOutReport:
    """How many followers a stream has, and how many of them are known to have got all or not to.

    QUEUED followers are not counted: `count` is then INLINE_SUBSCRIBERS_MAX + 1, and there are at least so many.
    """

    count: int
    successes: int
    failures: int
    mode: FanOutMode


class Backlog(Protocol):
    """What a publisher does not wait for."""

    async def put(self, source: Source) -> None:
        """Have what its followers lack delivered soon. Raises StoreUnavailable when that cannot be promised."""
        ...

    async def done(self, source: Source) -> None:
        """Note that all followers have everything up to the source's tail. Raises StoreUnavailable, StoreUncertain."""
        ...


@dataclass(frozen=True, slots=True)
class _Round:
    """What came of a source's last round, which reached a tail; `number` counts all rounds in the order they ended."""

    number: int
    tail: int
    report: FanOutReport


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The next round of a source: up to where, and where most followers are."""

    source: Source
    guess: int | None


class Publisher:
    """Delivers what was appended; rounds of one source follow each other, and one may serve many appends."""

    def __init__(self, store: Store, clock: Clock, backlog: Backlog, limits: FanOutLimits = FAN_OUT_LIMITS) -> None:
        """Nothing is published yet."""
        self.limits = limits
        self._store, self._clock, self._backlog = store, clock, backlog
        self._turns = KeyedLock()
        self._wanted: dict[StreamName, _Wanted] = {}
        self._rounds: LRUCache[Incarnation, _Round] = LRUCache(ROUNDS_MAX)
        self._round_count = 0

    async def publish(self, source: Source, before: int | None = None) -> FanOutReport | None:
        """Deliver up to the source's tail, or have it done; None when nobody follows the stream.

        `before` is the position before the append, where most followers will be. What fails is made good by a later
        round, so nothing is raised. A round serves whoever called before it ended; who calls later, e.g. to try again
        after one that failed, gets a round of its own.
        """
        if source.head.delivered is None:
            return None
        called_after = self._round_count
        self._want(source, before)
        async with self._turns.hold(source.name):
            served = self._rounds.get(source.head.incarnation)
            if served is not None and served.number > called_after and served.tail >= source.head.tail:
                self._forget(source)
                return served.report
            wanted = self._wanted.pop(source.name, _Wanted(source, before))
            try:
                report = await self._round(wanted)
            except StoreError as exc:
                log.warning("fan_out_deferred", extra={"stream": source.name, "reason": str(exc.__cause__ or exc)})
                report = await self._deferred(wanted)
            except Exception:  # whatever it is, the append stands
                log.exception("fan_out_deferred", extra={"stream": source.name})
                report = await self._deferred(wanted)
            self._round_count += 1
            head = wanted.source.head
            self._rounds[head.incarnation] = _Round(self._round_count, head.tail, report)
            return report

    def _want(self, source: Source, before: int | None) -> None:
        """Have the next round reach the source's tail; its first append tells where the followers are."""
        wanted = self._wanted.get(source.name)
        if wanted is None or wanted.source.head.incarnation != source.head.incarnation:
            self._wanted[source.name] = _Wanted(source, before)
        elif wanted.source.head.tail < source.head.tail:
            self._wanted[source.name] = _Wanted(source, wanted.guess)

    def _forget(self, source: Source) -> None:
        """Nothing is wanted any more up to here: an earlier round has served it."""
        wanted = self._wanted.get(source.name)
        if wanted is not None and wanted.source.head.tail <= source.head.tail:
            del self._wanted[source.name]

    async def deliver_to_all(self, source: Source) -> list[Follower]:
        """Deliver to every follower, however many; those who lack something all the same."""
        lacking = list[Follower]()
        async for followers in self._followers(source):
            lacking += await self.deliver_to(source, followers)
        if not lacking:
            await self._backlog.done(source)
        return lacking

    async def deliver_to(
        self,
        source: Source,
        followers: Sequence[Follower],
        guess: SourcePosition | None = None,
        within_s: float | None = None,
    ) -> list[Follower]:
        """Deliver to these; those who lack something all the same. One that is gone is taken off the list.

        `guess` is where most of them are; `within_s` is how long it may take, as long as any round if not told.
        """
        slots = asyncio.Semaphore(self.limits.deliveries_at_once)
        patience_s = self.limits.round_timeout_s if within_s is None else within_s
        ends_at = asyncio.get_running_loop().time() + patience_s

        async def delivered(follower: Follower) -> bool:
            async with slots:
                return await self._delivered(source, follower, guess, ends_at)

        results = await asyncio.gather(*map(delivered, followers))
        return [follower for follower, is_done in zip(followers, results, strict=True) if not is_done]

    async def _round(self, wanted: _Wanted) -> FanOutReport:
        source = wanted.source
        inline_max = self.limits.inline_subscribers_max
        followers = await self._store.followers(source.head.incarnation, "", inline_max + 1)
        if len(followers) > inline_max:
            await self._backlog.put(source)
            return FanOutReport(len(followers), 0, 0, FanOutMode.QUEUED)
        guess = None if wanted.guess is None else source.at(wanted.guess)
        lacking = await self.deliver_to(source, followers, guess)
        if lacking:
            await self._backlog.put(source)
        else:
            await self._backlog.done(source)
        return FanOutReport(len(followers), len(followers) - len(lacking), len(lacking), FanOutMode.INLINE)

    async def _deferred(self, wanted: _Wanted) -> FanOutReport:
        with contextlib.suppress(StoreError):  # the head tells all the same that something is to be done
            await self._backlog.put(wanted.source)
        return FanOutReport(0, 0, 0, FanOutMode.DEFERRED)

    async def _followers(self, source: Source) -> AsyncIterator[list[Follower]]:
        after = ""
        while followers := await self._store.followers(source.head.incarnation, after, self.limits.followers_per_page):
            yield followers
            after = followers[-1].estuary

    async def _delivered(
        self, source: Source, follower: Follower, guess: SourcePosition | None, ends_at: float
    ) -> bool:
        """Whether nothing is left to do for this follower now."""
        where = {"stream": source.name, "estuary": follower.estuary}
        try:
            async with asyncio.timeout_at(ends_at):
                delivery = await deliver(self._store, self._clock, source, follower, guess, limits=self.limits)
                if delivery is Delivery.GONE:
                    await self._store.remove_follower(source.head.incarnation, follower)
        except (StoreError, TimeoutError) as exc:
            log.warning("delivery_failed", extra={**where, "reason": str(exc.__cause__ or exc) or "it took too long"})
            return False
        except Exception:  # whatever it is, the other followers get theirs, and the append stands
            log.exception("delivery_failed", extra=where)
            return False
        if delivery is Delivery.GONE:
            log.info("follower_removed", extra=where)
        return delivery is not Delivery.BEHIND
