"""What a webhook needs of the world: a client that sends it, and keys that sign it (spec 7.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fluvial.model.errors import FluvialError


class DeliveryError(FluvialError):
    """A webhook has not arrived, or not certainly; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver has answered, as far as its body was read."""

    status: int
    body: bytes


class WebhookSender(Protocol):
    """Sends webhooks to where they may go."""

    async def check_url(self, url: str) -> None:
        """Check a URL when a subscription is created. Raises RequestError, which says why it is refused."""
        ...

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one request. Raises DeliveryError."""
        ...


class WebhookSigner(Protocol):
    """Signs webhooks, with keys that the store keeps."""

    async def active_kid(self) -> str:
        """The id of the key that signs now. Raises StoreError."""
        ...

    async def sign(self, body: bytes, now_ms: int) -> str:
        """The `Webhook-Signature` of a body. Raises StoreError."""
        ...

    async def jwks(self) -> Mapping[str, Any]:
        """The public keys of all signatures that may still be on their way (spec 6.5). Raises StoreError."""
        ...
