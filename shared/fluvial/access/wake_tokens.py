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
#: "The server generating a 401 response MUST send a WWW-Authenticate header field" -- RFC 9110, 15.5.2.
CHALLENGE: Final = (("www-authenticate", 'Bearer realm="fluvial"'),)

#: What is said of a token that another secret has signed, and of a subscription that may not be known.
NOT_OF_THIS_SUBSCRIPTION: Final = "the token is not one of this subscription"

_OPTIONS: Final[jwt.types.Options] = {"require": ["sub", "exp"], "verify_exp": False, "verify_sub": True}


def mint_wake_token(subscription: Subscription, now_ms: int) -> str:
    """The token of the subscription's wake of now."""
    claims = {
        "sub": subscription.key,
        "generation": subscription.generation,
        "exp": (now_ms + WAKE_TOKEN_MS_MAX) // 1_000,
    }
    return jwt.encode(claims, subscription.secret, _ALGORITHM)


def find_wake_token(authorization: bytes | None) -> bytes:
    """The token in an Authorization field. Raises RequestError if there is none."""
    scheme, _, token = (authorization or b"").strip().partition(b" ")
    if scheme.lower() != b"bearer" or len(token) > TOKEN_BYTES_MAX:
        raise invalid_wake_token("this needs the wake's token: Authorization: Bearer …")
    return token.strip()


def token_generation(subscription: Subscription, authorization: bytes | None, now_ms: int) -> int:
    """The generation of the token in an Authorization field. Raises RequestError for a token that is not valid.

    Whether the generation is the one of now, the subscription's state decides.
    """
    token = find_wake_token(authorization)
    try:
        claims = jwt.decode(token, subscription.secret, [_ALGORITHM], options=_OPTIONS)
    except (jwt.PyJWTError, ValueError, RecursionError) as exc:
        raise invalid_wake_token(NOT_OF_THIS_SUBSCRIPTION) from exc
    generation, expires = claims.get("generation"), claims.get("exp")
    if claims["sub"] != subscription.key or type(generation) is not int or type(expires) is not int:
        raise invalid_wake_token(NOT_OF_THIS_SUBSCRIPTION)
    if expires * 1_000 <= now_ms:
        raise RequestError(ErrorCode.WAKE_TOKEN_EXPIRED, "the wake's token has expired", 401, CHALLENGE)
    return generation


def invalid_wake_token(message: str) -> RequestError:
    """The error of a request whose token is not the wake's."""
    return RequestError(ErrorCode.WAKE_TOKEN_INVALID, message, 401, CHALLENGE)
