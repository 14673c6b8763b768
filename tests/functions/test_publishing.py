"""The subscription, fan-out, changes and sockets functions: their sample events, through their handlers."""

import asyncio
import json
from types import ModuleType
from typing import Any

import boto3
import pytest

from fluvial.aws.append_event import NotAnAppendError
from fluvial.aws.fanout_queue import FanOutQueue, sqs_client
from fluvial.aws.publications import NotAPublicationError, Publication
from fluvial.aws.subscription import PublishRejectedError, SubscriptionFunction
from fluvial.fanout.limits import FanOutLimits
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreUnavailable
from fluvial.model.names import StreamName
from tests.aws_local.environments import Context
from tests.functions.conftest import FOLLOWED, ImportHandler
from tests.functions.samples import CHANGES, FANNED_OUT, PUBLISHED, SOCKETS, event
from tests.support.connections import Client, ConnectionApi, client_error
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


def invoke(module: ModuleType, sent: object) -> Any:  # noqa: ANN401  a function's response
    """A function's response to an event."""
    return module.handler(sent, Context("function", "request"))


def contents(rig: DynamoDbRig, name: str = "news/a") -> Any:  # noqa: ANN401  JSON
    """A JSON stream's messages, read by another process."""

    async def read() -> bytes:
        async with own_process(rig) as process:
            return await process.read(name)

    with asyncio.Runner() as runner:
        return json.loads(b"[%s]" % runner.run(read())[:-1])


@pytest.mark.parametrize("case", PUBLISHED)
def test_subscription_function_publishes_sample_event(rig: DynamoDbRig, subscription: ModuleType, case: str) -> None:
    """Its response, and what the follower has then; the second time, nothing is added."""
    expected, delivered = PUBLISHED[case]
    sent = event(f"subscription_{case}")
    for _ in range(1 if case.startswith("direct") else 2):
        if isinstance(expected, type):
            with pytest.raises(expected):
                invoke(subscription, sent)
        else:
            assert invoke(subscription, sent) == expected
    assert contents(rig) == contents(rig, FOLLOWED) == delivered


def test_fault_of_the_append_function_fails_the_publication(
    subscription: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A direct invocation raises, and a queue delivers the message again."""

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.apply", unavailable)
    monkeypatch.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.apply_idempotently", unavailable)
    with pytest.raises(Exception, match="append failed"):
        invoke(subscription, event("subscription_direct"))
    failed = invoke(subscription, event("subscription_sqs"))["batchItemFailures"]
    assert len(failed) == 2


def test_failed_delivery_does_not_fail_the_publication(
    rig: DynamoDbRig, subscription: ModuleType, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change feed delivers later."""

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.followers", unavailable)
        assert invoke(subscription, event("subscription_direct"))["fanout"]["mode"] == "deferred"
    assert contents(rig) == []
    assert invoke(import_handler("changes"), event("changes_appended")) == {"batchItemFailures": []}
    assert contents(rig) == [{"say": "hello"}]


def envelope(number: int, **more: object) -> dict[str, Any]:
    """An envelope for the followed stream."""
    return {"stream": FOLLOWED, "payload": number, **more}


def eventbridge_event(detail: object, **more: object) -> dict[str, Any]:
    """An event of EventBridge with a detail."""
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
def test_event_without_an_envelope_raises(subscription: ModuleType, service: str) -> None:
    """Services read no result: they would take one with an error for success, and the event would be lost."""
    with pytest.raises(NotAPublicationError):
        invoke(subscription, SERVICES[service])


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "nothing"])
def test_append_function_raises_for_an_event_of_a_service(import_handler: ImportHandler, service: str) -> None:
    """Such an event has none of an append's fields."""
    with pytest.raises(NotAnAppendError):
        invoke(import_handler("append"), SERVICES[service])


def test_list_of_envelopes_is_published_once(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """EventBridge Pipes sends a list, and sends it again when the function fails."""
    first = [envelope(1, idempotencyKey="one"), envelope(2, producer={"id": "p", "epoch": 0, "seq": 0})]
    assert invoke(subscription, first) == {}
    with pytest.raises(PublishRejectedError, match="idempotencyKey"):
        invoke(subscription, [*first, envelope(3)])
    with pytest.raises(PublishRejectedError):
        invoke(subscription, [{"eventSource": "aws:kinesis", "data": "e30="}])
    assert contents(rig) == [1, 2]


def test_list_of_sqs_records_is_published_as_from_a_queue(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """EventBridge Pipes sends SQS's records unchanged, and takes the same response."""
    records = event("subscription_sqs_partial")["Records"]
    for _ in range(2):
        assert invoke(subscription, records) == PUBLISHED["sqs_partial"][0]
    assert contents(rig) == PUBLISHED["sqs_partial"][1]


def test_eventbridge_event_without_an_id_is_rejected(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """All of them would share one key, and count as one; with an idempotencyKey of its own an event is published."""
    for lacking in (
        eventbridge_event(envelope(1)),
        eventbridge_event(envelope(2), id=""),
        eventbridge_event(envelope(3), id=None),
    ):
        with pytest.raises(PublishRejectedError, match="idempotencyKey"):
            invoke(subscription, lacking)
    for number in (4, 5):
        invoke(subscription, eventbridge_event(envelope(number, idempotencyKey=str(number))))
    assert contents(rig) == [4, 5]


def test_queued_event_without_an_id_takes_its_messages_id(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """The input transformer of a rule may leave the event's id out."""
    record = event("subscription_sqs")["Records"][0]
    records = [
        {**record, "messageId": f"m{number}", "body": json.dumps(eventbridge_event(envelope(number)))}
        for number in (1, 2)
    ]
    for _ in range(2):
        assert invoke(subscription, {"Records": records}) == {"batchItemFailures": []}
    assert contents(rig) == [1, 2]


@pytest.mark.parametrize("own", [{"idempotencyKey": 7}, {"idempotencyKey": ""}, {"producer": "p"}, {"producer": 0}])
def test_malformed_idempotency_key_is_rejected(
    rig: DynamoDbRig, subscription: ModuleType, own: dict[str, object]
) -> None:
    """The message's id does not replace it, because the sender meant to tell its publications apart by it."""
    record = event("subscription_sqs")["Records"][0]
    records = [{**record, "body": json.dumps(envelope(1, **own))}]
    failed = invoke(subscription, {"Records": records})["batchItemFailures"]
    assert [one["itemIdentifier"] for one in failed] == [record["messageId"]]
    assert contents(rig) == []


def test_null_idempotency_key_is_replaced_by_the_messages_id(rig: DynamoDbRig, subscription: ModuleType) -> None:
    """Null is the same as no key."""
    record = event("subscription_sqs")["Records"][0]
    body = json.dumps(envelope(1, idempotencyKey=None, producer=None))
    for _ in range(2):
        assert invoke(subscription, {"Records": [{**record, "body": body}]}) == {"batchItemFailures": []}
    assert contents(rig) == [1]


@pytest.mark.parametrize("case", FANNED_OUT)
def test_fan_out_function_delivers_to_a_page_of_followers(
    rig: DynamoDbRig, import_handler: ImportHandler, case: str
) -> None:
    """A message that is no page is returned as failed, until the dead-letter queue has it."""
    invoke(import_handler("append"), {"stream": FOLLOWED, "payload": [1, 2]})
    module = import_handler("fanout")
    for _ in range(2):
        failed = invoke(module, event(f"fanout_{case}"))["batchItemFailures"]
        assert [one["itemIdentifier"] for one in failed] == FANNED_OUT[case]
    assert contents(rig) == [1, 2]


@pytest.mark.parametrize("case", CHANGES)
def test_changes_function_processes_sample_event(rig: DynamoDbRig, import_handler: ImportHandler, case: str) -> None:
    """No record is returned as failed; missed deliveries are made and ended incarnations collected."""
    invoke(import_handler("append"), {"stream": FOLLOWED, "payload": [1, 2]})
    rig.client.put_item(
        TableName=rig.config.table,
        Item={"pk": {"S": "PAYLOAD#news/ended"}, "sk": {"S": "08" * 8}, "d": {"B": b"left"}},
    )
    module = import_handler("changes")
    for _ in range(2):
        assert invoke(module, event(f"changes_{case}")) == {"batchItemFailures": []}
    assert contents(rig) == ([1, 2] if case == "appended" else [])
    assert bool(rig.items("PAYLOAD#news/ended")) is (case != "ended")


@pytest.mark.parametrize("case", SOCKETS)
def test_sockets_function_answers_sample_event(rig: DynamoDbRig, import_handler: ImportHandler, case: str) -> None:
    """It returns a status to API Gateway, and adds or removes the connection's item."""
    module = import_handler("sockets")
    invoke(module, event("sockets_connect"))
    assert invoke(module, event(f"sockets_{case}"))["statusCode"] == SOCKETS[case]
    sort_keys = [item["sk"]["S"] for item in rig.items("S#demo")]
    assert sort_keys == (["H"] if case == "disconnect" else ["C#L0SM9cOFvHcCIhw=", "H"])


def test_changes_function_sends_missed_messages_to_a_new_connection(import_handler: ImportHandler) -> None:
    """The record of the connection's item wakes it."""
    invoke(import_handler("sockets"), event("sockets_connect"))
    module, client = import_handler("changes"), Client(is_connected=True)
    module.broadcaster._client = ConnectionApi({"L0SM9cOFvHcCIhw=": client})
    assert invoke(module, event("changes_connected")) == {"batchItemFailures": []}
    assert json.loads(client.data) == [1, 2]


def test_changes_function_returns_the_failed_record(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda sends that record and those after it again, whose steps may be repeated."""
    module, records = import_handler("changes"), event("changes_appended")

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    invoke(import_handler("append"), {"stream": FOLLOWED, "payload": [1, 2]})
    monkeypatch.setattr("fluvial.storage.dynamodb.store.DynamoDbStore.followers", unavailable)
    failed = invoke(module, records)["batchItemFailures"]
    assert failed == [{"itemIdentifier": records["Records"][0]["dynamodb"]["SequenceNumber"]}]


def test_followers_over_the_inline_limit_are_delivered_to_by_the_queue(
    rig: DynamoDbRig, import_handler: ImportHandler
) -> None:
    """The changes function puts pages of followers into the queue, and the fan-out function delivers to them."""
    changes = import_handler("changes")
    changes.feed._deliveries.limits = FanOutLimits(inline_subscribers_max=5, followers_per_page=4)

    async def follow() -> None:
        async with own_process(rig) as process:
            for number in range(48):
                await process.follow(f"news/f{number:02}", FOLLOWED)

    with asyncio.Runner() as runner:
        runner.run(follow())
    invoke(import_handler("append"), {"stream": FOLLOWED, "payload": ["all"]})
    assert invoke(changes, event("changes_appended")) == {"batchItemFailures": []}
    client, fan_out = boto3.client("sqs"), import_handler("fanout")
    url = client.get_queue_url(QueueName="fan-out")["QueueUrl"]
    count = 0
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        count += len(messages)
        records = [{"messageId": one["MessageId"], "body": one["Body"]} for one in messages]
        assert invoke(fan_out, {"Records": records}) == {"batchItemFailures": []}
        for one in messages:
            client.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    assert count == 13
    assert all(contents(rig, f"news/f{number:02}") == ["all"] for number in (0, 25, 47))


def test_message_that_the_queue_does_not_take_raises(rig: DynamoDbRig, import_handler: ImportHandler) -> None:
    """So the change's record comes again."""
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
def test_redriven_dead_letter_is_published_once(rig: DynamoDbRig, subscription: ModuleType, case: str) -> None:
    """Lambda wraps an event that it gives up on; its key is that of the original event."""
    sent = event(f"subscription_{case}")
    invoke(subscription, sent)
    wrapped = {"version": "1.0", "requestContext": {"condition": "RetriesExhausted"}, "requestPayload": sent}
    record = {**event("subscription_sqs")["Records"][0], "messageId": "another", "body": json.dumps(wrapped)}
    assert invoke(subscription, {"Records": [record]}) == {"batchItemFailures": []}
    assert contents(rig) == PUBLISHED[case][1]


def test_throttled_append_fails_only_its_own_message(subscription: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other messages of the batch are published."""
    invoke_append, throttled = subscription.appender._client.invoke, iter([True])

    def busy(**parameters: Any) -> Any:  # noqa: ANN401  boto3's own
        if next(throttled, False):
            raise client_error("TooManyRequestsException", 429)
        return invoke_append(**parameters)

    monkeypatch.setattr(subscription.appender._client, "invoke", busy)
    failed = invoke(subscription, event("subscription_sqs"))["batchItemFailures"]
    assert len(failed) == 1


def test_unforeseen_error_in_one_message_lets_the_others_be_published(
    rig: DynamoDbRig,
    subscription: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the error, and only the broken one comes again."""
    publish = SubscriptionFunction._publish

    async def fail_one(self: SubscriptionFunction, publication: Publication) -> Any:  # noqa: ANN401  its own result
        if publication.message_id == "broken":
            raise ZeroDivisionError
        await asyncio.sleep(0.01)  # so that the broken one fails before this one is published
        return await publish(self, publication)

    bodies = {"broken": 1, "whole": 2}
    records = [
        {"messageId": name, "eventSource": "aws:sqs", "body": json.dumps({"stream": "news/a", "payload": [number]})}
        for name, number in bodies.items()
    ]
    with monkeypatch.context() as patched:
        patched.setattr(SubscriptionFunction, "_publish", fail_one)
        failed = invoke(subscription, {"Records": records})["batchItemFailures"]
    assert failed == [{"itemIdentifier": "broken"}]
    assert [one.msg for one in caplog.records if one.exc_info] == ["message_not_published"]
    assert contents(rig)[-1] == 2
    assert invoke(subscription, {"Records": records}) == {"batchItemFailures": []}
    assert contents(rig)[-2:] == [2, 1]
