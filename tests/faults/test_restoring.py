"""A table that is restored to a moment gets back the objects that were deleted since, and no table loses another's."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from click.testing import CliRunner, Result

from fluvial.aws.sweep_job import sweep_all
from fluvial.cli.main import main
from fluvial.model.plan import plan_delete
from fluvial.storage.dynamodb.bucket_owner import DENIAL_MS, OWNER_KEY, BucketOfAnotherTable
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation
from fluvial.storage.limits import StoreLimits
from tests.aws_local.template import create_table, load_properties
from tests.faults.test_concurrent_appends import read_all
from tests.support.clocks import START_MS
from tests.support.commands import NAME, append_commit, create_commit
from tests.support.rigs import REGION, DynamoDbRig, moto_rig

TWO_DAYS_MS = 2 * 86_400_000


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """A table, and a bucket with versions as the template's has; rotation after a few batches."""
    async with moto_rig(tmp_path, StoreLimits(segment_batches=6)) as opened:
        versioning = load_properties("AWS::S3::Bucket")["SegmentBucket"]["VersioningConfiguration"]
        s3().put_bucket_versioning(Bucket=opened.config.bucket, VersioningConfiguration=versioning)
        yield opened


def s3() -> Any:  # noqa: ANN401  boto3 makes its clients' classes at run time
    """S3, past the store."""
    return boto3.client("s3", region_name=REGION)


def keys(rig: DynamoDbRig) -> set[str]:
    """The keys of the bucket's objects, without the one that names its owner."""
    listed = s3().list_objects_v2(Bucket=rig.config.bucket).get("Contents", [])
    return {one["Key"] for one in listed} - {OWNER_KEY}


async def fill(store: DynamoDbStore) -> bytes:
    """A stream with batches in cold segments, in hot ones, in the head, and in objects of their own; its bytes."""
    await store.apply(NAME, create_commit())
    batches = [b"<%d:%s>" % (number, b"x" * (301_000 if number in {3, 11, 13} else 190)) for number in range(14)]
    for number, batch in enumerate(batches):
        await store.apply(NAME, append_commit(batch))
        if number == 8:
            await store.rotate(NAME)
    return b"".join(batches)


def copy_table(rig: DynamoDbRig) -> DynamoDbRig:
    """Another table with the same items, as point-in-time recovery makes it, on the same bucket."""
    config = replace(rig.config, table=f"{rig.config.table}-restored", runs_background_tasks=False)
    create_table(rig.client, config.table)
    for item in rig.client.scan(TableName=rig.config.table)["Items"]:
        rig.client.put_item(TableName=config.table, Item=item)
    return replace(rig, config=config, store=DynamoDbStore(config, rig.still.own_clock()))


async def delete_all(rig: DynamoDbRig) -> None:
    """Delete the stream and its data, as the functions do."""
    head = await rig.store.head(NAME)
    assert head is not None
    stored = rig.store._heads.get(NAME)
    assert stored is not None
    await rig.store.apply(NAME, plan_delete(START_MS))
    await rig.store.collect(DroppedIncarnation(NAME, head.incarnation, stored.buffer))


async def undelete(rig: DynamoDbRig, *options: str) -> Result:
    """Run the command."""
    place = ["--table", rig.config.table, "--bucket", rig.config.bucket, "--region", REGION]
    return await asyncio.to_thread(CliRunner().invoke, main, ["undelete", *place, *options])


def report_of(ran: Result) -> dict[str, Any]:
    """The report that the command has printed."""
    report: dict[str, Any] = msgspec.json.decode(ran.stdout)
    return report


async def sweep(rig: DynamoDbRig, *, dry_run: bool = False) -> dict[str, Any]:
    """Sweep the rig's table."""
    return await sweep_all(rig.store, lambda _items, _objects: None, dry_run=dry_run)


async def test_restored_table_reads_back_what_was_deleted(rig: DynamoDbRig) -> None:
    """After a deletion, a restored table, `undelete --take-over`, and a sweep of the restored table two days later."""
    data = await fill(rig.store)
    needed = keys(rig)
    assert {key.partition("/")[0] for key in needed} == {"segments", "staged"}
    restored = copy_table(rig)
    await delete_all(rig)
    assert keys(rig) == set()
    planned = await undelete(restored, "--dry-run", "--take-over")
    assert (planned.exit_code, report_of(planned)["undeleted"], keys(rig)) == (0, len(needed), set())
    ran = await undelete(restored, "--take-over")
    assert ran.exit_code == 0, ran.output
    assert report_of(ran) == {**report_of(planned), "dryRun": False}
    assert keys(rig) == needed
    assert await read_all(restored.store) == data
    again = report_of(await undelete(restored))
    assert (again["present"], again["undeleted"]) == (len(needed), 0)
    rig.still.time.advance(TWO_DAYS_MS)
    await sweep(restored)
    assert keys(rig) == needed
    assert await read_all(restored.store) == data
    await restored.store.close()


async def test_undelete_does_not_take_a_bucket_without_being_told(rig: DynamoDbRig) -> None:
    """The sweep of the other table would delete again what comes back."""
    await fill(rig.store)
    restored = copy_table(rig)
    await delete_all(rig)
    for options in ((), ("--dry-run",)):
        ran = await undelete(restored, *options)
        assert ran.exit_code == 1
        assert f"belongs to the table {rig.config.table} " in ran.output
    assert keys(rig) == set()
    await restored.store.close()


async def test_object_without_a_version_is_reported_as_lost(rig: DynamoDbRig) -> None:
    """The others come back, and the exit status tells that some did not."""
    await fill(rig.store)
    needed = keys(rig)
    restored = copy_table(rig)
    await delete_all(rig)
    lost = min(needed)
    for one in s3().list_object_versions(Bucket=rig.config.bucket, Prefix=lost)["Versions"]:
        s3().delete_object(Bucket=rig.config.bucket, Key=lost, VersionId=one["VersionId"])
    ran = await undelete(restored, "--take-over")
    assert ran.exit_code == 1
    report = report_of(ran)
    assert (report["lost"], report["undeleted"], report["failures"]) == (1, len(needed) - 1, 0)
    assert keys(rig) == needed - {lost}
    await restored.store.close()


async def test_table_cannot_delete_in_the_bucket_of_another(rig: DynamoDbRig, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by a sweep, nor by a rotation, nor by a collection; its own items stay for when it owns a bucket."""
    data = await fill(rig.store)
    needed = keys(rig)
    other = copy_table(rig)
    for number in range(12):  # only the copy has these
        await other.store.apply(NAME, append_commit(b"%d" % number * 190))
    rig.still.time.advance(TWO_DAYS_MS)
    for dry_run in (True, False):
        with pytest.raises(BucketOfAnotherTable, match=f"belongs to the table {rig.config.table} "):
            await sweep(other, dry_run=dry_run)
    before = other.client.scan(TableName=other.config.table, Select="COUNT")["Count"]
    await other.store.rotate(NAME)
    assert other.client.scan(TableName=other.config.table, Select="COUNT")["Count"] == before
    await delete_all(other)
    assert keys(rig) == needed
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert [one.msg for one in errors] == ["bucket_of_another_table"], (
        "the rotation asked, and the collection remembered"
    )
    assert await read_all(rig.store) == data
    await other.store.close()


async def test_owner_is_asked_for_again_after_a_minute(rig: DynamoDbRig) -> None:
    """Rotations of many streams do not ask S3 each time, and go on soon after the table has taken the bucket over."""
    await rig.store.bucket_owner.claim()
    other = copy_table(rig)
    owner = other.store.bucket_owner
    assert not await owner.is_own()
    s3().delete_object(Bucket=rig.config.bucket, Key=OWNER_KEY)
    assert not await owner.is_own()
    other.still.time.advance(DENIAL_MS)
    assert await owner.is_own()
    await other.store.close()


async def test_two_tables_that_claim_a_bucket_at_once_do_not_both_own_it(rig: DynamoDbRig) -> None:
    """The object `owner` is written only where there is none."""
    other = copy_table(rig)
    owners = [one.store.bucket_owner for one in (rig, other)]
    results = await asyncio.gather(*(owner.claim() for owner in owners), return_exceptions=True)
    assert {type(one) for one in results} == {BucketOfAnotherTable, type(None)}
    await other.store.close()


async def test_new_table_of_the_same_name_does_not_own_its_predecessor_s_bucket(rig: DynamoDbRig) -> None:
    """It is empty, so that its sweep would delete every object."""
    await fill(rig.store)
    needed = keys(rig)
    rig.client.delete_table(TableName=rig.config.table)
    create_table(rig.client, rig.config.table)
    rig.still.time.advance(TWO_DAYS_MS)
    await rig.reopen()
    with pytest.raises(BucketOfAnotherTable):
        await sweep(rig)
    assert keys(rig) == needed
