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

#: Names whose subscriptions are remembered; past it all are forgotten.
MATCHES_KEPT_MAX: Final = 50_000

_NONE: Final[tuple[SubscriptionKey, ...]] = ()


class Catalog:
    """All subscriptions, and an index of their streams."""

    def __init__(self) -> None:
        """Start without subscriptions."""
        self.entries: dict[SubscriptionKey, Subscription] = {}
        self._index: PatternIndex[SubscriptionKey] = PatternIndex()
        self._indexed: dict[SubscriptionKey, frozenset[str]] = {}
        self._count_by_root: Counter[str] = Counter()
        self._matches: dict[StreamName, tuple[SubscriptionKey, ...]] = {}

    def __len__(self) -> int:
        """How many subscriptions there are, those that are being created included."""
        return len(self._indexed)

    def count(self, root: str) -> int:
        """How many subscriptions a stream root has."""
        return self._count_by_root[root]

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
        self._indexed[key] = wanted
        self._matches.clear()

    def put(self, subscription: Subscription) -> None:
        """Keep a version of a subscription, unless a later one is there."""
        known = self.entries.get(subscription.key)
        if known is not None and known.incarnation == subscription.incarnation and known.version > subscription.version:
            return
        if known is None or known.links is not subscription.links or subscription.key not in self._indexed:
            self.watch(subscription.key, subscription.root, patterns_of(subscription))
        self.entries[subscription.key] = subscription

    def drop(self, key: SubscriptionKey, root: str) -> None:
        """Forget a subscription."""
        self.entries.pop(key, None)
        former = self._indexed.pop(key, None)
        if former is None:
            return
        self._count_by_root[root] -= 1
        for pattern in former:
            self._index.remove(pattern, key)
        self._matches.clear()

    def find(self, name: StreamName) -> tuple[SubscriptionKey, ...]:
        """The subscriptions whose patterns or explicit links have a stream."""
        found = self._matches.get(name)
        if found is None:
            if len(self._matches) >= MATCHES_KEPT_MAX:
                self._matches.clear()
            found = self._matches[name] = tuple(sorted(self._index.match(name))) or _NONE
        return found


def patterns_of(subscription: Subscription) -> list[str]:
    """A subscription's pattern, and the paths of its explicit links."""
    pattern = subscription.configuration.pattern
    explicit = [str(path) for path, link in subscription.links.items() if link.is_explicit]
    return explicit if pattern is None else [pattern, *explicit]
