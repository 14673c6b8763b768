"""Projects own streams. A project has the secrets that its tokens are signed with, and its rules."""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Final, NewType
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, field

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

#: No character of a name needs percent-encoding, so a project has one spelling.
PROJECT_NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"

#: Pages of all origins may read and write, as far as their token allows.
ANY_ORIGIN: Final = "*"

#: What browsers send for pages without an origin: files, sandboxed frames, data URLs.
NULL_ORIGIN: Final = "null"

#: The origin of a page of a packaged application, e.g. `tauri://localhost`, `app://-`.
_PACKAGED: Final = re.compile(r"([a-z][a-z0-9+.-]*)://[A-Za-z0-9._~-]*(?::[0-9]{1,5})?")
_HOST: Final = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_NOT_PACKAGED: Final = frozenset({"http", "https", "ftp", "ws", "wss"})

_NAME: Final = re.compile(PROJECT_NAME_PATTERN.removesuffix("$") + r"\Z")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_SECRET_ID_LENGTH: Final = 16


class Secret(msgspec.Struct, frozen=True):
    """A secret that signs tokens (HS256). No answer and no command shows it after it was made."""

    value: str
    created_ms: int

    @property
    def id(self) -> str:
        """Its public id: the beginning of its hash."""
        return hashlib.sha256(self.value.encode()).hexdigest()[:_SECRET_ID_LENGTH]

    def __repr__(self) -> str:
        """The id without the value, because reprs end up in tracebacks."""
        return f"Secret({self.id})"


_Count = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class ProjectLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bounds on a project's use of its server; None is the server's own bound.

    `requests_per_second` and `live_reads` hold for each process; a burst of requests may have twice the rate.
    `bytes_per_day` counts the bytes that all processes together append in a day (UTC).
    """

    requests_per_second: _Count | None = None
    live_reads: _Count | None = None
    body_bytes: _Count | None = None
    bytes_per_day: _Count | None = None


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """An owner of streams.

    The first secret signs new tokens. Pages of the `origins` may use the streams from browsers. The streams of a public
    project can be read without a token. `version` counts the changes. `incarnation` is random, so that no change and no
    verified token of a deleted project applies to the next project of the same name. A project that `is_ending` rejects
    all requests.
    """

    name: ProjectName
    incarnation: int = field(name="life")  # the name that stored projects have
    secrets: tuple[Secret, ...]
    created_ms: int
    origins: tuple[str, ...] = ()
    is_public: bool = False
    limits: ProjectLimits = ProjectLimits()
    version: int = 1
    is_ending: bool = False


def _malformed(message: str) -> RequestError:
    return RequestError(ErrorCode.MALFORMED_REQUEST, message)


def parse_project_name(text: str) -> ProjectName:
    """Parse a project's name. Raises RequestError."""
    if _NAME.match(text) is None:
        raise _malformed(
            "a project's name is 1 to 64 lower-case letters, digits, - and _, and begins with a letter or digit"
        )
    return ProjectName(text)


def is_project_name(text: str) -> bool:
    """Whether a text is a valid name of a project."""
    return _NAME.match(text) is not None


def parse_secret(text: str, now_ms: int) -> Secret:
    """Parse a secret that is long enough. Raises RequestError, whose message does not contain the secret.

    "A key of the same size as the hash output (for instance, 256 bits for "HS256") or larger MUST be used with this
    algorithm." -- RFC 7518, section 3.2
    """
    if not SECRET_BYTES_MIN <= len(text) <= SECRET_BYTES_MAX or _PRINTABLE.fullmatch(text) is None:
        message = f"a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} printable ASCII characters and no spaces"
        raise _malformed(message)
    return Secret(text, now_ms)


def parse_origins(texts: list[str]) -> tuple[str, ...]:
    """Parse origins as browsers spell them, e.g. `https://app.example.com:8443`, or `*`. Raises RequestError.

    Packaged applications have schemes of their own, e.g. `capacitor://localhost`. Files and sandboxes have the origin
    `null`, which any page can have.
    """
    if len(texts) > ORIGINS_PER_PROJECT_MAX:
        raise _malformed(f"a project has up to {ORIGINS_PER_PROJECT_MAX} origins")
    for text in texts:
        if text != ANY_ORIGIN and not is_origin(text):
            message = (
                "an origin has the form that browsers send: https://host, https://host:port, app://host, null, or *"
            )
            raise _malformed(message)
    return (ANY_ORIGIN,) if ANY_ORIGIN in texts else tuple(dict.fromkeys(texts))


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers spell them."""
    if text == NULL_ORIGIN:
        return True
    packaged = _PACKAGED.fullmatch(text)
    if packaged is not None and packaged[1] not in _NOT_PACKAGED:
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
    """The next version with a new secret, which signs new tokens. Raises RequestError for too many or a known one."""
    if any(known.value == secret.value for known in project.secrets):
        raise RequestError(ErrorCode.SECRET_EXISTS, "the project already has this secret", 409)
    if len(project.secrets) >= SECRETS_PER_PROJECT_MAX:
        message = f"a project has up to {SECRETS_PER_PROJECT_MAX} secrets; remove one first"
        raise RequestError(ErrorCode.TOO_MANY_SECRETS, message, 409)
    return next_version(project, secrets=(secret, *project.secrets))


def without_secret(project: Project, secret_id: str) -> Project:
    """The next version without a secret. Raises RequestError if the project has no such secret, or no other."""
    rest = tuple(secret for secret in project.secrets if secret.id != secret_id)
    if len(rest) == len(project.secrets):
        raise RequestError(ErrorCode.NOT_FOUND, "the project has no such secret", 404)
    if not rest:
        raise RequestError(ErrorCode.LAST_SECRET, "a project's last secret cannot be removed; add one first", 409)
    return next_version(project, secrets=rest)


def with_limits(project: Project, named: Mapping[str, int | None]) -> Project:
    """The same version of a project with some limits replaced."""
    return msgspec.structs.replace(project, limits=msgspec.structs.replace(project.limits, **named))


def next_version(project: Project, **fields: object) -> Project:
    """The project's next version, with some fields replaced."""
    return msgspec.structs.replace(project, version=project.version + 1, **fields)
