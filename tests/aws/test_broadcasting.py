"""WebSockets on AWS: whatever happens to functions, messages and connections, each client gets the stream once."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import boto3
import pytest

from fluvial.aws.change_feed import ChangeFeed, parse_changes
from fluvial.aws.connections import CONNECTION_S_MAX, Connections
from fluvial.aws.fanout_queue import FanOutQueue
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.websocket_api import WebSocketApi
from fluvial.aws.websocket_broadcast import BUSY_TRIES_MAX, Broadcaster, BroadcastLimits
from fluvial.fanout.deliveries import Deliveries
from fluvial.metrics.log_events import LogEvents
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_delete
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table.keys import head_key
from fluvial.storage.limits import StoreLimits
from tests.aws.test_function_metrics import logged, values
from tests.aws_local.change_feed import ChangeFeedReader
from tests.support.access import open_authorizer
from tests.support.budget import luck, seeds
from tests.support.change_batches import process_records
from tests.support.clocks import START_MS
from tests.support.commands import NAME, OTHER, append_commit, close_commit, create_commit
from tests.support.connections import Client, ConnectionApi, ConnectionDiedError
from tests.support.estuaries import own_process
from tests.support.rigs import REGION, DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.medium

#: One message after the other, and retries without a pause.
IMPATIENT = BroadcastLimits(busy_pause_s=0.001, posts_at_once=1)


@dataclass
class SocketRig:
    """A store, API Gateway's connections, and the functions that the feed and the API invoke."""

    rig: DynamoDbRig
    store: DynamoDbStore
    feed: ChangeFeedReader
    api: ConnectionApi = field(default_factory=ConnectionApi)
    pending: list[dict[str, Any]] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))
    limits: BroadcastLimits = IMPATIENT
    metrics: FunctionMetrics = field(default_factory=lambda: FunctionMetrics("changes", log_events=LogEvents()))

    def handler(self) -> WebSocketApi:
        """A new environment of the sockets function."""
        clock = self.rig.still.own_clock()
        return WebSocketApi(self.store, clock, open_authorizer(self.store.projects, clock))

    async def connect(self, client: Client, name: str = NAME, offset: str | None = None) -> dict[str, Any]:
        """Connect a client at its offset; the answer to the handshake."""
        connection_id = f"c{next(self.numbers)}="
        query = {"stream": [name], "offset": [offset or client.offset]}
        sent = {
            "requestContext": {"connectionId": connection_id, "eventType": "CONNECT"},
            "multiValueQueryStringParameters": query,
        }
        answer = await self.handler().handle(sent)
        if answer["statusCode"] == 200:
            client.is_connected = True
            self.api.clients[connection_id] = client
        return answer

    async def disconnect(self, client: Client, *, is_reported: bool) -> None:
        """Disconnect a client; API Gateway mostly reports it."""
        [connection_id] = [name for name, one in self.api.clients.items() if one is client]
        del self.api.clients[connection_id]
        client.drop_connection()
        if is_reported:
            sent = {"requestContext": {"connectionId": connection_id, "eventType": "DISCONNECT"}}
            await self.handler().handle(sent)

    async def disconnect_by_another_process(self, client: Client) -> None:
        """Disconnect a client, which is reported to a function on another loop."""
        async with own_process(self.rig) as process:
            assert isinstance(process.store, DynamoDbStore)
            mine, self.store = self.store, process.store
            await self.disconnect(client, is_reported=True)
            self.store = mine

    def changes(self) -> ChangeFeed:
        """A new environment of the changes function."""
        clock = self.rig.still.own_clock()
        queue = FanOutQueue(boto3.client("sqs", region_name=REGION), "url")
        return ChangeFeed(
            self.store,
            Deliveries(self.store, clock),
            queue,
            Broadcaster(self.store, clock, self.api, self.limits),
            self.metrics,
        )

    async def process_changes(self) -> bool:
        """Pass the records that are due to a new environment of the changes function; False when it failed."""
        self.pending += self.feed.records()
        try:
            if await process_records(self.changes(), self.pending):
                return False
        except ConnectionDiedError:
            return False
        self.pending = []
        return True


@pytest.fixture
async def sockets(tmp_path: Path) -> AsyncIterator[SocketRig]:
    """AWS's own engine with its stream of changes, and few batches per segment."""
    limits = StoreLimits(segment_batches=10)
    async with dynamodb_local_rig(tmp_path, limits) as rig, own_process(rig) as process:
        endpoint = rig.config.endpoints.dynamodb
        client = boto3.client("dynamodbstreams", region_name=REGION, endpoint_url=endpoint)
        assert isinstance(process.store, DynamoDbStore)
        yield SocketRig(rig, process.store, ChangeFeedReader(client, rig.config.table))
        client.close()


async def test_feed_counts_opened_and_closed_connections(
    sockets: SocketRig, capsys: pytest.CaptureFixture[str]
) -> None:
    """A connection that joins is changed, which is neither."""
    await sockets.store.apply(NAME, create_commit())
    clients = [Client(), Client(), Client()]
    for client in clients:
        await sockets.connect(client)
    assert await sockets.process_changes()
    sockets.metrics.log()
    await sockets.disconnect(clients[0], is_reported=True)
    assert await sockets.process_changes()
    sockets.metrics.log()
    names = ("SocketsOpened", "SocketsClosed")
    assert [[values(line).get(name) for name in names] for line in logged(capsys)] == [[3, None], [None, 1]]


async def test_connection_gets_missed_data_then_commits_then_the_close(sockets: SocketRig) -> None:
    """So do a connection from the beginning and one from the tail."""
    await sockets.store.apply(NAME, create_commit())
    await sockets.store.apply(NAME, append_commit(b"one"))
    early, late = Client(), Client(offset="now")
    await sockets.connect(early)
    await sockets.connect(late)
    assert await sockets.process_changes()
    assert (early.data, late.data) == (b"one", b"")
    assert early.offset == late.offset
    await sockets.store.apply(NAME, append_commit(b"two"))
    assert await sockets.process_changes()
    assert (early.data, late.data) == (b"onetwo", b"two")
    posts = sockets.api.posts
    assert await sockets.process_changes()
    assert sockets.api.posts == posts, "an idle stream costs nothing"
    await sockets.store.apply(NAME, close_commit())
    assert await sockets.process_changes()
    assert early.closed
    assert late.closed
    assert not early.is_connected
    assert [item["sk"]["S"] for item in sockets.rig.items(f"S#{NAME}")] == ["H"]


async def query_count(sockets: SocketRig, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many queries the records that are due take."""
    queries, query = list[str](), Connections.list_readers

    async def counting(connections: Connections, name: StreamName) -> Any:  # noqa: ANN401  as the method's
        queries.append(name)
        return await query(connections, name)

    with monkeypatch.context() as patch:
        patch.setattr(Connections, "list_readers", counting)
        assert await sockets.process_changes()
    return len(queries)


async def test_streams_without_connections_take_no_query(sockets: SocketRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the first connection nor after the last one can have ended."""
    await sockets.store.apply(NAME, create_commit())
    await sockets.store.apply(NAME, append_commit(b"one"))
    assert await query_count(sockets, monkeypatch) == 0
    client = Client()
    await sockets.connect(client)
    assert await query_count(sockets, monkeypatch) == 1
    assert await query_count(sockets, monkeypatch) == 0, "the mark itself is nothing to broadcast"
    await sockets.store.apply(NAME, append_commit(b"two"))
    assert await query_count(sockets, monkeypatch) == 1
    assert client.data == b"onetwo"
    await sockets.disconnect(client, is_reported=True)
    sockets.rig.still.time.advance(2 * CONNECTION_S_MAX * 1_000)
    await sockets.store.apply(NAME, append_commit(b"three"))
    assert await query_count(sockets, monkeypatch) == 0


async def test_stream_of_an_older_version_is_broadcast(sockets: SocketRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head has no mark, so that it may have connections."""
    await sockets.store.apply(NAME, create_commit())
    remove = {"UpdateExpression": "REMOVE cc", "Key": head_key(NAME)}
    sockets.rig.client.update_item(TableName=sockets.rig.config.table, **remove)
    client = Client()
    await sockets.connect(client)
    assert await sockets.process_changes()
    sockets.rig.client.update_item(TableName=sockets.rig.config.table, **remove)
    await sockets.store.apply(NAME, append_commit(b"one"))
    assert await query_count(sockets, monkeypatch) == 1
    assert client.data == b"one"


async def test_commit_between_a_connection_and_its_mark_is_broadcast(sockets: SocketRig) -> None:
    """Its record has no mark, and comes before or after the connection's: both are processed apart, in either order."""
    for incarnation, connection_first in ((1, True), (2, False)):
        await sockets.store.apply(NAME, create_commit(incarnation))
        assert await sockets.process_changes()
        client = Client()
        await sockets.connect(client)
        await sockets.store.apply(NAME, append_commit(b"one"))
        commit, connection = sorted(sockets.feed.records(), key=lambda one: one["dynamodb"]["Keys"]["sk"] != {"S": "H"})
        for record in (connection, commit) if connection_first else (commit, connection):
            sockets.pending = [record]
            assert await sockets.process_changes()
        assert client.data == b"one"
        await sockets.store.apply(NAME, plan_delete(START_MS))
        assert await sockets.process_changes()


async def test_posts_run_as_many_at_once_as_they_say(sockets: SocketRig) -> None:
    """And no more; each waits until all others run."""
    sockets.limits = replace(IMPATIENT, posts_at_once=20)
    await sockets.store.apply(NAME, create_commit(body=b"one"))
    barrier, post = Barrier(20, timeout=20), sockets.api.post_to_connection

    def waiting(*, ConnectionId: str, Data: bytes) -> None:  # noqa: N803  boto3's own names
        barrier.wait()
        post(ConnectionId=ConnectionId, Data=Data)

    clients = [Client() for _ in range(40)]
    for client in clients:
        await sockets.connect(client)
    sockets.api.post_to_connection = waiting  # type: ignore[method-assign]
    assert await sockets.process_changes()
    assert {client.data for client in clients} == {b"one"}


async def test_deletion_closes_the_streams_connections(sockets: SocketRig) -> None:
    """Also when the stream is created anew before the feed has the deletion."""
    await sockets.store.apply(NAME, create_commit())
    client = Client()
    await sockets.connect(client)
    assert await sockets.process_changes()
    await sockets.store.apply(NAME, plan_delete(START_MS))
    await sockets.store.apply(NAME, create_commit(incarnation=2))
    await sockets.store.apply(NAME, append_commit(b"another"))
    assert await sockets.process_changes()
    assert (client.is_connected, client.data) == (False, b"")


@pytest.mark.parametrize(
    ("name", "offset", "status"),
    [("nothing", "-1", 404), (NAME, "x", 400), (NAME, "0000000000000000_0000000000000002", 410), ("", "-1", 404)],
)
async def test_impossible_handshake_is_refused(sockets: SocketRig, name: str, offset: str, status: int) -> None:
    """With the status that a GET would have, and no connection is added."""
    await sockets.store.apply(NAME, create_commit())
    await sockets.store.apply(NAME, append_commit(b"one"))
    answer = await sockets.connect(Client(), StreamName(name), offset)
    assert answer["statusCode"] == status
    assert json.loads(answer["body"])["error"]["code"]
    assert await Connections(sockets.store.table).list_readers(NAME) == []


async def test_only_pings_are_answered(sockets: SocketRig) -> None:
    """Any other message is a 400."""
    handler = sockets.handler()
    context = {"requestContext": {"connectionId": "c", "eventType": "MESSAGE"}}
    for ping in ('{"type":"ping"}', '{ "type": "ping" }'):
        assert (await handler.handle({**context, "body": ping}))["body"] == '{"type":"pong"}'
    assert (await handler.handle({**context, "body": "x"}))["statusCode"] == 400
    without = {"requestContext": {"connectionId": "c", "eventType": "CONNECT"}}
    assert (await handler.handle(without))["statusCode"] == 400


async def test_posts_wait_for_the_end_of_a_handshake(sockets: SocketRig) -> None:
    """Until then API Gateway says that the connection is gone. If it were removed, its client would get nothing."""
    await sockets.store.apply(NAME, create_commit(body=b"one"))
    client = Client()
    await sockets.connect(client)
    sockets.api.handshakes = dict.fromkeys(sockets.api.clients, 3)
    assert await sockets.process_changes()
    assert client.data == b"one"
    await sockets.store.apply(NAME, append_commit(b"two"))
    assert await sockets.process_changes()
    assert client.data == b"onetwo"


async def test_closing_waits_for_the_end_of_a_handshake(sockets: SocketRig) -> None:
    """Otherwise the connection would be open and not listed after its handshake."""
    await sockets.store.apply(NAME, create_commit())
    client = Client()
    await sockets.connect(client)
    sockets.api.handshakes = dict.fromkeys(sockets.api.clients, 3)
    await sockets.store.apply(NAME, plan_delete(START_MS))
    assert await sockets.process_changes()
    assert not client.is_connected
    assert await Connections(sockets.store.table).list_readers(NAME) == []


async def test_connection_that_ends_during_a_broadcast_is_removed(
    sockets: SocketRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other connections stay."""
    await sockets.store.apply(NAME, create_commit(body=b"one"))
    stays, goes = Client(), Client()
    await sockets.connect(stays)
    await sockets.connect(goes)
    post = sockets.api.post_to_connection

    def going(*, ConnectionId: str, Data: bytes) -> None:  # noqa: N803  boto3's own names
        post(ConnectionId=ConnectionId, Data=Data)
        if sockets.api.clients[ConnectionId] is goes:
            with asyncio.Runner() as runner:
                runner.run(sockets.disconnect_by_another_process(goes))

    monkeypatch.setattr(sockets.api, "post_to_connection", going)
    assert await sockets.process_changes()
    monkeypatch.undo()
    await sockets.store.apply(NAME, append_commit(b"two"))
    assert await sockets.process_changes()
    assert stays.data == b"onetwo"
    assert stays.is_connected
    assert len(await Connections(sockets.store.table).list_readers(NAME)) == 1


async def test_connection_that_cannot_be_closed_stays_listed(sockets: SocketRig) -> None:
    """The next broadcast closes it: no connection stays open that is not listed."""
    await sockets.store.apply(NAME, create_commit())
    client = Client()
    await sockets.connect(client)
    assert await sockets.process_changes()
    await sockets.store.apply(NAME, plan_delete(START_MS))
    sockets.api.closings_refused = BUSY_TRIES_MAX
    assert not await sockets.process_changes()
    assert client.is_connected
    assert await sockets.process_changes()
    assert not client.is_connected
    assert await Connections(sockets.store.table).list_readers(NAME) == []


async def test_missed_data_is_sent_in_bounded_pieces(sockets: SocketRig) -> None:
    """A client that is far behind is closed after each piece, and comes back with its offset."""
    sockets.limits = replace(sockets.limits, catch_up_bytes_max=100)
    await sockets.store.apply(NAME, create_commit())
    expected = b""
    for number in range(6):
        batch = b"<%d:%s>" % (number, b"x" * 40)
        await sockets.store.apply(NAME, append_commit(batch))
        expected += batch
    sockets.limits = replace(sockets.limits, event_bytes_max=60)
    client, connects = Client(), 0
    while client.data != expected:
        if not client.is_connected:
            await sockets.connect(client)
            connects += 1
        assert await sockets.process_changes()
        assert expected.startswith(client.data)
    assert connects == 2
    assert client.is_connected


async def test_broadcast_number_tells_two_broadcasts_apart(sockets: SocketRig) -> None:
    """Both end at the same position."""
    await sockets.store.apply(NAME, create_commit(body=b"one"))
    connections, incarnation = Connections(sockets.store.table), Incarnation(1)
    first = await connections.begin_broadcast(NAME, None, incarnation, 3)
    await connections.end_broadcast(NAME, 3, first)
    seen = await connections.load_progress(NAME)
    second = await connections.begin_broadcast(NAME, seen, incarnation, 3)
    await connections.end_broadcast(NAME, 3, second)
    with pytest.raises(StoreUncertain):
        await connections.begin_broadcast(NAME, seen, incarnation, 3)
    with pytest.raises(StoreUncertain):
        await connections.end_broadcast(NAME, 3, first)


@pytest.mark.slow
@luck
@seeds(6)
async def test_every_client_gets_the_stream_once_despite_faults(sockets: SocketRig, seed: int) -> None:
    """Clients disconnect and come back, posts are throttled or lost, functions die, and records come again."""
    rng = random.Random(seed)
    sockets.api = ConnectionApi(rng=rng, unknown=0.03, throttled=0.1, death=0.03)
    await sockets.store.apply(NAME, create_commit())
    clients, expected = [Client() for _ in range(5)], b""
    replayed = list[dict[str, Any]]()
    for step in range(60):
        match rng.randrange(6):
            case 0 | 1:
                batch = b"<%d:%s>" % (step, b"x" * rng.choice([0, 40, 700, 40_000]))
                await sockets.store.apply(NAME, append_commit(batch))
                expected += batch
            case 2:
                await disconnect(sockets, rng.choice(clients), is_reported=rng.random() < 0.7)
            case 3:
                sockets.pending = replayed + sockets.pending
            case _:
                sockets.pending += sockets.feed.records()
                replayed = (replayed + sockets.pending)[-rng.randrange(1, 20) :]
                await sockets.process_changes()
        assert all(expected.startswith(client.data) for client in clients)
        await come_back(sockets, [client for client in clients if rng.random() < 0.5])
    await sockets.store.apply(NAME, close_commit())
    sockets.api.unknown = sockets.api.throttled = sockets.api.death = 0
    for _ in range(4):
        await come_back(sockets, clients)
        await sockets.process_changes()
    assert [client.data for client in clients] == [expected] * 5


async def disconnect(sockets: SocketRig, client: Client, *, is_reported: bool) -> None:
    """Disconnect a client, if it is connected."""
    if client.is_connected:
        await sockets.disconnect(client, is_reported=is_reported)


async def come_back(sockets: SocketRig, clients: list[Client]) -> None:
    """Connect the clients that are not connected and have not seen the close."""
    for client in clients:
        if not client.is_connected and not client.closed:
            await sockets.connect(client)


async def test_unforeseen_error_of_one_stream_does_not_hold_up_others(
    sockets: SocketRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only that stream's records come again, and its other steps are taken; the log has each failure."""
    steps = list[tuple[str, StreamName]]()
    for name in (NAME, OTHER):
        await sockets.store.apply(name, create_commit(2 if name == OTHER else 1, body=b"x", name=name))
        await sockets.store.apply(name, append_commit(b"y", name=name, closes=True))
        await sockets.connect(Client(), name)

    async def broadcast(_broadcaster: Broadcaster, name: StreamName, *, has_new_reader: bool) -> None:
        assert has_new_reader
        steps.append(("broadcast", name))
        if name == NAME:
            raise StoreUnavailable

    async def rotate(_store: DynamoDbStore, name: StreamName) -> None:
        steps.append(("rotate", name))
        if name == NAME:
            raise KeyError

    monkeypatch.setattr(Broadcaster, "broadcast", broadcast)
    monkeypatch.setattr(DynamoDbStore, "rotate", rotate)
    records = sockets.feed.records()
    failed, changes = await process_records(sockets.changes(), records), parse_changes({"Records": records})
    assert failed == {number for change in changes if change.name == NAME for number in change.sequence_numbers}
    assert set(steps) == {(step, name) for step in ("broadcast", "rotate") for name in (NAME, OTHER)}
    failures = [
        (record.levelno, record.__dict__["stream"]) for record in caplog.records if record.msg == "change_failed"
    ]
    assert failures == [(logging.WARNING, NAME), (logging.ERROR, NAME)]
    assert "KeyError" in caplog.text
