"""Authorizes requests, whichever transport they come through, before a stream is looked at.

Rules (docs/security.md):

1. A server is open until it has a project. From then on the first segment of a stream's path is the project that it
   belongs to, and requests need a token.
2. An anonymous client, which has no valid token, learns nothing of a private project: a project that does not exist
   gives the same errors, after the same work.
3. If the projects or the operators' secrets cannot be read, requests fail: every method here that awaits raises
   StoreUnavailable.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec
from cachetools import LRUCache

from fluvial.access.project_cache import ProjectCache
from fluvial.access.rejected_origins import RejectedOrigins
from fluvial.access.throttle import Throttle
from fluvial.access.tokens import InvalidToken, unverified_project, verify
from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.names import RESERVED_SEGMENT, StreamName
from fluvial.model.permissions import OPERATOR, Permission, VerifiedToken
from fluvial.model.project import Project, ProjectName, Secret
from fluvial.wire.cors import is_allowed, is_own_page
from fluvial.wire.request import Headers

#: Tokens that were verified lately, by the version of the project whose secrets have signed them.
TOKENS_CACHED_MAX: Final = 2_048

#: Loads the secrets that sign operators' tokens; none when the server has no operator.
OperatorSecrets = Callable[[], Awaitable[tuple[Secret, ...]]]

#: What the names of a project's reserved paths contain.
_RESERVED_IN_PROJECT: Final = f"/{RESERVED_SEGMENT}"

_REALM: Final = 'Bearer realm="fluvial"'


@dataclass(frozen=True, slots=True)
class Tenant:
    """The owner of a path: the project, None for a project that does not exist, or everybody on an open server.

    `origins` are those whose pages may use the streams.
    """

    project: Project | None
    is_open: bool
    origins: tuple[str, ...]


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """The Authorization field of a request, and the token in its query.

    Only a request that reads may have its token in the query: a GET, a HEAD or a handshake (`is_read`).
    A struct rather than a dataclass, as every request makes one.
    """

    authorization: bytes | None = None
    query_token: str | None = None
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a request may do, as far as that is known before the stream's head is loaded.

    `project` is None on an open server; `token` is None for an anonymous client. With `error_unless_public` only a
    public stream may be read, and that error is the answer for any other stream. `count_request` then counts a read of
    a public stream against the project's rate. Anonymous requests for private streams are not counted, because a 429
    would tell that the project exists.
    """

    project: Project | None
    token: VerifiedToken | None = None
    error_unless_public: RequestError | None = None
    count_request: Callable[[], None] | None = None

    def require_visible(self, head: Head | None, now_ms: int) -> None:
        """Raise RequestError if the client may not see the stream with this head; an absent one looks the same."""
        if self.error_unless_public is None:
            return
        if head is None or not head.is_public or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            raise self.error_unless_public
        if self.count_request is not None:
            self.count_request()

    def require_stream(self, name: StreamName) -> None:
        """Raise RequestError if the request may not do with another stream what it may do with its own."""
        if self.project is None:
            return
        if name.partition("/")[0] != self.project.name:
            raise _forbidden_error("the other stream is in another project")
        if self.token is not None and not self.token.covers(name):
            raise _forbidden_error("the token is not for the other stream")

    def remaining_s(self, now_ms: int) -> float:
        """The time until the token expires; infinite without a token."""
        return float("inf") if self.token is None else max(0, self.token.expires_at_ms - now_ms) / 1_000

    def is_shared(self, head: Head) -> bool:
        """Whether everybody may read the stream."""
        return self.project is None or self.project.is_public or head.is_public


#: The authorization of all requests to an open server, compared by identity.
OPEN_ACCESS: Final = Authorization(None)


async def no_operator() -> tuple[Secret, ...]:
    """The operators' secrets of a server without operators."""
    return ()


class Authorizer:
    """Finds the tenant of a path, and authorizes requests."""

    def __init__(
        self,
        project_cache: ProjectCache,
        throttle: Throttle,
        clock: Clock,
        operators: OperatorSecrets,
        open_origins: str,
    ) -> None:
        """`open_origins` are those whose pages may use an open server, separated by commas."""
        self.project_cache, self.throttle, self._clock, self._operators = project_cache, throttle, clock, operators
        origins = tuple(filter(None, open_origins.replace(" ", "").split(",")))
        self._open_tenant = Tenant(None, is_open=True, origins=origins)
        self._absent_tenant = Tenant(None, is_open=False, origins=())
        self._verified: LRUCache[tuple[str, int, int, str], VerifiedToken] = LRUCache(TOKENS_CACHED_MAX)
        self._rejected_origins, self.rejected_origin_count = RejectedOrigins(), 0
        secret = Secret(clock.new_secret(), 0)
        self._decoy = Project(name=ProjectName("-"), incarnation=0, secrets=(secret,), created_ms=0)

    def cached_tenant(self, name: str) -> Tenant | None:
        """The tenant if it is cached: most requests need not await `find_tenant`."""
        if self.project_cache.is_known_to_be_open():
            return self._open_tenant
        project = self.project_cache.cached(name.partition("/")[0])
        return None if project is None else Tenant(project, is_open=False, origins=project.origins)

    async def find_tenant(self, name: str | None) -> Tenant:
        """The owner of a stream, or of any other name that begins with a project's; without a name, of no project."""
        if await self.project_cache.is_open():
            return self._open_tenant
        project = None if name is None else await self.project_cache.find(name.partition("/")[0])
        return self._absent_tenant if project is None else Tenant(project, is_open=False, origins=project.origins)

    def authorize(
        self,
        tenant: Tenant,
        name: StreamName,
        required: Permission,
        credentials: Credentials,
        *,
        shows_public: bool = True,
    ) -> Authorization:
        """Authorize a request on a stream; without `shows_public` not for anonymous clients. Raises RequestError."""
        if tenant.is_open:
            return OPEN_ACCESS
        project = tenant.project
        text = _bearer_token(credentials, required)
        if text is None:
            authorization = _authorize_anonymous(project, required, unauthenticated_error(), shows_public=shows_public)
        else:
            token = self._verify(project, text)
            error = _scope_error(token, name, required)
            authorization = Authorization(project, token)
            if error is not None:  # a token for something else gives its bearer the rights of an anonymous client
                authorization = _authorize_anonymous(project, required, error, shows_public=shows_public)
        assert authorization.project is not None, "only an open server has no project"
        if authorization.error_unless_public is None:
            self.throttle.check_rate(authorization.project, is_anonymous=authorization.token is None)
        else:
            count = partial(self.throttle.check_rate, authorization.project, is_anonymous=True)
            authorization = replace(authorization, count_request=count)
        if "/" not in name:
            message = "a stream's path is /v1/stream/{project}/{stream}"
            raise authorization.error_unless_public or RequestError(ErrorCode.NOT_FOUND, message, 404)
        if _RESERVED_IN_PROJECT in name and name.split("/")[1] == RESERVED_SEGMENT:
            message = "paths below __ds are reserved, and no stream is there"
            raise authorization.error_unless_public or RequestError(ErrorCode.RESERVED_PATH, message, 404)
        return authorization

    def authorize_reserved(
        self, tenant: Tenant, name: StreamName, required: Permission, credentials: Credentials
    ) -> Authorization:
        """Authorize a request on a path below `__ds`, which is never public. Raises RequestError.

        A narrow token covers such a path as it covers a stream with this name.
        """
        if tenant.is_open:
            return OPEN_ACCESS
        text = _bearer_token(credentials, required)
        if text is None:
            raise unauthenticated_error()
        token = self._verify(tenant.project, text)
        error = _scope_error(token, name, required)
        if error is not None:
            raise error
        assert tenant.project is not None, "its secret has signed the token"
        self.throttle.check_rate(tenant.project, is_anonymous=False)
        return Authorization(tenant.project, token)

    def check_origin(self, tenant: Tenant, headers: Headers) -> None:
        """Raise RequestError if the page that sends a request may neither write to an open server nor listen to it.

        Browsers send some writes, and all handshakes, without a preflight. With projects this is not needed, because
        such a request needs a token, and a page has one only if it was given one.
        """
        if tenant.is_open and not self._is_page_allowed(tenant, headers):
            raise RequestError(ErrorCode.FORBIDDEN, "pages of this origin may not: see --cors-origins", 403)

    def log_rejected_origin(self, tenant: Tenant, headers: Headers) -> None:
        """Log and count a page whose browser will not let it read the answer, for the operator."""
        if (tenant.is_open or tenant.project is not None) and not self._is_page_allowed(tenant, headers):
            self.rejected_origin_count += 1

    def _is_page_allowed(self, tenant: Tenant, headers: Headers) -> bool:
        origin = headers.get(b"origin")
        if origin is None or is_allowed(tenant.origins, origin) or is_own_page(headers):
            return True
        project = None if tenant.project is None else tenant.project.name
        self._rejected_origins.log(project, tenant.origins, origin, self._clock.now_ms())
        return False

    async def authorize_control(
        self, tenant: Tenant, required: Permission, credentials: Credentials, name: StreamName | None = None
    ) -> Authorization:
        """Authorize a request on a project, on a stream (`name`) for managers, or on all projects.

        Raises RequestError.
        """
        if required is Permission.NOTHING or (required is Permission.LIST_STREAMS and tenant.is_open):
            return OPEN_ACCESS
        if required is Permission.LIST_STREAMS:
            return await self._authorize_list(tenant, credentials)
        if tenant.is_open and name is not None:
            return OPEN_ACCESS  # everybody may delete the stream, too
        text = _bearer_token(credentials, required)
        if text is None:
            raise unauthenticated_error()
        token = None
        if required is Permission.MANAGE and tenant.project is not None:
            with contextlib.suppress(RequestError):
                token = self._verify(tenant.project, text)
        if token is None:
            return Authorization(tenant.project, await self._verify_operator(text))
        if not token.allows(required):
            raise _forbidden_error(f"this needs a token with the scope {required.name.lower()}", required)
        if token.stream is not None and (name is None or not token.covers(name)):
            raise _forbidden_error("the token is not for the whole project")
        assert tenant.project is not None, "its secret has signed the token"
        self.throttle.check_rate(tenant.project, is_anonymous=False)
        return Authorization(tenant.project, token)

    async def _authorize_list(self, tenant: Tenant, credentials: Credentials) -> Authorization:
        """Authorize a list of streams for an operator, or for any token of the path's project.

        Without a project in the path the token names the project, and is verified as a token of that. What is listed is
        the part of it that the token covers.
        """
        text = _bearer_token(credentials, Permission.LIST_STREAMS)
        if text is None:
            raise unauthenticated_error()
        owner = unverified_project(text)
        if owner == OPERATOR:
            return Authorization(tenant.project, await self._verify_operator(text))
        if tenant.project is None and owner is not None:
            tenant = await self.find_tenant(owner)
        token = self._verify(tenant.project, text)
        assert tenant.project is not None, "its secret has signed the token"
        self.throttle.check_rate(tenant.project, is_anonymous=False)
        return Authorization(tenant.project, token)

    def _verify(self, project: Project | None, text: str) -> VerifiedToken:
        if project is None:  # verified against a secret all the same, so that the time and the error are equal
            project = self._decoy
        key, now_ms = (project.name, project.incarnation, project.version, text), self._clock.now_ms()
        token = self._verified.get(key)
        if token is None or token.expires_at_ms <= now_ms:
            try:
                token = self._verified[key] = verify(text, project.name, project.secrets, now_ms)
            except InvalidToken as exc:
                raise _invalid_token_error(exc) from exc
        return token

    async def _verify_operator(self, text: str) -> VerifiedToken:
        try:
            return verify(text, OPERATOR, await self._operators(), self._clock.now_ms())
        except InvalidToken as exc:
            raise _invalid_token_error(exc) from exc


def _bearer_token(credentials: Credentials, required: Permission) -> str | None:
    """The token of a request. RequestError if it has two, or one in the query although it is no read."""
    scheme, _, value = (credentials.authorization or b"").strip().partition(b" ")
    if credentials.query_token is not None:
        if credentials.authorization is not None:
            message = "the token is sent in the Authorization field or in the query, not in both"
            raise RequestError(ErrorCode.MALFORMED_QUERY, message)
        if required is not Permission.READ or not credentials.is_read:
            message = "a token in the query is for reads alone; send it in the Authorization field"
            raise RequestError(ErrorCode.MALFORMED_QUERY, message)
        return credentials.query_token
    if scheme.lower() != b"bearer":
        return None
    return value.strip().decode("latin-1")


def _authorize_anonymous(
    project: Project | None, required: Permission, error: RequestError, *, shows_public: bool
) -> Authorization:
    """Authorize a client without a good token to read public streams. Raises `error` if there can be none."""
    if project is None or required is not Permission.READ or not shows_public:
        raise error
    return Authorization(project, error_unless_public=None if project.is_public else error)


def _scope_error(token: VerifiedToken, name: StreamName, required: Permission) -> RequestError | None:
    """The error if a token does not allow this on this stream."""
    if not token.covers(name):
        return _forbidden_error("the token is not for this stream")
    if not token.allows(required):
        return _forbidden_error(f"this needs a token with the scope {required.name.lower()}", required)
    return None


def unauthenticated_error() -> RequestError:
    """401 for a request without a token."""
    message = "this needs a token: Authorization: Bearer …"
    return RequestError(ErrorCode.UNAUTHENTICATED, message, 401, (("www-authenticate", _REALM),))


def _invalid_token_error(reason: InvalidToken) -> RequestError:
    field = f'{_REALM}, error="invalid_token", error_description="{reason}"'
    message = f"the token is not valid: {reason}"
    return RequestError(ErrorCode.INVALID_TOKEN, message, 401, (("www-authenticate", field),))


def _forbidden_error(message: str, required: Permission | None = None) -> RequestError:
    scope = "" if required is None else f', scope="{required.name.lower()}"'
    field = f'{_REALM}, error="insufficient_scope"{scope}'
    return RequestError(ErrorCode.FORBIDDEN, message, 403, (("www-authenticate", field),))
