"""What the control routes share: authorized names and permissions, responses, and errors in the common JSON shape."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException

from fluvial.access.authorizer import Authorization
from fluvial.model.errors import ErrorCode, RequestError, StoreError
from fluvial.model.names import StreamName
from fluvial.model.permissions import Permission
from fluvial.wire import response as wire

#: The permission that each route requires, by method and path.
RoutePermissions = Mapping[tuple[str, str], Permission]


def control_routes(tag: str) -> APIRouter:
    """An empty router; the names of its functions become the names of operations in OpenAPI."""
    return APIRouter(tags=[tag], generate_unique_id_function=operation_id)


def operation_id(route: APIRoute) -> str:
    """The name of an operation in OpenAPI, from which clients are generated."""
    return to_camel(route.name)


class ControlBody(BaseModel):
    """The body of a control route: an object with exactly these fields, in camel case."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


def as_response(answer: wire.Response) -> Response:
    """A wire response as a FastAPI response."""
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


def json_response(content: dict[str, Any], status: int = 200) -> Response:
    """A response with a JSON object."""
    return JSONResponse(content, status)


def no_content_response() -> Response:
    """A successful response without a body."""
    return Response(None, 204)


def name_of(request: Request) -> StreamName:
    """The name of the stream or estuary that the request was authorized for."""
    name: StreamName = request.scope["fluvial.name"]
    return name


def authorization_of(request: Request) -> Authorization:
    """What the request is allowed to do."""
    authorization: Authorization = request.scope["fluvial.authorization"]
    return authorization


def install_error_handlers(app: FastAPI) -> None:
    """Make an application answer errors in the shape that stream paths use."""

    @app.exception_handler(StoreError)
    @app.exception_handler(RequestError)
    @app.exception_handler(Exception)
    async def answer_exception(_request: Request, exc: Exception) -> Response:
        """Answer an error, or a bug, which ControlApp logs."""
        return as_response(wire.response_of(exc) or wire.internal_error_response())

    @app.exception_handler(RequestValidationError)
    async def answer_validation_error(_request: Request, exc: RequestValidationError) -> Response:
        """Answer an invalid query or body, without quoting or logging it, because it may contain a secret."""
        part, *path = exc.errors()[0]["loc"]
        name = ".".join(str(step) for step in path if str(step).isascii() and str(step).isalnum())
        code = ErrorCode.MALFORMED_REQUEST if part == "body" else ErrorCode.MALFORMED_QUERY
        return as_response(wire.error_response(400, code, f"{name or part}: {exc.errors()[0]['msg']}"))

    @app.exception_handler(HTTPException)
    async def answer_http_exception(_request: Request, exc: HTTPException) -> Response:
        """Answer an unknown path or method, or an unreadable body."""
        if exc.status_code == 400:  # noqa: PLR2004  an HTTP status
            return as_response(wire.error_response(400, ErrorCode.MALFORMED_REQUEST, "the body cannot be read"))
        is_method = exc.status_code == 405  # noqa: PLR2004  an HTTP status
        code = ErrorCode.METHOD_NOT_ALLOWED if is_method else ErrorCode.NOT_FOUND
        answer = as_response(wire.error_response(exc.status_code, code, "streams are below /v1/stream/"))
        answer.headers.update(exc.headers or {})
        return answer
