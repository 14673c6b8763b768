"""Wake tokens: a worker proves with one that the wake is its own (spec 7.3, 12.9).

A token is a JWT that the subscription's own secret signs. So a token of another subscription, of another project or of
a former subscription with the same id is not valid. A token is no token of a project, and opens no other route.
"""

from typing import Final

import jwt

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import TOKEN_BYTES_MAX, WAKE_TOKEN_MS_MAX
from fluvial.model.subscriptions.state import Subscription

_ALGORITHM: Final = "HS256"
_OPTIONS: Final[jwt.types.Options] = {"require": ["sub", "exp"], "verify_exp": False, "verify_sub": True}


def mint_wake_token(subscription: Subscription, now_ms: int) -> str:
    """The token of the subscription's wake of now."""
    claims = {
        "sub": subscription.key,
        "generation": subscription.generation,
        "exp": (now_ms + WAKE_TOKEN_MS_MAX) // 1_000,
    }
    return jwt.encode(claims, subscription.secret, _ALGORITHM)


def token_generation(subscription: Subscription, authorization: bytes | None, now_ms: int) -> int:
    """The generation of the token in an Authorization field. Raises RequestError for a token that is not valid.

    Whether the generation is the one of now, the subscription's state decides.
    """
    scheme, _, token = (authorization or b"").strip().partition(b" ")
    if scheme.lower() != b"bearer" or len(token) > TOKEN_BYTES_MAX:
        raise _invalid("this needs the wake's token: Authorization: Bearer …")
    try:
        claims = jwt.decode(token.strip(), subscription.secret, [_ALGORITHM], options=_OPTIONS)
    except jwt.PyJWTError as exc:
        raise _invalid("the token is not one of this subscription") from exc
    generation, expires = claims.get("generation"), claims.get("exp")
    if claims["sub"] != subscription.key or type(generation) is not int or type(expires) is not int:
        raise _invalid("the token is not one of this subscription")
    if expires * 1_000 <= now_ms:
        raise RequestError(ErrorCode.WAKE_TOKEN_EXPIRED, "the wake's token has expired", 401)
    return generation


def _invalid(message: str) -> RequestError:
    return RequestError(ErrorCode.WAKE_TOKEN_INVALID, message, 401)
