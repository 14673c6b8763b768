import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters import clear_caches

from fluvial import app
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from tests.support.access import OPERATOR_SECRET
from tests.support.commands import create_commit
from tests.support.estuaries import FanOutRig
from tests.support.rigs import REGION, DynamoDbRig, dynamodb_local_url, dynamodb_rig

FOLLOWED = StreamName("news/source")

ImportHandler = Callable[[str], ModuleType]


@pytest.fixture
def limits() -> StoreLimits:
    """The limits of the functions' stores."""
    return STORE_LIMITS


@pytest.fixture
def rig(limits: StoreLimits) -> Iterator[DynamoDbRig]:
    """AWS's own engine, with a stream of JSON, one of bytes, and one that an estuary (a fan-in stream) follows."""
    with asyncio.Runner() as runner:
        context = dynamodb_rig(dynamodb_local_url(), limits)
        opened = runner.run(context.__aenter__())
        for number, (name, content_type, body) in enumerate(
            [("demo", "application/json", b"[1,2]"), ("bytes", "application/octet-stream", b"\x00\xff")], 1
        ):
            commit = create_commit(incarnation=number, content_type=content_type, body=body)
            runner.run(opened.store.apply(name, commit))  # type: ignore[arg-type]
        runner.run(_make_followed_stream(FanOutRig(opened)))
        yield opened
        runner.run(context.__aexit__(None, None, None))


async def _make_followed_stream(rig: FanOutRig) -> None:
    commit = create_commit(incarnation=3, content_type="application/json")
    await rig.store.apply(FOLLOWED, commit)
    await rig.follow("news/a", FOLLOWED)


@pytest.fixture
def import_handler(rig: DynamoDbRig, limits: StoreLimits, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImportHandler]:
    """Imports a function's handler as a new environment of Lambda does."""
    monkeypatch.setattr(app, "build_function_store", partial(app.build_function_store, limits=limits))
    settings = {
        "AWS_DEFAULT_REGION": REGION,
        "FLUVIAL_TABLE": rig.config.table,
        "FLUVIAL_BUCKET": rig.config.bucket,
        "FLUVIAL_ENDPOINT_URL": rig.config.endpoints.dynamodb or "",
        "FLUVIAL_LONG_POLL_TIMEOUT": "0.1",
        "FLUVIAL_SSE_MAX_AGE": "0.2",
        "FLUVIAL_MAX_BODY": "4456448",
        "FLUVIAL_APPEND_FUNCTION": "append",
        "FLUVIAL_CONNECTIONS_URL": "https://connections.invalid/live",
        "LAMBDA_TASK_ROOT": "/var/task",
        "POWERTOOLS_METRICS_NAMESPACE": "Fluvial",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    secret = boto3.client("secretsmanager").create_secret(Name="operator", SecretString=OPERATOR_SECRET.value)
    monkeypatch.setenv("FLUVIAL_OPERATOR_SECRET_ARN", secret["ARN"])
    clear_caches()  # type: ignore[no-untyped-call]  # which are of an earlier environment
    queue = boto3.client("sqs").create_queue(QueueName="fan-out")
    monkeypatch.setenv("FLUVIAL_FANOUT_QUEUE_URL", queue["QueueUrl"])
    loop, stores = asyncio.new_event_loop(), list[DynamoDbStore]()
    asyncio.set_event_loop(loop)

    def import_function(function: str) -> ModuleType:
        sys.modules.pop(f"{function}.handler", None)
        module = importlib.import_module(f"{function}.handler")
        stores.append(module.store)
        if hasattr(module, "runner"):
            runners.append(module.runner)
        return module

    runners = list[asyncio.Runner]()
    yield import_function
    for store in stores:
        loop.run_until_complete(store.close())
    for runner in runners:
        runner.close()
    loop.close()
    asyncio.set_event_loop(None)


def events() -> list[Path]:
    """Every sample event."""
    return sorted((Path(__file__).parents[2] / "events").glob("*.json"))
