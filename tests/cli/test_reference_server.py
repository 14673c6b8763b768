"""The commands against the protocol's reference server, which has none of Fluvial's own routes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.cli.verbs import Shell
from tests.support.ports import free_port
from tests.support.program import assert_command_failed, assert_usage_error

BENCH = Path(__file__).parents[2] / "bench"

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def reference_url() -> Iterator[str]:
    """The URL of the reference server's streams, with streams in memory."""
    command = ["node", "reference.mjs", str(free_port())]
    with subprocess.Popen(command, cwd=BENCH, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().removeprefix("serves ")
        finally:
            process.kill()


@pytest.fixture
def reference(reference_url: str, tmp_path: Path) -> Shell:
    """A shell with the reference server in its environment."""
    return Shell(reference_url, tmp_path)


def test_text_is_created_appended_read_followed_and_closed(reference: Shell) -> None:
    """A producer's lines are there once, although the input is given twice."""
    reference.output("create", "log")
    for _ in range(2):
        reference.output("append", "log", "--producer", "p", piped="one\ntwo\n")
    reference.output("append", "log", "three", "--close")
    assert reference.output("read", "log") == "one\ntwo\nthree\n"
    assert reference.output("tail", "log", "-f", "-n", "1") == "three\n"
    assert_command_failed(reference.run("append", "log", "late"), "closed")


def test_json_keeps_its_messages(reference: Shell) -> None:
    """An array that is one line is one message."""
    reference.output("create", "events", "--json", "--ttl", "1h")
    reference.output("append", "events", piped='{"a":1}\n[2,3]\n')
    assert reference.output("read", "events") == '{"a":1}\n[2,3]\n'
    told = msgspec.json.decode(reference.output("info", "events", "-o", "json"))
    assert (told["contentType"], told["ttlSeconds"], told["closed"]) == ("application/json", 3_600, False)


def test_fork_and_remove(reference: Shell) -> None:
    """A fork begins as its source; a deleted stream is gone."""
    reference.output("create", "source")
    reference.output("append", "source", "both")
    reference.output("fork", "source", "fork")
    reference.output("append", "fork", "fork alone")
    assert reference.output("read", "fork") == "both\nfork alone\n"
    reference.output("rm", "fork")
    assert reference.run("read", "fork").returncode == 1


def test_streams_are_exported_and_imported_by_name(reference: Shell) -> None:
    """The import may be repeated."""
    reference.output("create", "from")
    reference.output("append", "from", "a", "b", "--close")
    file = str(reference.folder / "export.jsonl")
    reference.output("export", "from", "-o", file)
    for _ in range(2):
        reference.output("import", "to", file)
    assert reference.output("read", "to") == "a\nb\n"


def test_list_says_that_the_server_has_none(reference: Shell) -> None:
    """The protocol has no route for it."""
    assert_command_failed(reference.run("ls"), "does not list its streams")
    assert_command_failed(reference.run("rm", "--prefix", "a", "--yes"), "does not list its streams")
    reference.output("create", "listless")
    assert_usage_error(reference.run("read", "listless", "--from", "banana"), "offset")
