"""Tokens: JSON Web Tokens (RFC 7519) that are signed with a secret of a project.

Rules:
1. The algorithm is HS256, and the secrets are the project's, whatever the token's header says (`alg`, `kid`, …).
2. Claims: `sub` is the project; `scope` is read, write or manage; `exp` is required, `nbf` and `iat` are optional;
   `stream` narrows the token to one stream or, with a slash at its end, to all streams below; `jti` is ignored.
3. An error never quotes the token.
"""

import json
from typing import Annotated, Any, Final

import jwt
import msgspec
from jwt.api_jws import PyJWS
from msgspec import Meta

from fluvial.model.errors import FluvialError, RequestError
from fluvial.model.limits import (
    SAFE_INTEGER_MAX,
    STREAM_NAME_BYTES_MAX,
    TOKEN_BYTES_MAX,
    TOKEN_LEEWAY_S,
    TOKEN_S_AHEAD_MAX,
)
from fluvial.model.names import RESERVED_SEGMENT, parse_name
from fluvial.model.permissions import OPERATOR, Scope, VerifiedToken
from fluvial.model.project import Secret

ALGORITHM: Final = "HS256"

_JWS: Final = PyJWS(algorithms=[ALGORITHM])
_Moment = Annotated[float, Meta(ge=0, le=SAFE_INTEGER_MAX / 1_000)]
_Text = Annotated[str, Meta(min_length=1, max_length=STREAM_NAME_BYTES_MAX)]


class InvalidToken(FluvialError):
    """The token is not valid; the message gives the reason without quoting the token."""


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token's claims. Times are seconds since 1970."""

    sub: _Text
    scope: Scope
    exp: _Moment
    nbf: _Moment | None = None
    iat: _Moment | None = None
    stream: _Text | None = None
    jti: _Text | None = None


def mint(secret: Secret, claims: Claims) -> str:
    """Sign a token with these claims."""
    return jwt.encode(msgspec.to_builtins(claims), secret.value, algorithm=ALGORITHM)


def parse_stream_claim(stream: str) -> str:
    """The canonical spelling of a `stream` claim: a stream or, with a slash at the end, a prefix of streams.

    Raises InvalidToken.
    """
    try:
        reserved = f"{RESERVED_SEGMENT}/"  # the routes of subscriptions, which a token may be narrowed to, too
        prefix = reserved if stream.startswith(reserved) else ""
        return prefix + parse_name(stream.removeprefix(prefix).removesuffix("/")) + "/" * stream.endswith("/")
    except RequestError as exc:
        raise InvalidToken("its stream claim is not the name of a stream") from exc


def verify(token: str, project: str, secrets: tuple[Secret, ...], now_ms: int) -> VerifiedToken:
    """Verify that a token is of a project, and valid now. Raises InvalidToken."""
    claims = _parse_claims(_signed_payload(token, secrets))
    now_s = now_ms / 1_000
    for name, time_s in (("exp", claims.exp), ("nbf", claims.nbf), ("iat", claims.iat)):
        if time_s is not None and time_s > now_s + TOKEN_S_AHEAD_MAX:
            raise InvalidToken(f"its {name} is over a hundred years ahead: it must be in seconds, not in milliseconds")
    if claims.exp <= now_s:
        raise InvalidToken("it has expired")
    if any(begin is not None and begin > now_s + TOKEN_LEEWAY_S for begin in (claims.nbf, claims.iat)):
        raise InvalidToken("it is not valid yet")
    if claims.sub != project:
        raise InvalidToken("it is not for this project")
    if claims.sub == OPERATOR and (claims.scope is not Scope.MANAGE or claims.stream is not None):
        raise InvalidToken("an operator's token has the scope manage and no stream")
    return VerifiedToken(
        project=claims.sub,
        scope=claims.scope,
        expires_at_ms=int(claims.exp * 1_000),
        stream=None if claims.stream is None else parse_stream_claim(claims.stream),
    )


def _signed_payload(token: str, secrets: tuple[Secret, ...]) -> bytes:
    """The payload that one of the secrets has signed. All are tried, so that the time does not tell which it was."""
    if len(token) > TOKEN_BYTES_MAX:
        raise InvalidToken(f"it has more than {TOKEN_BYTES_MAX} bytes")
    payload: bytes | None = None
    for secret in secrets:
        try:
            payload = _JWS.decode_complete(token, secret.value, algorithms=[ALGORITHM])["payload"]
        except (jwt.PyJWTError, ValueError, RecursionError):
            continue  # PyJWT's message may quote the token
    if payload is None:
        raise InvalidToken("no secret of the project that the path begins with has signed it")
    return payload


def _parse_claims(payload: bytes) -> Claims:
    try:
        return msgspec.convert(json.loads(payload, object_pairs_hook=_unique_claims), Claims)
    except (ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise InvalidToken("its claims are not those of a token: it needs sub, scope and exp, each once") from exc


def _unique_claims(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The claims by name. Raises ValueError for a repeated one, because parsers differ in which one they take."""
    claims = dict(pairs)
    if len(claims) != len(pairs):
        raise ValueError("a claim is repeated")
    return claims


def unverified_project(token: str) -> str | None:
    """The `sub` of a token that may be anybody's: which project to verify it with. None for other text."""
    try:
        owner = decode_unverified(token[: TOKEN_BYTES_MAX + 1])[1].get("sub")
    except InvalidToken:
        return None
    return owner if isinstance(owner, str) else None


def decode_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A token's header and claims without verification, to be shown to a person. Raises InvalidToken for other text."""
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as exc:
        raise InvalidToken("it is not a JSON Web Token") from exc
    return found["header"], found["payload"]
