"""The verifier of webhooks, for receivers: is a request from the server whose keys are known, and of now (spec 7.1)?

The order of the steps: the field is parsed, the time is compared, the key is found, and the signature is verified over
the bytes of the body. Only then should the body be parsed.

A request that is sent again within the tolerance has a valid signature. A receiver knows it by `subscription_id`,
`generation` and `wake_id`, as it knows a webhook that the server has sent twice.
"""

import re
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fluvial.model.errors import FluvialError
from fluvial.model.limits import WEBHOOK_REPLAY_S

#: How long a key set is used before it is fetched again; servers publish a new key for longer before it signs.
KEY_SET_S: Final = 300.0

#: A key that is not in the set makes the verifier fetch it again, at most this often: anybody can name a key.
REFETCH_S: Final = 10.0

KEY_SET_BYTES_MAX: Final = 65_536
FETCH_TIMEOUT_S: Final = 10.0

_FIELD: Final = re.compile(r"t=([0-9]{1,12}),kid=([!-+\--~]{1,256}),ed25519=([A-Za-z0-9_-]{86})")

#: Public keys by their ids.
KeySet = Mapping[str, Ed25519PublicKey]


class NotVerifiedError(FluvialError):
    """The request is not verified: do not act on it, and answer 401."""


class KeysUnavailableError(FluvialError):
    """The server's keys could not be fetched: answer 503, so that the webhook comes again."""


class UnknownKeyError(NotVerifiedError):
    """The request names a key that the key set does not have."""


def parse_key_set(document: bytes | str | Mapping[str, Any]) -> KeySet:
    """The Ed25519 keys of a JSON Web Key Set; others are left out. ValueError for what is not a key set."""
    try:
        members = document if isinstance(document, Mapping) else msgspec.json.decode(document)
        found = [key for key in members["keys"] if key.get("kty") == "OKP" and key.get("crv") == "Ed25519"]
        return {str(key["kid"]): Ed25519PublicKey.from_public_bytes(_decode_base64url(key["x"])) for key in found}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as exc:
        raise ValueError("this is not a JSON Web Key Set of Ed25519 keys") from exc


def verify(
    body: bytes, signature: str, keys: KeySet, *, now_s: float | None = None, tolerance_s: float = WEBHOOK_REPLAY_S
) -> None:
    """Verify a request: `body` is its bytes as they came, and `signature` its field `Webhook-Signature`.

    Raises NotVerifiedError, whose message is for the receiver's own log.
    """
    match = _FIELD.fullmatch(signature)
    if match is None:
        raise NotVerifiedError("the signature's field does not have the form t=…,kid=…,ed25519=…")
    timestamp, kid, encoded = match.groups()
    if abs((time.time() if now_s is None else now_s) - int(timestamp)) > tolerance_s:
        raise NotVerifiedError(f"the signature is not of the last {tolerance_s:g} seconds")
    key = keys.get(kid)
    if key is None:
        raise UnknownKeyError("the signature is of a key that the server does not publish")
    try:
        key.verify(_decode_base64url(encoded), b"%s.%s" % (timestamp.encode(), body))
    except InvalidSignature as exc:
        raise NotVerifiedError("the signature is not of this body") from exc


class WebhookVerifier:
    """Verifies the webhooks of one server, whose keys it fetches and keeps. Threads may share it."""

    def __init__(
        self,
        jwks_url: str,
        *,
        tolerance_s: float = WEBHOOK_REPLAY_S,
        monotonic_s: Callable[[], float] = time.monotonic,
        time_s: Callable[[], float] = time.time,
    ) -> None:
        """`jwks_url` is that of the subscription's signing metadata, `{stream root}/__ds/jwks.json`."""
        self._url, self._tolerance_s = jwks_url, tolerance_s
        self._monotonic_s, self._time_s = monotonic_s, time_s
        self._keys: KeySet = {}
        self._fetched_at_s: float | None = None
        self._lock = threading.Lock()

    def verify(self, body: bytes, signature: str) -> None:
        """Verify a request as the function `verify` does. Raises NotVerifiedError, KeysUnavailableError."""
        try:
            self._verify(body, signature, KEY_SET_S)
        except UnknownKeyError:
            self._verify(body, signature, REFETCH_S)

    def _verify(self, body: bytes, signature: str, age_s_max: float) -> None:
        keys = self._load(age_s_max)
        verify(body, signature, keys, now_s=self._time_s(), tolerance_s=self._tolerance_s)

    def _load(self, age_s_max: float) -> KeySet:
        """The keys, fetched again if they are older than that. Old ones are used while the server is away."""
        with self._lock:
            now_s = self._monotonic_s()
            if self._fetched_at_s is None or now_s - self._fetched_at_s >= age_s_max:
                try:
                    self._keys = fetch_key_set(self._url)
                except KeysUnavailableError:
                    if self._fetched_at_s is None:
                        raise
                else:
                    self._fetched_at_s = now_s
            return self._keys


def fetch_key_set(url: str) -> KeySet:
    """Fetch a server's key set. Raises KeysUnavailableError."""
    document = bytearray()
    try:
        with httpx.stream("GET", url, timeout=FETCH_TIMEOUT_S, follow_redirects=False) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                document += chunk
                if len(document) > KEY_SET_BYTES_MAX:
                    raise KeysUnavailableError("the key set is too large")
        return parse_key_set(bytes(document))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        raise KeysUnavailableError(f"the keys cannot be fetched from {url}: {exc}") from exc


def _decode_base64url(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
