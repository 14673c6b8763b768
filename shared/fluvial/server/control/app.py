"""Builds the application of the control routes, and says which permission each route requires."""

from typing import Final

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from fluvial import __version__
from fluvial.access.authorizer import Authorizer
from fluvial.clock import Clock
from fluvial.fanout.estuaries import Estuaries
from fluvial.model.permissions import Permission
from fluvial.server.control.authorization import ControlApp
from fluvial.server.control.estuary_routes import ESTUARY_PERMISSIONS, estuary_routes
from fluvial.server.control.fastapi_errors import RoutePermissions, install_error_handlers
from fluvial.server.control.project_routes import PROJECT_PERMISSIONS, project_routes
from fluvial.server.control.stream_routes import STREAM_CONTROL_PERMISSIONS, stream_control_routes
from fluvial.server.live_reads import LiveReads
from fluvial.storage.contract import Store

_LIVE_READS: Final = Gauge("fluvial_live_reads", "Long-polls, SSE connections and WebSockets that are open.")

#: The permission that each route requires. A route that is not listed requires an operator's token.
CONTROL_PERMISSIONS: Final[RoutePermissions] = {
    ("GET", "/health"): Permission.NOTHING,
    ("GET", "/metrics"): Permission.NOTHING,
    ("GET", "/openapi.json"): Permission.NOTHING,
    **ESTUARY_PERMISSIONS,
    **PROJECT_PERMISSIONS,
    **STREAM_CONTROL_PERMISSIONS,
}


def build_control_app(
    live: LiveReads, store: Store, estuaries: Estuaries, authorizer: Authorizer, clock: Clock
) -> ControlApp:
    """Build the application of all paths that are not streams'."""
    app = FastAPI(
        title="Fluvial",
        version=__version__,
        description="Control routes: projects, estuaries, stream names. Streams follow the Durable Streams protocol.",
        openapi_url="/openapi.json",
        docs_url=None,  # it would load a third party's script on the page where operators paste their tokens
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to a URL with http:, also behind a proxy with https:
    )
    for router in (
        project_routes(store, clock, authorizer),
        estuary_routes(estuaries),
        stream_control_routes(store, clock, live),
    ):
        app.router.routes.extend(router.routes)  # unchanged, because ControlApp looks each path up
    install_error_handlers(app)
    _LIVE_READS.set_function(lambda: live.count)
    _add_views(app, live)
    return ControlApp(app, authorizer, CONTROL_PERMISSIONS)


def _add_views(app: FastAPI, live: LiveReads) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        """Answers while the process works, with the number of open live reads."""
        return JSONResponse({"status": "ok", "liveReads": live.count})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and gauges in Prometheus's text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
