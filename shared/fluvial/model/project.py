"""Projects: who owns streams. A project has the secrets that its tokens are signed with, and its rules."""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Final, NewType
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import (
    ORIGIN_BYTES_MAX,
    ORIGINS_PER_PROJECT_MAX,
    SECRET_BYTES_MAX,
    SECRET_BYTES_MIN,
    SECRETS_PER_PROJECT_MAX,
)

#: The first segment of a stream's path, e.g. `shop`.
ProjectName = NewType("ProjectName", str)

#: No character of a name is ever percent-encoded, so a project has one spelling.
PROJECT_NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"

#: Any page may read and write, as far as its token lets it.
ANY_ORIGIN: Final = "*"

#: The origin of pages that have none: of files, of sandboxed frames, of data URLs.
NULL_ORIGIN: Final = "null"

#: The origin of a page that a packaged application brings along, e.g. `tauri://localhost`, `app://-`.
_PACKAGED: Final = re.compile(r"([a-z][a-z0-9+.-]*)://[A-Za-z0-9._~-]*(?::[0-9]{1,5})?")
_HOST: Final = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_NO_PACKAGES: Final = frozenset({"http", "https", "ftp", "ws", "wss"})

_NAME: Final = re.compile(PROJECT_NAME_PATTERN.removesuffix("$") + r"\Z")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_SECRET_ID_LENGTH: Final = 16


class Secret(msgspec.Struct, frozen=True):
    """What tokens are signed with (HS256); it is told to nobody once it is there."""

    value: str
    created_ms: int

    @property
    def id(self) -> str:
        """What it is called by: a part of its hash."""
        return hashlib.sha256(self.value.encode()).hexdigest()[:_SECRET_ID_LENGTH]

    def __repr__(self) -> str:
        """Without the value, for this is what ends up in tracebacks."""
        return f"Secret({self.id})"


_Count = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class ProjectLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a project may take of its server; None leaves it at the server's own bounds.

    `requests_per_second` may be exceeded by as much again in a burst, and counts, like `live_reads`, for each process
    by itself. `bytes_per_day` counts what is appended in a day (UTC), in all processes together.
    """

    requests_per_second: _Count | None = None
    live_reads: _Count | None = None
    body_bytes: _Count | None = None
    bytes_per_day: _Count | None = None


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """One owner of streams.

    The first secret is the one that new tokens are signed with. Pages of the `origins` may use the streams from
    browsers. The streams of a public project are read without a token. `version` counts the changes; `life` is random,
    so that nothing of a project that has ended is taken for one of its name. One that is `ending` lets nobody in.
    """

    name: ProjectName
    life: int
    secrets: tuple[Secret, ...]
    created_ms: int
    origins: tuple[str, ...] = ()
    is_public: bool = False
    limits: ProjectLimits = ProjectLimits()
    version: int = 1
    is_ending: bool = False


def _refused(message: str) -> RequestError:
    return RequestError(ErrorCode.MALFORMED_REQUEST, message)


def parse_project_name(text: str) -> ProjectName:
    """A project's name. RequestError for what cannot be one."""
    if _NAME.match(text) is None:
        raise _refused("a project's name has up to 64 lower-case letters, digits, - and _, and begins with no sign")
    return ProjectName(text)


def is_project_name(text: str) -> bool:
    """Whether a project may have that name."""
    return _NAME.match(text) is not None


def parse_secret(text: str, now_ms: int) -> Secret:
    """A secret that is strong enough. RequestError; the message does not tell the secret.

    "A key of the same size as the hash output (for instance, 256 bits for "HS256") or larger MUST be used with this
    algorithm." -- RFC 7518, section 3.2
    """
    if not SECRET_BYTES_MIN <= len(text) <= SECRET_BYTES_MAX or _PRINTABLE.fullmatch(text) is None:
        message = f"a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} printable ASCII characters and no spaces"
        raise _refused(message)
    return Secret(text, now_ms)


def parse_origins(texts: list[str]) -> tuple[str, ...]:
    """Origins as browsers spell them, e.g. `https://app.example.com:8443`, or `*`. RequestError for anything else.

    Pages of packaged applications have schemes of their own, e.g. `capacitor://localhost`; those of files and of
    sandboxes have the origin `null`, which is anybody's.
    """
    if len(texts) > ORIGINS_PER_PROJECT_MAX:
        raise _refused(f"a project has up to {ORIGINS_PER_PROJECT_MAX} origins")
    for text in texts:
        if text != ANY_ORIGIN and not is_origin(text):
            message = "an origin is spelt as browsers do: https://host, https://host:port, app://host, null, or *"
            raise _refused(message)
    return (ANY_ORIGIN,) if ANY_ORIGIN in texts else tuple(dict.fromkeys(texts))


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers spell them."""
    if text == NULL_ORIGIN:
        return True
    packaged = _PACKAGED.fullmatch(text)
    if packaged is not None and packaged[1] not in _NO_PACKAGES:
        return len(text) <= ORIGIN_BYTES_MAX
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or not parts.hostname or len(text) > ORIGIN_BYTES_MAX:
        return False
    if port == {"http": 80, "https": 443}[parts.scheme]:
        return False
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if _HOST.fullmatch(host) is None:
        return False
    return text == f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")


def with_secret(project: Project, secret: Secret) -> Project:
    """The project with one more secret, which signs from now on. RequestError when it has as many as it may."""
    if any(known.value == secret.value for known in project.secrets):
        raise RequestError(ErrorCode.SECRET_EXISTS, "the project has this secret already", 409)
    if len(project.secrets) >= SECRETS_PER_PROJECT_MAX:
        message = f"a project has up to {SECRETS_PER_PROJECT_MAX} secrets; remove one first"
        raise RequestError(ErrorCode.TOO_MANY_SECRETS, message, 409)
    return changed(project, secrets=(secret, *project.secrets))


def without_secret(project: Project, secret_id: str) -> Project:
    """The project with one secret less. RequestError when it is not there, and when it is the last."""
    rest = tuple(secret for secret in project.secrets if secret.id != secret_id)
    if len(rest) == len(project.secrets):
        raise RequestError(ErrorCode.NOT_FOUND, "the project has no such secret", 404)
    if not rest:
        raise RequestError(ErrorCode.LAST_SECRET, "a project's last secret cannot be removed; add one first", 409)
    return changed(project, secrets=rest)


def with_limits(project: Project, named: Mapping[str, int | None]) -> Project:
    """The project with some other limits; those that are not named stay as they are. Its version is the same."""
    return msgspec.structs.replace(project, limits=msgspec.structs.replace(project.limits, **named))


def changed(project: Project, **fields: object) -> Project:
    """The project's next version, with other fields."""
    return msgspec.structs.replace(project, version=project.version + 1, **fields)
