"""Deliveries: a source's new bytes are delivered to its followers, many of them at once.

- A follower that fails or takes too long stays undelivered; the other followers still get their bytes.
- A follower that is gone is removed from the source's list.
- Nothing is noted here. A caller is returned the undelivered followers, and notes by its own means that the source is
  behind or complete: a publisher in its backlog, the delivery worker in its memory, the change feed in its queue.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from fluvial.clock import Clock
from fluvial.concurrency import map_bounded
from fluvial.fanout.limits import FAN_OUT_LIMITS, FanOutLimits
from fluvial.fanout.replication import Delivery, Source, deliver
from fluvial.model.errors import StoreError
from fluvial.model.followers import Follower
from fluvial.model.head import SourcePosition
from fluvial.storage.contract import Store

log = logging.getLogger(__name__)


class Deliveries:
    """Delivers to followers over one store."""

    def __init__(self, store: Store, clock: Clock, limits: FanOutLimits = FAN_OUT_LIMITS) -> None:
        """`limits` bound how many deliveries run at once, and for how long."""
        self.limits = limits
        self._store, self._clock = store, clock

    async def deliver_to(
        self,
        source: Source,
        followers: Sequence[Follower],
        guess: SourcePosition | None = None,
        within_s: float | None = None,
    ) -> list[Follower]:
        """Deliver up to the source's tail to these followers; the undelivered ones. Raises nothing.

        `guess` is where most of them are. `within_s` bounds the whole call, by default to `limits.round_timeout_s`.
        """
        patience_s = self.limits.round_timeout_s if within_s is None else within_s
        ends_at = asyncio.get_running_loop().time() + patience_s

        async def deliver_one(follower: Follower) -> bool:
            return await self._deliver(source, follower, guess, ends_at)

        results = await map_bounded(followers, deliver_one, self.limits.deliveries_at_once)
        return [follower for follower, is_done in zip(followers, results, strict=True) if not is_done]

    async def deliver_to_all(self, source: Source) -> list[Follower]:
        """Deliver to every follower, however many there are; the undelivered ones.

        Raises StoreUnavailable when the followers cannot be listed.
        """
        undelivered = list[Follower]()
        async for followers in self.pages_of_followers(source):
            undelivered += await self.deliver_to(source, followers)
        return undelivered

    async def pages_of_followers(self, source: Source) -> AsyncIterator[list[Follower]]:
        """All followers of a source, `limits.followers_per_page` at a time. Raises StoreUnavailable."""
        after = ""
        while followers := await self._store.followers(source.head.incarnation, after, self.limits.followers_per_page):
            yield followers
            after = followers[-1].estuary

    async def _deliver(self, source: Source, follower: Follower, guess: SourcePosition | None, ends_at: float) -> bool:
        """Deliver to one follower; whether nothing is left to do for it."""
        where = {"stream": source.name, "estuary": follower.estuary}
        try:
            async with asyncio.timeout_at(ends_at):
                delivery = await deliver(self._store, self._clock, source, follower, guess, limits=self.limits)
                if delivery is Delivery.GONE:
                    await self._store.remove_follower(source.head.incarnation, follower)
        except (StoreError, TimeoutError) as exc:
            log.warning("delivery_failed", extra={**where, "reason": str(exc.__cause__ or exc) or "it took too long"})
            return False
        except Exception:  # an unforeseen error of one follower fails neither the other deliveries nor the append
            log.exception("delivery_failed", extra=where)
            return False
        if delivery is Delivery.GONE:
            log.info("follower_removed", extra=where)
        return delivery is not Delivery.BEHIND
