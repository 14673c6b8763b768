"""The routes for monitoring. They need no token, because probes have none, and name no project and no stream."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from fluvial import __version__
from fluvial.metrics.exposition import CONTENT_TYPE, Exposition
from fluvial.server.control.fastapi_errors import control_routes
from fluvial.server.live_reads import LiveReads
from fluvial.server.monitoring import Monitoring


def monitoring_routes(live: LiveReads, monitoring: Monitoring) -> APIRouter:
    """/health, /ready and /metrics."""
    routes = control_routes("server")
    exposition = Exposition(monitoring.metrics, monitoring.sources)

    @routes.get("/health")
    async def health() -> JSONResponse:
        """Answers while the process works, with its version and the number of open live reads."""
        return JSONResponse({"status": "ok", "version": __version__, "liveReads": live.count})

    @routes.get("/ready")
    async def ready() -> JSONResponse:
        """Answers 200 while the store takes writes: a small one is made, at most about once a second. 503 otherwise.

        A read-only server is ready while it can read.
        """
        await monitoring.readiness.check()
        return JSONResponse({"status": "ready", "writes": not monitoring.readiness.is_read_only})

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Counters, gauges and histograms in Prometheus's text format."""
        return Response(await exposition.render(), media_type=CONTENT_TYPE)

    return routes
