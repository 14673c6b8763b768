"""What is not a stream: health, metrics, and the control routes, each behind what it needs."""

from typing import Annotated, Final

from fastapi import FastAPI, Query, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from fluvial import __version__
from fluvial.access.authorizer import Authorizer
from fluvial.clock import Clock
from fluvial.fanout.estuaries import Estuaries
from fluvial.model.limits import STREAM_NAME_BYTES_MAX
from fluvial.model.permissions import Permission
from fluvial.server.control.authorization import ControlApp
from fluvial.server.control.estuary_routes import ESTUARY_NEEDS, estuary_routes
from fluvial.server.control.fastapi_errors import Needs, answer_errors, json_response
from fluvial.server.control.project_routes import PAGE_MAX, PROJECT_NEEDS, project_routes
from fluvial.server.live_reads import LiveReads
from fluvial.storage.contract import Store

_LIVE_READS: Final = Gauge("fluvial_live_reads", "Long-polls, SSE connections and sockets that are open.")

#: What each route needs; a route that is not here needs an operator.
NEEDS: Final[Needs] = {
    ("GET", "/health"): Permission.NOTHING,
    ("GET", "/metrics"): Permission.NOTHING,
    ("GET", "/openapi.json"): Permission.NOTHING,
    ("GET", "/v1/streams"): Permission.LIST_STREAMS,
    **ESTUARY_NEEDS,
    **PROJECT_NEEDS,
}


def admin_app(live: LiveReads, store: Store, estuaries: Estuaries, authorizer: Authorizer, clock: Clock) -> ControlApp:
    """The application behind every path that is not a stream's."""
    app = FastAPI(
        title="Fluvial",
        version=__version__,
        description="The control routes: projects, estuaries, names. Streams are served as the protocol says.",
        openapi_url="/openapi.json",
        docs_url=None,  # it would load its script from a third party, on the page where operators paste their tokens
        redoc_url=None,
        redirect_slashes=False,  # to a URL with http: in it
    )
    for routes in (project_routes(store, clock, authorizer), estuary_routes(estuaries)):
        app.router.routes.extend(routes.routes)  # as they are, for their door looks at each one's path
    answer_errors(app)
    _LIVE_READS.set_function(lambda: live.count)
    _add_views(app, live, store)
    return ControlApp(app, authorizer, NEEDS)


def _add_views(app: FastAPI, live: LiveReads, store: Store) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process answers, and how busy it is."""
        return JSONResponse({"status": "ok", "liveReads": live.count})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and gauges in Prometheus's text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/streams")
    async def streams(
        prefix: Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX)] = "",
        after: Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX)] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    ) -> Response:
        """The names of all streams in order, a page at a time: ask again with `after` set to `next`."""
        names = await store.names(prefix, after, limit)
        return json_response({"streams": names, "next": names[-1] if len(names) == limit else None})
