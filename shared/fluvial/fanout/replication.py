"""Replication: one source's bytes are copied into one estuary, a stream that other streams flow into (fan-in).

- The estuary's own head has a cursor for each source: how far the source has been copied. Each delivery requires the
  cursor to be where the delivery begins, and moves it in the commit that adds the bytes. So any process may deliver at
  any time, repeatedly and at once with others: each byte arrives once, and in the source's order.
- A delivery reads the source itself and carries no message, so a late one copies whatever is missing by then.
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

#: Bytes that one commit adds of a source whose batches are enveloped one by one; FanOutLimits bound the batches.
ENVELOPED_BYTES_MAX: Final = 262_144


class Delivery(Enum):
    """How a follower stands after a delivery."""

    COMPLETE = auto()  # it has everything up to the source's tail
    BEHIND = auto()  # it has more than before, but not everything
    GONE = auto()  # it has stopped following, or can never be delivered to again


@dataclass(frozen=True, slots=True)
class Source:
    """A stream to deliver from, up to `head.tail`."""

    name: StreamName
    head: Head

    def at(self, position: int) -> SourcePosition:
        """A position in the head's incarnation."""
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
    """Copy the source's bytes from the follower's cursor up to the tail.

    `guess` is a position between two batches where the cursor probably is: a right guess saves the read of the
    estuary's head, a wrong one costs a commit that changes nothing.
    Raises StoreUnavailable, StoreUncertain, StorageDamaged: the next delivery goes on from the cursor.
    """
    # A guess at the tail would end the delivery without the commit that finds out whether the guess is wrong.
    if guess is None or guess.position >= source.head.tail:
        at = _cursor_in(await store.head(follower.estuary), source)
    else:
        at = guess
    for _ in range(limits.steps_max):
        if at is None or at.incarnation != source.head.incarnation:
            return Delivery.GONE
        if at.position >= source.head.tail:
            return Delivery.COMPLETE
        try:
            end, data = await _load_next(store, source, follower.mode, at.position, limits)
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


async def _load_next(
    store: Store, source: Source, mode: EstuaryMode, position: int, limits: FanOutLimits
) -> tuple[int, bytes]:
    """Where the next commit moves the cursor to, and the bytes that it adds."""
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
