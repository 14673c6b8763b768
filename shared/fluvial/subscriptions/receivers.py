"""What a webhook needs of the world: a client that sends it, and keys that sign it (spec 7.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fluvial.model.errors import ErrorCode, FluvialError, RequestError


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

    async def active_kid(self) -> str | None:
        """The id of the key that signs now; None when webhooks are not sent. Raises StoreError."""
        ...

    async def sign(self, body: bytes, now_ms: int) -> str:
        """The `Webhook-Signature` of a body. Raises StoreError."""
        ...

    async def jwks(self) -> Mapping[str, Any]:
        """The public keys of all signatures that may still be on their way (spec 6.5). Raises StoreError."""
        ...


class NoWebhooks:
    """The sender and the signer of a server that sends no webhooks: pull-wake subscriptions need none."""

    async def check_url(self, url: str) -> None:  # noqa: ARG002  every URL is refused
        """See WebhookSender.check_url."""
        raise RequestError(ErrorCode.NOT_IMPLEMENTED, "this server sends no webhooks", 501)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:  # noqa: ARG002  none is sent
        """See WebhookSender.post."""
        raise DeliveryError("this server sends no webhooks")

    async def active_kid(self) -> str | None:
        """See WebhookSigner.active_kid."""
        return None

    async def sign(self, body: bytes, now_ms: int) -> str:  # noqa: ARG002  none is sent
        """See WebhookSigner.sign."""
        raise DeliveryError("this server sends no webhooks")

    async def jwks(self) -> Mapping[str, Any]:
        """See WebhookSigner.jwks."""
        return {"keys": []}
