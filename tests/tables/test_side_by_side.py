"""This release and the one before it work on one table, as while a deployment replaces one function after the other.

The code of the release before comes from this repository's history. Where the history lacks it, as in a shallow clone,
these tests are skipped; tests/tables/test_format_1.py has what that release wrote, and is never skipped.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial.aws.sweep_job import sweep_all
from fluvial.model.commit import Applied, Commit
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_delete
from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.support.clocks import START_MS, FixedClock
from tests.support.commands import append_commit, create_commit
from tests.support.rigs import eventually
from tests.tables.frozen import batch
from tests.tables.releases import (
    FORMAT_1,
    OtherRelease,
    WorkerError,
    extract_package,
    is_in_history,
    list_items,
    list_objects,
    running_release,
)
from tests.tables.test_format_1 import TWO_DAYS_MS, let_pass, read
from tests.tables.worker import CONTENT_TYPE

pytestmark = [
    pytest.mark.medium,
    pytest.mark.skipif(not is_in_history(FORMAT_1), reason="the release before is not in this clone's history"),
]

NAME = "shared"

#: Inline in the head, in the table, and in the bucket whatever the setting.
SIZES = (60, 900, 300, 301_000, 440, 5_000, 120)

#: Batches that both releases store where the other looks for them.
KNOWN_TO_BOTH = (60, 300, 301_000, 440, 120)


@pytest.fixture
def before(tmp_path: Path, environment: dict[str, str]) -> Iterator[OtherRelease]:
    """A process of the release before."""
    with running_release(extract_package(FORMAT_1, tmp_path), environment, START_MS) as release:
        yield release


async def apply(store: DynamoDbStore, commit: Commit) -> None:
    """Apply a commit that must be applied by this release."""
    assert isinstance(await store.apply(StreamName(NAME), commit), Applied)


async def append(store: DynamoDbStore, data: bytes) -> None:
    """Append by this release."""
    await apply(store, append_commit(data, name=NAME, content_type=CONTENT_TYPE))


async def append_by_both(store: DynamoDbStore, before: OtherRelease, sizes: tuple[int, ...], rounds: int = 3) -> bytes:
    """Append by both in turn, and by each of them twice in a row; the stream's bytes."""
    data = b""
    for number, size in enumerate(sizes * rounds):
        one = batch(number, size)
        data += one
        if number // 2 % 2:
            assert before.append(NAME, one)
        else:
            await append(store, one)
    return data


@pytest.mark.parametrize("creator", ["this release", "the release before"])
async def test_both_append_to_one_stream_and_this_release_reads_all(
    store: DynamoDbStore, before: OtherRelease, creator: str
) -> None:
    """Through spills and rotations by both; each batch is there once, and in its place."""
    if creator == "this release":
        await apply(store, create_commit(name=NAME, content_type=CONTENT_TYPE))
    else:
        assert before.do("create", NAME)
    data = await append_by_both(store, before, SIZES)
    assert await read(store, NAME) == data
    assert before.do("close", NAME)
    await store.rotate(StreamName(NAME))
    assert await read(store, NAME) == data
    assert before.read(NAME) == data


async def test_both_read_what_is_where_both_look(store: DynamoDbStore, before: OtherRelease) -> None:
    """Batches in heads and segments, and in the bucket."""
    await apply(store, create_commit(name=NAME, content_type=CONTENT_TYPE))
    data = await append_by_both(store, before, KNOWN_TO_BOTH)
    assert await read(store, NAME) == data
    assert before.read(NAME) == data
    before.do("rotate", NAME)
    assert await read(store, NAME) == data
    assert before.read(NAME) == data


async def test_release_before_refuses_to_read_payloads_that_it_cannot_find_and_keeps_them(
    store: DynamoDbStore, environment: dict[str, str], before: OtherRelease
) -> None:
    """It answers with an error, never with other bytes; its rotation and its sweep delete nothing of them."""
    await apply(store, create_commit(name=NAME, content_type=CONTENT_TYPE))
    data = b"".join(batch(number, 900) for number in range(6))
    for number in range(6):
        await append(store, batch(number, 900))
    with pytest.raises(WorkerError, match="StorageDamaged"):
        before.read(NAME)
    assert before.do("close", NAME)
    with pytest.raises(WorkerError, match="StorageDamaged"):
        before.do("rotate", NAME)
    before.do("advance", ms=TWO_DAYS_MS)
    items, objects = list_items(environment), list_objects(environment)
    report = before.do("sweep")
    assert {name: report[name] for name in ("payloads", "segments", "failures")} == dict.fromkeys(
        ("payloads", "segments", "failures"), 0
    )
    assert (list_items(environment), list_objects(environment)) == (items, objects)
    assert await read(store, NAME) == data
    await store.rotate(StreamName(NAME))
    assert before.read(NAME) == data


async def test_this_release_deletes_what_the_release_before_has_written(
    store: DynamoDbStore, environment: dict[str, str], before: OtherRelease
) -> None:
    """Nothing but the tombstone is left."""
    assert before.do("create", NAME)
    await append_by_both(store, before, SIZES)
    await apply(store, plan_delete(START_MS))
    await eventually(lambda: len(list_items(environment)) == 1 and not list_objects(environment), let_pass)


async def test_sweep_deletes_what_the_release_before_leaves_of_a_deleted_stream(
    store: DynamoDbStore, environment: dict[str, str], before: OtherRelease, still: FixedClock
) -> None:
    """It does not know where this release has put its payloads."""
    await apply(store, create_commit(name=NAME, content_type=CONTENT_TYPE))
    await append_by_both(store, before, SIZES)
    assert before.do("delete", NAME)
    left = {item["pk"]["S"].partition("#")[0] for item in list_items(environment)}
    assert left == {"S", "PL"}
    still.time.advance(TWO_DAYS_MS)
    report = await sweep_all(store, lambda _items, _objects: None, dry_run=False)
    assert report["payloads"] > 0
    assert [item["pk"]["S"] for item in list_items(environment)] == [f"S#{NAME}"]
    assert list_objects(environment) == []
