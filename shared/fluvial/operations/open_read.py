"""Reading: where a read begins, and the deadline that it moves."""

from collections.abc import Callable

from fluvial.clock import Clock
from fluvial.model.commit import Exists, Unmet
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.offset import ReadFrom, Sentinel, position_of
from fluvial.storage.contract import Store

#: Raises what keeps somebody from reading the stream with this head at this moment.
Check = Callable[[Head | None, int], None]


def allow_all(_head: Head | None, _now_ms: int) -> None:
    """Keeps nobody from reading."""


async def load_head_and_renew(store: Store, clock: Clock, name: StreamName, check: Check = allow_all) -> Head | Unmet:
    """The head of a stream that is about to be read, its sliding deadline moved if that is due, or about to be.

    Nothing is moved, and nothing told, before `check` lets the reader in.

    "For live read modes (long-poll, SSE), the TTL resets when the server begins processing the request" -- spec 5.1
    """
    head = await store.head(name)
    live = Exists(clock.now_ms())
    check(head, live.now_ms)
    if head is None or not live.holds(head):
        return Unmet(live, head)
    if (
        isinstance(head.lifetime, SlidingTtl)
        and head.live_until_ms is not None
        and head.lifetime.is_due(head.live_until_ms, live.now_ms)
    ):
        await store.renew(name, live.now_ms)
    return head


def resolve_position(head: Head, read_from: ReadFrom) -> int:
    """The position that a read begins at, at most the tail: past it there is nothing yet (spec 5.6).

    Raises RequestError for an offset of another life: what its reader lacks of this one, nobody can tell.
    """
    if read_from is Sentinel.BEGINNING:
        return 0
    if read_from is Sentinel.TAIL:
        return head.tail
    position = position_of(head, read_from)
    if position is None:
        left = ", or is past the place at which this fork has left its source" if head.lineage else ""
        message = f"the offset is of another life of this path that was deleted{left}; read from -1 or now"
        raise RequestError(ErrorCode.OFFSET_GONE, message, 410)
    return min(position, head.tail)
