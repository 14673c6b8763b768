"""MemorySubscriptions: subscriptions in a dictionary, until the process ends."""

from collections.abc import Sequence
from heapq import heappop, heappush

from fluvial.model.subscriptions.state import Subscription, SubscriptionKey


class MemorySubscriptions:
    """See `storage.subscriptions`: no method awaits anything, so each is one step.

    `_moments` has every `due_ms` that a subscription has had; those of former versions are skipped when they come up.
    """

    def __init__(self) -> None:
        """Start without subscriptions."""
        self._stored: dict[SubscriptionKey, Subscription] = {}
        self._moments: list[tuple[int, SubscriptionKey]] = []

    async def get(self, key: SubscriptionKey) -> Subscription | None:
        """See Subscriptions.get."""
        return self._stored.get(key)

    async def add(self, subscription: Subscription) -> bool:
        """See Subscriptions.add."""
        if subscription.key in self._stored:
            return False
        self._store(subscription)
        return True

    async def replace(self, before: Subscription, after: Subscription) -> bool:
        """See Subscriptions.replace."""
        stored = self._stored.get(before.key)
        if stored is None or (stored.incarnation, stored.version) != (before.incarnation, before.version):
            return False
        self._store(after)
        return True

    async def remove(self, subscription: Subscription) -> bool:
        """See Subscriptions.remove."""
        stored = self._stored.get(subscription.key)
        if stored is None or stored.incarnation != subscription.incarnation:
            return False
        del self._stored[subscription.key]
        return True

    async def list_after(self, root: str, after: str, count_max: int) -> list[Subscription]:
        """See Subscriptions.list_after."""
        keys = sorted(key for key in self._stored if key.startswith(root) and key > after)
        return [self._stored[key] for key in keys[:count_max]]

    async def due(self, until_ms: int, count_max: int) -> Sequence[SubscriptionKey]:
        """See Subscriptions.due."""
        found = list[tuple[int, SubscriptionKey]]()
        while self._moments and self._moments[0][0] <= until_ms and len(found) < count_max:
            moment = heappop(self._moments)
            if self._is_current(moment) and moment not in found[-1:]:
                found.append(moment)
        for moment in found:
            heappush(self._moments, moment)
        return [key for _, key in found]

    async def next_due_ms(self) -> int | None:
        """See Subscriptions.next_due_ms."""
        while self._moments and not self._is_current(self._moments[0]):
            heappop(self._moments)
        return self._moments[0][0] if self._moments else None

    def _store(self, subscription: Subscription) -> None:
        self._stored[subscription.key] = subscription
        if subscription.due_ms is not None:
            heappush(self._moments, (subscription.due_ms, subscription.key))

    def _is_current(self, moment: tuple[int, SubscriptionKey]) -> bool:
        stored = self._stored.get(moment[1])
        return stored is not None and stored.due_ms == moment[0]
