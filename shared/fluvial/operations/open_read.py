"""Opens a read for every transport: authorizes it, parses its query, and finds the head and position to read from.

Rules, which have their one copy here (docs/security.md):

1. The token is verified before the stream's head is loaded.
2. An anonymous client may read a public stream only. For any other stream, for an absent one and for an absent project
   it gets the same answer.
3. That answer comes before the answer to a malformed query. Otherwise a client without a token could send a malformed
   query, and know by a 400 in place of a 401 that the project exists.
4. A sliding deadline is moved only by a read that is authorized.
"""

from collections.abc import Callable
from typing import NamedTuple

from fluvial.access.authorizer import Authorization, Authorizer, Credentials, Tenant
from fluvial.clock import Clock
from fluvial.model.commit import Exists, Unmet
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.offset import ReadFrom, ReservedOffset, position_of
from fluvial.model.permissions import Permission
from fluvial.storage.contract import Store
from fluvial.wire.request import ReadQuery
from fluvial.wire.response import Response, not_found_or_gone_response

#: Raises RequestError if the client may not read the stream with this head at this time.
CheckVisible = Callable[[Head | None, int], None]


class OpenedRead(NamedTuple):
    """An authorized read of an existing stream: its head as it was loaded, and the position to read from."""

    name: StreamName
    head: Head
    position: int
    query: ReadQuery
    authorization: Authorization


async def open_read(  # noqa: PLR0913  a request has so many parts, and each is passed by its name
    store: Store,
    clock: Clock,
    authorizer: Authorizer,
    *,
    tenant: Tenant,
    name: StreamName,
    credentials: Credentials,
    parse_query: Callable[[], ReadQuery],
) -> OpenedRead | Response:
    """Open a read of a stream, or return the 404 or 410 for a stream that does not exist.

    Raises RequestError for a request that is not authorized or malformed, StoreUnavailable.
    """
    authorization = authorizer.authorize(tenant, name, Permission.READ, credentials)
    try:
        query = parse_query()
    except RequestError:
        if authorization.error_unless_public is not None:
            authorization.require_visible(await store.head(name), clock.now_ms())
        raise
    head = await load_head_and_renew(store, clock, name, authorization.require_visible)
    if isinstance(head, Unmet):
        return not_found_or_gone_response(head.head, clock.now_ms())
    return OpenedRead(name, head, resolve_position(head, query.read_from), query, authorization)


def allow_all(_head: Head | None, _now_ms: int) -> None:
    """Let every client read."""


async def load_head_and_renew(
    store: Store, clock: Clock, name: StreamName, check_visible: CheckVisible = allow_all
) -> Head | Unmet:
    """Load the head of a stream that a client reads, and move its sliding deadline if that is due.

    "For live read modes (long-poll, SSE), the TTL resets when the server begins processing the request" -- spec 5.1
    """
    head = await store.head(name)
    exists = Exists(clock.now_ms())
    check_visible(head, exists.now_ms)
    if head is None or not exists.holds(head):
        return Unmet(exists, head)
    if (
        isinstance(head.lifetime, SlidingTtl)
        and head.live_until_ms is not None
        and head.lifetime.is_due(head.live_until_ms, exists.now_ms)
    ):
        await store.renew(name, exists.now_ms)
    return head


def resolve_position(head: Head, read_from: ReadFrom) -> int:
    """The position that a read begins at; an offset past the tail begins at the tail (spec 5.6).

    Raises RequestError for an offset of another incarnation, because nothing tells what its reader has missed.
    """
    if read_from is ReservedOffset.BEGINNING:
        return 0
    if read_from is ReservedOffset.TAIL:
        return head.tail
    position = position_of(head, read_from)
    if position is None:
        fork = ", or is past the position where this fork has left its source" if head.lineage else ""
        message = f"the offset is of another incarnation of this path, which was deleted{fork}; read from -1 or now"
        raise RequestError(ErrorCode.OFFSET_GONE, message, 410)
    return min(position, head.tail)
