"""The routes of estuaries (fan-in streams): create, read, renew, delete; subscribe to a stream and unsubscribe."""

from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import Field

from fluvial.fanout.estuaries import Estuaries, WantedEstuary
from fluvial.model.append_result import Rejection
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import EstuaryMode, Head
from fluvial.model.lifetime import format_rfc3339
from fluvial.model.limits import CONTENT_TYPE_BYTES_MAX, ESTUARY_TTL_S_MAX, STREAM_NAME_BYTES_MAX
from fluvial.model.names import STREAM_ROOT, StreamName, parse_name
from fluvial.model.offset import encode_offset, offset_token
from fluvial.model.permissions import Permission
from fluvial.server.control.fastapi_errors import (
    ControlBody,
    RoutePermissions,
    as_response,
    authorization_of,
    control_routes,
    json_response,
    name_of,
    no_content_response,
)
from fluvial.wire.response import rejection_response

SUBSCRIBE: Final = "/v1/estuary/subscribe/{project}/{stream:path}"
ESTUARY: Final = "/v1/estuary/{project}/{estuary}"
TOUCH: Final = ESTUARY + "/touch"

#: The permission that each route requires.
ESTUARY_PERMISSIONS: Final[RoutePermissions] = {
    ("POST", SUBSCRIBE): Permission.WRITE,
    ("DELETE", SUBSCRIBE): Permission.WRITE,
    ("PUT", ESTUARY): Permission.WRITE,
    ("GET", ESTUARY): Permission.READ,
    ("POST", TOUCH): Permission.READ,
    ("DELETE", ESTUARY): Permission.WRITE,
}


_Ttl = Annotated[
    int | None, Field(ge=1, le=ESTUARY_TTL_S_MAX, description="Seconds that the estuary lives without being used.")
]
_Id = Annotated[
    str, Field(min_length=1, max_length=STREAM_NAME_BYTES_MAX, description="The estuary's id, one path segment.")
]


class EstuaryBody(ControlBody):
    """The properties of a new estuary."""

    mode: EstuaryMode = EstuaryMode.RAW
    content_type: Annotated[str | None, Field(max_length=CONTENT_TYPE_BYTES_MAX, pattern=r"^[ -~]+$")] = None
    ttl_seconds: _Ttl = None


class SubscribeBody(ControlBody):
    """The estuary that subscribes to a stream. It is created if it does not exist."""

    estuary_id: _Id
    mode: EstuaryMode | None = None
    ttl_seconds: _Ttl = None


class UnsubscribeBody(ControlBody):
    """The estuary that unsubscribes from a stream."""

    estuary_id: _Id


def estuary_routes(estuaries: Estuaries) -> APIRouter:
    """The routes below /v1/estuary/."""
    routes = control_routes("estuaries")
    _add_subscriptions(routes, estuaries)
    _add_estuaries(routes, estuaries)
    return routes


def _add_subscriptions(routes: APIRouter, estuaries: Estuaries) -> None:
    @routes.post(SUBSCRIBE)
    async def subscribe(request: Request, body: SubscribeBody) -> Response:
        """Subscribe an estuary to a stream, from its tail on."""
        source, estuary = name_of(request), _estuary_name(name_of(request), body.estuary_id)
        authorization_of(request).require_stream(estuary)
        wanted = WantedEstuary(estuary, body.mode, None, body.ttl_seconds)
        followed = await estuaries.follow(source, wanted)
        if isinstance(followed, Rejection):
            return _as_rejection(followed)
        offset = encode_offset(followed.cursor.born_us, followed.cursor.position)
        content = {**_describe_estuary(wanted.name, followed.estuary), "stream": source, "offset": offset}
        return json_response(content, 201 if followed.is_new else 200)

    @routes.delete(SUBSCRIBE)
    async def unsubscribe(
        request: Request,
        estuary_id: Annotated[str | None, Query(alias="estuaryId", min_length=1)] = None,
        body: Annotated[UnsubscribeBody | None, Body()] = None,
    ) -> Response:
        """Unsubscribe an estuary from a stream. Its id is in the query or in the body."""
        source, wanted_id = name_of(request), body.estuary_id if body is not None else estuary_id
        if wanted_id is None:
            raise RequestError(ErrorCode.MALFORMED_QUERY, "estuaryId is missing")
        estuary = _estuary_name(source, wanted_id)
        authorization_of(request).require_stream(estuary)
        return _no_content_or_rejection(await estuaries.unfollow(source, estuary))


def _add_estuaries(routes: APIRouter, estuaries: Estuaries) -> None:
    @routes.put(ESTUARY)
    async def create_estuary(request: Request, body: EstuaryBody) -> Response:
        """Create an estuary, or confirm an existing one."""
        name = name_of(request)
        ensured = await estuaries.ensure(WantedEstuary(name, body.mode, body.content_type, body.ttl_seconds))
        if isinstance(ensured, Rejection):
            return _as_rejection(ensured)
        return json_response(_describe_estuary(name, ensured.head), 201 if ensured.is_new else 200)

    @routes.get(ESTUARY)
    async def describe_estuary(request: Request) -> Response:
        """Show an estuary, and how far each stream that it follows has been delivered to it."""
        name = name_of(request)
        head = await estuaries.head(name)
        return _as_rejection(head) if isinstance(head, Rejection) else json_response(_describe_estuary(name, head))

    @routes.post(TOUCH)
    async def touch_estuary(request: Request) -> Response:
        """Renew an estuary's time to live."""
        name = name_of(request)
        head = await estuaries.touch(name)
        return _as_rejection(head) if isinstance(head, Rejection) else json_response(_describe_estuary(name, head))

    @routes.delete(ESTUARY)
    async def delete_estuary(request: Request) -> Response:
        """Delete an estuary and its subscriptions."""
        return _no_content_or_rejection(await estuaries.delete(name_of(request)))


def _estuary_name(source: StreamName, estuary_id: str) -> StreamName:
    """The stream name of an estuary, which is in the project of its source."""
    project, _, _ = source.partition("/")
    return parse_name(f"{project}/{quote(estuary_id, safe='')}")


def _describe_estuary(name: StreamName, head: Head) -> dict[str, object]:
    assert head.estuary is not None, "an estuary has a mode"
    project, _, estuary_id = name.partition("/")
    until_ms = head.live_until_ms
    return {
        "estuaryId": estuary_id,
        "project": project,
        "path": STREAM_ROOT + name,
        "mode": head.estuary.value,
        "contentType": head.content_type,
        "tailOffset": offset_token(head, head.tail),
        "expiresAt": None if until_ms is None else format_rfc3339(until_ms),
        "subscriptions": [
            {"stream": source, "offset": encode_offset(cursor.born_us, cursor.position)}
            for source, cursor in head.cursors.items()
        ],
    }


def _no_content_or_rejection(rejection: Rejection | None) -> Response:
    return no_content_response() if rejection is None else _as_rejection(rejection)


def _as_rejection(rejection: Rejection) -> Response:
    return as_response(rejection_response(rejection))
