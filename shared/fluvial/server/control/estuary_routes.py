"""The routes of estuaries: create, read, renew, end; follow a stream and stop following it."""

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
from fluvial.model.offset import offset_token, spell_offset
from fluvial.model.permissions import Permission
from fluvial.server.control.fastapi_errors import (
    OF_ESTUARY,
    OF_STREAM,
    TOKEN,
    ControlBody,
    Needs,
    as_response,
    authorization_of,
    done_response,
    json_response,
    name_of,
)
from fluvial.wire.response import rejection_response

SUBSCRIBE: Final = "/v1/estuary/subscribe/{project}/{stream:path}"
ESTUARY: Final = "/v1/estuary/{project}/{estuary}"
TOUCH: Final = ESTUARY + "/touch"

#: What each route needs.
ESTUARY_NEEDS: Final[Needs] = {
    ("POST", SUBSCRIBE): Permission.WRITE,
    ("DELETE", SUBSCRIBE): Permission.WRITE,
    ("PUT", ESTUARY): Permission.WRITE,
    ("GET", ESTUARY): Permission.READ,
    ("POST", TOUCH): Permission.READ,
    ("DELETE", ESTUARY): Permission.WRITE,
}


_Ttl = Annotated[int | None, Field(ge=1, le=ESTUARY_TTL_S_MAX, description="Seconds that it lives unused.")]
_Id = Annotated[str, Field(min_length=1, max_length=STREAM_NAME_BYTES_MAX, description="Its path segment.")]


class EstuaryBody(ControlBody):
    """What an estuary is to be."""

    mode: EstuaryMode = EstuaryMode.RAW
    content_type: Annotated[str | None, Field(max_length=CONTENT_TYPE_BYTES_MAX, pattern=r"^[ -~]+$")] = None
    ttl_seconds: _Ttl = None


class SubscribeBody(ControlBody):
    """Which estuary is to follow a stream; it is made if it is not there."""

    estuary_id: _Id
    mode: EstuaryMode | None = None
    ttl_seconds: _Ttl = None


class UnsubscribeBody(ControlBody):
    """Which estuary is to follow a stream no more."""

    estuary_id: _Id


def estuary_routes(estuaries: Estuaries) -> APIRouter:
    """The routes below /v1/estuary/."""
    routes = APIRouter(tags=["estuaries"], dependencies=[TOKEN])
    _add_subscribing(routes, estuaries)
    _add_estuaries(routes, estuaries)
    return routes


def _add_subscribing(routes: APIRouter, estuaries: Estuaries) -> None:
    @routes.post(SUBSCRIBE, dependencies=[OF_STREAM])
    async def subscribe(request: Request, body: SubscribeBody) -> Response:
        """Let an estuary follow a stream, from its tail on."""
        source, estuary = name_of(request), _estuary_of(name_of(request), body.estuary_id)
        authorization_of(request).also(estuary)
        wanted = WantedEstuary(estuary, body.mode, None, body.ttl_seconds)
        followed = await estuaries.follow(source, wanted)
        if isinstance(followed, Rejection):
            return _refused(followed)
        offset = spell_offset(followed.cursor.born_us, followed.cursor.position)
        described = {**_described(wanted.name, followed.estuary), "stream": source, "offset": offset}
        return json_response(described, 201 if followed.is_new else 200)

    @routes.delete(SUBSCRIBE, dependencies=[OF_STREAM])
    async def unsubscribe(
        request: Request,
        estuary_id: Annotated[str | None, Query(alias="estuaryId", min_length=1)] = None,
        body: Annotated[UnsubscribeBody | None, Body()] = None,
    ) -> Response:
        """Let an estuary follow a stream no more; its id is in the query or in the body."""
        source, wanted = name_of(request), body.estuary_id if body is not None else estuary_id
        if wanted is None:
            raise RequestError(ErrorCode.MALFORMED_QUERY, "estuaryId is missing")
        estuary = _estuary_of(source, wanted)
        authorization_of(request).also(estuary)
        return _done(await estuaries.unfollow(source, estuary))


def _add_estuaries(routes: APIRouter, estuaries: Estuaries) -> None:
    @routes.put(ESTUARY, dependencies=[OF_ESTUARY])
    async def create(request: Request, body: EstuaryBody) -> Response:
        """Make an estuary, or confirm one."""
        name = name_of(request)
        opened = await estuaries.open(WantedEstuary(name, body.mode, body.content_type, body.ttl_seconds))
        if isinstance(opened, Rejection):
            return _refused(opened)
        return json_response(_described(name, opened.head), 201 if opened.is_new else 200)

    @routes.get(ESTUARY, dependencies=[OF_ESTUARY])
    async def describe(request: Request) -> Response:
        """An estuary, and how far it has been filled from each stream that it follows."""
        name = name_of(request)
        head = await estuaries.head(name)
        return _refused(head) if isinstance(head, Rejection) else json_response(_described(name, head))

    @routes.post(TOUCH, dependencies=[OF_ESTUARY])
    async def touch(request: Request) -> Response:
        """Renew an estuary's time to live."""
        name = name_of(request)
        head = await estuaries.touch(name)
        return _refused(head) if isinstance(head, Rejection) else json_response(_described(name, head))

    @routes.delete(ESTUARY, dependencies=[OF_ESTUARY])
    async def end(request: Request) -> Response:
        """End an estuary and its subscriptions."""
        return _done(await estuaries.end(name_of(request)))


def _estuary_of(source: StreamName, estuary_id: str) -> StreamName:
    """An estuary is in its sources' project, the first segment of their paths."""
    project, _, _ = source.partition("/")
    return parse_name(f"{project}/{quote(estuary_id, safe='')}")


def _described(name: StreamName, head: Head) -> dict[str, object]:
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
            {"stream": source, "offset": spell_offset(cursor.born_us, cursor.position)}
            for source, cursor in head.cursors.items()
        ],
    }


def _done(refusal: Rejection | None) -> Response:
    return done_response() if refusal is None else _refused(refusal)


def _refused(refusal: Rejection) -> Response:
    return as_response(rejection_response(refusal))
