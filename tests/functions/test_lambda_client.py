"""The client of the functions, against the functions themselves."""

import json
import subprocess
import sys
from typing import Any

import pytest
from botocore.exceptions import NoRegionError

from fluvial.lambda_client import (
    AppendAccepted,
    AppendClient,
    AppendRejected,
    CallFailedError,
    FanOut,
    FanOutMode,
    ProducerStamp,
    PublicationSender,
    PublishClient,
    Published,
)
from tests.aws_local.environments import Context
from tests.functions.conftest import FOLLOWED, ImportHandler
from tests.support.lambda_service import LambdaService

pytestmark = pytest.mark.medium


@pytest.fixture
def client(import_handler: ImportHandler) -> AppendClient:
    """A client of the append function."""
    return AppendClient("append", LambdaService(import_handler("append")))


def test_text_and_bytes_are_appended(client: AppendClient) -> None:
    """The result has the stream's tail."""
    added = client.append("demo", '"x"', content_type="application/json")
    assert added == AppendAccepted("1800000000000000_0000000000000008")
    added = client.append("bytes", b"\xff\x00", content_type="application/octet-stream")
    assert added == AppendAccepted("1800000000000000_0000000000000004")


def test_messages_are_appended_as_json(client: AppendClient) -> None:
    """Each is one message, also a list."""
    before = client.append_json("demo", 3)
    after = client.append_json("demo", {"a": "é"}, [4, 5])
    assert isinstance(before, AppendAccepted)
    assert isinstance(after, AppendAccepted)
    length = int(after.tail_offset[-16:]) - int(before.tail_offset[-16:])
    assert length == len('{"a":"é"},[4,5],'.encode())


def test_stream_is_closed(client: AppendClient) -> None:
    """Once and for ever; a second time is accepted, too."""
    for _ in range(2):
        closed = client.close("demo")
        assert isinstance(closed, AppendAccepted)
        assert closed.closed


def test_producers_retry_is_a_duplicate(client: AppendClient) -> None:
    """A producer's batch is appended once."""
    stamp = ProducerStamp("writer", 0, 0)
    first = client.append("demo", "7", content_type="application/json", producer=stamp)
    again = client.append("demo", "7", content_type="application/json", producer=stamp)
    assert isinstance(first, AppendAccepted)
    assert again == AppendAccepted(first.tail_offset, is_duplicate=True)


def test_rejection_is_a_result(client: AppendClient) -> None:
    """It has a code and details."""
    assert client.append("demo", close=True) == AppendAccepted("1800000000000000_0000000000000004", closed=True)
    rejected = client.append("demo", "7", content_type="application/json")
    assert isinstance(rejected, AppendRejected)
    assert rejected.code == "STREAM_CLOSED"
    assert rejected.details == {"streamNextOffset": "1800000000000000_0000000000000004", "streamClosed": "true"}


def test_fault_of_the_append_function_raises(client: AppendClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda repeats an asynchronous invocation; a synchronous caller learns of the fault."""

    async def fail(*_: object, **__: object) -> None:
        raise OSError("broken")

    service = client._client
    assert isinstance(service, LambdaService)
    monkeypatch.setattr(service.module.store, "apply", fail)
    with pytest.raises(CallFailedError):
        client.append("demo", "7", content_type="application/json")


class RecordingClient:
    """A Lambda client that keeps the payload that it is sent."""

    def __init__(self) -> None:
        """`payload` is empty until an event is sent."""
        self.payload = b""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, object]:  # noqa: N803  boto3's own names
        """Take an event; the function fails."""
        self.payload = Payload
        return {"FunctionError": FunctionName, "Payload": None}


STAMP = ProducerStamp("writer", 1, 2)

#: The client's arguments, and the event that it sends.
ENCODED: list[tuple[dict[str, Any], str]] = [
    ({}, '{"stream":"s","close":false}'),
    ({"payload": "", "close": True}, '{"stream":"s","close":true}'),
    (
        {"payload": "é", "content_type": "text/plain"},
        '{"stream":"s","close":false,"payload":"é","contentType":"text/plain"}',
    ),
    (
        {"payload": b"\xff", "idempotency_key": "k"},
        '{"stream":"s","close":false,"payloadBase64":"/w==","idempotencyKey":"k"}',
    ),
    (
        {"payload": "x", "producer": STAMP, "stream_seq": "7"},
        '{"stream":"s","close":false,"payload":"x","producer":{"id":"writer","epoch":1,"seq":2},"streamSeq":"7"}',
    ),
]


@pytest.mark.parametrize(("arguments", "event"), ENCODED)
def test_client_sends_an_append_as_json(arguments: dict[str, Any], event: str) -> None:
    """Fields without a value are left out; `close` is always there."""
    service = RecordingClient()
    with pytest.raises(CallFailedError):
        AppendClient("append", service).append("s", **arguments)
    assert service.payload.decode() == event


@pytest.fixture
def publisher(import_handler: ImportHandler) -> PublishClient:
    """A client of the subscription function, which invokes the append function."""
    module = import_handler("subscription")
    module.appender._client = LambdaService(import_handler("append"))
    return PublishClient("subscription", LambdaService(module))


def test_publication_is_appended_and_delivered(publisher: PublishClient) -> None:
    """The result says to how many followers, and has none for a stream without any."""
    published = publisher.publish_json(FOLLOWED, {"say": "hello"}, idempotency_key="k")
    assert isinstance(published, Published)
    assert published.fan_out == FanOut(1, 1, 0, FanOutMode.INLINE)
    again = publisher.publish_json(FOLLOWED, {"say": "hello"}, idempotency_key="k")
    assert isinstance(again, Published)
    assert (again.tail_offset, again.is_duplicate) == (published.tail_offset, True)
    alone = publisher.publish("bytes", b"x", content_type="application/octet-stream")
    assert isinstance(alone, Published)
    assert alone.fan_out is None


def test_rejected_publication_is_a_result(publisher: PublishClient) -> None:
    """As that of an append."""
    rejected = publisher.publish("absent", "x", content_type="text/plain")
    assert isinstance(rejected, AppendRejected)
    assert rejected.code == "STREAM_NOT_FOUND"


class RecordingService:
    """Clients of SQS, SNS and EventBridge that keep what they are sent."""

    def __init__(self) -> None:
        """`calls` has the arguments of each call."""
        self.calls = list[dict[str, Any]]()

    def send_message(self, **arguments: Any) -> dict[str, str]:  # noqa: ANN401  boto3's own
        """Take a message of a queue."""
        self.calls.append(arguments)
        return {"MessageId": "1"}

    def publish(self, **arguments: Any) -> dict[str, str]:  # noqa: ANN401  likewise
        """Take a notification of a topic that exists."""
        if arguments["TopicArn"] == "absent":
            raise NoRegionError
        return self.send_message(**arguments)

    def put_events(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  likewise
        """Take events; those of one sender are refused."""
        [entry] = arguments["Entries"]
        self.calls.append(entry)
        return {"Entries": [{"ErrorCode": "Throttled"} if entry["Source"] == "busy" else {"EventId": "1"}]}


def test_publication_is_sent_through_each_service(import_handler: ImportHandler) -> None:
    """What each service then brings to the subscription function is published, and only once."""
    module = import_handler("subscription")
    module.appender._client = LambdaService(import_handler("append"))
    service = RecordingService()
    senders = [
        PublicationSender.queue("https://queue", service),
        PublicationSender.topic("arn:topic", service),
        PublicationSender.bus("shop", client=service),
    ]
    for sender in senders:
        assert sender.publish_json(FOLLOWED, {"say": "hello"}) == "1"
    queued, notified, event = service.calls
    assert (event["DetailType"], event["EventBusName"]) == ("fluvial.publish", "default")
    brought = [
        {"Records": [{"eventSource": "aws:sqs", "messageId": "1", "body": queued["MessageBody"]}]},
        {"Records": [{"EventSource": "aws:sns", "Sns": {"MessageId": "1", "Message": notified["Message"]}}]},
        {"detail-type": event["DetailType"], "detail": json.loads(event["Detail"]), "source": "shop", "id": "1"},
    ]
    for sent in brought * 2:
        assert module.handler(sent, Context("subscription", "request")) in ({}, {"batchItemFailures": []})
    head = module.runner.run(module.store.head(FOLLOWED))
    assert head.tail == 3 * len('{"say":"hello"},')


def test_publication_keeps_its_own_key_and_its_order_in_a_fifo_queue() -> None:
    """A stream is a group, and the key tells duplicates."""
    service = RecordingService()
    sender = PublicationSender.queue("https://queue.fifo", service)
    for _ in range(2):
        sender.publish("a", "x", producer=ProducerStamp("w", 0, 0))
    sender.publish("a", "x", idempotency_key="k")
    sender.publish("b", "x", idempotency_key="k")
    one, same, other, elsewhere = service.calls
    assert one == same
    assert "idempotencyKey" not in one["MessageBody"]
    assert other["MessageDeduplicationId"] != one["MessageDeduplicationId"]
    assert other["MessageGroupId"] == one["MessageGroupId"] != elsewhere["MessageGroupId"]


def test_publication_that_cannot_be_sent_raises() -> None:
    """A bus refuses in its answer."""
    with pytest.raises(CallFailedError, match="Throttled"):
        PublicationSender.bus("busy", client=RecordingService()).publish("a", "x")
    with pytest.raises(CallFailedError, match="could not be sent"):
        PublicationSender.topic("absent", RecordingService()).publish("a", "x")


def test_client_imports_no_packages_but_boto3_and_msgspec() -> None:
    """It is imported by users' functions, for which an import is time at each cold start."""
    code = "import sys, botocore.exceptions, msgspec; before = set(sys.modules); import fluvial.lambda_client; "
    code += "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fluvial"]


@pytest.mark.slow
def test_import_of_the_client_takes_milliseconds() -> None:
    """Beyond that of boto3's errors and msgspec, which Lambda's own runtime or the layer has."""
    code = "import sys, time, botocore.exceptions, msgspec; begun = time.perf_counter(); import fluvial.lambda_client; "
    code += "print(time.perf_counter() - begun)"
    command = [sys.executable, "-c", code]
    times = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
    assert min(times) < 0.1
