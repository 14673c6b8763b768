"""The control routes of streams: list them, describe one, rotate its reader key."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from fluvial.clock import Clock
from fluvial.model.commit import Unmet
from fluvial.model.head import StreamStatus, stream_status
from fluvial.model.limits import STREAM_NAME_BYTES_MAX
from fluvial.model.permissions import Permission
from fluvial.model.plan import plan_reader_key
from fluvial.operations.list_streams import (
    NamesPage,
    WantedPage,
    describe_stream,
    describe_streams,
    describe_writers_and_followers,
    list_names,
    may_see_writers,
)
from fluvial.server.control.fastapi_errors import (
    RoutePermissions,
    as_response,
    authorization_of,
    control_routes,
    json_response,
    name_of,
)
from fluvial.server.control.project_routes import PAGE_MAX, PROJECT
from fluvial.server.live_reads import LiveReads
from fluvial.storage.contract import Store
from fluvial.wire.response import not_found_or_gone_response

STREAMS: Final = "/v1/streams"
PROJECT_STREAMS: Final = PROJECT + "/streams"
INFO: Final = "/v1/info/{stream:path}"
READER_KEY: Final = "/v1/reader-key/{project}/{stream:path}"

#: The permission that each route requires.
STREAM_CONTROL_PERMISSIONS: Final[RoutePermissions] = {
    ("GET", STREAMS): Permission.LIST_STREAMS,
    ("GET", PROJECT_STREAMS): Permission.LIST_STREAMS,
    ("GET", INFO): Permission.READ,
    ("POST", READER_KEY): Permission.MANAGE,
}

_Prefix = Annotated[
    str, Query(max_length=STREAM_NAME_BYTES_MAX, description="Only streams whose names begin with this.")
]
_After = Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX, description="`next` of the previous page.")]
_Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="The most streams in the page.")]
_Details = Annotated[bool, Query(description="Describe each stream, instead of giving its name alone.")]


def stream_control_routes(store: Store, clock: Clock, live: LiveReads) -> APIRouter:
    """The routes that list and describe streams, and the one that rotates reader keys."""
    routes = control_routes("streams")
    _add_lists(routes, store, clock, live)
    _add_single_streams(routes, store, clock, live)
    return routes


def _add_lists(routes: APIRouter, store: Store, clock: Clock, live: LiveReads) -> None:
    async def respond(page: NamesPage, root: str, *, details: bool) -> Response:
        streams: list[object] = [name.removeprefix(root) for name in page.names]
        if details:
            described = await describe_streams(store, page.names, clock.now_ms(), live.count_of)
            streams = [{**one, "name": str(one["name"]).removeprefix(root)} for one in described]
        following = None if page.next_after is None else page.next_after.removeprefix(root)
        return json_response({"streams": streams, "next": following})

    @routes.get(STREAMS)
    async def list_streams(
        request: Request,
        prefix: _Prefix = "",
        after: _After = "",
        limit: _Limit = 100,
        *,
        details: _Details = False,
    ) -> Response:
        """List streams in the order of their names, a page at a time. For the next page, set `after` to `next`.

        An operator, and everybody on an open server, lists all streams; a project's token those that it may read. With
        `details` a page may have fewer streams than names, because expired ones are left out.
        """
        page = await list_names(store, authorization_of(request), WantedPage(prefix, after, limit))
        return await respond(page, "", details=details)

    @routes.get(PROJECT_STREAMS)
    async def list_project_streams(  # noqa: PLR0913  the parameters of the query
        request: Request,
        project: str,
        prefix: _Prefix = "",
        after: _After = "",
        limit: _Limit = 100,
        *,
        details: _Details = False,
    ) -> Response:
        """List the streams of a project that the token may read. Names are without the project, also in the query."""
        root = f"{project}/"
        wanted = WantedPage(root + prefix, root + after if after else "", limit)
        page = await list_names(store, authorization_of(request), wanted)
        return await respond(page, root, details=details)


def _add_single_streams(routes: APIRouter, store: Store, clock: Clock, live: LiveReads) -> None:
    @routes.get(INFO)
    async def read_stream_info(request: Request) -> Response:
        """Describe a stream. This is no use of it: its time to live goes on.

        A token that may manage the stream, and everybody on an open server, also sees its producers and followers.
        """
        name, authorization, now_ms = name_of(request), authorization_of(request), clock.now_ms()
        head = await store.head(name)
        authorization.require_visible(head, now_ms)
        if head is None or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            return as_response(not_found_or_gone_response(head, now_ms))
        described = describe_stream(name, head, live.count_of(name))
        if may_see_writers(authorization):
            described |= await describe_writers_and_followers(store, head)
        return json_response(described)

    @routes.post(READER_KEY)
    async def rotate_reader_key(request: Request) -> Response:
        """Replace a stream's reader key, so that clients no longer read what caches hold under the previous one."""
        key, now_ms = clock.new_reader_key(), clock.now_ms()
        outcome = await store.apply(name_of(request), plan_reader_key(key, now_ms))
        if isinstance(outcome, Unmet):
            return as_response(not_found_or_gone_response(outcome.head, now_ms))
        return json_response({"readerKey": key})
