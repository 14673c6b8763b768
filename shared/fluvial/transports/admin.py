"""What is not a stream: health, and the control routes."""

from collections.abc import Iterable
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.exceptions import HTTPException

from fluvial.core.errors import ErrorCode
from fluvial.core.response import SECURITY_HEADERS, Header, error_response
from fluvial.transports.live import LiveReads

_LIVE_READS: Final = Gauge("fluvial_live_reads", "Long-polls and SSE connections that are open.")


def admin_app(live: LiveReads) -> FastAPI:
    """The application behind every path that is not a stream's."""
    app = FastAPI(title="Fluvial", openapi_url=None)
    _LIVE_READS.set_function(lambda: live.count)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process answers, and how busy it is."""
        return JSONResponse({"status": "ok", "liveReads": live.count}, headers=_text(SECURITY_HEADERS))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and gauges in Prometheus's text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST, headers=_text(SECURITY_HEADERS))

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
