"""Followers: the estuaries that a stream's appends are delivered to."""

from dataclasses import dataclass
from typing import NewType

from fluvial.model.head import EstuaryMode
from fluvial.model.names import StreamName

#: Which subscription of an estuary this is: random bytes, so that who removes one cannot hit a later one.
SubscriptionId = NewType("SubscriptionId", bytes)

SUBSCRIPTION_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Follower:
    """An estuary that follows one life of a stream."""

    estuary: StreamName
    mode: EstuaryMode
    subscription: SubscriptionId
