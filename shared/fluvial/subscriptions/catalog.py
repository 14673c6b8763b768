"""The catalog: the present version of every subscription of a process, found by the names of their streams.

1. A name is looked up once; the result is kept until a pattern or an explicit link changes.
2. An append to a stream of a server with ten thousand other subscriptions costs one lookup in a dictionary.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from fluvial.model.names import StreamName
from fluvial.model.subscriptions.pattern import PatternIndex
from fluvial.model.subscriptions.state import Subscription, SubscriptionKey

#: How much is remembered of which names' subscriptions; past it all is forgotten. A name weighs 1, and 1 for each.
MATCHES_WEIGHT_MAX: Final = 200_000

_NONE: Final[tuple[SubscriptionKey, ...]] = ()


class Catalog:
    """All subscriptions, and an index of their streams."""

    def __init__(self, matches_weight_max: int = MATCHES_WEIGHT_MAX) -> None:
        """Start without subscriptions."""
        self.entries: dict[SubscriptionKey, Subscription] = {}
        self._index: PatternIndex[SubscriptionKey] = PatternIndex()
        self._indexed: dict[SubscriptionKey, frozenset[str]] = {}
        self._roots: dict[SubscriptionKey, str] = {}
        self._count_by_root: Counter[str] = Counter()
        self._wake_streams: Counter[StreamName] = Counter()
        self._matches: dict[StreamName, tuple[SubscriptionKey, ...]] = {}
        self._matches_weight, self._matches_weight_max = 0, matches_weight_max

    def __len__(self) -> int:
        """How many subscriptions there are, those that are being created included."""
        return len(self._indexed)

    def __contains__(self, key: SubscriptionKey) -> bool:
        """Whether a subscription is there, or is being created."""
        return key in self._indexed

    def root_of(self, key: SubscriptionKey) -> str:
        """The stream root of a subscription that `find` has found."""
        return self._roots[key]

    def count(self, root: str) -> int:
        """How many subscriptions a stream root has."""
        return self._count_by_root[root]

    def is_wake_stream(self, name: StreamName) -> bool:
        """Whether a subscription is woken through a stream."""
        return self._wake_streams[name] > 0

    def watch(self, key: SubscriptionKey, root: str, patterns: Iterable[str]) -> None:
        """Find a subscription by the patterns of its streams, paths included, from now on."""
        wanted, former = frozenset(root + pattern for pattern in patterns), self._indexed.get(key)
        if wanted == former:
            return
        if former is None:
            self._count_by_root[root] += 1
        for pattern in (former or frozenset()) - wanted:
            self._index.remove(pattern, key)
        for pattern in wanted - (former or frozenset()):
            self._index.add(pattern, key)
        self._indexed[key], self._roots[key] = wanted, root
        self._forget_matches()

    def put(self, subscription: Subscription) -> None:
        """Keep a version of a subscription, unless a later one is there."""
        known = self.entries.get(subscription.key)
        if known is not None and known.incarnation == subscription.incarnation and known.version > subscription.version:
            return
        if known is None or known.links is not subscription.links or subscription.key not in self._indexed:
            self.watch(subscription.key, subscription.root, patterns_of(subscription))
        if known is None or known.incarnation != subscription.incarnation:
            self._count_wake_stream(known, -1)
            self._count_wake_stream(subscription, 1)
        self.entries[subscription.key] = subscription

    def _count_wake_stream(self, subscription: Subscription | None, by: int) -> None:
        path = None if subscription is None else subscription.configuration.wake_stream
        if subscription is not None and path is not None:
            name = subscription.name_of(path)
            self._wake_streams[name] += by
            if not self._wake_streams[name]:
                del self._wake_streams[name]

    def drop(self, key: SubscriptionKey) -> None:
        """Forget a subscription."""
        self._count_wake_stream(self.entries.pop(key, None), -1)
        former = self._indexed.pop(key, None)
        if former is None:
            return
        self._count_by_root[self._roots.pop(key)] -= 1
        for pattern in former:
            self._index.remove(pattern, key)
        self._forget_matches()

    def find(self, name: StreamName) -> tuple[SubscriptionKey, ...]:
        """The subscriptions whose patterns or explicit links have a stream."""
        found = self._matches.get(name)
        if found is None:
            if self._matches_weight >= self._matches_weight_max:
                self._forget_matches()
            found = self._matches[name] = tuple(sorted(self._index.match(name))) or _NONE
            self._matches_weight += 1 + len(found)
        return found

    def _forget_matches(self) -> None:
        self._matches.clear()
        self._matches_weight = 0


def patterns_of(subscription: Subscription) -> list[str]:
    """A subscription's pattern, and the paths of its explicit links."""
    pattern = subscription.configuration.pattern
    explicit = [str(path) for path, link in subscription.links.items() if link.is_explicit]
    return explicit if pattern is None else [pattern, *explicit]
