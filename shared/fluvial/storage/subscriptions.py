"""The contract of a subscription store, which tests/contract/test_subscriptions.py checks for every implementation.

A subscription is one value with a version. Every change replaces the version that it was computed from, in one atomic
step; of two changes of the same version one is made.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.model.subscriptions.state import Subscription, SubscriptionKey

#: A subscription's `due_ms`, and its key.
DueMoment = tuple[int, SubscriptionKey]


class Subscriptions(Protocol):
    """The subscriptions of a store.

    Every method raises StoreUnavailable: nothing was changed. Those that change something raise StoreUncertain: it may
    have been changed. A change that was made is durable, as the store's commits are.
    """

    async def get(self, key: SubscriptionKey) -> Subscription | None:
        """The present version of a subscription."""
        ...

    async def add(self, subscription: Subscription) -> bool:
        """Store a new subscription. False if its key is taken: nothing was changed."""
        ...

    async def replace(self, before: Subscription, after: Subscription) -> bool:
        """Store the next version of a subscription. False if `before` is not its present version: nothing was changed.

        `after.version` is `before.version + 1`; both are of the same incarnation.
        """
        ...

    async def remove(self, subscription: Subscription) -> bool:
        """Delete a subscription, in whatever version. False if this incarnation is not stored: nothing was changed."""
        ...

    async def list_after(self, root: str, after: str, count_max: int) -> list[Subscription]:
        """At most `count_max` subscriptions whose keys begin with `root` and come after `after`, in their order.

        One that is damaged is left out, so that it hides no other.
        """
        ...

    async def keys_after(self, root: str, after: str, count_max: int) -> list[SubscriptionKey]:
        """The same keys, of subscriptions that cannot be read, too."""
        ...

    async def due_after(self, after: DueMoment, count_max: int) -> Sequence[DueMoment]:
        """When at most `count_max` subscriptions are due, after some moment and key, in their order."""
        ...


#: Is told that a name's head was one, and is another one now; None is no stream. It must be quick, and must not raise.
ChangeListener = Callable[[StreamName, Head | None, Head | None], None]


@runtime_checkable
class SubscriptionStore(Protocol):
    """The capability to keep subscriptions, and to tell which streams change."""

    @property
    def subscriptions(self) -> Subscriptions:
        """The store's subscriptions."""
        ...

    def listen(self, listener: ChangeListener) -> None:
        """Call the listener after each change that this process makes, once later calls see it.

        The changes of one name are told in their order, though several may be told as one. What is told is lost with
        the process. There is one listener.
        """
        ...
