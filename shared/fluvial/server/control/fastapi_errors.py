"""What the control routes share: authorized names and permissions, responses, and errors in the common JSON shape."""

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

#: Documents in OpenAPI that a route takes a token. ControlApp has verified it before FastAPI sees the request.
BEARER_TOKEN = Security(HTTPBearer(auto_error=False, bearerFormat="JWT"))


def _document_stream_path(
    project: Annotated[str, Path(description="The project's name.")],
    stream: Annotated[str, Path(description="The rest of the stream's path; it may have slashes.")],
) -> None:
    """Document the placeholders in OpenAPI. ControlApp has taken the name from the raw path."""


def _document_estuary_path(
    project: Annotated[str, Path(description="The project's name.")],
    estuary: Annotated[str, Path(description="The estuary's id.")],
) -> None:
    """Document the placeholders in OpenAPI. ControlApp has taken the name from the raw path."""


STREAM_PATH_PARAMETERS = Depends(_document_stream_path)
ESTUARY_PATH_PARAMETERS = Depends(_document_estuary_path)

#: The permission that each route requires, by method and path.
RoutePermissions = Mapping[tuple[str, str], Permission]


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
