"""Tokens: JSON Web Tokens that a project's secret signs (RFC 7519), and that say what their bearer may do.

HS256 and nothing else, whatever a token says of itself; `kid` and the like are not looked at. Claims: `sub` is the
project, `scope` is read, write or manage, `exp` must be there, `nbf` and `iat` may be; `stream` narrows the token to
one stream or, with a slash at its end, to all below; `jti` is its own name.
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
from fluvial.model.names import parse_name
from fluvial.model.permissions import OPERATOR, Scope, VerifiedToken
from fluvial.model.project import Secret

ALGORITHM: Final = "HS256"

_JWS: Final = PyJWS(algorithms=[ALGORITHM])
_Moment = Annotated[float, Meta(ge=0, le=SAFE_INTEGER_MAX / 1_000)]
_Text = Annotated[str, Meta(min_length=1, max_length=STREAM_NAME_BYTES_MAX)]


class InvalidToken(FluvialError):
    """The token says nothing that anybody can rely on; the message says why, and never what was in it."""


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a token says. Times are seconds since 1970."""

    sub: _Text
    scope: Scope
    exp: _Moment
    nbf: _Moment | None = None
    iat: _Moment | None = None
    stream: _Text | None = None
    jti: _Text | None = None


def mint(secret: Secret, claims: Claims) -> str:
    """A token with these claims."""
    return jwt.encode(msgspec.to_builtins(claims), secret.value, algorithm=ALGORITHM)


def parse_stream_claim(stream: str) -> str:
    """The stream or, with a slash at the end, the streams that a token is for, in canonical spelling.

    Raises InvalidToken.
    """
    try:
        return parse_name(stream.removesuffix("/")) + "/" * stream.endswith("/")
    except RequestError as exc:
        raise InvalidToken("its stream claim names no stream") from exc


def verify(token: str, project: str, secrets: tuple[Secret, ...], now_ms: int) -> VerifiedToken:
    """The grant of a token that is a project's, and valid now. Raises InvalidToken."""
    claims = _claims(_signed_payload(token, secrets))
    now_s = now_ms / 1_000
    for name, format_rfc3339 in (("exp", claims.exp), ("nbf", claims.nbf), ("iat", claims.iat)):
        if format_rfc3339 is not None and format_rfc3339 > now_s + TOKEN_S_AHEAD_MAX:
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
    """What one of the secrets has signed. All of them are tried, so that the time tells nobody which one it was."""
    if len(token) > TOKEN_BYTES_MAX:
        raise InvalidToken(f"it has more than {TOKEN_BYTES_MAX} bytes")
    payload: bytes | None = None
    for secret in secrets:
        try:
            payload = _JWS.decode_complete(token, secret.value, algorithms=[ALGORITHM])["payload"]
        except (jwt.PyJWTError, ValueError, RecursionError):
            continue  # what PyJWT says may quote the token
    if payload is None:
        raise InvalidToken("no secret of the project has signed it")
    return payload


def _claims(payload: bytes) -> Claims:
    try:
        return msgspec.convert(json.loads(payload, object_pairs_hook=_unique), Claims)
    except (ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise InvalidToken("its claims are not those of a token: sub, scope and exp must be there, each once") from exc


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are there once: of two, another reader might take the other one."""
    claims = dict(pairs)
    if len(claims) != len(pairs):
        raise ValueError("a claim is there twice")
    return claims


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A token's header and claims as they are, for people to look at. Raises InvalidToken when it is none."""
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as exc:
        raise InvalidToken("it is not a JSON Web Token") from exc
    return found["header"], found["payload"]
