"""Each function may do what it does, and nothing else: its calls, recorded, against its policy in the template."""

import asyncio
import json
import random
from base64 import b64encode
from dataclasses import replace
from fnmatch import fnmatchcase
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from aws_lambda_powertools.utilities.parameters.secrets import SecretsProvider
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from fluvial.app import build_application
from fluvial.aws.websocket_broadcast import BroadcastLimits
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.fanout.limits import FanOutLimits
from fluvial.model.followers import Follower
from fluvial.model.head import Head
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.offset import offset_token
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.settings import Settings
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table.keys import head_key
from tests.aws_local.environments import Context
from tests.aws_local.template import load_template
from tests.functions.conftest import ImportHandler
from tests.functions.samples import event
from tests.support.access import OPERATOR_SECRET, SECRET, token
from tests.support.commands import close_commit, create_commit, delete_commit
from tests.support.estuaries import own_process
from tests.support.lambda_service import LambdaService
from tests.support.network import Body, Network
from tests.support.rigs import DynamoDbRig

pytestmark = pytest.mark.medium

RICH = StreamName("news/rich")

VerifiedToken = tuple[str, str]

#: Statements that Lambda itself uses in the function's name; the function makes no such call.
OF_LAMBDA = {"ReceivePublications", "ReceiveDeliveries", "ReadChangeFeed", "SendDeadLetters"}

#: A permission that S3 checks before it answers 404 for a missing object; no call needs it by itself.
OF_S3 = {"DetectMissingObjects"}

#: Operations whose permission has another name.
#: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
S3_ACTIONS = {"HeadObject": "GetObject", "ListObjectsV2": "ListBucket"}

TRANSACTED = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


def granted(function: str) -> set[VerifiedToken]:
    """The pairs of action and resource in a function's policy."""
    properties = load_template()["Resources"][function]["Properties"]
    found = set()
    for policy in properties["Policies"]:
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow"
            if statement["Sid"] in OF_LAMBDA | OF_S3:
                continue
            actions, resources = statement["Action"], statement["Resource"]
            for action in listed(actions):
                for resource in resources if isinstance(resources, list) else [resources]:
                    found.add((action, spelt(resource)))
    return found


def listed(actions: str | list[str]) -> list[str]:
    """A statement's actions, of which there may be one."""
    return [actions] if isinstance(actions, str) else actions


def spelt(resource: dict[str, Any]) -> str:
    """A resource of the template in short: its name there, or a pattern of keys in the bucket."""
    if "Fn::GetAtt" in resource:
        name, attribute = resource["Fn::GetAtt"]
        assert attribute == "Arn"
        return str(name)
    if "Ref" in resource:
        return str(resource["Ref"])
    text = str(resource["Fn::Sub"])
    if text.startswith("${StreamTable.Arn}"):
        return text.replace("${StreamTable.Arn}", "StreamTable")
    if "execute-api" in text:
        return "SocketApi"
    assert text.startswith("${SegmentBucket.Arn}/"), text
    return text.replace("${SegmentBucket.Arn}", "bucket")


class OpenCalls:
    """What a function asks of AWS."""

    def __init__(self, module: ModuleType | SimpleNamespace) -> None:
        """Record every call of the module's store."""
        self.made: set[VerifiedToken] = set()
        aws = module.store._aws
        others = [module.queue._client, module.broadcaster._client] if hasattr(module, "queue") else []
        for client in (aws.writes, aws.reads, aws.objects, *others):
            client.meta.events.register("provide-client-params.*", self._record)

    def _record(self, params: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401  botocore's own
        if model.service_model.service_name == "s3":
            resource = f"bucket/{params['Key']}" if "Key" in params else "SegmentBucket"
            self.made.add((f"s3:{S3_ACTIONS.get(model.name, model.name)}", resource))
        elif model.service_model.service_name == "sqs":
            self.made.add(("sqs:SendMessage", "FanoutQueue"))  # what a batch needs, too
        elif model.service_model.service_name == "apigatewaymanagementapi":
            self.made.add(("execute-api:ManageConnections", "SocketApi"))
        elif model.name == "TransactWriteItems":
            for action in params["TransactItems"]:
                self.made |= {(f"dynamodb:{TRANSACTED[kind]}", "StreamTable") for kind in action}
        else:
            resource = f"StreamTable/index/{params['IndexName']}" if "IndexName" in params else "StreamTable"
            self.made.add((f"dynamodb:{model.name}", resource))

    def watch_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Record what Powertools asks Secrets Manager."""
        get = SecretsProvider._get

        def recorded(provider: SecretsProvider, name: str, **options: object) -> str | bytes:
            self.made.add(("secretsmanager:GetSecretValue", "OperatorSecret"))
            return get(provider, name, **options)

        monkeypatch.setattr(SecretsProvider, "_get", recorded)

    def assert_are(self, grants: set[VerifiedToken]) -> None:
        """All that was done is allowed, and all that is allowed was done."""
        for call in self.made:
            assert any(matches(grant, call) for grant in grants), f"{call} is missing"
        for grant in grants:
            assert any(matches(grant, call) for call in self.made), f"{grant} is not used"


def matches(grant: VerifiedToken, call: VerifiedToken) -> bool:
    """Whether a grant allows a call."""
    return grant[0] == call[0] and fnmatchcase(call[1], grant[1])


def http(
    module: ModuleType, method: str, path: str, body: bytes = b"", *, refused: bool = False, **headers: str
) -> dict[str, Any]:
    """One request to the edge function."""
    asked = {**event("edge_head"), "httpMethod": method, "path": path if path[0] == "/" else f"/v1/stream/{path}"}
    asked["multiValueHeaders"] = {name.replace("_", "-"): [value] for name, value in headers.items()}
    asked |= {"body": b64encode(body).decode(), "isBase64Encoded": bool(body)}
    answer: dict[str, Any] = module.handler(asked, Context("edge", "request"))
    assert (answer["statusCode"] >= 300) is refused, answer
    return answer


def test_the_edge_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Create, append small and large, spill, read from every place, fork, delete."""
    module = import_handler("edge")
    calls, octets = OpenCalls(module), "application/octet-stream"
    http(module, "PUT", "new", content_type=octets)
    for _ in range(12):
        http(module, "POST", "new", b"x" * 100, content_type=octets)
    asyncio.get_event_loop().run_until_complete(_rotated(rig, "new"))
    http(module, "POST", "new", b"x" * 1_000, content_type=octets)
    http(module, "POST", "new", b"x" * 400_000, content_type=octets)
    http(module, "GET", "new")
    http(module, "POST", "nothing", b"x" * 400_000, refused=True, content_type=octets)
    http(module, "PUT", "fork", content_type=octets, stream_forked_from="/v1/stream/new")
    http(module, "DELETE", "fork")
    session, as_json = json.dumps({"estuaryId": "session"}).encode(), "application/json"
    http(module, "POST", "/v1/estuary/subscribe/news/source", session, content_type=as_json)
    http(module, "DELETE", "/v1/estuary/subscribe/news/source", session, content_type=as_json)
    calls.watch_secrets(monkeypatch)
    operator = f"Bearer {token(Scope.MANAGE, OPERATOR_SECRET, OPERATOR, exp=2**32)}"
    http(module, "GET", "/v1/streams", authorization=operator)
    wanted = json.dumps({"name": "shop", "secret": SECRET.value, "cutOff": True}).encode()
    http(module, "POST", "/v1/projects", wanted, content_type=as_json, authorization=operator)
    http(module, "GET", "/v1/projects/shop/streams", authorization=operator)
    calls.assert_are(granted("EdgeFunction"))


async def _rich_source(rig: DynamoDbRig) -> Head:
    """A stream with bytes in every place, and nothing delivered to its followers: one is gone, one takes no more."""
    octets = "application/octet-stream"
    async with own_process(rig) as process:
        await process.make_source(RICH, octets)
        for name in ("news/kept", "news/gone", "news/closed"):
            await process.follow(name, RICH)
        await process.store.apply(StreamName("news/gone"), delete_commit())
        await process.store.apply(StreamName("news/closed"), close_commit())
        for _ in range(12):
            await process.append(b"x" * 100, RICH, octets)
        assert isinstance(process.store, DynamoDbStore)
        await process.store.rotate(RICH)
        await process.append(b"x" * 1_000, RICH, octets)
        return await process.append(b"x" * 400_000, RICH, octets)


def rich_source(rig: DynamoDbRig) -> Head:
    """Made by a process of its own."""
    with asyncio.Runner() as runner:
        return runner.run(_rich_source(rig))


def test_the_subscription_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Append by the append function, and deliver what is anywhere, however large."""
    rich_source(rig)
    module = import_handler("subscription")
    calls, service = OpenCalls(module), LambdaService(import_handler("append"))

    class Appender:
        def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803  boto3's own names
            calls.made.add(("lambda:InvokeFunction", "AppendFunction"))
            return service.invoke(FunctionName=FunctionName, Payload=Payload)

    module.appender._client = Appender()
    for _ in range(2):
        asked = {"stream": RICH, "payload": "y" * 1_000, "contentType": "application/octet-stream"}
        answer = module.handler(asked, Context("subscription", "request"))
        assert answer["fanout"]["failures"] == 0
    calls.assert_are(granted("SubscriptionFunction"))


def test_the_fan_out_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliver what is anywhere, however large, to whoever is still there."""
    head = rich_source(rig)
    module = import_handler("fanout")
    calls = OpenCalls(module)
    with asyncio.Runner() as runner:
        followers = runner.run(_followers(rig, head))
    for _ in range(2):
        message = {"stream": RICH, "incarnation": head.incarnation, "followers": followers}
        record = {"messageId": "1", "body": msgspec.json.encode(message).decode()}
        assert module.handler({"Records": [record]}, Context("fanout", "request")) == {"batchItemFailures": []}
        octets = "application/octet-stream"
        import_handler("append").handler(
            {"stream": RICH, "payload": "y" * 1_000, "contentType": octets}, Context("append", "request")
        )
    calls.assert_are(granted("FanoutFunction"))


def gone(request: AWSPreparedRequest, **_: object) -> AWSResponse:
    """API Gateway's answer for a connection that is not there."""
    return AWSResponse(request.url, 410, HTTPHeaders(), Body(b"{}"))


def test_the_changes_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliver, queue deliveries, rotate, and collect what has ended."""
    rich_source(rig)
    module = import_handler("changes")
    module.broadcaster.limits = BroadcastLimits(busy_pause_s=0.001)
    module.broadcaster._client.meta.events.register("before-send.*", gone)
    calls, append = OpenCalls(module), import_handler("append").handler
    connect = {**event("sockets_connect"), "multiValueQueryStringParameters": {"stream": [RICH], "offset": ["-1"]}}
    assert import_handler("sockets").handler(connect, Context("sockets", "request"))["statusCode"] == 200

    def follow_up(*records: dict[str, Any]) -> None:
        numbered = [{**one, "SequenceNumber": str(number)} for number, one in enumerate(records)]
        wrapped = [{"eventSource": "aws:dynamodb", "eventName": "MODIFY", "dynamodb": one} for one in numbered]
        assert module.handler({"Records": wrapped}, Context("changes", "request")) == {"batchItemFailures": []}

    def change() -> dict[str, Any]:
        item = rig.client.get_item(TableName=rig.config.table, Key=head_key(RICH))["Item"]
        image = json.loads(json.dumps(item, default=lambda data: b64encode(data).decode()))
        return {"Keys": head_key(RICH), "OldImage": {**image, "n": {"N": "0"}}, "NewImage": image}

    follow_up(change())
    octets = "application/octet-stream"
    for size in (1_000, 100, 400_000, 100):
        asked = {"stream": RICH, "payload": "y" * size, "contentType": octets}
        assert "error" not in append(asked, Context("append", "request"))
    append({"stream": RICH, "close": True}, Context("append", "request"))
    follow_up(change())
    module.feed._publisher.limits = FanOutLimits(inline_subscribers_max=0)
    rig.client.update_item(
        TableName=rig.config.table,
        Key=head_key(RICH),
        UpdateExpression="SET dl = :none",
        ExpressionAttributeValues={":none": {"N": "0"}},
    )
    last = change()
    follow_up(last)
    follow_up({"Keys": head_key(RICH), "OldImage": last["NewImage"]})
    calls.assert_are(granted("ChangesFunction"))


def test_the_sockets_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Note connections at any offset, forget them, and renew what they read."""
    head = rich_source(rig)
    with asyncio.Runner() as runner:
        runner.run(_renewed_later(rig))
    module = import_handler("sockets")
    calls = OpenCalls(module)
    monkeypatch.setattr(module.sockets, "_clock", replace(module.clock, now_ms=lambda: rig.still.time.now_ms))
    tokens = [offset_token(head, position) for position in (100, head.tail - 401_000, head.tail - 400_000)]
    for stream, offset in (*((RICH, one) for one in tokens), ("renewed", "-1")):
        query = {"stream": [stream], "offset": [offset]}
        for name in ("connect", "disconnect"):
            asked = {**event(f"sockets_{name}"), "multiValueQueryStringParameters": query}
            assert module.handler(asked, Context("sockets", "request"))["statusCode"] == 200
    calls.assert_are(granted("SocketsFunction"))


def test_the_live_function_may_do_what_it_does(rig: DynamoDbRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what is anywhere, and renew what is read; nothing else is let through."""
    rich_source(rig)

    async def read() -> OpenCalls:
        await _renewed_later(rig)
        async with own_process(rig) as process:
            calls = OpenCalls(SimpleNamespace(store=process.store))
            settings = Settings(read_only=True)
            application = build_application(settings, process.store, process.clock, ChangeFeedBacklog(process.store))
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://live/v1/stream/") as client:
                assert (await client.get(RICH)).status_code == 200
                assert (await client.get("renewed")).status_code == 200
                assert (await client.put("new")).status_code == 405
                assert (await client.post("/v1/estuary/news/a/touch")).status_code == 405
            return calls

    with asyncio.Runner() as runner:
        runner.run(read()).assert_are(granted("LiveFunction"))


async def _renewed_later(rig: DynamoDbRig) -> None:
    """A stream whose next read renews it."""
    async with own_process(rig) as process:
        commit = create_commit(process.clock.new_incarnation(), lifetime=SlidingTtl(100))
        await process.store.apply(StreamName("renewed"), commit)
    rig.still.time.advance(50_000)


async def _followers(rig: DynamoDbRig, head: Head) -> list[Follower]:
    async with own_process(rig) as process:
        return await process.store.followers(head.incarnation, "", 9)


async def _rotated(rig: DynamoDbRig, name: str) -> None:
    """Let the change feed's work be done, by a store of its own."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        await process.store.rotate(StreamName(name))


def test_the_append_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Append small and large, with more producers than the head holds, and look for what was lost."""
    module = import_handler("append")
    calls = OpenCalls(module)

    def append(**asked: object) -> None:
        answer = module.handler({"stream": "demo", **asked}, Context("append", "request"))
        assert "error" not in answer, answer

    for number in range(20):
        append(payload=[number] * 60, producer={"id": f"writer-{number}", "epoch": 0, "seq": 0})
    append(payload=[7], producer={"id": "writer-0", "epoch": 0, "seq": 1})
    append(payload=["x" * 400_000])
    for size in (1_000, 400_000):
        refused = module.handler({"stream": "nothing", "payload": ["x" * size]}, Context("append", "request"))
        assert refused["error"]["code"] == "STREAM_NOT_FOUND"
    module.runner.run(_rotated(rig, "demo"))
    network = Network(random.Random(1), request_lost=1.0)
    network.attach(module.store)
    module.store._heads._items.clear()
    lost = iter([1.0])
    monkeypatch.setattr(network.rng, "random", lambda: 0.0 if next(lost, None) else 1.0)
    append(payload=["found out"])
    assert network.seen["request lost"] == 1
    calls.assert_are(granted("AppendFunction"))


def test_the_sweep_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End what has expired, and delete what is left of a stream that nobody collected."""

    async def leave_behind() -> None:
        await _rich_source(rig)
        async with own_process(rig) as process:
            await process.store.apply(RICH, delete_commit())
            await process.store.apply(StreamName("short"), create_commit(incarnation=77, lifetime=SlidingTtl(1)))
            await process.make_source(StreamName("kept"))
            await process.append(b"x" * 1_000, StreamName("kept"))

    with asyncio.Runner() as runner:
        runner.run(leave_behind())
    module = import_handler("sweep")
    rig.still.time.advance(2 * 86_400_000)
    monkeypatch.setattr(module.store, "_clock", rig.still.own_clock())
    calls = OpenCalls(module)
    report = module.handler({}, Context("sweep", "request"))
    assert report["isComplete"] is True
    assert module.handler({}, BusyContext("sweep", "request"))["isComplete"] is False
    calls.assert_are(granted("SweepFunction"))


class BusyContext(Context):
    """Has no time left after a look at it."""

    def __init__(self, function_name: str, request_id: str) -> None:
        """Time for one page."""
        super().__init__(function_name, request_id)
        self._remaining = iter([900_000])

    def get_remaining_time_in_millis(self) -> int:
        """Enough, and then nothing."""
        return next(self._remaining, 0)


def test_functions_that_read_objects_are_told_when_one_is_missing() -> None:
    """Without s3:ListBucket they would take what rotation has moved for a denial."""
    for name, resource in load_template()["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        [policy] = resource["Properties"]["Policies"]
        actions = {action for one in policy["Statement"] for action in listed(one["Action"])}
        assert "s3:GetObject" not in actions or "s3:ListBucket" in actions, name


def test_the_bucket_takes_no_plain_http() -> None:
    """And is private and encrypted."""
    resources = load_template()["Resources"]
    [statement] = resources["SegmentBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert all(resources["SegmentBucket"]["Properties"]["PublicAccessBlockConfiguration"].values())
    assert json.dumps(resources["SegmentBucket"]["Properties"]["BucketEncryption"]).count("AES256") == 1
