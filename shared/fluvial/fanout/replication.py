"""Delivering: one source's bytes into one estuary, by replication.

The estuary's own head tells how far it has been filled, and each delivery moves that cursor in the commit that adds
the bytes. So a delivery may be tried at any time, any number of times and by anybody: each byte arrives once.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from fluvial.clock import Clock
from fluvial.fanout.limits import FAN_OUT_LIMITS, FanOutLimits
from fluvial.model.commit import Applied, CursorAt, RoomAtTail, Unmet
from fluvial.model.errors import StreamVanished
from fluvial.model.followers import Follower
from fluvial.model.head import EstuaryMode, Head, SourcePosition
from fluvial.model.limits import PAGE_BYTES_MAX
from fluvial.model.names import StreamName
from fluvial.model.offset import offset_token, source_position
from fluvial.model.plan import Replica, plan_delivery
from fluvial.storage.contract import Store
from fluvial.wire.envelope import encode_envelopes

#: What one delivery adds at most of a source whose batches have to be enveloped one by one; how many, FanOutLimits say.
ENVELOPED_BYTES_MAX: Final = 262_144


class Delivery(Enum):
    """What became of a follower."""

    COMPLETE = auto()  # it has everything up to the tail that it was to get
    BEHIND = auto()  # it has more than before, and something is left
    GONE = auto()  # it does not follow any more, or cannot be filled any more


@dataclass(frozen=True, slots=True)
class Source:
    """A stream, and how much of it is to be delivered: up to `head.tail`."""

    name: StreamName
    head: Head

    def at(self, position: int) -> SourcePosition:
        """A place in this life of the stream."""
        return source_position(self.head, position)


async def deliver(  # noqa: PLR0913  the limits are named
    store: Store,
    clock: Clock,
    source: Source,
    follower: Follower,
    guess: SourcePosition | None = None,
    *,
    limits: FanOutLimits = FAN_OUT_LIMITS,
) -> Delivery:
    """Fill a follower from its cursor on; `guess` is where that may be, between two batches before the tail.

    Raises StoreUnavailable, StoreUncertain, StorageDamaged; nothing is lost by that.
    """
    if guess is None or guess.position >= source.head.tail:  # only a commit can tell a guess that is wrong
        at = _cursor_in(await store.head(follower.estuary), source)
    else:
        at = guess
    for _ in range(limits.steps_max):
        if at is None or at.incarnation != source.head.incarnation:
            return Delivery.GONE
        if at.position >= source.head.tail:
            return Delivery.COMPLETE
        try:
            end, data = await _next_bytes(store, source, follower.mode, at.position, limits)
        except StreamVanished:
            return Delivery.GONE
        to = source.at(end)
        commit = plan_delivery(source.name, Replica(follower.mode, at, to, data), clock.now_ms())
        match await store.apply(follower.estuary, commit):
            case Applied():
                at = to
            case Unmet(CursorAt(), head):
                at = _cursor_in(head, source)
            case Unmet(requirement, _):
                assert not isinstance(requirement, RoomAtTail) or data, "only bytes need room"
                return Delivery.GONE
    return Delivery.COMPLETE if at is not None and at.position >= source.head.tail else Delivery.BEHIND


def _cursor_in(estuary: Head | None, source: Source) -> SourcePosition | None:
    return None if estuary is None else estuary.cursors.get(source.name)


async def _next_bytes(
    store: Store, source: Source, mode: EstuaryMode, position: int, limits: FanOutLimits
) -> tuple[int, bytes]:
    """Where the next delivery ends, and what it adds."""
    head = source.head
    if mode is EstuaryMode.RAW:
        page = await store.read(source.name, head, position, PAGE_BYTES_MAX)
        return page.end, page.data
    parts, byte_count = list[bytes](), 0
    count_max = limits.enveloped_batches_max
    while position < head.tail and len(parts) < count_max and byte_count < ENVELOPED_BYTES_MAX:
        batch = await store.read(source.name, head, position, 1)
        parts.append(encode_envelopes(source.name, head.content_type, batch.data, offset_token(head, batch.end)))
        byte_count += len(parts[-1])
        position = batch.end
    return position, b"".join(parts)
