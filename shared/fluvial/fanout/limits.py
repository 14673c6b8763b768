"""Fan-out's limits that are chosen when a publisher is made: tests reach them with a few followers."""

from dataclasses import dataclass
from typing import Final

from fluvial.model.limits import INLINE_SUBSCRIBERS_MAX


@dataclass(frozen=True, slots=True)
class FanOutLimits:
    """Each has the value that a server runs with."""

    #: Followers that are delivered to before the publisher is answered.
    inline_subscribers_max: int = INLINE_SUBSCRIBERS_MAX

    #: Deliveries of one round that are under way at once.
    deliveries_at_once: int = 64

    #: What a round has not delivered by then is left for later, so that nobody holds up the publisher or the others.
    round_timeout_s: float = 10.0

    #: Followers that are looked up at a time.
    followers_per_page: int = 50

    #: A follower that is further behind than so many steps goes on at the next occasion.
    steps_max: int = 256

    #: What one delivery adds at most of a source whose batches have to be enveloped one by one.
    enveloped_batches_max: int = 256


FAN_OUT_LIMITS: Final = FanOutLimits()
