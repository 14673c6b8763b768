"""Access on AWS: the append and subscription functions, whose invokers IAM lets in, and API Gateway's WebSockets."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fluvial.access.directory import Directory
from fluvial.access.gate import Gate, no_operator
from fluvial.access.throttle import Throttle
from fluvial.core.grant import Scope
from fluvial.core.names import StreamName
from fluvial.transports.direct import answer_append
from fluvial.triggers.broadcasting import Broadcaster
from fluvial.triggers.sockets import Sockets
from tests.access.doors import EdgeDoor, bearer, edge_door, minted
from tests.aws_local.environments import Context
from tests.aws_local.template import load_template
from tests.functions.conftest import ImportHandler
from tests.support.access import FOREIGN_SECRET, project, token
from tests.support.commands import TEXT, append_commit, create_commit
from tests.support.connections import Client, ConnectionApi
from tests.support.rigs import DynamoDbRig, dynamodb_local_url, dynamodb_rig

STREAM = StreamName("demo/a")


@pytest.fixture
async def closed() -> AsyncIterator[DynamoDbRig]:
    """A table with a project and a stream of it."""
    async with dynamodb_rig(dynamodb_local_url()) as rig:
        await rig.store.projects.put(project())
        await rig.store.apply(STREAM, create_commit(body=b"x"))
        yield rig


@pytest.mark.parametrize("name", ["other/a", "demo", "a", "Demo/a", "demo-/a"])
async def test_a_direct_append_names_a_project(closed: DynamoDbRig, name: str) -> None:
    """IAM has let its invoker in, to every project; one that is not there is a mistake all the same."""
    world = closed.still.world()
    directory = Directory(closed.store.projects, world, closed=True)
    event = {"stream": name, "payload": "y", "contentType": TEXT}
    answer = await answer_append(closed.store, world, directory, event)
    assert answer["error"]["code"] == "PROJECT_NOT_FOUND"
    appended = await answer_append(closed.store, world, directory, {**event, "stream": STREAM})
    assert "tailOffset" in appended


def test_without_a_project_no_publication_is_taken(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a function whose environment is the template's; nobody is in doubt about what is open."""
    monkeypatch.setenv("FLUVIAL_ACCESS", "projects")
    append = import_handler("append")
    asked = {"stream": "demo", "payload": [1], "contentType": "application/json"}
    assert append.handler(asked, Context("append", "r"))["error"]["code"] == "PROJECT_NOT_FOUND"


def test_the_template_lets_nobody_in_without_a_token() -> None:
    """Unless an operator has chosen otherwise; behind CloudFront nobody comes past it."""
    template = load_template()
    assert template["Parameters"]["Access"]["Default"] == "projects"
    variables = template["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["FLUVIAL_ACCESS"] == {"Ref": "Access"}
    edge = template["Resources"]["EdgeFunction"]["Properties"]["Environment"]["Variables"]
    live = template["Resources"]["LiveFunction"]["Properties"]["Environment"]["Variables"]
    assert edge["FLUVIAL_CDN_SECRET"] == live["FLUVIAL_CDN_SECRET"]
    assert edge["FLUVIAL_CDN_SECRET"]["Fn::If"][0] == "HasCdn"


def test_cloudfront_keys_its_cache_by_what_makes_an_answer() -> None:
    """And by nothing else; what is private, refused or at the tail it does not keep for a moment."""
    resources = load_template()["Resources"]
    policy = resources["CdnCachePolicy"]["Properties"]["CachePolicyConfig"]
    keyed = policy["ParametersInCacheKeyAndForwardedToOrigin"]
    assert set(keyed["QueryStringsConfig"]["QueryStrings"]) == {"offset", "cursor", "live", "rk"}
    assert keyed["HeadersConfig"]["Headers"] == ["Origin"]
    assert policy["MinTTL"] == policy["DefaultTTL"] == 0
    distribution = resources["CdnDistribution"]["Properties"]["DistributionConfig"]
    assert {one["ErrorCachingMinTTL"] for one in distribution["CustomErrorResponses"]} == {0}
    [origin] = distribution["Origins"]
    [proof] = origin["OriginCustomHeaders"]
    assert proof["HeaderName"].lower() == "x-fluvial-origin"
    forwarded = resources["CdnOriginRequestPolicy"]["Properties"]["OriginRequestPolicyConfig"]
    assert "token" in forwarded["QueryStringsConfig"]["QueryStrings"]
    assert all(not resource.get("Condition") or resource["Condition"] == "HasCdn" for resource in resources.values())


def handshake(
    connection_id: str, query: dict[str, list[str]], headers: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    """What API Gateway tells of a client that connects."""
    return {
        "requestContext": {"connectionId": connection_id, "eventType": "CONNECT"},
        "multiValueQueryStringParameters": query,
        "multiValueHeaders": headers or {},
    }


def sockets_of(rig: DynamoDbRig) -> Sockets:
    """The sockets function."""
    world, projects = rig.still.world(), rig.store.projects
    gate = Gate(Directory(projects, world, closed=True), Throttle(projects, world), world, no_operator, "*")
    return Sockets(rig.store, world, gate)


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
        ({"token": [READER], "stream": ["other/a"]}, {}, 401),
    ],
    ids=range(12),
)
async def test_a_connection_needs_a_token(
    closed: DynamoDbRig, query: dict[str, list[str]], headers: dict[str, list[str]], status: int
) -> None:
    """In the query or in the field, once; who is refused is not noted."""
    asked: dict[str, list[str]] = {"stream": [STREAM], "offset": ["-1"], **query}
    answer = await sockets_of(closed).handle(handshake("c", asked, headers))
    assert answer["statusCode"] == status, answer
    noted = await closed.store.connections.of(STREAM)
    assert len(noted) == (status == 200)


async def test_a_public_streams_connection_needs_none(closed: DynamoDbRig) -> None:
    """It ends as all do."""
    name = StreamName("demo/public")
    await closed.store.apply(name, create_commit(2, is_public=True))
    answer = await sockets_of(closed).handle(handshake("c", {"stream": [name], "offset": ["-1"]}))
    assert answer["statusCode"] == 200


async def test_a_connection_is_sent_nothing_once_its_token_has_expired(closed: DynamoDbRig) -> None:
    """It is closed when there is something to send; others get it."""
    sockets, api, clients = sockets_of(closed), ConnectionApi(), {}
    now_s = closed.still.clock.now_ms / 1_000
    for connection_id, exp in (("soon", now_s + 60), ("later", now_s + 600)):
        query: dict[str, list[str]] = {"stream": [STREAM], "offset": ["-1"], "token": [token(exp=exp)]}
        assert (await sockets.handle(handshake(connection_id, query)))["statusCode"] == 200
        clients[connection_id] = api.clients[connection_id] = Client(is_connected=True)
    broadcaster = Broadcaster(closed.store, closed.still.world(), api)
    await broadcaster.broadcast(STREAM)
    assert {client.data for client in clients.values()} == {b"x"}
    closed.still.clock.advance(60_000)
    await closed.store.apply(STREAM, append_commit(b"y"))
    await broadcaster.broadcast(STREAM)
    assert (clients["soon"].data, clients["later"].data) == (b"x", b"xy")
    assert [one.connection_id for one in await closed.store.connections.of(STREAM)] == ["later"]


def test_the_edge_function_logs_no_token_query_or_body(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever becomes of a request."""
    monkeypatch.setenv("FLUVIAL_ACCESS", "projects")
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    door: EdgeDoor = edge_door(import_handler)
    texts = [minted(Scope.WRITE), "no.such.token"]
    for text in texts:
        for method in ("GET", "PUT", "POST", "DELETE"):
            for path in ("/v1/stream/demo/x", "/v1/stream/other/x", "/v1/projects", "/v1/stream/demo/.."):
                door.ask(method, f"{path}?token={text}&secretive=query", {}, b"the-very-body")
                door.ask(method, path, bearer(text), json.dumps({"a": "the-very-body"}).encode())
    printed = "".join(capfd.readouterr())
    for told in (*texts, "secretive", "the-very-body"):
        assert told not in printed
