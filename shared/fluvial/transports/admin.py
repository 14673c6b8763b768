"""What is not a stream: health, and the control routes."""

from typing import Annotated, Final

from fastapi import FastAPI, Query, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from fluvial.core.limits import STREAM_NAME_BYTES_MAX
from fluvial.fanout.estuaries import Estuaries
from fluvial.stores.contract import Store
from fluvial.transports.estuary_routes import estuary_routes
from fluvial.transports.framework import SECURITY_HEADERS, answer_errors, json_response
from fluvial.transports.live import LiveReads

_LIVE_READS: Final = Gauge("fluvial_live_reads", "Long-polls, SSE connections and sockets that are open.")


#: One page of names.
NAMES_MAX: Final = 1_000


def admin_app(live: LiveReads, store: Store, estuaries: Estuaries) -> FastAPI:
    """The application behind every path that is not a stream's."""
    app = FastAPI(title="Fluvial", openapi_url=None)
    app.include_router(estuary_routes(estuaries))
    answer_errors(app)
    _LIVE_READS.set_function(lambda: live.count)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process answers, and how busy it is."""
        return JSONResponse({"status": "ok", "liveReads": live.count}, headers=SECURITY_HEADERS)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and gauges in Prometheus's text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST, headers=SECURITY_HEADERS)

    @app.get("/v1/streams")
    async def streams(
        prefix: Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX)] = "",
        after: Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX)] = "",
        limit: Annotated[int, Query(ge=1, le=NAMES_MAX)] = 100,
    ) -> Response:
        """The names of streams in order, a page at a time: ask again with `after` set to `next`."""
        names = await store.names(prefix, after, limit)
        return json_response({"streams": names, "next": names[-1] if len(names) == limit else None})

    return app
