"""A simulated network between a store and DynamoDB: it loses, delays and throttles requests, and ends processes."""

import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.httpsession import URLLib3Session

from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.support.rigs import DynamoDbRig


class CrashError(BaseException):
    """The simulated process is killed: it makes no call after this one."""


@dataclass
class Body:
    """A response's body as botocore reads it."""

    content: bytes

    def stream(self) -> Iterator[bytes]:
        """All of it."""
        yield self.content


@dataclass
class Network:
    """A network between a store and the engine. Each probability is for one write; `crash_at` numbers a call.

    `stale` is the probability that an eventually consistent read of the table meets a replica that is behind: the
    answer is then the one that the same request got before, and nothing if it is sent for the first time.
    """

    rng: random.Random
    request_lost: float = 0.0
    request_late: float = 0.0
    response_lost: float = 0.0
    throttled: float = 0.0
    stale: float = 0.0
    crash_at: int | None = None
    seen: Counter[str] = field(default_factory=Counter)
    operations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    late: list[AWSPreparedRequest] = field(default_factory=list)
    answers: dict[bytes, AWSResponse] = field(default_factory=dict)
    session: URLLib3Session = field(default_factory=URLLib3Session)

    def attach(self, store: DynamoDbStore) -> None:
        """Put the network between this store and the engine."""
        store._aws.writes.meta.events.register("before-send.dynamodb", self._send)
        if self.stale:
            store._aws.reads.meta.events.register("before-send.dynamodb", self._send_read)
        for client in (store._aws.writes, store._aws.reads, store._aws.objects):
            client.meta.events.register("before-call.*", self._call)

    def deliver_late(self, count: int = 1_000_000) -> None:
        """Deliver requests whose senders have timed out, in random order."""
        for _ in range(min(count, len(self.late))):
            self.session.send(self.late.pop(self.rng.randrange(len(self.late))))
            self.seen["delivered late"] += 1

    def _call(self, model: Any, params: dict[str, Any], **_: object) -> None:  # noqa: ANN401  botocore's own
        if self.crash_at is not None and len(self.operations) >= self.crash_at:
            raise CrashError
        is_json = model.service_model.service_name == "dynamodb"
        self.operations.append((model.name, json.loads(params["body"]) if is_json else {}))

    def _send_read(self, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        """Answer an eventually consistent read by a replica that may be behind; botocore sends the others."""
        body = request.body
        if not isinstance(body, bytes) or b'"ConsistentRead": false' not in body or b'"IndexName"' in body:
            return None
        if self.rng.random() >= self.stale:
            answer: AWSResponse = self.session.send(request)
            if answer.status_code == HTTPStatus.OK:
                self.answers[body] = answer
            return answer
        self.seen["read stale"] += 1
        asked = json.loads(body).get("RequestItems", {})
        nothing = {"Items": [], "Count": 0, "ScannedCount": 0, "Responses": {table: [] for table in asked}}
        empty = AWSResponse(request.url, HTTPStatus.OK, HTTPHeaders(), Body(json.dumps(nothing).encode()))
        return self.answers.get(body, empty)

    def _send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        """Decide about one request: without an answer or an error here, botocore sends it."""
        fate = self.rng.random()
        if fate < self.throttled:
            self.seen["throttled"] += 1
            body = b'{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"too many"}'
            return AWSResponse(request.url, 400, HTTPHeaders(), Body(body))
        fate -= self.throttled
        if fate < self.request_lost:
            self.seen["request lost"] += 1
            raise ConnectionClosedError(endpoint_url=request.url)
        fate -= self.request_lost
        if fate < self.request_late:
            self.seen["request late"] += 1
            self.late.append(request)
            raise ReadTimeoutError(endpoint_url=request.url)
        fate -= self.request_late
        if fate < self.response_lost:
            self.seen["response lost"] += 1
            self.session.send(request)
            raise ReadTimeoutError(endpoint_url=request.url)
        return None


async def crashing(rig: DynamoDbRig, step: Callable[[DynamoDbStore], Awaitable[object]], at: int) -> bool:
    """Kill a process at its call number `at` while it takes a step; False when the step makes fewer calls."""
    store = DynamoDbStore(replace(rig.config, runs_background_tasks=False), rig.still.own_clock())
    network = Network(random.Random(at), crash_at=at)
    network.attach(store)
    try:
        await step(store)
    except CrashError:
        return True
    else:
        return False
    finally:
        await store.close()
