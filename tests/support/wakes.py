"""A process that wakes subscriptions, without HTTP: its store, its driver, and receivers that a test plays."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.model.subscriptions.configuration import Configuration, SubscriptionType
from fluvial.model.subscriptions.moves import Refusal
from fluvial.model.subscriptions.state import Subscription
from fluvial.subscriptions.attempts import Attempts
from fluvial.subscriptions.driver import IsOwned, WakeDriver
from fluvial.subscriptions.ledger import Ledger, StoreWithSubscriptions
from fluvial.subscriptions.limits import WakeLimits
from fluvial.subscriptions.receivers import Answer
from fluvial.subscriptions.service import Claimed, Place, SubscriptionService, WakeCall
from fluvial.wire.subscriptions import AckFields, WakeRequest
from tests.support.commands import append_commit, create_commit, delete_commit

PLACE = Place("", 0, "http://fluvial.example")
DONE = Answer(200, b'{"done": true}')
TAKEN = Answer(202, b"")
BROKEN = Answer(500, b"")


@dataclass
class Receivers:
    """Takes the place of the webhook client: `answer` plays every receiver."""

    answer: Callable[[str, dict[str, Any]], Awaitable[Answer]]
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def check_url(self, url: str) -> None:
        """Refuse one URL."""
        if "10.0.0.1" in url:
            raise RequestError(ErrorCode.WEBHOOK_URL_REJECTED, "not there")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Note what comes, and let the test answer."""
        assert headers["webhook-signature"].startswith("signed")
        self.bodies.append(json.loads(body))
        return await self.answer(url, self.bodies[-1])

    async def active_kid(self) -> str:
        """A key's id."""
        return "ds_key"

    async def sign(self, body: bytes, now_ms: int) -> str:
        """No real signature."""
        return f"signed {len(body)} {now_ms}"

    async def jwks(self) -> Mapping[str, Any]:
        """No keys."""
        return {"keys": []}


def answering(answer: Answer) -> Receivers:
    """Receivers that all give the same answer."""

    async def give(_url: str, _body: dict[str, Any]) -> Answer:
        return answer

    return Receivers(give)


async def owned(_subscription: Subscription) -> bool | None:
    """Every subscription is its owner's."""
    return True


class WakeProcess:
    """A process over an open store. `run` lets it do everything that is to be done now."""

    def __init__(
        self,
        store: StoreWithSubscriptions,
        clock: Clock,
        receivers: Receivers,
        *,
        limits: WakeLimits | None = None,
        is_owned: IsOwned = owned,
    ) -> None:
        """Nothing runs before `recover`, or before the process is told of something."""
        self.store, self.clock, self.receivers = store, clock, receivers
        self.ledger = Ledger(store, clock, limits or WakeLimits(retry_s=0.0))
        attempts = Attempts(store, clock, receivers, receivers, self.ledger.limits)
        self.driver = WakeDriver(self.ledger, attempts, is_owned)
        self.service = SubscriptionService(self.ledger, receivers.check_url)

    async def run(self) -> None:
        """Look at what is due, and wait until nothing is under way."""
        await self.driver.check_due()
        await self.driver.settle()

    async def start(self) -> None:
        """Recover as a process does at its start."""
        await self.driver.recover()
        await self.run()

    async def create(self, configuration: Configuration, name: str = "sub-1", place: Place = PLACE) -> Subscription:
        """Create a subscription."""
        return (await self.service.create(place, name, configuration)).subscription

    async def shown(self, name: str = "sub-1", place: Place = PLACE) -> Subscription:
        """The present version of a subscription."""
        return await self.service.show(place, name)

    async def append(self, name: str, data: bytes = b"x") -> Head:
        """Append to a stream, which is created if need be."""
        stream, now_ms = StreamName(name), self.clock.now_ms()
        head = await self.store.head(stream)
        if head is None:
            incarnation = self.clock.new_incarnation()
            outcome = await self.store.apply(stream, create_commit(incarnation, now_ms, name=stream, body=data))
        else:
            outcome = await self.store.apply(stream, append_commit(data, now_ms, name=stream))
        assert outcome.head is not None
        return outcome.head

    async def delete(self, name: str) -> None:
        """Delete a stream."""
        await self.store.apply(StreamName(name), delete_commit(self.clock.now_ms()))

    async def claim(self, worker: str = "worker", name: str = "sub-1") -> Claimed | Refusal:
        """Claim."""
        return await self.service.claim(PLACE, name, worker)

    async def acknowledge(
        self,
        wake: Mapping[str, Any],
        *,
        is_done: bool = True,
        acks: Mapping[str, str] | None = None,
        name: str = "sub-1",
    ) -> bool | Refusal:
        """Call back with a wake's body: by default everything that it has is acked."""
        if acks is None:
            acks = {stream["path"]: stream["tail_offset"] for stream in wake["streams"]}
        request = WakeRequest(
            wake["wake_id"],
            wake["generation"],
            tuple(AckFields(stream=path, offset=offset) for path, offset in acks.items()),
            is_done,
        )
        token = wake.get("callback_token") or wake["token"]
        kind = SubscriptionType.WEBHOOK if "callback_token" in wake else SubscriptionType.PULL_WAKE
        return await self.service.acknowledge(PLACE, name, WakeCall(request, f"Bearer {token}".encode(), kind))

    def acked(self, subscription: Subscription) -> dict[str, int]:
        """The positions of a subscription's cursors."""
        return {path: link.acked.position for path, link in subscription.links.items()}


async def soon(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something is true."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what other tasks have done is asked for
            await asyncio.sleep(0.001)
