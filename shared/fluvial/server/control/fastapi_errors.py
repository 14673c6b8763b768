"""The core's answers as FastAPI's, for the control routes; and its errors in the one shape that all errors have."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException

from fluvial.access.authorizer import Authorization
from fluvial.model.errors import ErrorCode, RequestError, StoreError
from fluvial.model.names import StreamName
from fluvial.model.permissions import Permission
from fluvial.wire import response as wire

#: Says in the OpenAPI document that a route takes a token; its door has looked at it before.
TOKEN = Security(HTTPBearer(auto_error=False, bearerFormat="JWT"))


def _of_stream(
    project: Annotated[str, Path(description="The project's name.")],
    stream: Annotated[str, Path(description="The rest of the stream's path; it may have slashes.")],
) -> None:
    """The route is of a stream, which its door has found in the path as it was sent."""


def _of_estuary(
    project: Annotated[str, Path(description="The project's name.")],
    estuary: Annotated[str, Path(description="The estuary's id.")],
) -> None:
    """The route is of an estuary, which its door has found in the path as it was sent."""


OF_STREAM = Depends(_of_stream)
OF_ESTUARY = Depends(_of_estuary)

#: What a route needs, by its method and path.
Needs = Mapping[tuple[str, str], Permission]


class ControlBody(BaseModel):
    """The body of a control route: an object with these names in camel case, and no others."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


def as_response(answer: wire.Response) -> Response:
    """One of the core's answers."""
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


def json_response(content: dict[str, Any], status: int = 200) -> Response:
    """JSON."""
    return JSONResponse(content, status)


def done_response() -> Response:
    """There is nothing to tell but that it was done."""
    return Response(None, 204)


def name_of(request: Request) -> StreamName:
    """The stream that the path names, as it was when the request was let in."""
    name: StreamName = request.scope["fluvial.name"]
    return name


def authorization_of(request: Request) -> Authorization:
    """What the request may do."""
    permit: Authorization = request.scope["fluvial.permit"]
    return permit


def answer_errors(app: FastAPI) -> None:
    """Let an application answer errors as the streams' paths do."""

    @app.exception_handler(StoreError)
    async def failed(_request: Request, exc: StoreError) -> Response:
        """The store's errors."""
        return as_response(wire.store_error_response(exc))

    @app.exception_handler(Exception)
    async def broken(_request: Request, _exc: Exception) -> Response:
        """Our own mistakes, which the door logs."""
        return as_response(wire.internal_error_response())

    @app.exception_handler(RequestError)
    async def wrong(_request: Request, exc: RequestError) -> Response:
        """A request that is wrong in itself."""
        return as_response(wire.request_error_response(exc))

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, exc: RequestValidationError) -> Response:
        """A query or a body that cannot be. Nothing of it is told or kept, for it may be a secret."""
        place, *path = exc.errors()[0]["loc"]
        name = ".".join(str(step) for step in path if str(step).isascii() and str(step).isalnum())
        code = ErrorCode.MALFORMED_REQUEST if place == "body" else ErrorCode.MALFORMED_QUERY
        return as_response(wire.error_response(400, code, f"{name or place}: {exc.errors()[0]['msg']}"))

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, exc: HTTPException) -> Response:
        """Paths and methods that are not there, and bodies that cannot be read."""
        if exc.status_code == 400:  # noqa: PLR2004  an HTTP status
            return as_response(wire.error_response(400, ErrorCode.MALFORMED_REQUEST, "the body cannot be read"))
        is_method = exc.status_code == 405  # noqa: PLR2004  an HTTP status
        code = ErrorCode.METHOD_NOT_ALLOWED if is_method else ErrorCode.NOT_FOUND
        answer = as_response(wire.error_response(exc.status_code, code, "streams are below /v1/stream/"))
        answer.headers.update(exc.headers or {})
        return answer
