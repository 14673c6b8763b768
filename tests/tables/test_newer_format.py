"""Items of a format that this program does not know: each request for them is refused, and they stay as they are."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import boto3
import pytest

from fluvial.aws.change_feed import ChangeFeed
from fluvial.aws.sweep_job import sweep_all
from fluvial.model.command import Close, ForkPoint
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import Incarnation
from fluvial.model.plan import ForkPosition, plan_close, plan_delete, plan_fork, plan_renewal
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table.format import FORMAT, ItemTooNew
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation
from tests.support.change_batches import process_records
from tests.support.clocks import START_MS, FixedClock
from tests.support.commands import NAME, OTHER, append_commit, create_command, create_commit
from tests.tables.releases import list_items, open_store

pytestmark = pytest.mark.medium

TWO_DAYS_MS = 2 * 86_400_000


def update_format(environment: dict[str, str], kinds: set[str], newer: int = FORMAT + 1) -> None:
    """Let items of these kinds be of a newer format."""
    client = boto3.client("dynamodb", endpoint_url=environment["FLUVIAL_ENDPOINT_URL"])
    for item in list_items(environment):
        if item["pk"]["S"].partition("#")[0] in kinds:
            client.update_item(
                TableName=environment["FLUVIAL_TABLE"],
                Key={"pk": item["pk"], "sk": item["sk"]},
                UpdateExpression="SET z = :newer",
                ExpressionAttributeValues={":newer": {"N": str(newer)}},
            )


async def fill(store: DynamoDbStore) -> None:
    """A stream with segments, payloads and a buffer."""
    await store.apply(NAME, create_commit())
    for number in range(24):
        await store.apply(NAME, append_commit(b"x" * (900 if number % 10 == 3 else 150)))


async def test_every_item_says_its_format(store: DynamoDbStore, environment: dict[str, str]) -> None:
    """Also a fork's head, which a transaction puts."""
    await fill(store)
    source = await store.head(NAME)
    assert source is not None
    command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
    fork = plan_fork(command, ForkPosition(source, source.tail, source.tail), Incarnation(2), START_MS)
    await store.apply(OTHER, fork)
    items = list_items(environment)
    assert {item["pk"]["S"].partition("#")[0] for item in items} == {"S", "SEG", "PL"}
    assert [item["z"] for item in items] == [{"N": str(FORMAT)}] * len(items)


WRITES: dict[str, Callable[[DynamoDbStore], Awaitable[object]]] = {
    "append": lambda store: store.apply(NAME, append_commit(b"x")),
    "large append": lambda store: store.apply(NAME, append_commit(b"x" * 900)),
    "idempotent append": lambda store: store.apply_idempotently(NAME, append_commit(b"x"), "key"),
    "close": lambda store: store.apply(NAME, plan_close(Close(name=NAME), START_MS)),
    "renewal": lambda store: store.apply(NAME, plan_renewal(START_MS)),
    "create": lambda store: store.apply(NAME, create_commit(incarnation=9)),
    "delete": lambda store: store.apply(NAME, plan_delete(START_MS)),
    "rotation": lambda store: store.rotate(NAME),
    "head": lambda store: store.head(NAME),
    "heads": lambda store: store.heads([NAME]),
}


@pytest.mark.parametrize("is_known", [False, True], ids=["new process", "process that knows the stream"])
@pytest.mark.parametrize("request_", WRITES)
async def test_head_of_a_newer_format_is_refused_and_stays_as_it_is(  # noqa: PLR0913  four fixtures
    store: DynamoDbStore,
    environment: dict[str, str],
    still: FixedClock,
    caplog: pytest.LogCaptureFixture,
    request_: str,
    *,
    is_known: bool,
) -> None:
    """The answer is a 503, and the log names the stream and both formats."""
    await fill(store)
    update_format(environment, {"S"})
    head = [item for item in list_items(environment) if item["pk"]["S"] == f"S#{NAME}"]
    caller = store if is_known else open_store(environment, still.own_clock())
    with pytest.raises(StoreUnavailable) as raised:
        await WRITES[request_](caller)
    assert isinstance(raised.value, ItemTooNew) or isinstance(raised.value.__cause__, ItemTooNew)
    assert raised.value.status_hint == 503
    assert [item for item in list_items(environment) if item["pk"]["S"] == f"S#{NAME}"] == head
    [record] = [one for one in caplog.records if one.message == "item_too_new"][:1]
    assert record.levelno == logging.ERROR
    assert vars(record)["partition"] == f"S#{NAME}"
    assert (vars(record)["format"], vars(record)["understood"]) == (FORMAT + 1, FORMAT)
    if caller is not store:
        await caller.close()


@pytest.mark.parametrize("kind", ["SEG", "PL"])
async def test_bytes_of_a_newer_format_are_not_read(
    store: DynamoDbStore, environment: dict[str, str], kind: str
) -> None:
    """A segment's and a payload's; it is a 503, and no damage."""
    await fill(store)
    update_format(environment, {kind})
    head = await store.head(NAME)
    assert head is not None
    with pytest.raises(ItemTooNew):
        await store.read(NAME, head, 0, head.tail)


@pytest.mark.parametrize("kind", ["SEG", "PL", "S"])
async def test_sweep_leaves_items_of_a_newer_format_and_all_that_they_may_need(
    store: DynamoDbStore, environment: dict[str, str], still: FixedClock, kind: str
) -> None:
    """It counts them as failures, and goes on."""
    await fill(store)
    update_format(environment, {kind})
    before = list_items(environment)
    still.time.advance(TWO_DAYS_MS)
    report = await sweep_all(store, lambda _items, _objects: None, dry_run=False)
    assert report["failures"] > 0
    assert report["isComplete"] is True
    assert list_items(environment) == before


async def test_collection_stops_before_segments_of_a_newer_format(
    store: DynamoDbStore, environment: dict[str, str]
) -> None:
    """The change feed calls it again, and a newer release collects them."""
    await fill(store)
    update_format(environment, {"SEG"})
    before = list_items(environment)
    with pytest.raises(ItemTooNew):
        await store.collect(DroppedIncarnation(NAME, Incarnation(1), ()))
    assert list_items(environment) == before


async def test_appends_go_on_once_the_item_is_understood(store: DynamoDbStore, environment: dict[str, str]) -> None:
    """As when the newer release answers the retry."""
    await fill(store)
    update_format(environment, {"S"})
    with pytest.raises(ItemTooNew):
        await store.apply(NAME, append_commit(b"again"))
    update_format(environment, {"S"}, FORMAT)
    await store.apply(NAME, append_commit(b"again"))
    head = await store.head(NAME)
    assert head is not None
    assert (await store.read(NAME, head, head.tail - 5, 100)).data == b"again"


async def test_record_of_a_newer_head_is_returned_to_the_change_feed(store: DynamoDbStore) -> None:
    """Other streams' records of the batch are processed; this one comes again, to the newer release."""
    keys = {"pk": {"S": f"S#{NAME}"}, "sk": {"S": "H"}}
    image = {**keys, "z": {"N": str(FORMAT + 1)}, "q": {"S": "of a form that nobody knows yet"}}
    record = {"eventName": "MODIFY", "dynamodb": {"Keys": keys, "SequenceNumber": "1", "NewImage": image}}
    other: Any = {"pk": {"S": f"S#{OTHER}"}, "sk": {"S": "H"}}
    fine = {"eventName": "REMOVE", "dynamodb": {"Keys": other, "SequenceNumber": "2"}}
    nothing: Any = None  # no step is due that would use the parts
    feed = ChangeFeed(store, nothing, nothing, nothing)
    assert await process_records(feed, [record, fine]) == {"1"}
