"""The routes of projects: create, show, change, delete."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field

from fluvial.access.authorizer import Authorizer
from fluvial.access.project_cache import ProjectCache
from fluvial.clock import Clock
from fluvial.model.lifetime import format_rfc3339
from fluvial.model.limits import (
    ORIGIN_BYTES_MAX,
    ORIGINS_PER_PROJECT_MAX,
    SECRET_BYTES_MAX,
    SECRET_BYTES_MIN,
    STREAM_NAME_BYTES_MAX,
)
from fluvial.model.permissions import Permission
from fluvial.model.project import PROJECT_NAME_PATTERN, ProjectLimits, parse_origins, parse_secret
from fluvial.operations.manage_projects import ProjectAdmin, describe_project
from fluvial.server.control.fastapi_errors import (
    ControlBody,
    RoutePermissions,
    control_routes,
    json_response,
    no_content_response,
)
from fluvial.storage.contract import Store

PROJECTS: Final = "/v1/projects"
PROJECT: Final = PROJECTS + "/{project}"
SECRETS: Final = PROJECT + "/secrets"
SECRET: Final = SECRETS + "/{secret_id}"
ORIGINS: Final = PROJECT + "/origins"
PRIVACY: Final = PROJECT + "/privacy"
LIMITS: Final = PROJECT + "/limits"

#: The permission that each route requires.
PROJECT_PERMISSIONS: Final[RoutePermissions] = {
    ("POST", PROJECTS): Permission.ADMINISTER,
    ("GET", PROJECTS): Permission.ADMINISTER,
    ("GET", PROJECT): Permission.MANAGE,
    ("DELETE", PROJECT): Permission.ADMINISTER,
    ("POST", SECRETS): Permission.MANAGE,
    ("DELETE", SECRET): Permission.MANAGE,
    ("PUT", ORIGINS): Permission.MANAGE,
    ("PUT", PRIVACY): Permission.MANAGE,
    ("PUT", LIMITS): Permission.ADMINISTER,
}

#: The most projects or names in one page.
PAGE_MAX: Final = 1_000


_Secret = Annotated[
    str,
    Field(min_length=SECRET_BYTES_MIN, max_length=SECRET_BYTES_MAX, pattern="^[!-~]+$", description="Signs tokens."),
]
_Origins = Annotated[
    list[Annotated[str, Field(max_length=ORIGIN_BYTES_MAX)]],
    Field(max_length=ORIGINS_PER_PROJECT_MAX, description='Origins whose pages may use the streams; ["*"] is all.'),
]
_Limit = Annotated[int | None, Field(ge=1, le=2**53 - 1)]


class LimitsBody(ControlBody):
    """A project's limits. One that is left out is the server's own."""

    requests_per_second: _Limit = None
    live_reads: _Limit = None
    body_bytes: _Limit = None
    bytes_per_day: _Limit = None


class ProjectBody(ControlBody):
    """The properties of a new project."""

    name: Annotated[str, Field(pattern=PROJECT_NAME_PATTERN)]
    secret: _Secret
    origins: _Origins = []  # noqa: RUF012  pydantic copies it
    public: bool = False
    limits: LimitsBody = LimitsBody()
    cut_off: Annotated[
        bool, Field(description="Create the first project even if it makes existing streams unreachable.")
    ] = False


class SecretBody(ControlBody):
    """A secret that signs new tokens. Tokens that the project's other secrets have signed stay valid."""

    secret: _Secret


class OriginsBody(ControlBody):
    """Origins whose pages may use the project's streams from browsers."""

    origins: _Origins


class PrivacyBody(ControlBody):
    """Whether the project's streams can be read without a token."""

    public: bool


_After = Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX, description="The last name of the previous page.")]
_Limited = Annotated[int, Query(ge=1, le=PAGE_MAX)]


def project_routes(store: Store, clock: Clock, authorizer: Authorizer) -> APIRouter:
    """The routes below /v1/projects, besides the list of a project's streams."""
    routes = control_routes("projects")
    admin = ProjectAdmin(store.projects, clock, authorizer.project_cache.invalidate)
    _add_projects(routes, admin, store, clock, authorizer.project_cache)
    _add_rules(routes, admin, clock)
    return routes


def _add_projects(
    routes: APIRouter, admin: ProjectAdmin, store: Store, clock: Clock, project_cache: ProjectCache
) -> None:
    @routes.post(PROJECTS, status_code=201)
    async def create_project(body: ProjectBody) -> Response:
        """Create a project. Its secret signs tokens; no route shows it again.

        The first project closes an open server: 409 `streams_cut_off` if streams become unreachable, unless `cutOff`.
        """
        secret = parse_secret(body.secret, clock.now_ms())
        rules = {"origins": parse_origins(body.origins), "is_public": body.public, "limits": _limits(body.limits)}
        if not body.cut_off and await project_cache.is_open():
            await admin.check_no_stream_is_cut_off(body.name, store)
        return json_response(describe_project(await admin.create(body.name, secret, **rules)), 201)

    @routes.get(PROJECTS)
    async def list_projects(after: _After = "", limit: _Limited = 100) -> Response:
        """List all projects in the order of their names, a page at a time. For the next page, set `after` to `next`."""
        page = await admin.list_after(after, limit)
        last = page[-1].name if len(page) == limit else None
        return json_response({"projects": [describe_project(project) for project in page], "next": last})

    @routes.get(PROJECT)
    async def read_project(project: str) -> Response:
        """Show a project, without its secrets."""
        return json_response(describe_project(await admin.get(project)))

    @routes.delete(PROJECT, status_code=204)
    async def delete_project(project: str) -> Response:
        """Delete a project that has no streams left."""
        await admin.remove(project, store)
        return no_content_response()


def _add_rules(routes: APIRouter, admin: ProjectAdmin, clock: Clock) -> None:
    @routes.post(SECRETS, status_code=201)
    async def add_secret(project: str, body: SecretBody) -> Response:
        """Add a secret, which signs new tokens. Tokens that the project's other secrets have signed stay valid."""
        secret = parse_secret(body.secret, clock.now_ms())
        await admin.add_secret(project, secret)
        return json_response({"id": secret.id, "created": format_rfc3339(secret.created_ms)}, 201)

    @routes.delete(SECRET, status_code=204)
    async def remove_secret(project: str, secret_id: str) -> Response:
        """Remove a secret: tokens that it has signed become invalid. The last secret cannot be removed."""
        await admin.remove_secret(project, secret_id)
        return no_content_response()

    @routes.put(ORIGINS)
    async def set_origins(project: str, body: OriginsBody) -> Response:
        """Set the origins whose pages may use the streams from browsers. A new project has none."""
        return json_response(describe_project(await admin.change(project, origins=parse_origins(body.origins))))

    @routes.put(PRIVACY)
    async def set_privacy(project: str, body: PrivacyBody) -> Response:
        """Set whether the streams can be read without a token. Streams that are public themselves stay public."""
        return json_response(describe_project(await admin.change(project, is_public=body.public)))

    @routes.put(LIMITS)
    async def set_limits(project: str, body: LimitsBody) -> Response:
        """Set the project's limits."""
        return json_response(describe_project(await admin.change(project, limits=_limits(body))))


def _limits(body: LimitsBody) -> ProjectLimits:
    return ProjectLimits(**body.model_dump())
