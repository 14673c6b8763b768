"""Least privilege: each function's policy in the template allows the calls to AWS that it makes, and no others.

The tests record a function's calls while it does all that it can do, and compare them with its policy.
"""

import asyncio
import json
import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import httpx
import msgspec
import pytest
from aws_lambda_powertools.utilities.parameters.secrets import SecretsProvider
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from fluvial.app import build_application
from fluvial.aws.reader_concurrency import Reservation, reserve
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
from fluvial.storage.dynamodb.bucket_owner import OWNER_KEY
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table.keys import connection_key, head_key
from tests.aws_local.environments import Context
from tests.aws_local.template import load_properties, load_template
from tests.functions.conftest import ImportHandler
from tests.functions.samples import event
from tests.support.access import OPERATOR_SECRET, SECRET, token
from tests.support.commands import close_commit, create_commit, delete_commit
from tests.support.estuaries import own_process
from tests.support.lambda_account import LambdaAccount
from tests.support.lambda_service import LambdaService
from tests.support.network import Body, Network
from tests.support.rigs import REGION, DynamoDbRig

pytestmark = pytest.mark.medium

FUNCTION = "AWS::Serverless::Function"
RICH = StreamName("news/rich")

#: An action and a resource that a policy allows, or that a call used.
Grant = tuple[str, str]

#: Statements that Lambda itself uses in the function's name; the function makes no such call.
OF_LAMBDA = {"ReceivePublications", "ReceiveDeliveries", "ReadChangeFeed", "SendDeadLetters"}

#: A permission that S3 checks before it answers 404 for a missing object; no call needs it by itself.
OF_S3 = {"DetectMissingObjects"}

#: Operations whose permission has another name.
#: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
S3_ACTIONS = {"HeadObject": "GetObject", "ListObjectsV2": "ListBucket"}

TRANSACTED = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


def load_grants(function: str) -> set[Grant]:
    """The grants of a function's policy, but for those that only Lambda or S3 itself uses."""
    found = set()
    for policy in load_properties(FUNCTION)[function]["Policies"]:
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow"
            if statement["Sid"] in OF_LAMBDA | OF_S3:
                continue
            for action in as_list(statement["Action"]):
                found |= {(action, resource_name(resource)) for resource in as_list(statement["Resource"])}
    return found


def as_list(value: Any) -> list[Any]:  # noqa: ANN401  the template's own types
    """A statement's actions or resources, which are not a list if there is one."""
    return value if isinstance(value, list) else [value]


def resource_name(resource: Any) -> str:  # noqa: ANN401  the template's own types
    """A short name of a resource: its name in the template, or a pattern of keys in the bucket."""
    if "Fn::If" in resource:
        condition, own, _existing = resource["Fn::If"]
        assert condition in {"HasOwnTable", "HasOwnBucket"}
        return resource_name(own)
    if resource == "*":
        return "*"
    if "Fn::GetAtt" in resource:
        name, attribute = resource["Fn::GetAtt"]
        assert attribute == "Arn"
        return str(name)
    if "Ref" in resource:
        return str(resource["Ref"])
    if isinstance(resource["Fn::Sub"], list):
        text, variables = resource["Fn::Sub"]
        name = resource_name(variables["Arn"])
        return str(text).replace("${Arn}", "bucket" if name == "SegmentBucket" else name)
    text = str(resource["Fn::Sub"])
    assert "execute-api" in text, text
    return "SocketApi"


class CallRecorder:
    """Records the calls that a function makes to AWS."""

    def __init__(self, module: ModuleType | SimpleNamespace) -> None:
        """Record every call of the clients of the module's store, queue and broadcaster."""
        self.calls: set[Grant] = set()
        aws = module.store._aws
        others = [module.queue._client, module.broadcaster._client] if hasattr(module, "queue") else []
        for client in (aws.writes, aws.reads, aws.objects, *others):
            client.meta.events.register("provide-client-params.*", self._record)

    def _record(self, params: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401  botocore's own
        if model.service_model.service_name == "s3":
            resource = f"bucket/{params['Key']}" if "Key" in params else "SegmentBucket"
            self.calls.add((f"s3:{S3_ACTIONS.get(model.name, model.name)}", resource))
        elif model.service_model.service_name == "sqs":
            self.calls.add(("sqs:SendMessage", "FanoutQueue"))  # SendMessageBatch needs this permission, too
        elif model.service_model.service_name == "apigatewaymanagementapi":
            self.calls.add(("execute-api:ManageConnections", "SocketApi"))
        elif model.name == "TransactWriteItems":
            for action in params["TransactItems"]:
                self.calls |= {(f"dynamodb:{TRANSACTED[kind]}", "StreamTable") for kind in action}
        else:
            resource = f"StreamTable/index/{params['IndexName']}" if "IndexName" in params else "StreamTable"
            self.calls.add((f"dynamodb:{model.name}", resource))

    def record_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Record the calls of Powertools to Secrets Manager as well."""
        get = SecretsProvider._get

        def get_and_record(provider: SecretsProvider, name: str, **options: object) -> str | bytes:
            self.calls.add(("secretsmanager:GetSecretValue", "OperatorSecret"))
            return get(provider, name, **options)

        monkeypatch.setattr(SecretsProvider, "_get", get_and_record)

    def assert_match(self, grants: set[Grant]) -> None:
        """Assert that a grant allows each call, and that a call used each grant."""
        for call in self.calls:
            assert any(matches(grant, call) for grant in grants), f"the policy lacks {call}"
        for grant in grants:
            assert any(matches(grant, call) for call in self.calls), f"no call needs {grant}"


def matches(grant: Grant, call: Grant) -> bool:
    """Whether a grant allows a call."""
    return grant[0] == call[0] and fnmatchcase(call[1], grant[1])


def send(
    module: ModuleType, method: str, path: str, body: bytes = b"", *, is_error: bool = False, **headers: str
) -> dict[str, Any]:
    """Send one request to the edge function, and assert that its answer is or is not an error."""
    request = {**event("edge_head"), "httpMethod": method, "path": path if path[0] == "/" else f"/v1/stream/{path}"}
    request["multiValueHeaders"] = {name.replace("_", "-"): [value] for name, value in headers.items()}
    request |= {"body": b64encode(body).decode(), "isBase64Encoded": bool(body)}
    answer: dict[str, Any] = module.handler(request, Context("edge", "request"))
    assert (answer["statusCode"] >= 300) is is_error, answer
    return answer


def test_edge_function_policy_allows_exactly_its_calls(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It creates, appends, spills, reads from every place, forks, deletes, and manages projects."""
    module = import_handler("edge")
    recorder, octets = CallRecorder(module), "application/octet-stream"
    send(module, "PUT", "new", content_type=octets)
    for _ in range(12):
        send(module, "POST", "new", b"x" * 100, content_type=octets)
    asyncio.get_event_loop().run_until_complete(_rotate(rig, "new"))
    send(module, "POST", "new", b"x" * 1_000, content_type=octets)
    send(module, "POST", "new", b"x" * 400_000, content_type=octets)
    send(module, "GET", "new")
    send(module, "POST", "nothing", b"x" * 400_000, is_error=True, content_type=octets)
    send(module, "PUT", "fork", content_type=octets, stream_forked_from="/v1/stream/new")
    send(module, "DELETE", "fork")
    session, as_json = json.dumps({"estuaryId": "session"}).encode(), "application/json"
    send(module, "POST", "/v1/estuary/subscribe/news/source", session, content_type=as_json)
    send(module, "DELETE", "/v1/estuary/subscribe/news/source", session, content_type=as_json)
    recorder.record_secrets(monkeypatch)
    operator = f"Bearer {token(Scope.MANAGE, OPERATOR_SECRET, OPERATOR, exp=2**32)}"
    send(module, "GET", "/v1/streams", authorization=operator)
    project = json.dumps({"name": "shop", "secret": SECRET.value, "cutOff": True}).encode()
    send(module, "POST", "/v1/projects", project, content_type=as_json, authorization=operator)
    send(module, "GET", "/v1/projects/shop/streams", authorization=operator)
    recorder.assert_match(load_grants("EdgeFunction"))


async def _make_rich_source(rig: DynamoDbRig) -> Head:
    """Make a stream with bytes in every place, whose followers lack all of them; one is deleted, and one is closed."""
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


def make_rich_source(rig: DynamoDbRig) -> Head:
    """Make it by another store, so that the function's own caches are empty."""
    with asyncio.Runner() as runner:
        return runner.run(_make_rich_source(rig))


def disown_bucket(rig: DynamoDbRig) -> None:
    """Leave the bucket without an owner, so that the function claims it."""
    boto3.client("s3", region_name=REGION).delete_object(Bucket=rig.config.bucket, Key=OWNER_KEY)


def test_subscription_function_policy_allows_exactly_its_calls(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appends by the append function, and delivers bytes of any place and size."""
    make_rich_source(rig)
    module = import_handler("subscription")
    recorder, service = CallRecorder(module), LambdaService(import_handler("append"))

    class Appender:
        def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803  boto3's own names
            recorder.calls.add(("lambda:InvokeFunction", "AppendFunction"))
            return service.invoke(FunctionName=FunctionName, Payload=Payload)

    module.appender._client = Appender()
    for _ in range(2):
        asked = {"stream": RICH, "payload": "y" * 1_000, "contentType": "application/octet-stream"}
        answer = module.handler(asked, Context("subscription", "request"))
        assert answer["fanout"]["failures"] == 0
    recorder.assert_match(load_grants("SubscriptionFunction"))


def test_fan_out_function_policy_allows_exactly_its_calls(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It delivers bytes of any place and size to the followers that still exist."""
    head = make_rich_source(rig)
    module = import_handler("fanout")
    recorder = CallRecorder(module)
    with asyncio.Runner() as runner:
        followers = runner.run(_load_followers(rig, head))
    for _ in range(2):
        message = {"stream": RICH, "incarnation": head.incarnation, "followers": followers}
        record = {"messageId": "1", "body": msgspec.json.encode(message).decode()}
        assert module.handler({"Records": [record]}, Context("fanout", "request")) == {"batchItemFailures": []}
        octets = "application/octet-stream"
        import_handler("append").handler(
            {"stream": RICH, "payload": "y" * 1_000, "contentType": octets}, Context("append", "request")
        )
    recorder.assert_match(load_grants("FanoutFunction"))


def answer_gone(request: AWSPreparedRequest, **_: object) -> AWSResponse:
    """API Gateway's answer for a connection that has ended."""
    return AWSResponse(request.url, 410, HTTPHeaders(), Body(b"{}"))


def test_changes_function_policy_allows_exactly_its_calls(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It delivers, queues deliveries, rotates, sends to connections, and collects garbage."""
    make_rich_source(rig)
    disown_bucket(rig)
    module = import_handler("changes")
    module.broadcaster.limits = BroadcastLimits(busy_pause_s=0.001)
    module.broadcaster._client.meta.events.register("before-send.*", answer_gone)
    recorder, append = CallRecorder(module), import_handler("append").handler
    connect = {**event("sockets_connect"), "multiValueQueryStringParameters": {"stream": [RICH], "offset": ["-1"]}}
    assert import_handler("sockets").handler(connect, Context("sockets", "request"))["statusCode"] == 200

    def process(record: dict[str, Any], kind: str = "MODIFY") -> None:
        numbered = {**record, "SequenceNumber": "1"}
        wrapped = [{"eventSource": "aws:dynamodb", "eventName": kind, "dynamodb": numbered}]
        assert module.handler({"Records": wrapped}, Context("changes", "request")) == {"batchItemFailures": []}

    def change() -> dict[str, Any]:
        item = rig.client.get_item(TableName=rig.config.table, Key=head_key(RICH))["Item"]
        image = json.loads(json.dumps(item, default=lambda data: b64encode(data).decode()))
        return {"Keys": head_key(RICH), "OldImage": {**image, "n": {"N": "0"}}, "NewImage": image}

    process({"Keys": connection_key(RICH, connect["requestContext"]["connectionId"])}, "INSERT")
    process(change())
    octets = "application/octet-stream"
    for size in (1_000, 100, 400_000, 100):
        asked = {"stream": RICH, "payload": "y" * size, "contentType": octets}
        assert "error" not in append(asked, Context("append", "request"))
    append({"stream": RICH, "close": True}, Context("append", "request"))
    process(change())
    module.feed._deliveries.limits = FanOutLimits(inline_subscribers_max=0)
    rig.client.update_item(
        TableName=rig.config.table,
        Key=head_key(RICH),
        UpdateExpression="SET dl = :none",
        ExpressionAttributeValues={":none": {"N": "0"}},
    )
    last = change()
    process(last)
    process({"Keys": head_key(RICH), "OldImage": last["NewImage"]})
    recorder.assert_match(load_grants("ChangesFunction"))


def test_sockets_function_policy_allows_exactly_its_calls(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stores connections at any offset, deletes them, and renews the streams that they read."""
    head = make_rich_source(rig)
    with asyncio.Runner() as runner:
        runner.run(_make_renewable(rig))
    module = import_handler("sockets")
    recorder = CallRecorder(module)
    monkeypatch.setattr(module.sockets, "_clock", replace(module.clock, now_ms=lambda: rig.still.time.now_ms))
    tokens = [offset_token(head, position) for position in (100, head.tail - 401_000, head.tail - 400_000)]
    for stream, offset in (*((RICH, one) for one in tokens), ("renewed", "-1")):
        query = {"stream": [stream], "offset": [offset]}
        for name in ("connect", "disconnect"):
            asked = {**event(f"sockets_{name}"), "multiValueQueryStringParameters": query}
            assert module.handler(asked, Context("sockets", "request"))["statusCode"] == 200
    recorder.assert_match(load_grants("SocketsFunction"))


def test_live_function_policy_allows_exactly_its_calls(rig: DynamoDbRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads bytes of any place, and renews the streams that it reads; it rejects every other method."""
    make_rich_source(rig)

    async def read() -> CallRecorder:
        await _make_renewable(rig)
        async with own_process(rig) as process:
            recorder = CallRecorder(SimpleNamespace(store=process.store))
            settings = Settings(read_only=True)
            application = build_application(settings, process.store, process.clock, ChangeFeedBacklog(process.store))
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://live/v1/stream/") as client:
                assert (await client.get(RICH)).status_code == 200
                assert (await client.get("renewed")).status_code == 200
                assert (await client.put("new")).status_code == 405
                assert (await client.post("/v1/estuary/news/a/touch")).status_code == 405
            return recorder

    with asyncio.Runner() as runner:
        runner.run(read()).assert_match(load_grants("LiveFunction"))


async def _make_renewable(rig: DynamoDbRig) -> None:
    """Make a stream whose next read renews it."""
    async with own_process(rig) as process:
        commit = create_commit(process.clock.new_incarnation(), lifetime=SlidingTtl(100))
        await process.store.apply(StreamName("renewed"), commit)
    rig.still.time.advance(50_000)


async def _load_followers(rig: DynamoDbRig, head: Head) -> list[Follower]:
    async with own_process(rig) as process:
        return await process.store.followers(head.incarnation, "", 9)


async def _rotate(rig: DynamoDbRig, name: str) -> None:
    """Rotate a stream as the changes function does, by another store."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        await process.store.rotate(StreamName(name))


def test_append_function_policy_allows_exactly_its_calls(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appends small and large batches of more producers than the head holds, and resolves a write in doubt."""
    module = import_handler("append")
    recorder = CallRecorder(module)

    def append(**fields: object) -> None:
        answer = module.handler({"stream": "demo", **fields}, Context("append", "request"))
        assert "error" not in answer, answer

    for number in range(20):
        append(payload=[number] * 60, producer={"id": f"writer-{number}", "epoch": 0, "seq": 0})
    append(payload=[7], producer={"id": "writer-0", "epoch": 0, "seq": 1})
    append(payload=["x" * 400_000])
    for size in (1_000, 400_000):
        rejected = module.handler({"stream": "nothing", "payload": ["x" * size]}, Context("append", "request"))
        assert rejected["error"]["code"] == "STREAM_NOT_FOUND"
    module.runner.run(_rotate(rig, "demo"))
    network = Network(random.Random(1), request_lost=1.0)
    network.attach(module.store)
    module.store._heads._items.clear()
    lost = iter([1.0])
    monkeypatch.setattr(network.rng, "random", lambda: 0.0 if next(lost, None) else 1.0)
    append(payload=["in doubt"])
    assert network.seen["request lost"] == 1
    recorder.assert_match(load_grants("AppendFunction"))


def test_sweep_function_policy_allows_exactly_its_calls(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends expired streams, and deletes the data of an ended stream that no garbage collection deleted."""

    async def leave_garbage() -> None:
        await _make_rich_source(rig)
        async with own_process(rig) as process:
            await process.store.apply(RICH, delete_commit())
            await process.store.apply(StreamName("short"), create_commit(incarnation=77, lifetime=SlidingTtl(1)))
            await process.make_source(StreamName("kept"))
            await process.append(b"x" * 1_000, StreamName("kept"))

    with asyncio.Runner() as runner:
        runner.run(leave_garbage())
    disown_bucket(rig)
    module = import_handler("sweep")
    rig.still.time.advance(2 * 86_400_000)
    monkeypatch.setattr(module.store, "_clock", rig.still.own_clock())
    recorder = CallRecorder(module)
    report = module.handler({}, Context("sweep", "request"))
    assert report["isComplete"] is True
    assert module.handler({}, BusyContext("sweep", "request"))["isComplete"] is False
    recorder.assert_match(load_grants("SweepFunction"))


def test_concurrency_function_policy_allows_exactly_its_calls() -> None:
    """It reserves, and ends a reservation; the account's settings are no resource."""
    account = LambdaAccount(1_000)
    for reservation in (Reservation.AUTO, Reservation.NONE):
        reserve(account.client(), "live", reservation)
    calls = {(f"lambda:{name}", "*" if name == "GetAccountSettings" else "LiveFunction") for name in account.operations}
    assert calls == load_grants("ConcurrencyFunction")


class BusyContext(Context):
    """The context of an invocation that has time for one page."""

    def __init__(self, function_name: str, request_id: str) -> None:
        """The first question for the remaining time gets all of it, and later ones none."""
        super().__init__(function_name, request_id)
        self._remaining = iter([900_000])

    def get_remaining_time_in_millis(self) -> int:
        """15 minutes at first, then nothing."""
        return next(self._remaining, 0)


def test_functions_that_read_objects_may_list_the_bucket() -> None:
    """Without s3:ListBucket, S3 answers 403 for an object that rotation has moved, and not 404."""
    for name, properties in load_properties(FUNCTION).items():
        [policy] = properties["Policies"]
        actions = {action for one in policy["Statement"] for action in as_list(one["Action"])}
        assert "s3:GetObject" not in actions or "s3:ListBucket" in actions, name


def test_deleted_objects_stay_as_versions_that_no_function_can_delete() -> None:
    """They stay as long as the table's point-in-time recovery reaches back, so that a restored table finds them."""
    bucket = load_properties("AWS::S3::Bucket")["SegmentBucket"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules["keep-deleted-objects"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 35}
    for function in load_properties(FUNCTION):
        actions = {action for action, _ in load_grants(function)}
        assert not {one for one in actions if one.startswith("s3:") and ("Version" in one or "*" in one)}, function


def test_existing_table_and_bucket_take_the_place_of_the_stack_s_own() -> None:
    """Functions, policies, event source, alarms and outputs then name them, and the stack makes none of its own."""
    template = load_template()
    own = {"StreamTable": "HasOwnTable", "SegmentBucket": "HasOwnBucket", "SegmentBucketPolicy": "HasOwnBucket"}
    assert {name: template["Resources"][name]["Condition"] for name in own} == own
    others = {name: part for name, part in template["Resources"].items() if name not in own}
    for part in (others, template["Outputs"], template["Globals"]):
        assert not list(find_own(part)), "it would name the stack's own table or bucket although there is none"


def find_own(part: object) -> Iterator[object]:
    """The texts that name the stack's own table or bucket, except in a choice between it and an existing one."""
    if isinstance(part, str) and ("StreamTable" in part or "SegmentBucket" in part):
        yield part
    if isinstance(part, dict) and part.get("Fn::If", [""])[0] in {"HasOwnTable", "HasOwnBucket"}:
        return
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for value in values:
        yield from find_own(value)


def test_bucket_is_private_and_encrypted_and_denies_plain_http() -> None:
    """The bucket policy denies every request without TLS."""
    resources = load_template()["Resources"]
    [statement] = resources["SegmentBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert all(resources["SegmentBucket"]["Properties"]["PublicAccessBlockConfiguration"].values())
    assert json.dumps(resources["SegmentBucket"]["Properties"]["BucketEncryption"]).count("AES256") == 1
