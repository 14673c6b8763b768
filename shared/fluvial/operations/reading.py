"""Reading: where a read begins, the page it gets, and the deadline that it moves."""

import logging

from fluvial.core.commit import Live, Unmet
from fluvial.core.errors import ErrorCode, OffsetNotIssued, RefusedRequest, StoreError
from fluvial.core.head import Head
from fluvial.core.lifetime import SlidingTtl
from fluvial.core.names import StreamName
from fluvial.core.offset import ReadFrom, Sentinel
from fluvial.core.page import Page
from fluvial.core.plan import plan_renewal
from fluvial.stores.contract import Store
from fluvial.world import World

log = logging.getLogger(__name__)


async def used_head(store: Store, world: World, name: StreamName) -> Head | Unmet:
    """The head of a stream that is about to be read, its sliding deadline moved if that is due.

    "For live read modes (long-poll, SSE), the TTL resets when the server begins processing the request" -- spec 5.1
    """
    head = await store.head(name)
    live = Live(world.now_ms())
    if head is None or not live.holds(head):
        return Unmet(live, head)
    if (
        isinstance(head.lifetime, SlidingTtl)
        and head.live_until_ms is not None
        and head.lifetime.is_due(head.live_until_ms, live.now_ms)
    ):
        try:
            await store.apply(name, plan_renewal(live.now_ms))
        except StoreError as exc:  # a full disk, say, keeps nobody from reading; the next read renews
            log.warning("not_renewed", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
    return head


def position_in(head: Head, read_from: ReadFrom) -> int:
    """The position that a read begins at. RefusedRequest past the tail."""
    if read_from is Sentinel.BEGINNING:
        return 0
    if read_from is Sentinel.TAIL:
        return head.tail
    if read_from > head.tail:
        raise RefusedRequest(ErrorCode.UNKNOWN_OFFSET, "the offset is past the stream's tail")
    return read_from


async def page_at(store: Store, name: StreamName, head: Head, position: int, byte_count_max: int) -> Page:
    """The page from `position`, empty at the tail. RefusedRequest when no server ever issued the offset."""
    if position == head.tail:
        return Page(position, position, b"")
    try:
        return await store.read(name, head, position, byte_count_max)
    except OffsetNotIssued as exc:
        raise RefusedRequest(ErrorCode.UNKNOWN_OFFSET, "the offset is not one of this stream's") from exc
