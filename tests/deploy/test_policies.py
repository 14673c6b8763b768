"""Each function may do what it does, and nothing else: its calls, recorded, against its policy in the template."""

import asyncio
import json
import random
from base64 import b64encode
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

import pytest

from fluvial.core.names import StreamName
from fluvial.stores.dynamodb.store import DynamoDbStore
from tests.aws_local.api_gateway import Context
from tests.aws_local.template import load_template
from tests.functions.conftest import ImportHandler
from tests.functions.samples import event
from tests.support.network import Network
from tests.support.rigs import DynamoDbRig

Grant = tuple[str, str]

TRANSACTED = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


def granted(function: str) -> set[Grant]:
    """The pairs of action and resource in a function's policy."""
    properties = load_template()["Resources"][function]["Properties"]
    found = set()
    for policy in properties["Policies"]:
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow"
            actions, resources = statement["Action"], statement["Resource"]
            for action in [actions] if isinstance(actions, str) else actions:
                for resource in resources if isinstance(resources, list) else [resources]:
                    found.add((action, spelt(resource)))
    return found


def spelt(resource: dict[str, Any]) -> str:
    """A resource of the template in short: the table, or a pattern of keys in the bucket."""
    if resource == {"Fn::GetAtt": ["StreamTable", "Arn"]}:
        return "table"
    text = str(resource["Fn::Sub"])
    assert text.startswith("${SegmentBucket.Arn}/"), text
    return text.replace("${SegmentBucket.Arn}", "bucket")


class Calls:
    """What a function asks of AWS."""

    def __init__(self, module: ModuleType) -> None:
        """Record every call of the module's store."""
        self.made: set[Grant] = set()
        aws = module.store._aws
        for client in (aws.writes, aws.reads, aws.objects):
            client.meta.events.register("provide-client-params.*", self._record)

    def _record(self, params: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401  botocore's own
        if model.service_model.service_name == "s3":
            self.made.add((f"s3:{model.name}", f"bucket/{params['Key']}"))
        elif model.name == "TransactWriteItems":
            for action in params["TransactItems"]:
                self.made |= {(f"dynamodb:{TRANSACTED[kind]}", "table") for kind in action}
        else:
            assert "IndexName" not in params
            self.made.add((f"dynamodb:{model.name}", "table"))

    def assert_are(self, grants: set[Grant]) -> None:
        """All that was done is allowed, and all that is allowed was done."""
        for call in self.made:
            assert any(matches(grant, call) for grant in grants), f"{call} is missing"
        for grant in grants:
            assert any(matches(grant, call) for call in self.made), f"{grant} is not used"


def matches(grant: Grant, call: Grant) -> bool:
    """Whether a grant allows a call."""
    return grant[0] == call[0] and fnmatchcase(call[1], grant[1])


def http(module: ModuleType, method: str, path: str, body: bytes = b"", **headers: str) -> dict[str, Any]:
    """One request to the edge function."""
    asked = {**event("edge_head"), "httpMethod": method, "path": f"/v1/stream/{path}"}
    asked["multiValueHeaders"] = {name.replace("_", "-"): [value] for name, value in headers.items()}
    asked |= {"body": b64encode(body).decode(), "isBase64Encoded": bool(body)}
    answer: dict[str, Any] = module.handler(asked, Context("edge", "request"))
    assert answer["statusCode"] < 300, answer
    return answer


def test_the_edge_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Create, append small and large, spill, read from every place, fork, delete."""
    monkeypatch.setattr("fluvial.stores.dynamodb.rotation.SEGMENT_BATCHES", 4)
    module = import_handler("edge")
    calls, octets = Calls(module), "application/octet-stream"
    http(module, "PUT", "new", content_type=octets)
    for _ in range(12):
        http(module, "POST", "new", b"x" * 100, content_type=octets)
    asyncio.get_event_loop().run_until_complete(_rotated(rig, "new"))
    http(module, "POST", "new", b"x" * 1_000, content_type=octets)
    http(module, "POST", "new", b"x" * 400_000, content_type=octets)
    http(module, "GET", "new")
    http(module, "PUT", "fork", content_type=octets, stream_forked_from="/v1/stream/new")
    http(module, "DELETE", "fork")
    calls.assert_are(granted("EdgeFunction"))


async def _rotated(rig: DynamoDbRig, name: str) -> None:
    """Let the change feed's work be done, by a store of its own."""
    store = DynamoDbStore(rig.config, rig.still.own_world())
    await store.rotate(StreamName(name))
    await store.close()


def test_the_append_function_may_do_what_it_does(
    rig: DynamoDbRig, import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Append small and large, with more producers than the head holds, and look for what was lost."""
    monkeypatch.setattr("fluvial.stores.dynamodb.rotation.SEGMENT_BATCHES", 4)
    module = import_handler("append")
    calls = Calls(module)

    def append(**asked: object) -> None:
        answer = module.handler({"stream": "demo", **asked}, Context("append", "request"))
        assert "error" not in answer, answer

    for number in range(20):
        append(payload=[number] * 60, producer={"id": f"writer-{number}", "epoch": 0, "seq": 0})
    append(payload=[7], producer={"id": "writer-0", "epoch": 0, "seq": 1})
    append(payload=["x" * 400_000])
    module.runner.run(_rotated(rig, "demo"))
    network = Network(random.Random(1), request_lost=1.0)
    network.attach(module.store)
    module.store._recent._items.clear()
    lost = iter([1.0])
    monkeypatch.setattr(network.rng, "random", lambda: 0.0 if next(lost, None) else 1.0)
    append(payload=["found out"])
    assert network.seen["request lost"] == 1
    calls.assert_are(granted("AppendFunction"))


def test_the_bucket_takes_no_plain_http() -> None:
    """And is private and encrypted."""
    resources = load_template()["Resources"]
    [statement] = resources["SegmentBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert all(resources["SegmentBucket"]["Properties"]["PublicAccessBlockConfiguration"].values())
    assert json.dumps(resources["SegmentBucket"]["Properties"]["BucketEncryption"]).count("AES256") == 1
