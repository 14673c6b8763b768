"""Access on AWS: the append and subscription functions, whose invokers IAM authorizes, and API Gateway's WebSockets."""

import json
from collections.abc import AsyncIterator
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters import clear_caches

from fluvial.access.authorizer import Authorizer, no_operator
from fluvial.access.project_cache import OPEN_CACHE_S, ProjectCache
from fluvial.access.throttle import Throttle
from fluvial.aws.append_event import answer_append
from fluvial.aws.connections import CONNECTION_S_MAX, Connections
from fluvial.aws.websocket_api import WebSocketApi
from fluvial.aws.websocket_broadcast import Broadcaster
from fluvial.model.names import StreamName
from fluvial.model.permissions import Scope
from tests.access.clients import EdgeClient, bearer, edge_client, mint_token, operator
from tests.aws_local.environments import Context
from tests.aws_local.template import load_template
from tests.functions.conftest import ImportHandler
from tests.support.access import FOREIGN_SECRET, open_authorizer, project, token
from tests.support.commands import TEXT, append_commit, create_commit
from tests.support.connections import Client, ConnectionApi
from tests.support.lambda_service import LambdaService
from tests.support.logs import record_log_lines
from tests.support.rigs import DynamoDbRig, dynamodb_local_url, dynamodb_rig

pytestmark = pytest.mark.medium

STREAM = StreamName("demo/a")


@pytest.fixture
async def closed() -> AsyncIterator[DynamoDbRig]:
    """A table with a project that has a stream."""
    async with dynamodb_rig(dynamodb_local_url()) as rig:
        await rig.store.projects.put(project())
        await rig.store.apply(STREAM, create_commit(body=b"x"))
        yield rig


@pytest.fixture
async def opened() -> AsyncIterator[DynamoDbRig]:
    """A table without a project."""
    async with dynamodb_rig(dynamodb_local_url()) as rig:
        yield rig


@pytest.mark.parametrize("name", ["other/a", "demo", "a", "Demo/a", "demo-/a"])
async def test_direct_append_to_a_missing_project_is_rejected(closed: DynamoDbRig, name: str) -> None:
    """IAM authorizes an invoker for every project, but the project must exist."""
    clock = closed.still.clock()
    project_cache = ProjectCache(closed.store.projects, clock, closed=True)
    event = {"stream": name, "payload": "y", "contentType": TEXT}
    answer = await answer_append(closed.store, clock, project_cache, event)
    assert answer["error"]["code"] == "PROJECT_NOT_FOUND"
    appended = await answer_append(closed.store, clock, project_cache, {**event, "stream": STREAM})
    assert "tailOffset" in appended


def test_append_and_publish_functions_reject_streams_without_a_project(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With FLUVIAL_ACCESS as in the template, before there is a project."""
    monkeypatch.setenv("FLUVIAL_ACCESS", "projects")
    append, subscription = import_handler("append"), import_handler("subscription")
    monkeypatch.setattr(subscription.appender, "_client", LambdaService(append))
    for handler, name in ((append.handler, "append"), (subscription.handler, "subscription")):
        for stream in ("demo", "news/source"):
            published = {"stream": stream, "payload": [1], "contentType": "application/json"}
            assert handler(published, Context(name, "r"))["error"]["code"] == "PROJECT_NOT_FOUND"


def test_template_requires_tokens_by_default() -> None:
    """The parameter `Access` may change that; behind CloudFront requests need the CDN's secret."""
    template = load_template()
    assert template["Parameters"]["Access"]["Default"] == "projects"
    variables = template["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["FLUVIAL_ACCESS"] == {"Ref": "Access"}
    edge = template["Resources"]["EdgeFunction"]["Properties"]["Environment"]["Variables"]
    live = template["Resources"]["LiveFunction"]["Properties"]["Environment"]["Variables"]
    assert edge["FLUVIAL_CDN_SECRET"] == live["FLUVIAL_CDN_SECRET"]
    assert edge["FLUVIAL_CDN_SECRET"]["Fn::If"][0] == "HasCdn"


def test_cloudfront_cache_key_has_all_that_an_answer_depends_on() -> None:
    """And nothing else; private answers, errors and pages at the tail are not cached, not even for a second."""
    resources = load_template()["Resources"]
    policy = resources["CdnCachePolicy"]["Properties"]["CachePolicyConfig"]
    keyed = policy["ParametersInCacheKeyAndForwardedToOrigin"]
    assert set(keyed["QueryStringsConfig"]["QueryStrings"]) == {"offset", "cursor", "live", "rk"}
    assert keyed["HeadersConfig"]["Headers"] == ["Origin"]
    assert keyed["EnableAcceptEncodingGzip"]
    assert policy["MinTTL"] == policy["DefaultTTL"] == 0
    distribution = resources["CdnDistribution"]["Properties"]["DistributionConfig"]
    assert {one["ErrorCachingMinTTL"] for one in distribution["CustomErrorResponses"]} == {0}
    [origin] = distribution["Origins"]
    [proof] = origin["OriginCustomHeaders"]
    assert proof["HeaderName"].lower() == "x-fluvial-origin"
    forwarded = resources["CdnOriginRequestPolicy"]["Properties"]["OriginRequestPolicyConfig"]
    assert "Accept-Encoding" in forwarded["HeadersConfig"]["Headers"]  # all but these
    assert "token" in forwarded["QueryStringsConfig"]["QueryStrings"]
    of_the_cdn = {name: resource for name, resource in resources.items() if name.startswith("Cdn")}
    assert len(of_the_cdn) == 4
    assert {resource.get("Condition") for resource in of_the_cdn.values()} == {"HasCdn"}


def handshake(
    connection_id: str, query: dict[str, list[str]], headers: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    """API Gateway's event for a client that connects."""
    return {
        "requestContext": {"connectionId": connection_id, "eventType": "CONNECT"},
        "multiValueQueryStringParameters": query,
        "multiValueHeaders": headers or {},
    }


def sockets_of(rig: DynamoDbRig) -> WebSocketApi:
    """The WebSocket API over a rig's store."""
    clock, projects = rig.still.clock(), rig.store.projects
    authorizer = Authorizer(
        ProjectCache(projects, clock, closed=True), Throttle(projects, clock), clock, no_operator, "*"
    )
    return WebSocketApi(rig.store, clock, authorizer)


READER = token()


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ({}, {}, 401),
        ({"token": [READER]}, {}, 200),
        ({}, {"Authorization": [f"Bearer {READER}"]}, 200),
        ({"token": [READER]}, {"Authorization": [f"Bearer {READER}"]}, 400),
        ({"token": [READER, READER]}, {}, 400),
        ({}, {"authorization": [f"Bearer {READER}"] * 2}, 400),
        ({"token": [token(secret=FOREIGN_SECRET)]}, {}, 401),
        ({"token": [token(exp=1)]}, {}, 401),
        ({"token": [token(stream="b")]}, {}, 403),
        ({"token": [token(stream="a")]}, {}, 200),
        ({"token": [READER], "stream": ["demo/none"]}, {}, 404),
        ({"token": [READER]}, {"Origin": ["https://a.example"], "Sec-WebSocket-Protocol": ["bearer, x"]}, 400),
        ({"token": [READER]}, {"Origin": ["https://a.example"]}, 200),
        ({"token": [READER], "stream": ["other/a"]}, {}, 401),
    ],
    ids=range(14),
)
async def test_api_gateway_websocket_needs_a_valid_token(
    closed: DynamoDbRig, query: dict[str, list[str]], headers: dict[str, list[str]], status: int
) -> None:
    """In the query or in the field, once; a rejected connection is not stored."""
    sent: dict[str, list[str]] = {"stream": [STREAM], "offset": ["-1"], **query}
    answer = await sockets_of(closed).handle(handshake("c", sent, headers))
    assert answer["statusCode"] == status, answer
    stored = await Connections(closed.store.table).list_readers(STREAM)
    assert len(stored) == (status == 200)


async def test_api_gateway_websocket_of_a_public_stream_needs_no_token(closed: DynamoDbRig) -> None:
    """It ends when API Gateway ends it."""
    name = StreamName("demo/public")
    await closed.store.apply(name, create_commit(2, is_public=True))
    answer = await sockets_of(closed).handle(handshake("c", {"stream": [name], "offset": ["-1"]}))
    assert answer["statusCode"] == 200
    [stored] = await Connections(closed.store.table).list_readers(name)
    assert stored.until_s == closed.still.time.now_ms // 1_000 + CONNECTION_S_MAX


@pytest.mark.parametrize("query", [{}, {"offset": ["nonsense"]}, {"offset": ["-1"]}], ids=["none", "bad", "good"])
async def test_anonymous_handshakes_get_the_same_answer_for_every_stream(
    closed: DynamoDbRig, query: dict[str, list[str]]
) -> None:
    """For an existing stream, an absent one, and an absent project; with and without a valid offset."""
    answers = [
        await sockets_of(closed).handle(handshake("c", {"stream": [name], **query}))
        for name in (STREAM, "demo/none", "none/a", "demo", "none")
    ]
    assert all(answer == answers[0] and answer["statusCode"] == 401 for answer in answers)


async def test_api_gateway_websocket_gets_nothing_after_its_token_expires(closed: DynamoDbRig) -> None:
    """It is closed when there is something to send; other connections get the data."""
    sockets, api, clients = sockets_of(closed), ConnectionApi(), {}
    now_s = closed.still.time.now_ms / 1_000
    for connection_id, exp in (("soon", now_s + 60), ("later", now_s + 600)):
        query: dict[str, list[str]] = {"stream": [STREAM], "offset": ["-1"], "token": [token(exp=exp)]}
        assert (await sockets.handle(handshake(connection_id, query)))["statusCode"] == 200
        clients[connection_id] = api.clients[connection_id] = Client(is_connected=True)
    broadcaster = Broadcaster(closed.store, closed.still.clock(), api)
    await broadcaster.broadcast(STREAM)
    assert {client.data for client in clients.values()} == {b"x"}
    closed.still.time.advance(60_000)
    await closed.store.apply(STREAM, append_commit(b"y"))
    await broadcaster.broadcast(STREAM)
    assert (clients["soon"].data, clients["later"].data) == (b"x", b"xy")
    assert [one.connection_id for one in await Connections(closed.store.table).list_readers(STREAM)] == ["later"]


async def test_anonymous_api_gateway_websocket_gets_nothing_after_the_first_project(opened: DynamoDbRig) -> None:
    """It is closed when there is something to send; connections with a token get the data."""
    clock, projects, api = opened.still.clock(), opened.store.projects, ConnectionApi()
    sockets = WebSocketApi(opened.store, clock, open_authorizer(projects, clock))
    await opened.store.apply(STREAM, create_commit(body=b"x"))
    without_token = handshake("anonymous", {"stream": [STREAM], "offset": ["-1"]})
    assert (await sockets.handle(without_token))["statusCode"] == 200
    clients = {name: Client(is_connected=True) for name in ("anonymous", "reader")}
    api.clients.update(clients)
    broadcaster = Broadcaster(opened.store, clock, api, project_cache=ProjectCache(projects, clock, closed=False))
    await broadcaster.broadcast(STREAM)
    assert clients["anonymous"].data == b"x"
    await projects.put(project())
    opened.still.time.advance(OPEN_CACHE_S * 1_000)
    with_token = handshake("reader", {"stream": [STREAM], "offset": ["-1"], "token": [READER]})
    assert (await sockets.handle(with_token))["statusCode"] == 200
    await opened.store.apply(STREAM, append_commit(b"y"))
    await broadcaster.broadcast(STREAM)
    assert (clients["anonymous"].data, clients["reader"].data) == (b"x", b"xy")
    assert not clients["anonymous"].is_connected
    assert [one.connection_id for one in await Connections(opened.store.table).list_readers(STREAM)] == ["reader"]


def test_sockets_function_logs_no_token(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether a handshake is rejected or fails."""
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("FLUVIAL_ACCESS", "projects")
    module, logged = import_handler("sockets"), record_log_lines(monkeypatch)
    for secretive in (mint_token(), "no.such.token"):
        for query in ({"stream": ["demo"]}, {"stream": ["none/x"], "offset": ["-1"]}, {}):
            connect = handshake("c", {**query, "token": [secretive]}, {"Authorization": [f"Bearer {secretive}"]})
            module.handler(connect, Context("sockets", "r"))
            module.handler(handshake("c", {**query, "token": [secretive]}), Context("sockets", "r"))
        assert secretive not in "".join((*logged, *capfd.readouterr()))


def test_managers_are_authorized_while_the_operators_secret_is_unavailable(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators get 503 when it cannot be loaded or is invalid, and it is not logged."""
    monkeypatch.setenv("FLUVIAL_ACCESS", "projects")
    api, logged = edge_client(import_handler), record_log_lines(monkeypatch)
    secrets = boto3.client("secretsmanager")
    for broken in ("too short a secret", None):
        if broken is not None:
            secrets.put_secret_value(SecretId="operator", SecretString=broken)
        else:
            secrets.delete_secret(SecretId="operator", ForceDeleteWithoutRecovery=True)
        again = EdgeClient(import_handler("edge"))
        clear_caches()  # type: ignore[no-untyped-call]
        for _ in range(3):
            answer = again.request("GET", "/v1/projects", operator())
            assert (answer.status, answer.code) == (503, "store_unavailable")
        assert again.request("GET", "/v1/projects/demo", bearer(mint_token(Scope.MANAGE))).status == 200
        [line] = [line for line in logged if "operator_secret_unavailable" in line]
        assert broken is None or broken not in line
        logged.clear()
    assert api.request("GET", "/v1/projects/demo", bearer(mint_token(Scope.MANAGE))).status == 200


def test_edge_function_logs_no_token_query_or_body(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether a request is rejected, fails or succeeds."""
    monkeypatch.setenv("FLUVIAL_ACCESS", "projects")
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    api, logged = edge_client(import_handler), record_log_lines(monkeypatch)
    texts = [mint_token(Scope.WRITE), "no.such.token"]
    for text in texts:
        for method in ("GET", "PUT", "POST", "DELETE"):
            for path in ("/v1/stream/demo/x", "/v1/stream/other/x", "/v1/projects", "/v1/stream/demo/.."):
                api.request(method, f"{path}?token={text}&secretive=query", {}, b"the-very-body")
                api.request(method, path, bearer(text), json.dumps({"a": "the-very-body"}).encode())
    printed = "".join((*logged, *capfd.readouterr()))
    for text in (*texts, "secretive", "the-very-body"):
        assert text not in printed
