"""The control routes: projects, their secrets, origins, privacy and limits; their streams and reader keys."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from fluvial.access.authorizer import Authorizer
from fluvial.access.project_cache import ProjectCache
from fluvial.clock import Clock
from fluvial.model.commit import Unmet
from fluvial.model.lifetime import format_rfc3339
from fluvial.model.limits import (
    ORIGIN_BYTES_MAX,
    ORIGINS_PER_PROJECT_MAX,
    SECRET_BYTES_MAX,
    SECRET_BYTES_MIN,
    STREAM_NAME_BYTES_MAX,
)
from fluvial.model.permissions import Permission
from fluvial.model.plan import plan_reader_key
from fluvial.model.project import PROJECT_NAME_PATTERN, ProjectLimits, parse_origins, parse_secret
from fluvial.operations.manage_projects import Registry, described
from fluvial.server.control.fastapi_errors import (
    OF_STREAM,
    TOKEN,
    ControlBody,
    Needs,
    as_response,
    done_response,
    json_response,
    name_of,
)
from fluvial.storage.contract import Store
from fluvial.wire.response import not_found_or_gone_response

PROJECTS: Final = "/v1/projects"
PROJECT: Final = PROJECTS + "/{project}"
SECRETS: Final = PROJECT + "/secrets"
SECRET: Final = SECRETS + "/{secret_id}"
ORIGINS: Final = PROJECT + "/origins"
PRIVACY: Final = PROJECT + "/privacy"
LIMITS: Final = PROJECT + "/limits"
STREAMS: Final = PROJECT + "/streams"
READER_KEY: Final = "/v1/reader-key/{project}/{stream:path}"

#: What each route needs.
PROJECT_NEEDS: Final[Needs] = {
    ("POST", PROJECTS): Permission.ADMINISTER,
    ("GET", PROJECTS): Permission.ADMINISTER,
    ("GET", PROJECT): Permission.MANAGE,
    ("DELETE", PROJECT): Permission.ADMINISTER,
    ("POST", SECRETS): Permission.MANAGE,
    ("DELETE", SECRET): Permission.MANAGE,
    ("PUT", ORIGINS): Permission.MANAGE,
    ("PUT", PRIVACY): Permission.MANAGE,
    ("PUT", LIMITS): Permission.ADMINISTER,
    ("GET", STREAMS): Permission.MANAGE,
    ("POST", READER_KEY): Permission.MANAGE,
}

#: One page of projects or of names.
PAGE_MAX: Final = 1_000


_Secret = Annotated[
    str,
    Field(min_length=SECRET_BYTES_MIN, max_length=SECRET_BYTES_MAX, pattern="^[!-~]+$", description="Signs tokens."),
]
_Origins = Annotated[
    list[Annotated[str, Field(max_length=ORIGIN_BYTES_MAX)]],
    Field(max_length=ORIGINS_PER_PROJECT_MAX, description='Whose pages may use the streams; ["*"]: everybody\'s.'),
]
_Limit = Annotated[int | None, Field(ge=1, le=2**53 - 1)]


class LimitsBody(ControlBody):
    """What a project may take; what is left out is bounded by the server alone."""

    requests_per_second: _Limit = None
    live_reads: _Limit = None
    body_bytes: _Limit = None
    bytes_per_day: _Limit = None


class ProjectBody(ControlBody):
    """What a project begins as."""

    name: Annotated[str, Field(pattern=PROJECT_NAME_PATTERN)]
    secret: _Secret
    origins: _Origins = []  # noqa: RUF012  pydantic copies it
    public: bool = False
    limits: LimitsBody = LimitsBody()
    cut_off: Annotated[
        bool, Field(description="Make the first project although streams would be out of everybody's reach.")
    ] = False


class SecretBody(ControlBody):
    """A secret that signs from now on; the others stay good for what they have signed."""

    secret: _Secret


class OriginsBody(ControlBody):
    """Whose pages may use the project's streams from browsers."""

    origins: _Origins


class PrivacyBody(ControlBody):
    """Whether the project's streams are read without a token."""

    public: bool


_After = Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX, description="The last name of the page before.")]
_Limited = Annotated[int, Query(ge=1, le=PAGE_MAX)]


def project_routes(store: Store, clock: Clock, authorizer: Authorizer) -> APIRouter:
    """The routes below /v1/projects, and those that turn reader keys."""
    routes = APIRouter(tags=["projects"], dependencies=[TOKEN])
    registry = Registry(store.projects, clock, authorizer.project_cache.forget)
    _add_projects(routes, registry, store, clock, authorizer.project_cache)
    _add_rules(routes, registry, clock)
    _add_streams(routes, store, clock)
    return routes


def _add_projects(
    routes: APIRouter, registry: Registry, store: Store, clock: Clock, project_cache: ProjectCache
) -> None:
    @routes.post(PROJECTS, status_code=201)
    async def create_project(body: ProjectBody) -> Response:
        """Make a project. Its secret signs the tokens that let somebody in; no route tells it again.

        The first one closes an open server: 409 `streams_cut_off` when that puts streams out of reach, unless `cutOff`.
        """
        secret = parse_secret(body.secret, clock.now_ms())
        rules = {"origins": parse_origins(body.origins), "is_public": body.public, "limits": _limits(body.limits)}
        if not body.cut_off and await project_cache.is_open():
            await registry.check_reach(body.name, store)
        return json_response(described(await registry.create(body.name, secret, **rules)), 201)

    @routes.get(PROJECTS)
    async def list_projects(after: _After = "", limit: _Limited = 100) -> Response:
        """All projects in the order of their names, a page at a time: ask again with `after` set to `next`."""
        found = await registry.listed(after, limit)
        following = found[-1].name if len(found) == limit else None
        return json_response({"projects": [described(project) for project in found], "next": following})

    @routes.get(PROJECT)
    async def read_project(project: str) -> Response:
        """A project, without its secrets."""
        return json_response(described(await registry.get(project)))

    @routes.delete(PROJECT, status_code=204)
    async def delete_project(project: str) -> Response:
        """End a project that has no streams any more."""
        await registry.remove(project, store)
        return done_response()


def _add_rules(routes: APIRouter, registry: Registry, clock: Clock) -> None:
    @routes.post(SECRETS, status_code=201)
    async def add_secret(project: str, body: SecretBody) -> Response:
        """Add a secret, which signs new tokens from now on; tokens that the others have signed stay good."""
        secret = parse_secret(body.secret, clock.now_ms())
        await registry.add_secret(project, secret)
        return json_response({"id": secret.id, "created": format_rfc3339(secret.created_ms)}, 201)

    @routes.delete(SECRET, status_code=204)
    async def remove_secret(project: str, secret_id: str) -> Response:
        """Remove a secret: what it has signed is good for nothing any more. The last one cannot be removed."""
        await registry.remove_secret(project, secret_id)
        return done_response()

    @routes.put(ORIGINS)
    async def set_origins(project: str, body: OriginsBody) -> Response:
        """Say whose pages may use the streams from browsers; none, unless it is said here."""
        return json_response(described(await registry.change(project, origins=parse_origins(body.origins))))

    @routes.put(PRIVACY)
    async def set_privacy(project: str, body: PrivacyBody) -> Response:
        """Say whether the streams are read without a token. Streams that were made public stay so."""
        return json_response(described(await registry.change(project, is_public=body.public)))

    @routes.put(LIMITS)
    async def set_limits(project: str, body: LimitsBody) -> Response:
        """Say what the project may take of its server."""
        return json_response(described(await registry.change(project, limits=_limits(body))))


def _add_streams(routes: APIRouter, store: Store, clock: Clock) -> None:
    @routes.get(STREAMS)
    async def list_streams(
        project: str,
        prefix: Annotated[str, Query(max_length=STREAM_NAME_BYTES_MAX)] = "",
        after: _After = "",
        limit: _Limited = 100,
    ) -> Response:
        """The names of the project's streams in order, a page at a time: ask again with `after` set to `next`."""
        root = f"{project}/"
        found = await store.names(root + prefix, root + after if after else "", limit)
        names = [name.removeprefix(root) for name in found]
        return json_response({"streams": names, "next": names[-1] if len(names) == limit else None})

    @routes.post(READER_KEY, dependencies=[OF_STREAM])
    async def turn_reader_key(request: Request) -> Response:
        """Give a stream another reader key: what caches hold under the former one is asked for no more."""
        key, now_ms = clock.new_reader_key(), clock.now_ms()
        outcome = await store.apply(name_of(request), plan_reader_key(key, now_ms))
        if isinstance(outcome, Unmet):
            return as_response(not_found_or_gone_response(outcome.head, now_ms))
        return json_response({"readerKey": key})


def _limits(body: LimitsBody) -> ProjectLimits:
    return ProjectLimits(**body.model_dump())
