"""MemorySubscriptions: subscriptions in a dictionary, until the process ends."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from fluvial.model.subscriptions.state import Subscription, SubscriptionKey
from fluvial.storage.subscriptions import DueMoment


class MemorySubscriptions:
    """See `storage.subscriptions`: no method awaits anything, so each is one step.

    `_moments` has the `due_ms` of every subscription, in their order.
    """

    def __init__(self) -> None:
        """Start without subscriptions."""
        self._stored: dict[SubscriptionKey, Subscription] = {}
        self._moments: list[DueMoment] = []

    async def get(self, key: SubscriptionKey) -> Subscription | None:
        """See Subscriptions.get."""
        return self._stored.get(key)

    async def add(self, subscription: Subscription) -> bool:
        """See Subscriptions.add."""
        if subscription.key in self._stored:
            return False
        self._store(subscription.key, subscription)
        return True

    async def replace(self, before: Subscription, after: Subscription) -> bool:
        """See Subscriptions.replace."""
        stored = self._stored.get(before.key)
        if stored is None or (stored.incarnation, stored.version) != (before.incarnation, before.version):
            return False
        self._store(after.key, after)
        return True

    async def remove(self, subscription: Subscription) -> bool:
        """See Subscriptions.remove."""
        stored = self._stored.get(subscription.key)
        if stored is None or stored.incarnation != subscription.incarnation:
            return False
        self._store(subscription.key, None)
        return True

    async def list_after(self, root: str, after: str, count_max: int) -> list[Subscription]:
        """See Subscriptions.list_after."""
        keys = sorted(key for key in self._stored if key.startswith(root) and key > after)
        return [self._stored[key] for key in keys[:count_max]]

    async def keys_after(self, root: str, after: str, count_max: int) -> list[SubscriptionKey]:
        """See Subscriptions.keys_after."""
        return [subscription.key for subscription in await self.list_after(root, after, count_max)]

    async def due_after(self, after: DueMoment, count_max: int) -> Sequence[DueMoment]:
        """See Subscriptions.due_after."""
        first = bisect_right(self._moments, after)
        return self._moments[first : first + count_max]

    def _store(self, key: SubscriptionKey, subscription: Subscription | None) -> None:
        former = self._stored.pop(key, None)
        if former is not None and former.due_ms is not None:
            del self._moments[bisect_left(self._moments, (former.due_ms, key))]
        if subscription is not None:
            self._stored[key] = subscription
            if subscription.due_ms is not None:
                insort(self._moments, (subscription.due_ms, key))
