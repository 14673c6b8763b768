"""The ledger: every change of a subscription goes through it, as one conditional write.

A change is computed from the present version and the heads of its streams, and is made on that version alone. If
another change came first, it is computed again. So no lock is held while a store writes, in this process or another.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec.structs import replace

from fluvial.clock import Clock
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import Head
from fluvial.model.limits import LINKS_PER_SUBSCRIPTION_MAX
from fluvial.model.names import StreamName
from fluvial.model.subscriptions import moves
from fluvial.model.subscriptions.moves import Moment, Refusal
from fluvial.model.subscriptions.pattern import StreamPath
from fluvial.model.subscriptions.state import Heads, Subscription, SubscriptionKey, existing
from fluvial.storage.contract import Store
from fluvial.storage.subscriptions import SubscriptionStore
from fluvial.subscriptions.catalog import Catalog
from fluvial.subscriptions.limits import WAKE_LIMITS, WakeLimits

log = logging.getLogger(__name__)

#: The heads of so many streams may take the place of others in the store's cache.
_CACHED_HEADS_MAX: Final = 200

#: Computes the next version of a subscription, or the refusal. It is pure, because it may be called again.
Move = Callable[[Subscription, Heads, Moment], Subscription | Refusal]


@dataclass(frozen=True, slots=True)
class Computed:
    """A move that is not made yet: the version that it is for, its result, and the new streams that it includes."""

    before: Subscription
    moved: Subscription | Refusal
    noted: Mapping[StreamPath, int]


class StoreWithSubscriptions(Store, SubscriptionStore, Protocol):
    """A store of streams that keeps subscriptions, too."""


class Ledger:
    """The subscriptions of one store, as this process sees and changes them."""

    def __init__(self, store: StoreWithSubscriptions, clock: Clock, limits: WakeLimits = WAKE_LIMITS) -> None:
        """`catalog` is filled by the process's driver.

        `on_change` gets each new version, after it is durable, and `on_doubt` the key of a subscription that may have
        changed. `new_paths` are streams that this process was told of, and that a subscription may have to be linked
        to.
        """
        self.store, self.clock, self.limits = store, clock, limits
        self.catalog, self.new_paths = Catalog(), dict[SubscriptionKey, dict[StreamPath, int]]()
        self._noted_count = 0
        self.on_change: Callable[[Subscription], None] = lambda _subscription: None
        self.on_doubt: Callable[[SubscriptionKey], None] = lambda _key: None

    async def load(self, key: SubscriptionKey) -> Subscription | None:
        """The present version of a subscription. Raises StoreError.

        The catalog gets it at once: after a write in doubt it is another version than the last one.
        """
        found = await self.store.subscriptions.get(key)
        if found is not None:
            self.catalog.put(found)
        return found

    async def load_heads(self, subscription: Subscription, more: Iterable[StreamPath] = ()) -> Heads:
        """The heads of a subscription's streams, and of some others; those that exist. Raises StoreUnavailable.

        A match that is the wake stream of any subscription counts as absent: it is not linked, and never pending. Two
        subscriptions would wake each other for ever if each matched the other's wake stream. An explicit link counts.
        """
        links, is_wake_stream = subscription.links, self.catalog.is_wake_stream
        paths = [
            path
            for path in (*links, *more)
            if not is_wake_stream(subscription.name_of(path)) or (path in links and links[path].is_explicit)
        ]
        heads: list[Head | None]
        if len(paths) <= _CACHED_HEADS_MAX:
            heads = [await self.store.head(subscription.name_of(path)) for path in paths]
        else:
            heads = await self.store.heads([subscription.name_of(path) for path in paths])
        return existing(zip(paths, heads, strict=True), self.clock.now_ms())

    async def names(self, prefix: str) -> AsyncIterator[StreamName]:
        """The names of all streams with a prefix. Other tasks run after each few of them. Raises StoreError.

        A store may answer at once, and would never let them run.
        """
        after = ""
        while page := await self.store.names(prefix, after, self.limits.names_per_page):
            for at, name in enumerate(page):
                if at % self.limits.names_at_once == 0:
                    await asyncio.sleep(0)
                yield name
            after = page[-1]

    async def add(self, subscription: Subscription) -> bool:
        """Store a new subscription; False if its key is taken. Raises StoreError; then it may be stored."""
        try:
            if not await self.store.subscriptions.add(subscription):
                return False
        except BaseException:  # if it is stored, the look puts it into the catalog
            self.on_doubt(subscription.key)
            raise
        self._publish(subscription)
        return True

    async def compute(self, key: SubscriptionKey, owner: int, move: Move) -> "Computed | None":
        """What a move would make of a subscription, once its new streams are linked; None without the subscription.

        Raises StoreError.
        """
        before = await self.load(key)
        if before is None or before.owner != owner:
            return None
        noted = dict(self.new_paths.get(key, {}))
        heads, linked = await self.load_heads(before, noted), before
        if noted:
            linked = moves.link_matches(moves.forget_gone(before, heads), sorted(noted), heads)
        return Computed(before, move(linked, heads, Moment(self.clock.now_ms(), self.clock.new_wake_id())), noted)

    async def change(self, key: SubscriptionKey, owner: int, move: Move) -> Subscription | Refusal | None:
        """Make a move: the subscription after it, the refusal, or None without such a subscription of this owner.

        Raises StoreError.
        """
        for _ in range(self.limits.tries_max):
            computed = await self.compute(key, owner, move)
            if computed is None or isinstance(computed.moved, Refusal):
                return None if computed is None else computed.moved
            made = await self.make(computed.before, computed.moved, computed.noted)
            if made is not None:
                return made
        log.warning("subscription_contended", extra={"subscription": key})
        raise StoreUnavailable

    async def make(
        self, before: Subscription, after: Subscription, noted: Mapping[StreamPath, int]
    ) -> Subscription | None:
        """Make a move that was computed: the subscription after it, None if another change came first.

        Raises StoreError.
        """
        if after is not before:
            after = replace(after, version=before.version + 1)
            if not await self._replace(before, after):
                return None
            self._publish(after)
        self._forget_new(before.key, noted, after)
        return after

    async def _replace(self, before: Subscription, after: Subscription) -> bool:
        """Store the next version. Raises StoreError; then, and when the caller is cancelled, it may be stored.

        In that case nothing else would look at a subscription that is idle now and has work.
        """
        try:
            return await self.store.subscriptions.replace(before, after)
        except BaseException:
            self.on_doubt(before.key)
            raise

    def note_new(self, key: SubscriptionKey, path: StreamPath) -> None:
        """Note a stream that a subscription may have to be linked to, before its next move."""
        self._noted_count += 1
        waiting = self.new_paths.setdefault(key, {})
        waiting.pop(path, None)
        if len(waiting) >= LINKS_PER_SUBSCRIPTION_MAX:  # there is no room for all, unless some are gone
            del waiting[next(iter(waiting))]
            if not self._noted_count % LINKS_PER_SUBSCRIPTION_MAX:
                log.warning("subscription_full", extra={"subscription": key, "link_count": len(waiting)})
        waiting[path] = self._noted_count

    def _forget_new(self, key: SubscriptionKey, noted: Mapping[StreamPath, int], after: Subscription) -> None:
        """Forget what a move has included, unless it was noted again since: the stream was created anew."""
        waiting = self.new_paths.get(key)
        if waiting is None or not noted:
            return
        for path, number in noted.items():
            if waiting.get(path) == number:
                del waiting[path]
        if not waiting:
            del self.new_paths[key]
        if len(after.links) >= LINKS_PER_SUBSCRIPTION_MAX and not noted.keys() <= after.links.keys():
            log.warning("subscription_full", extra={"subscription": key, "link_count": len(after.links)})

    async def remove(self, subscription: Subscription) -> None:
        """Delete a subscription: from here on its tokens are worth nothing. Raises StoreError."""
        if await self.store.subscriptions.remove(subscription):
            known = self.catalog.entries.get(subscription.key)
            if known is None or known.incarnation == subscription.incarnation:
                self.forget(subscription.key)

    def forget(self, key: SubscriptionKey) -> None:
        """Forget a subscription that is not stored any more; one that is being created stays, with its new streams."""
        if key in self.catalog.entries:
            self.catalog.drop(key)
        if key not in self.catalog:
            self.new_paths.pop(key, None)

    def forget_unknown(self) -> None:
        """Forget the new streams of subscriptions whose creation has failed."""
        for key in [key for key in self.new_paths if key not in self.catalog]:
            del self.new_paths[key]

    def _publish(self, subscription: Subscription) -> None:
        self.catalog.put(subscription)
        self.on_change(subscription)
