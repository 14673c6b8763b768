"""Items of format 1, as the release before wrote them: they are read, updated, moved and deleted."""

import asyncio

import boto3
import pytest

from fluvial.aws.sweep_job import sweep_all
from fluvial.model.command import Close
from fluvial.model.commit import Applied, Commit, NotDuplicate, Unmet
from fluvial.model.head import ProducerStamp
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_close, plan_delete
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table.keys import head_key
from tests.support.clocks import START_MS, FixedClock
from tests.support.commands import append_commit, stamp
from tests.support.rigs import eventually
from tests.tables.frozen import CLOSED, FILLED, FORMAT_1_FILE, PRODUCER_COUNT, PRODUCERS, filled_bytes, load
from tests.tables.releases import list_items, list_objects
from tests.tables.worker import CONTENT_TYPE

pytestmark = pytest.mark.medium

TWO_DAYS_MS = 2 * 86_400_000


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """A table with what the release before has written."""
    load(FORMAT_1_FILE, environment)
    return environment


async def applied(store: DynamoDbStore, name: str, commit: Commit) -> None:
    """Apply a commit that must be applied."""
    outcome = await store.apply(StreamName(name), commit)
    assert isinstance(outcome, Applied), outcome


async def append(store: DynamoDbStore, name: str, data: bytes, producer: ProducerStamp | None = None) -> None:
    """Append to one of the file's streams."""
    await applied(store, name, append_commit(data, name=name, content_type=CONTENT_TYPE, producer=producer))


async def read(store: DynamoDbStore, name: str) -> bytes:
    """A stream's bytes, in small pages."""
    head, data = await store.head(StreamName(name)), b""
    assert head is not None
    while len(data) < head.tail:
        data += (await store.read(StreamName(name), head, len(data), 10_000)).data
    return data


async def let_pass() -> None:
    """Give background tasks a turn."""
    await asyncio.sleep(0.01)


async def test_streams_are_read(store: DynamoDbStore) -> None:
    """From the buffer, hot segments, payloads in the table and in the bucket, and cold segments."""
    for name in (FILLED, CLOSED):
        assert await read(store, name) == filled_bytes()


async def test_stream_takes_appends_and_moves_into_the_bucket_whole(
    store: DynamoDbStore, environment: dict[str, str]
) -> None:
    """Payloads of both formats lie side by side until then; none is left."""
    more = [b"s" * 80, b"m" * 900, b"l" * 6_000, b"h" * 310_000]
    for data in more:
        await append(store, FILLED, data)
    kinds = {item["pk"]["S"].partition("#")[0] for item in list_items(environment)}
    assert {"PAYLOAD", "PL"} <= kinds
    assert await read(store, FILLED) == filled_bytes() + b"".join(more)
    await applied(store, FILLED, plan_close(Close(name=StreamName(FILLED)), START_MS))

    def is_moved() -> bool:
        kinds = {item["pk"]["S"].partition("#")[0] for item in list_items(environment)}
        return not kinds & {"PAYLOAD", "PL"} and all(key.startswith("segments/") for key in list_objects(environment))

    await eventually(is_moved, let_pass)
    assert await read(store, FILLED) == filled_bytes() + b"".join(more)


async def test_evicted_producers_are_known(store: DynamoDbStore) -> None:
    """A repeat of one is a duplicate, and its next batch is taken."""
    for number in (0, PRODUCER_COUNT - 1):
        again = append_commit(b"x", name=PRODUCERS, content_type=CONTENT_TYPE, producer=stamp(0, 0, f"p{number}"))
        outcome = await store.apply(StreamName(PRODUCERS), again)
        assert isinstance(outcome, Unmet)
        assert isinstance(outcome.requirement, NotDuplicate)
        await append(store, PRODUCERS, b"next", producer=stamp(0, 1, f"p{number}"))


async def test_deleted_streams_leave_only_tombstones(store: DynamoDbStore, environment: dict[str, str]) -> None:
    """Payloads are deleted where the release before has put them."""
    await append(store, FILLED, b"n" * 900)
    for name in (FILLED, CLOSED, PRODUCERS):
        await applied(store, name, plan_delete(START_MS))
    await eventually(lambda: len(list_items(environment)) == 3 and not list_objects(environment), let_pass)
    assert all("i" not in item and item["pk"]["S"].startswith("S#") for item in list_items(environment))


async def test_sweep_keeps_what_is_referred_to_and_deletes_the_rest(
    store: DynamoDbStore, environment: dict[str, str], still: FixedClock
) -> None:
    """Two days later, with all heads, and then without that of one stream."""

    async def sweep() -> dict[str, int]:
        report = await sweep_all(store, lambda _items, _objects: None, dry_run=False)
        return {name: count for name, count in report.items() if name in {"segments", "payloads", "stagedObjects"}}

    await append(store, FILLED, b"n" * 900)
    still.time.advance(TWO_DAYS_MS)
    before = list_items(environment), list_objects(environment)
    assert await sweep() == {"segments": 0, "payloads": 0, "stagedObjects": 0}
    assert (list_items(environment), list_objects(environment)) == before
    client = boto3.client("dynamodb", endpoint_url=environment["FLUVIAL_ENDPOINT_URL"])
    client.delete_item(TableName=environment["FLUVIAL_TABLE"], Key=head_key(StreamName(FILLED)))
    await sweep()
    await sweep()
    left = {item["pk"]["S"].partition("#")[0] for item in list_items(environment)}
    assert left == {"S", "SEG", "PRODUCER"}
    assert [key.partition("/")[0] for key in list_objects(environment)] == ["segments"]
    assert await read(store, CLOSED) == filled_bytes()
