"""Builds the application of the control routes, and says which permission each route requires."""

from typing import Any, Final

from fastapi import FastAPI

from fluvial import __version__
from fluvial.access.authorizer import Authorizer
from fluvial.clock import Clock
from fluvial.fanout.estuaries import Estuaries
from fluvial.model.permissions import Permission
from fluvial.server.control.authorization import ControlApp
from fluvial.server.control.estuary_routes import ESTUARY_PERMISSIONS, estuary_routes
from fluvial.server.control.fastapi_errors import RoutePermissions, install_error_handlers
from fluvial.server.control.monitoring_routes import monitoring_routes
from fluvial.server.control.project_routes import PROJECT_PERMISSIONS, project_routes
from fluvial.server.control.stream_routes import STREAM_CONTROL_PERMISSIONS, stream_control_routes
from fluvial.server.live_reads import LiveReads
from fluvial.server.monitoring import Monitoring
from fluvial.storage.contract import Store

#: The permission that each route requires. A route that is not listed requires an operator's token.
CONTROL_PERMISSIONS: Final[RoutePermissions] = {
    ("GET", "/health"): Permission.NOTHING,
    ("GET", "/ready"): Permission.NOTHING,
    ("GET", "/metrics"): Permission.NOTHING,
    ("GET", "/openapi.json"): Permission.NOTHING,
    **ESTUARY_PERMISSIONS,
    **PROJECT_PERMISSIONS,
    **STREAM_CONTROL_PERMISSIONS,
}


class _DescribedApp(FastAPI):
    """The FastAPI application, whose OpenAPI document has streams and all answers, too."""

    def openapi(self) -> dict[str, Any]:
        """The document, made when it is first asked for."""
        from fluvial.server.control.openapi.document import describe_api  # noqa: PLC0415

        if self.openapi_schema is None:
            self.openapi_schema = describe_api(self, CONTROL_PERMISSIONS)
        return self.openapi_schema


def build_control_app(  # noqa: PLR0913  the parts of the server
    live: LiveReads,
    store: Store,
    estuaries: Estuaries,
    authorizer: Authorizer,
    clock: Clock,
    *,
    monitoring: Monitoring,
) -> ControlApp:
    """Build the application of all paths that are not streams'."""
    app = _DescribedApp(
        title="Fluvial",
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,  # it would load a third party's script on the page where operators paste their tokens
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to a URL with http:, also behind a proxy with https:
    )
    for router in (
        project_routes(store, clock, authorizer),
        estuary_routes(estuaries),
        stream_control_routes(store, clock, live),
        monitoring_routes(live, monitoring),
    ):
        app.router.routes.extend(router.routes)  # unchanged, because ControlApp looks each path up
    install_error_handlers(app)
    return ControlApp(app, authorizer, CONTROL_PERMISSIONS)
