"""Publications, queued deliveries and changes: every sample event, through the function that it is named for."""

import asyncio
import json
from types import ModuleType
from typing import Any

import boto3
import pytest

from fluvial.aws.append_event import NoAppendError
from fluvial.aws.fanout_queue import FanOutQueue, sqs_client
from fluvial.aws.publications import NoPublicationError
from fluvial.aws.subscription import PublishRejectedError
from fluvial.fanout.limits import FanOutLimits
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreUnavailable
from fluvial.model.names import StreamName
from tests.aws_local.environments import Context
from tests.functions.conftest import FOLLOWED, ImportHandler
from tests.functions.samples import CHANGES, FANNED_OUT, PUBLISHED, SOCKETS, event
from tests.support.connections import Client, ConnectionApi, refusal
from tests.support.estuaries import own_process
from tests.support.lambda_service import LambdaService
from tests.support.rigs import DynamoDbRig

pytestmark = pytest.mark.medium


@pytest.fixture
def subscription(import_handler: ImportHandler) -> ModuleType:
    """The subscription function, which invokes the append function."""
    module = import_handler("subscription")
    module.appender._client = LambdaService(import_handler("append"))
    return module


def handled(module: ModuleType, asked: object) -> Any:  # noqa: ANN401  a function's answer
    """A function's answer to an event."""
    return module.handler(asked, Context("function", "request"))


def contents(rig: DynamoDbRig, name: str = "news/a") -> Any:  # noqa: ANN401  JSON
    """A JSON stream's messages, read by a process of its own."""

    async def read() -> bytes:
        async with own_process(rig) as process:
            return await process.read(name)

    with asyncio.Runner() as runner:
        return json.loads(b"[%s]" % runner.run(read())[:-1])


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_subscription_function_publishes(rig: DynamoDbRig, subscription: ModuleType, case: str) -> None:
    """What it answers, and what the follower then has; a second time, nothing more."""
    expected, delivered = PUBLISHED[case]
    asked = event(f"subscription_{case}")
    for _ in range(1 if case.startswith("direct") else 2):
        if isinstance(expected, type):
            with pytest.raises(expected):
                handled(subscription, asked)
        else:
            assert handled(subscription, asked) == expected
    assert contents(rig) == contents(rig, FOLLOWED) == delivered


def test_a_fault_of_the_append_function_is_a_fault(subscription: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits hears of it; a queue brings the message again."""

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.apply", unavailable)
    monkeypatch.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.apply_idempotently", unavailable)
    with pytest.raises(Exception, match="append failed"):
        handled(subscription, event("subscription_direct"))
    failed = handled(subscription, event("subscription_sqs"))["batchItemFailures"]
    assert len(failed) == 2


def test_a_delivery_that_fails_does_not_fail_the_publication(
    rig: DynamoDbRig, subscription: ModuleType, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change feed makes it good."""

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.followers", unavailable)
        assert handled(subscription, event("subscription_direct"))["fanout"]["mode"] == "deferred"
    assert contents(rig) == []
    assert handled(import_handler("changes"), event("changes_appended")) == {"batchItemFailures": []}
    assert contents(rig) == [{"say": "hello"}]


def enveloped(number: int, **more: object) -> dict[str, Any]:
    """An envelope for the stream that is followed."""
    return {"stream": FOLLOWED, "payload": number, **more}


def routed(detail: object, **more: object) -> dict[str, Any]:
    """An event as EventBridge's."""
    return {"version": "0", "detail-type": "fluvial.publish", "source": "shop", "detail": detail, **more}


SERVICES = {
    "s3": {"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": "a"}}}]},
    "kinesis": {"Records": [{"eventSource": "aws:kinesis", "kinesis": {"data": "e30="}}]},
    "dynamodb": {"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {"Keys": {}}}]},
    "ses": {"Records": [{"eventSource": "aws:ses", "ses": {}}]},
    "kafka": {"eventSource": "aws:kafka", "records": {"topic-0": [{"value": "e30="}]}},
    "mq": {"eventSource": "aws:mq", "messages": [{"data": "e30="}]},
    "firehose": {"invocationId": "1", "deliveryStreamArn": "arn", "records": [{"data": "e30="}]},
    "logs": {"awslogs": {"data": "H4sI"}},
    "function url": {"version": "2.0", "rawPath": "/", "requestContext": {}, "body": "{}"},
    "destination": {"version": "1.0", "requestPayload": {}, "responsePayload": {}},
    "no records": {"Records": []},
    "nothing": {},
    "an empty list": [],
    "a text": "stream",
    "null": None,
}


@pytest.mark.parametrize("service", SERVICES)
def test_an_event_without_an_envelope_is_an_error(subscription: ModuleType, service: str) -> None:
    """Services read no answer: an error value would be a success to them, and what was sent would be lost."""
    with pytest.raises(NoPublicationError):
        handled(subscription, SERVICES[service])


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "nothing"])
def test_an_event_of_a_service_is_no_append(import_handler: ImportHandler, service: str) -> None:
    """The append function raises, too, for what has nothing of an append in it."""
    with pytest.raises(NoAppendError):
        handled(import_handler("append"), SERVICES[service])


def test_a_list_of_envelopes_is_published_once(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """EventBridge Pipes sends one, and again when the function fails."""
    first = [enveloped(1, idempotencyKey="one"), enveloped(2, producer={"id": "p", "epoch": 0, "seq": 0})]
    assert handled(subscription, first) == {}
    with pytest.raises(PublishRejectedError, match="idempotencyKey"):
        handled(subscription, [*first, enveloped(3)])
    with pytest.raises(PublishRejectedError):
        handled(subscription, [{"eventSource": "aws:kinesis", "data": "e30="}])
    assert contents(rig) == [1, 2]


def test_a_list_of_queued_messages_is_published_like_a_queues(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """EventBridge Pipes sends SQS's records as they are, and takes the same answer."""
    records = event("subscription_sqs_partial")["Records"]
    for _ in range(2):
        assert handled(subscription, records) == PUBLISHED["sqs_partial"][0]
    assert contents(rig) == PUBLISHED["sqs_partial"][1]


def test_an_eventbridge_event_without_an_id_is_refused(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """All of them would have the same key, and be one; with a key or a producer of its own it is published."""
    for lacking in (routed(enveloped(1)), routed(enveloped(2), id=""), routed(enveloped(3), id=None)):
        with pytest.raises(PublishRejectedError, match="idempotencyKey"):
            handled(subscription, lacking)
    for number in (4, 5):
        handled(subscription, routed(enveloped(number, idempotencyKey=str(number))))
    assert contents(rig) == [4, 5]


def test_a_queued_event_without_an_id_has_its_messages(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """A rule's transformer may leave the id out."""
    record = event("subscription_sqs")["Records"][0]
    records = [
        {**record, "messageId": f"m{number}", "body": json.dumps(routed(enveloped(number)))} for number in (1, 2)
    ]
    for _ in range(2):
        assert handled(subscription, {"Records": records}) == {"batchItemFailures": []}
    assert contents(rig) == [1, 2]


@pytest.mark.parametrize("own", [{"idempotencyKey": 7}, {"idempotencyKey": ""}, {"producer": "p"}, {"producer": 0}])
def test_a_key_that_is_none_is_refused(rig: DynamoDbRig, subscription: ModuleType, own: dict[str, object]) -> None:
    """It is not replaced by the message's: its sender meant to tell its publications apart by it."""
    record = event("subscription_sqs")["Records"][0]
    records = [{**record, "body": json.dumps(enveloped(1, **own))}]
    failed = handled(subscription, {"Records": records})["batchItemFailures"]
    assert [one["itemIdentifier"] for one in failed] == [record["messageId"]]
    assert contents(rig) == []


def test_a_key_that_is_null_is_no_key(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """The message's own is taken."""
    record = event("subscription_sqs")["Records"][0]
    body = json.dumps(enveloped(1, idempotencyKey=None, producer=None))
    for _ in range(2):
        assert handled(subscription, {"Records": [{**record, "body": body}]}) == {"batchItemFailures": []}
    assert contents(rig) == [1]


@pytest.mark.parametrize("case", FANNED_OUT)
def test_the_fan_out_function_delivers(rig: DynamoDbRig, import_handler: ImportHandler, case: str) -> None:
    """A page of followers; what is no page comes again, until the dead-letter queue has it."""
    handled(import_handler("append"), {"stream": FOLLOWED, "payload": [1, 2]})
    module = import_handler("fanout")
    for _ in range(2):
        failed = handled(module, event(f"fanout_{case}"))["batchItemFailures"]
        assert [one["itemIdentifier"] for one in failed] == FANNED_OUT[case]
    assert contents(rig) == [1, 2]


@pytest.mark.parametrize("case", CHANGES)
def test_the_changes_function_follows_up(rig: DynamoDbRig, import_handler: ImportHandler, case: str) -> None:
    """Nothing is left to be done again."""
    handled(import_handler("append"), {"stream": FOLLOWED, "payload": [1, 2]})
    rig.client.put_item(
        TableName=rig.config.table,
        Item={"pk": {"S": "PAYLOAD#news/ended"}, "sk": {"S": "08" * 8}, "d": {"B": b"left"}},
    )
    module = import_handler("changes")
    for _ in range(2):
        assert handled(module, event(f"changes_{case}")) == {"batchItemFailures": []}
    assert contents(rig) == ([1, 2] if case == "appended" else [])
    assert bool(rig.items("PAYLOAD#news/ended")) is (case != "ended")


@pytest.mark.parametrize("case", SOCKETS)
def test_the_sockets_function_answers(rig: DynamoDbRig, import_handler: ImportHandler, case: str) -> None:
    """A status for API Gateway, and who reads what."""
    module = import_handler("sockets")
    handled(module, event("sockets_connect"))
    assert handled(module, event(f"sockets_{case}"))["statusCode"] == SOCKETS[case]
    noted = [item["sk"]["S"] for item in rig.items("S#demo")]
    assert noted == (["H"] if case == "disconnect" else ["C#L0SM9cOFvHcCIhw=", "H"])


def test_the_changes_function_sends_to_connections(import_handler: ImportHandler) -> None:
    """What a new one has missed."""
    handled(import_handler("sockets"), event("sockets_connect"))
    module, client = import_handler("changes"), Client(is_connected=True)
    module.broadcaster._client = ConnectionApi({"L0SM9cOFvHcCIhw=": client})
    assert handled(module, event("changes_connected")) == {"batchItemFailures": []}
    assert json.loads(client.data) == [1, 2]


def test_a_change_that_cannot_be_followed_up_comes_again(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda goes on from that record; what came after it is done again, which does no harm."""
    module, records = import_handler("changes"), event("changes_appended")

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    handled(import_handler("append"), {"stream": FOLLOWED, "payload": [1, 2]})
    monkeypatch.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.followers", unavailable)
    failed = handled(module, records)["batchItemFailures"]
    assert failed == [{"itemIdentifier": records["Records"][0]["dynamodb"]["SequenceNumber"]}]


def test_many_followers_go_through_the_queue(rig: DynamoDbRig, import_handler: ImportHandler) -> None:
    """By pages; the fan-out function empties them, and the publisher is told that they are queued."""
    changes = import_handler("changes")
    changes.feed._publisher.limits = FanOutLimits(inline_subscribers_max=5, followers_per_page=4)

    async def follow() -> None:
        async with own_process(rig) as process:
            for number in range(48):
                await process.follow(f"news/f{number:02}", FOLLOWED)

    with asyncio.Runner() as runner:
        runner.run(follow())
    handled(import_handler("append"), {"stream": FOLLOWED, "payload": ["all"]})
    assert handled(changes, event("changes_appended")) == {"batchItemFailures": []}
    client, fan_out = boto3.client("sqs"), import_handler("fanout")
    url = client.get_queue_url(QueueName="fan-out")["QueueUrl"]
    count = 0
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        count += len(messages)
        records = [{"messageId": one["MessageId"], "body": one["Body"]} for one in messages]
        assert handled(fan_out, {"Records": records}) == {"batchItemFailures": []}
        for one in messages:
            client.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    assert count == 13
    assert all(contents(rig, f"news/f{number:02}") == ["all"] for number in (0, 25, 47))


def test_what_the_queue_does_not_take_is_not_forgotten(rig: DynamoDbRig, import_handler: ImportHandler) -> None:
    """The change comes again."""
    import_handler("changes")

    class Full:
        def send_message_batch(self, **_: object) -> dict[str, object]:
            return {"Failed": [{"Id": "0"}]}

    async def send() -> None:
        head = await rig.store.head(StreamName(FOLLOWED))
        assert head is not None
        await FanOutQueue(Full(), "url").send(Source(FOLLOWED, head), [[]])

    assert sqs_client() is not None
    with asyncio.Runner() as runner, pytest.raises(StoreUnavailable):
        runner.run(send())


@pytest.mark.parametrize("case", ["eventbridge", "sns"])
def test_what_was_put_aside_can_be_sent_again(rig: DynamoDbRig, subscription: ModuleType, case: str) -> None:
    """Lambda wraps what it gives up on; redriven, it is published once, however often it had been tried."""
    asked = event(f"subscription_{case}")
    handled(subscription, asked)
    wrapped = {"version": "1.0", "requestContext": {"condition": "RetriesExhausted"}, "requestPayload": asked}
    record = {**event("subscription_sqs")["Records"][0], "messageId": "another", "body": json.dumps(wrapped)}
    assert handled(subscription, {"Records": [record]}) == {"batchItemFailures": []}
    assert contents(rig) == PUBLISHED[case][1]


def test_a_throttled_append_function_fails_its_own_message_alone(
    subscription: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of the batch are published."""
    invoke, throttled = subscription.appender._client.invoke, iter([True])

    def busy(**asked: Any) -> Any:  # noqa: ANN401  a client's own
        if next(throttled, False):
            raise refusal("TooManyRequestsException", 429)
        return invoke(**asked)

    monkeypatch.setattr(subscription.appender._client, "invoke", busy)
    failed = handled(subscription, event("subscription_sqs"))["batchItemFailures"]
    assert len(failed) == 1
