"""The server's signing keys: made at their first use, kept in the store, and rotated by operators.

All processes of a store sign with the same key. A process keeps what it has read for a few seconds, so it sees a
rotation that late; because a new key signs only minutes after it was published, no receiver sees the difference.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fluvial.clock import Clock
from fluvial.model.errors import StoreUnavailable
from fluvial.model.limits import WEBHOOK_KEY_CACHE_S
from fluvial.model.signing_keys import (
    KeyRing,
    SigningKey,
    active_key,
    key_set,
    published_keys,
    replace_all,
    rotate,
)
from fluvial.storage.signing_keys import SigningKeys
from fluvial.webhooks.signature import make_key, sign

#: How often a change is made anew because another process made one at the same time.
_TRIES_MAX: Final = 8


class WebhookKeys:
    """The keys of one server, as one process sees them."""

    def __init__(self, store: SigningKeys, clock: Clock, now_s: Callable[[], float] = time.monotonic) -> None:
        """`now_s` measures how long the keys are kept in memory."""
        self._store, self._clock, self._now_s = store, clock, now_s
        self._ring: KeyRing | None = None
        self._read_at_s = 0.0
        self._lock = asyncio.Lock()

    async def active_kid(self) -> str:
        """The id of the key that signs now. Raises StoreError."""
        return active_key(await self._load(), self._clock.now_ms()).kid

    async def sign(self, body: bytes, now_ms: int) -> str:
        """The value of a request's `Webhook-Signature`. Raises StoreError."""
        return sign(active_key(await self._load(), now_ms), body, now_ms)

    async def jwks(self) -> Mapping[str, Any]:
        """The published keys as a JSON Web Key Set (spec 6.5). Raises StoreError."""
        return key_set(await self.published())

    async def published(self) -> tuple[SigningKey, ...]:
        """The keys that receivers may need, the newest first. Raises StoreError."""
        return published_keys(await self._load(), self._clock.now_ms())

    async def rotate(self) -> SigningKey:
        """Publish a new key, which signs a few minutes later. Raises TooManyKeysError, StoreError."""
        return await self._change(rotate)

    async def replace_all(self) -> SigningKey:
        """Make a new key that signs at once, and forget all others. Raises StoreError."""
        return await self._change(lambda ring, key, _: replace_all(ring, key))

    async def _load(self) -> KeyRing:
        """The keys, which may be a few seconds old. The first one is made if there is none."""
        async with self._lock:  # one request to the store is enough for all that wait
            if self._ring is None or self._now_s() - self._read_at_s >= WEBHOOK_KEY_CACHE_S:
                read_at_s = self._now_s()
                self._ring, self._read_at_s = await self._read_or_make(), read_at_s
            return self._ring

    async def _read_or_make(self) -> KeyRing:
        ring = await self._store.get()
        if ring is None:
            made = KeyRing((make_key(self._clock.now_ms()),))
            ring = made if await self._store.put(made) else await self._store.get()
        if ring is None:
            raise StoreUnavailable
        return ring

    async def _change(self, change: Callable[[KeyRing, SigningKey, int], KeyRing]) -> SigningKey:
        now_ms = self._clock.now_ms()
        key = make_key(now_ms)
        for _ in range(_TRIES_MAX):
            self._ring = None
            ring = change(await self._load(), key, now_ms)
            if await self._store.put(ring):
                self._ring = None
                return ring.keys[0]
        raise StoreUnavailable
