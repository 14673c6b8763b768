"""What is not a stream: health, and the control routes."""

from collections.abc import Iterable
from typing import Annotated, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.exceptions import HTTPException

from fluvial.core.errors import ErrorCode, RefusedRequest, StoreError
from fluvial.core.limits import STREAM_NAME_BYTES_MAX
from fluvial.core.response import (
    NO_STORE,
    SECURITY_HEADERS,
    Header,
    error_response,
    refused_response,
    store_error_response,
)
from fluvial.fanout.estuaries import Estuaries
from fluvial.stores.contract import Store
from fluvial.transports.estuary_routes import estuary_routes
from fluvial.transports.live import LiveReads

_LIVE_READS: Final = Gauge("fluvial_live_reads", "Long-polls and SSE connections that are open.")


#: One page of names.
NAMES_MAX: Final = 1_000


def admin_app(live: LiveReads, store: Store, estuaries: Estuaries) -> FastAPI:
    """The application behind every path that is not a stream's."""
    app = FastAPI(title="Fluvial", openapi_url=None)
    app.include_router(estuary_routes(estuaries))
    _LIVE_READS.set_function(lambda: live.count)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process answers, and how busy it is."""
        return JSONResponse({"status": "ok", "liveReads": live.count}, headers=_text(SECURITY_HEADERS))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and gauges in Prometheus's text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST, headers=_text(SECURITY_HEADERS))

    @app.get("/v1/streams")
    async def streams(
        prefix: Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX)] = "",
        after: Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX)] = "",
        limit: Annotated[int, Query(ge=1, le=NAMES_MAX)] = 100,
    ) -> JSONResponse:
        """The names of streams in order, a page at a time: ask again with `after` set to `next`."""
        names = await store.names(prefix, after, limit)
        page = {"streams": names, "next": names[-1] if len(names) == limit else None}
        return JSONResponse(page, headers=_text((*SECURITY_HEADERS, NO_STORE)))

    @app.exception_handler(StoreError)
    async def failed(_request: Request, exc: StoreError) -> Response:
        """The store's errors, as on a stream's path."""
        answer = store_error_response(exc)
        return Response(answer.body, answer.status, _text(answer.headers))

    @app.exception_handler(RefusedRequest)
    async def wrong(_request: Request, exc: RefusedRequest) -> Response:
        """A request that is wrong in itself, as on a stream's path."""
        answer = refused_response(exc)
        return Response(answer.body, answer.status, _text(answer.headers))

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, exc: RequestValidationError) -> Response:
        """A query that cannot be."""
        [place, *_, name], reason = exc.errors()[0]["loc"], exc.errors()[0]["msg"]
        code = ErrorCode.MALFORMED_REQUEST if place == "body" else ErrorCode.MALFORMED_QUERY
        answer = error_response(400, code, f"{name}: {reason}")
        return Response(answer.body, answer.status, _text(answer.headers))

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, exc: HTTPException) -> Response:
        """Errors in the one shape that all of Fluvial's errors have."""
        is_method = exc.status_code == 405  # noqa: PLR2004  an HTTP status
        code = ErrorCode.METHOD_NOT_ALLOWED if is_method else ErrorCode.NOT_FOUND
        answer = error_response(exc.status_code, code, "streams are below /v1/stream/")
        return Response(answer.body, answer.status, {**_text(answer.headers), **(exc.headers or {})})

    return app


def _text(headers: Iterable[Header]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}
