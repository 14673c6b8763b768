"""What is not a stream: health, and the control routes."""

from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.exceptions import HTTPException

from fluvial.core.errors import ErrorCode
from fluvial.core.response import SECURITY_HEADERS
from fluvial.transports.live import LiveReads

_LIVE_READS: Final = Gauge("fluvial_live_reads", "Long-polls and SSE connections that are open.")
_HEADERS: Final = {name.decode(): value.decode() for name, value in SECURITY_HEADERS}


def admin_app(live: LiveReads) -> FastAPI:
    """The application behind every path that is not a stream's."""
    app = FastAPI(title="Fluvial", openapi_url=None)
    _LIVE_READS.set_function(lambda: live.count)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process answers, and how busy it is."""
        return JSONResponse({"status": "ok", "liveReads": live.count}, headers=_HEADERS)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and gauges in Prometheus's text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST, headers=_HEADERS)

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, exc: HTTPException) -> JSONResponse:
        """Errors in the one shape that all of Fluvial's errors have."""
        is_method = exc.status_code == 405  # noqa: PLR2004  an HTTP status
        code = ErrorCode.METHOD_NOT_ALLOWED if is_method else ErrorCode.NOT_FOUND
        content = {"error": {"code": code.value, "message": "streams are below /v1/stream/"}}
        return JSONResponse(content, status_code=exc.status_code, headers={**_HEADERS, **(exc.headers or {})})

    return app
