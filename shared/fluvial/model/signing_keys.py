"""The keys that sign webhooks, as data: which of them signs now, and which are published (spec 6.5).

1. A new key is published before it signs, so that receivers that keep the key set for a while know it in time.
2. "Servers MUST publish old public keys until all webhook deliveries that could have been signed with those keys are
   outside the accepted replay window." A key stays published for a day after it has signed last.
3. A key that others may know is neither used nor published any more, from now on.
"""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import msgspec

from fluvial.model.limits import WEBHOOK_KEY_AHEAD_S, WEBHOOK_KEY_KEPT_S, WEBHOOK_KEYS_MAX


class SigningKey(msgspec.Struct, frozen=True):
    """An Ed25519 key (RFC 8032). Its private half is in no answer, no log line and no repr.

    `retires_ms` is None as long as no other key follows.
    """

    seed: bytes
    public: bytes
    created_ms: int
    signs_from_ms: int
    retires_ms: int | None = None

    @property
    def kid(self) -> str:
        """The key's id: `ds_` and its thumbprint, of the members that RFC 7638 prescribes, in their order."""
        members = f'{{"crv":"Ed25519","kty":"OKP","x":"{encode_base64url(self.public)}"}}'
        return "ds_" + encode_base64url(hashlib.sha256(members.encode()).digest())

    def __repr__(self) -> str:
        """The id alone, because reprs end up in tracebacks."""
        return f"SigningKey({self.kid})"


class KeyRing(msgspec.Struct, frozen=True):
    """A server's keys, the newest first. `version` counts the changes."""

    keys: tuple[SigningKey, ...]
    version: int = 1


class TooManyKeysError(Exception):
    """As many keys as there may be are published; the next one may follow at `until_ms`."""

    def __init__(self, until_ms: int) -> None:
        """`until_ms` is when the first of them retires."""
        super().__init__(f"{WEBHOOK_KEYS_MAX} keys are published already")
        self.until_ms = until_ms


def active_key(ring: KeyRing, now_ms: int) -> SigningKey:
    """The key that signs now."""
    return next((key for key in ring.keys if key.signs_from_ms <= now_ms), ring.keys[-1])


def published_keys(ring: KeyRing, now_ms: int) -> tuple[SigningKey, ...]:
    """The keys with which webhooks may be signed that receivers may still accept, and the next key."""
    return tuple(key for key in ring.keys if key.retires_ms is None or key.retires_ms > now_ms)


def rotate(ring: KeyRing, key: SigningKey, now_ms: int) -> KeyRing:
    """The ring in which a new key follows the others. Raises TooManyKeysError."""
    signs_from_ms = now_ms + WEBHOOK_KEY_AHEAD_S * 1_000
    retires_ms = signs_from_ms + WEBHOOK_KEY_KEPT_S * 1_000
    kept = published_keys(ring, now_ms)
    if len(kept) >= WEBHOOK_KEYS_MAX:
        raise TooManyKeysError(min(old.retires_ms or retires_ms for old in kept))
    followed = (msgspec.structs.replace(old, retires_ms=retires_ms) if old.retires_ms is None else old for old in kept)
    return KeyRing((msgspec.structs.replace(key, signs_from_ms=signs_from_ms), *followed), ring.version + 1)


def replace_all(ring: KeyRing, key: SigningKey) -> KeyRing:
    """The ring with a new key alone, which signs at once."""
    return KeyRing((key,), ring.version + 1)


def key_set(keys: tuple[SigningKey, ...]) -> dict[str, Any]:
    """The public halves of keys as a JSON Web Key Set (RFC 7517, RFC 8037)."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "kid": key.kid,
                "use": "sig",
                "alg": "EdDSA",
                "x": encode_base64url(key.public),
            }
            for key in keys
        ]
    }


def encode_base64url(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
