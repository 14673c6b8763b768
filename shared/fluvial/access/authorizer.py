"""The gate: what every request passes before a stream is looked at, through whichever door it comes.

A server is open to all until it has a project (docs/security.md). Then the first segment of a stream's path is the
project that it belongs to, and whoever is not let in learns nothing: a project that is not there refuses like one
whose tokens are others.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from cachetools import LRUCache

from fluvial.access.project_cache import ProjectCache
from fluvial.access.refused_origins import RejectedOrigins
from fluvial.access.throttle import Throttle
from fluvial.access.tokens import InvalidToken, verify
from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.names import StreamName
from fluvial.model.permissions import OPERATOR, Permission, VerifiedToken
from fluvial.model.project import Project, ProjectName, Secret
from fluvial.storage.contract import Store
from fluvial.wire.cors import is_allowed, is_own_page
from fluvial.wire.request import Headers

#: Tokens that were verified lately, by the version of the project whose secrets have signed them.
TOKENS_CACHED_MAX: Final = 2_048

#: What operators' tokens are signed with; empty when this server has no operator.
OperatorSecrets = Callable[[], Awaitable[tuple[Secret, ...]]]

_REALM: Final = 'Bearer realm="fluvial"'


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whom a path belongs to: a project, nobody (`project` is None), or everybody."""

    project: Project | None
    is_open: bool
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brings: its Authorization field, and the token in its query, which is for reads alone.

    `reads` tells that the request is one that changes nothing: a GET, a HEAD or a handshake.
    """

    authorization: bytes | None = None
    query_token: str | None = None
    reads: bool = False


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a request may do, as far as that is known before the stream is looked at.

    `project` is None on an open server, `grant` where nobody needs one. With `unless_public` only a public stream may
    be read; it is the answer for any other, and only the first is counted: of a project that shows nothing strangers
    do not even learn that it has a rate.
    """

    project: Project | None
    grant: VerifiedToken | None = None
    unless_public: RequestError | None = None
    count: Callable[[], None] | None = None

    def check(self, head: Head | None, now_ms: int) -> None:
        """Whether the stream with this head may be read. Raises RequestError: of others not even that they exist."""
        if self.unless_public is None:
            return
        if head is None or not head.is_public or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            raise self.unless_public
        if self.count is not None:
            self.count()

    def also(self, name: StreamName) -> None:
        """Whether the request may do with another stream what it may do with its own. Raises RequestError."""
        if self.project is None:
            return
        if name.partition("/")[0] != self.project.name:
            raise _forbidden("the other stream is in another project")
        if self.grant is not None and not self.grant.covers(name):
            raise _forbidden("the token is not for the other stream")

    def remaining_s(self, now_ms: int) -> float:
        """How long a read may stay open."""
        return float("inf") if self.grant is None else max(0, self.grant.expires_at_ms - now_ms) / 1_000

    def is_shared(self, head: Head) -> bool:
        """Whether everybody may read the stream."""
        return self.project is None or self.project.is_public or head.is_public


OPEN: Final = Authorization(None)


async def no_operator() -> tuple[Secret, ...]:
    """The operators' secrets of a server that has none."""
    return ()


class Authorizer:
    """Lets requests in, or tells why not. Every method raises StoreUnavailable, too: nobody is let in on a guess."""

    def __init__(
        self,
        project_cache: ProjectCache,
        throttle: Throttle,
        clock: Clock,
        operators: OperatorSecrets,
        open_origins: str,
    ) -> None:
        """`open_origins` are those whose pages may use a server that is open to all, separated by commas."""
        self.project_cache, self.throttle, self._clock, self._operators = project_cache, throttle, clock, operators
        origins = tuple(filter(None, open_origins.replace(" ", "").split(",")))
        self._everybody = Tenant(None, is_open=True, origins=origins)
        self._nobody = Tenant(None, is_open=False, origins=())
        self._grants: LRUCache[tuple[str, int, int, str], VerifiedToken] = LRUCache(TOKENS_CACHED_MAX)
        self._refused_origins = RejectedOrigins()
        secret = Secret(clock.new_secret(), 0)
        self._nobodys = Project(name=ProjectName("-"), incarnation=0, secrets=(secret,), created_ms=0)

    def cached_tenant(self, name: str) -> Tenant | None:
        """What `tenant` will tell, if it is known already: most requests need not wait."""
        if self.project_cache.is_known_to_be_open():
            return self._everybody
        project = self.project_cache.known(name.partition("/")[0])
        return None if project is None else Tenant(project, is_open=False, origins=project.origins)

    async def tenant(self, name: str | None) -> Tenant:
        """Whom a stream, or whatever else begins with a project's name, belongs to."""
        if await self.project_cache.is_open():
            return self._everybody
        project = None if name is None else await self.project_cache.find(name.partition("/")[0])
        return self._nobody if project is None else Tenant(project, is_open=False, origins=project.origins)

    def permit(
        self, tenant: Tenant, name: StreamName, need: Permission, credentials: Credentials, *, shows_public: bool = True
    ) -> Authorization:
        """What a request on a stream may do; without `shows_public` strangers see nothing. Raises RequestError."""
        if tenant.is_open:
            return OPEN
        project = tenant.project
        token = _token(credentials, need)
        if token is None:
            permit = _without_grant(project, need, unauthenticated(), shows_public=shows_public)
        else:
            grant = self._grant(project, token)
            refusal = _refusal(grant, name, need)
            permit = Authorization(project, grant)
            if refusal is not None:  # its bearer sees no less than nobody does
                permit = _without_grant(project, need, refusal, shows_public=shows_public)
        assert permit.project is not None, "only an open server has no project"
        if permit.unless_public is None:
            self.throttle.check_rate(permit.project, is_anonymous=permit.grant is None)
        else:
            permit = replace(permit, count=partial(self.throttle.check_rate, permit.project, is_anonymous=True))
        if "/" not in name:
            message = "a stream's path is /v1/stream/{project}/{stream}"
            raise permit.unless_public or RequestError(ErrorCode.NOT_FOUND, message, 404)
        return permit

    def check_origin(self, tenant: Tenant, headers: Headers) -> None:
        """Whether the page that sends a request may change something, or hear of it, on an open server.

        Elsewhere it needs a token, which no page has unless somebody gave it one. Raises RequestError.
        """
        if not tenant.is_open:
            return
        if not self._lets_page_in(tenant, headers):
            raise RequestError(ErrorCode.FORBIDDEN, "pages of this origin may not: see --cors-origins", 403)

    def log_rejected_origin(self, tenant: Tenant, headers: Headers) -> None:
        """Tell the operator of a page whose browser will not show it the answer."""
        if tenant.is_open or tenant.project is not None:
            self._lets_page_in(tenant, headers)

    def _lets_page_in(self, tenant: Tenant, headers: Headers) -> bool:
        origin = headers.get(b"origin")
        if origin is None or is_allowed(tenant.origins, origin) or is_own_page(headers):
            return True
        project = None if tenant.project is None else tenant.project.name
        self._refused_origins.note(project, tenant.origins, origin, self._clock.now_ms())
        return False

    async def control(
        self, tenant: Tenant, need: Permission, credentials: Credentials, name: StreamName | None = None
    ) -> Authorization:
        """What a request on a project, or on all of them, may do. Raises RequestError."""
        if need is Permission.NOTHING or (need is Permission.LIST_STREAMS and tenant.is_open):
            return OPEN
        if tenant.is_open and name is not None:
            return OPEN  # of a stream that everybody may delete
        token = _token(credentials, need)
        if token is None:
            raise unauthenticated()
        grant = None
        if need is Permission.MANAGE and tenant.project is not None:
            with contextlib.suppress(RequestError):
                grant = self._grant(tenant.project, token)
        if grant is None:
            return Authorization(tenant.project, await self._operators_grant(token))
        if not grant.allows(need):
            raise _forbidden(f"this needs a token with the scope {need.name.lower()}", need)
        if grant.stream is not None and (name is None or not grant.covers(name)):
            raise _forbidden("the token is not for the whole project")
        assert tenant.project is not None, "its secret has signed the token"
        self.throttle.check_rate(tenant.project, is_anonymous=False)
        return Authorization(tenant.project, grant)

    def _grant(self, project: Project | None, token: str) -> VerifiedToken:
        if project is None:  # takes as long, and says the same, as where there is one
            project = self._nobodys
        key, now_ms = (project.name, project.incarnation, project.version, token), self._clock.now_ms()
        grant = self._grants.get(key)
        if grant is None or grant.expires_at_ms <= now_ms:
            try:
                grant = self._grants[key] = verify(token, project.name, project.secrets, now_ms)
            except InvalidToken as exc:
                raise _invalid(exc) from exc
        return grant

    async def _operators_grant(self, token: str) -> VerifiedToken:
        try:
            return verify(token, OPERATOR, await self._operators(), self._clock.now_ms())
        except InvalidToken as exc:
            raise _invalid(exc) from exc


async def check_anonymous(store: Store, clock: Clock, name: StreamName, permit: Authorization) -> None:
    """Tell strangers no more of a read that is wrong than of one of a stream that they may not see. RequestError."""
    if permit.unless_public is not None:
        permit.check(await store.head(name), clock.now_ms())


def _token(credentials: Credentials, need: Permission) -> str | None:
    """The token that a request brings, wherever it has it. RequestError for two, and for one where it must not be."""
    scheme, _, value = (credentials.authorization or b"").strip().partition(b" ")
    if credentials.query_token is not None:
        if credentials.authorization is not None:
            message = "the token is sent in the Authorization field or in the query, not in both"
            raise RequestError(ErrorCode.MALFORMED_QUERY, message)
        if need is not Permission.READ or not credentials.reads:
            message = "a token in the query is for reads alone; send it in the Authorization field"
            raise RequestError(ErrorCode.MALFORMED_QUERY, message)
        return credentials.query_token
    if scheme.lower() != b"bearer":
        return None
    return value.strip().decode("latin-1")


def _without_grant(
    project: Project | None, need: Permission, refusal: RequestError, *, shows_public: bool
) -> Authorization:
    """What everybody may do: see what is public."""
    if project is None or need is not Permission.READ or not shows_public:
        raise refusal
    return Authorization(project, unless_public=None if project.is_public else refusal)


def _refusal(grant: VerifiedToken, name: StreamName, need: Permission) -> RequestError | None:
    """Why a token lets nobody do this with this stream."""
    if not grant.covers(name):
        return _forbidden("the token is not for this stream")
    if not grant.allows(need):
        return _forbidden(f"this needs a token with the scope {need.name.lower()}", need)
    return None


def unauthenticated() -> RequestError:
    """The answer to who shows no token."""
    message = "this needs a token: Authorization: Bearer …"
    return RequestError(ErrorCode.UNAUTHENTICATED, message, 401, (("www-authenticate", _REALM),))


def _invalid(reason: InvalidToken) -> RequestError:
    field = f'{_REALM}, error="invalid_token", error_description="{reason}"'
    message = f"the token is not valid: {reason}"
    return RequestError(ErrorCode.INVALID_TOKEN, message, 401, (("www-authenticate", field),))


def _forbidden(message: str, need: Permission | None = None) -> RequestError:
    scope = "" if need is None else f', scope="{need.name.lower()}"'
    field = f'{_REALM}, error="insufficient_scope"{scope}'
    return RequestError(ErrorCode.FORBIDDEN, message, 403, (("www-authenticate", field),))
