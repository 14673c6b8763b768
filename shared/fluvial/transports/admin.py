"""What is not a stream: health, metrics, and the control routes, each behind what it needs."""

from typing import Annotated, Final

from fastapi import FastAPI, Query, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from fluvial import __version__
from fluvial.access.gate import Gate
from fluvial.core.grant import Need
from fluvial.core.limits import STREAM_NAME_BYTES_MAX
from fluvial.fanout.estuaries import Estuaries
from fluvial.stores.contract import Store
from fluvial.transports.control import ControlApp
from fluvial.transports.estuary_routes import ESTUARY_NEEDS, estuary_routes
from fluvial.transports.framework import Needs, answer_errors, json_response
from fluvial.transports.live import LiveReads
from fluvial.transports.project_routes import PAGE_MAX, PROJECT_NEEDS, project_routes
from fluvial.world import World

_LIVE_READS: Final = Gauge("fluvial_live_reads", "Long-polls, SSE connections and sockets that are open.")

#: What each route needs; a route that is not here needs an operator.
NEEDS: Final[Needs] = {
    ("GET", "/health"): Need.NOTHING,
    ("GET", "/metrics"): Need.NOTHING,
    ("GET", "/openapi.json"): Need.NOTHING,
    ("GET", "/v1/streams"): Need.SURVEY,
    **ESTUARY_NEEDS,
    **PROJECT_NEEDS,
}


def admin_app(live: LiveReads, store: Store, estuaries: Estuaries, gate: Gate, world: World) -> ControlApp:
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
    for routes in (project_routes(store, world, gate), estuary_routes(estuaries)):
        app.router.routes.extend(routes.routes)  # as they are, for their door looks at each one's path
    answer_errors(app)
    _LIVE_READS.set_function(lambda: live.count)
    _add_views(app, live, store)
    return ControlApp(app, gate, NEEDS)


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
