"""Attempts to wake a worker: a webhook that is sent, or a wake event that is appended to a wake stream (spec 7).

An attempt tells what came of it, and changes no subscription. It may be made twice for one wake: a receiver knows a
repeat by the wake's id, and a wake stream takes the event of one generation once.
"""

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum

from msgspec.structs import replace

from fluvial.access.wake_tokens import mint_wake_token
from fluvial.clock import Clock
from fluvial.model.command import Append
from fluvial.model.commit import Applied, NotDuplicate, NotFenced
from fluvial.model.content_type import is_json
from fluvial.model.errors import StoreError
from fluvial.model.head import ProducerStamp, StreamStatus, stream_status
from fluvial.model.json_mode import EmptyArray, stored_messages
from fluvial.model.plan import plan_append
from fluvial.model.subscriptions.state import Subscription, Wake
from fluvial.storage.contract import Store
from fluvial.subscriptions.limits import WakeLimits
from fluvial.subscriptions.receivers import DeliveryError, WebhookSender, WebhookSigner
from fluvial.wire.subscriptions import is_done_answer, wake_event, webhook_body

log = logging.getLogger(__name__)

_SUCCESS = range(200, 300)


class Attempt(StrEnum):
    """What came of an attempt."""

    DONE = "done"  # the receiver has processed everything that the wake has
    TAKEN = "taken"  # the receiver has the wake, or the wake stream has the event
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes attempts for one store."""

    store: Store
    clock: Clock
    sender: WebhookSender
    signer: WebhookSigner
    limits: WakeLimits
    #: The server's URL, if it is configured: callbacks are sent there, whatever it was when they were created.
    public_url: str = ""

    async def send_webhook(self, subscription: Subscription, wake: Wake) -> Attempt:
        """Send a wake to its receiver. Raises nothing."""
        where = {"subscription": subscription.key, "generation": subscription.generation}
        now_ms = self.clock.now_ms()
        timeout_s = min(self.limits.answer_timeout_s, (wake.until_ms - now_ms) / 1_000)
        url = subscription.configuration.webhook_url
        assert url is not None, "a webhook subscription has a URL"
        if self.public_url:
            subscription = replace(subscription, base_url=self.public_url)
        body = webhook_body(subscription, wake, mint_wake_token(subscription, now_ms))
        try:
            async with asyncio.timeout(timeout_s):
                signature = await self.signer.sign(body, now_ms)
                headers = {"content-type": "application/json", "webhook-signature": signature}
                answer = await self.sender.post(url, body, headers)
        except TimeoutError:
            log.warning("webhook_failed", extra={**where, "reason": f"no answer within {timeout_s:g} seconds"})
            return Attempt.FAILED
        except (DeliveryError, StoreError) as exc:
            log.warning("webhook_failed", extra={**where, "reason": str(exc.__cause__ or exc)})
            return Attempt.FAILED
        except Exception:  # an unforeseen error of one delivery is that of no other
            log.exception("webhook_failed", extra=where)
            return Attempt.FAILED
        if answer.status not in _SUCCESS:
            log.warning("webhook_failed", extra={**where, "reason": f"the receiver answered {answer.status}"})
            return Attempt.FAILED
        return Attempt.DONE if is_done_answer(answer.body) else Attempt.TAKEN

    async def append_event(self, subscription: Subscription, wake: Wake) -> Attempt:
        """Append a wake's event to the subscription's wake stream, once. Raises nothing."""
        where = {"subscription": subscription.key, "generation": subscription.generation}
        path = subscription.configuration.wake_stream
        assert path is not None, "a pull-wake subscription has a wake stream"
        name, now_ms = subscription.name_of(path), self.clock.now_ms()
        try:
            head = await self.store.head(name)
            if head is None or stream_status(head, now_ms) is not StreamStatus.EXISTS:
                log.warning("wake_event_failed", extra={**where, "reason": "the wake stream does not exist"})
                return Attempt.FAILED
            event = wake_event(subscription, wake, now_ms)
            data = stored_messages(event, EmptyArray.ALLOWED) if is_json(head.content_type) else event
            # The event of a generation is a producer's first batch of an epoch: the stream takes it once, and none of
            # a former generation any more.
            stamp = ProducerStamp(f"subscription:{subscription.incarnation:016x}", subscription.generation, 0)
            append = Append(name=name, content_type=head.content_type, data=data, producer=stamp)
            outcome = await self.store.apply(name, plan_append(append, now_ms))
        except StoreError as exc:
            log.warning("wake_event_failed", extra={**where, "reason": str(exc.__cause__ or exc)})
            return Attempt.FAILED
        except Exception:
            log.exception("wake_event_failed", extra=where)
            return Attempt.FAILED
        if isinstance(outcome, Applied) or isinstance(outcome.requirement, NotDuplicate | NotFenced):
            return Attempt.TAKEN
        reason = f"the wake stream does not take it: {type(outcome.requirement).__name__}"
        log.warning("wake_event_failed", extra={**where, "reason": reason})
        return Attempt.FAILED
