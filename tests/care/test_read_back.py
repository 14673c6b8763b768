"""Verification through a store, as `fluvial verify --store dynamodb` does it, and progress bars."""

import sys
from io import StringIO
from pathlib import Path
from typing import Final

import boto3
import pytest

from fluvial.cli.progress import progress_bar
from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied
from fluvial.model.errors import StorageDamaged
from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.model.plan import ForkPosition, plan_fork
from fluvial.model.project import Project
from fluvial.operations.read_back import read_back
from fluvial.storage.findings import Finding, Findings, no_progress
from tests.support.clocks import START_MS
from tests.support.commands import NAME, OTHER, append_commit, close_commit, create_command, create_commit
from tests.support.rigs import REGION, DynamoDbRig, Rig, eventually, moto_rig, sqlite_rig

BATCHES: Final = 6
BYTES: Final = BATCHES * 440


async def fill(rig: Rig) -> None:
    """A stream with hot segments, a fork of it, and a small stream."""
    await rig.store.apply(NAME, create_commit())
    for _ in range(BATCHES):
        await rig.store.apply(NAME, append_commit(b"x" * 440))
    source = await rig.store.head(NAME)
    assert source is not None
    fork = create_command(name=StreamName("fork"), fork=ForkPoint(NAME, None, 0))
    made = plan_fork(fork, ForkPosition(source, source.tail, source.tail), Incarnation(3), START_MS)
    assert isinstance(await rig.store.apply(fork.name, made), Applied)
    await rig.store.apply(OTHER, create_commit(2, name=OTHER, body=b"first,"))
    await rig.store.apply(OTHER, append_commit(b"second,", name=OTHER))


def hot_segments(rig: DynamoDbRig) -> list[object]:
    """The segments of the first incarnation that still hold bytes."""
    return [item for item in rig.items(f"SEG#{1:016x}") if item.get("d", {}).get("B")]


async def find(rig: Rig) -> tuple[list[str], dict[str, int]]:
    """What reading back finds, and counts."""
    found = list[Finding]()
    findings = Findings(found.append)
    await read_back(rig.store, "table", findings)
    return list(map(str, found)), findings.totals


async def test_every_byte_of_a_table_is_read(tmp_path: Path) -> None:
    """From the buffer of a head, from hot segments and from cold ones, and of a fork."""
    async with moto_rig(tmp_path) as rig:
        await fill(rig)
        assert rig.items(f"SEG#{1:016x}"), "the test is to see segments"
        assert await find(rig) == ([], {"streams": 3, "bytes": BYTES * 2 + 13, "batches": BATCHES * 2 + 2})
        await rig.store.apply(NAME, close_commit())
        await eventually(lambda: not hot_segments(rig), rig.let_pass)
        await rig.reopen()
        assert await find(rig) == ([], {"streams": 3, "bytes": BYTES * 2 + 13, "batches": BATCHES * 2 + 2})


async def test_missing_hot_segment_is_found_and_named(tmp_path: Path) -> None:
    """By its stream and the offset from which on bytes are missing, also as bytes of the fork."""
    async with moto_rig(tmp_path) as rig:
        await fill(rig)
        item = rig.items(f"SEG#{1:016x}")[0]
        rig.client.delete_item(TableName=rig.config.table, Key={"pk": item["pk"], "sk": item["sk"]})
        await rig.reopen()
        found, totals = await find(rig)
        assert [line.split("; ")[1] for line in found] == ["stream chat/1", "stream fork"]
        assert all(line.startswith("problem: table: ") and "position 0" in line for line in found)
        assert totals["streams"] == 3


async def test_missing_object_is_found_and_named(tmp_path: Path) -> None:
    """The objects hold cold segments."""
    async with moto_rig(tmp_path) as rig:
        await fill(rig)
        await rig.store.apply(NAME, close_commit())
        await eventually(lambda: not hot_segments(rig), rig.let_pass)
        boto3.resource("s3", region_name=REGION).Bucket(rig.config.bucket).objects.all().delete()
        await rig.reopen()
        found, _ = await find(rig)
        assert [line.split("; ")[1] for line in found] == ["stream chat/1", "stream fork"]


async def test_project_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The streams are read."""

    async def fail(*_: object) -> list[Project]:
        raise StorageDamaged

    async with sqlite_rig(tmp_path / "data") as rig:
        await rig.store.apply(NAME, create_commit(body=b"first,"))
        monkeypatch.setattr(rig.store.projects, "list_after", fail)
        found, totals = await find(rig)
        assert found == ["problem: table: the projects after '' cannot be read"]
        assert totals["streams"] == 1


async def test_page_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """The rest of its stream is left out, and the other streams are read."""
    async with sqlite_rig(tmp_path / "data") as rig:
        for name, number in ((NAME, 1), (OTHER, 2)):
            await rig.store.apply(name, create_commit(number, name=name, body=b"first,"))
        await rig.store.apply(NAME, close_commit())
        await eventually(lambda: rig.query("SELECT count(*) FROM segment") == [(1,)], rig.let_pass)
        await rig.reopen()
        [path] = rig.folder.glob("segments/*/*.segment")
        path.write_bytes(b"")
        [line], totals = await find(rig)
        assert line.startswith("problem: table: cannot be read from position 0 on: ")
        assert "; stream chat/1; offset " in line
        assert totals["bytes"] == 6


class _Terminal(StringIO):
    """Standard error of a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error."""
    with progress_bar() as show:
        assert show is no_progress
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar() as show:
        show("segments", 1, 4)
        show("segments", 2, 4)
        show("pages", 3, 0)
    assert "pages" in terminal.getvalue()
