"""The webhook client as subscriptions use it: refusals become errors of requests, failures those of attempts."""

from collections.abc import Mapping
from dataclasses import dataclass

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.subscriptions.receivers import Answer, DeliveryError
from fluvial.webhooks.client import WebhookClient
from fluvial.webhooks.errors import WebhookError
from fluvial.webhooks.target import TargetRefused


@dataclass(frozen=True, slots=True)
class ClientSender:
    """Sends with a webhook client."""

    client: WebhookClient

    async def check_url(self, url: str) -> None:
        """See WebhookSender.check_url."""
        try:
            self.client.parse(url)
        except TargetRefused as exc:
            raise RequestError(ErrorCode.WEBHOOK_URL_REJECTED, str(exc)) from exc

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See WebhookSender.post."""
        try:
            answer = await self.client.post(url, body, headers)
        except WebhookError as exc:
            raise DeliveryError(str(exc)) from exc
        return Answer(answer.status, answer.body)
