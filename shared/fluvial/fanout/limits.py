"""Limits of fan-out that are passed in, so that tests reach them with a few followers."""

from dataclasses import dataclass
from typing import Final

from fluvial.model.limits import INLINE_SUBSCRIBERS_MAX


@dataclass(frozen=True, slots=True)
class FanOutLimits:
    """The defaults are the values that a server runs with."""

    #: Followers that are delivered to before the publisher is answered.
    inline_subscribers_max: int = INLINE_SUBSCRIBERS_MAX

    #: Deliveries of one round that run at once.
    deliveries_at_once: int = 64

    #: After this time a round leaves the undelivered followers to the backlog, so that one that hangs does not hold up
    #: the publisher and the other followers.
    round_timeout_s: float = 10.0

    #: Followers that are listed at a time.
    followers_per_page: int = 50

    #: Commits of one delivery: a follower that is further behind gets the rest with the next delivery.
    steps_max: int = 256

    #: Batches that one commit adds of a source whose batches are enveloped one by one.
    enveloped_batches_max: int = 256


FAN_OUT_LIMITS: Final = FanOutLimits()
