"""Followers: the estuaries (fan-in streams) that a stream's appends are delivered to."""

from dataclasses import dataclass
from typing import NewType

from fluvial.model.head import EstuaryMode
from fluvial.model.names import StreamName

#: Identifies one subscription of an estuary: random bytes, so that removing it cannot remove a later subscription.
SubscriptionId = NewType("SubscriptionId", bytes)

SUBSCRIPTION_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Follower:
    """An estuary that follows one incarnation of a stream."""

    estuary: StreamName
    mode: EstuaryMode
    subscription: SubscriptionId
