"""`fluvial create`, `append`, `read`, `tail`, `ls`, `info`, `close`, `fork` and `rm` against a server."""

import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import msgspec
import pytest

from tests.cli.untrue_server import Answers, untrue_server
from tests.cli.verbs import Shell
from tests.support.program import assert_command_failed, assert_usage_error
from tests.support.servers import server_in_thread

LINES = "".join(f"{number}\n" for number in range(1, 26))


def test_created_stream_is_text_unless_a_type_is_given(shell: Shell) -> None:
    """A second create with the same configuration changes nothing, another one is refused."""
    for _ in range(2):
        shell.output("create", "create/a")
    assert_command_failed(shell.run("create", "create/a", "--json"), "stream_exists", "fluvial info")
    shell.output("create", "create/b", "--json", "--ttl", "24h")
    told = msgspec.json.decode(shell.output("info", "create/b", "-o", "json"))
    assert (told["contentType"], told["ttlSeconds"], told["closed"]) == ("application/json", 86_400, False)
    assert_usage_error(shell.run("create", "create/c", "--ttl", "soon"), "'soon' is not a duration")
    assert_usage_error(shell.run("create", "create/c", "--ttl", "1h", "--expires-at", "2030-01-01T00:00:00Z"), "--ttl")


def test_append_takes_arguments_standard_input_and_files(shell: Shell) -> None:
    """Each argument and each line of the input is a line of the stream."""
    (shell.folder / "file").write_text("from a file")
    shell.output("create", "append/a")
    shell.output("append", "append/a", "one", "two words")
    shell.output("append", "append/a", piped="three\n\nfive")
    shell.output("append", "append/a", "--file", str(shell.folder / "file"))
    shell.output("append", "append/a", "--whole", "--close", piped="the\nend")
    assert shell.output("read", "append/a") == "one\ntwo words\nthree\n\nfive\nfrom a file\nthe\nend"
    assert_command_failed(shell.run("append", "append/a", "late"), "closed")
    assert_usage_error(shell.run("append", "append/a", "x", "--file", "y"), "exclude")
    assert_usage_error(shell.run("append", "append/a", "--file", "/none"), "cannot read /none")


def test_line_of_json_is_a_message_also_if_it_is_an_array(shell: Shell) -> None:
    """Blank lines are left out. A line that is not JSON ends the command after the lines before it."""
    shell.output("create", "json", "--json")
    shell.output("append", "json", piped='{"a":1}\n\n[1,2]\n')
    ran = shell.run("append", "json", piped='"good"\nnot good\n3\n')
    assert_usage_error(ran, "line 2 is not valid JSON", "before it, 1 line appended")
    assert shell.output("read", "json") == '{"a":1}\n[1,2]\n"good"\n'
    assert msgspec.json.decode(shell.output("read", "json", "-o", "json")) == [{"a": 1}, [1, 2], "good"]
    assert shell.output("read", "json", "--last", "1", "-o", "raw") == '"good"'


def test_formats_of_text(shell: Shell) -> None:
    """Lines as JSON strings, an array of them, or all bytes in base64."""
    shell.output("create", "text")
    shell.output("append", "text", "ä", "b")
    assert shell.output("read", "text", "-o", "raw") == "ä\nb\n"
    assert shell.output("read", "text", "-o", "jsonl") == '"ä"\n"b"\n'
    assert msgspec.json.decode(shell.output("read", "text", "-o", "json")) == ["ä", "b"]
    assert b64decode(shell.output("read", "text", "-o", "base64")).decode() == "ä\nb\n"


def test_read_continues_at_the_offset_that_it_printed(shell: Shell) -> None:
    """--offsets prints the offset after each part."""
    shell.output("create", "offsets")
    shell.output("append", "offsets", "one")
    part = msgspec.json.decode(shell.output("read", "offsets", "-o", "jsonl", "--offsets"))
    assert part["data"] == "one\n"
    shell.output("append", "offsets", "two")
    assert shell.output("read", "offsets", "--from", part["offset"]) == "two\n"
    assert_usage_error(shell.run("read", "offsets", "--offsets"), "-o jsonl")
    assert_usage_error(shell.run("read", "offsets", "--from", "banana"), "malformed_offset")


@pytest.mark.parametrize(
    ("arguments", "first", "last"),
    [
        (("read", "--last", "3"), 23, 25),
        (("read", "--limit", "2"), 1, 2),
        (("tail",), 16, 25),
        (("tail", "-n1"), 25, 25),
    ],
    ids=["read --last", "read --limit", "tail", "tail -n"],
)
def test_part_of_a_stream_is_chosen_by_lines(shell: Shell, arguments: tuple[str, ...], first: int, last: int) -> None:
    """The first or the last lines."""
    shell.output("create", "lines")
    shell.output("append", "lines", "--producer", "test", piped=LINES)
    command, *options = arguments
    assert shell.output(command, "lines", *options).split() == [str(number) for number in range(first, last + 1)]


def test_producer_appends_each_line_once(shell: Shell) -> None:
    """The input may be longer the next time. A producer's close is repeated, too."""
    shell.output("create", "once")
    shell.output("append", "once", "--producer", "p", piped="a\nb\n")
    again = shell.run("append", "once", "--producer", "p", "--close", piped="a\nb\nc\n")
    assert "once has 2 lines of the producer p already" in again.stderr
    repeated = shell.run("append", "once", "--producer", "p", "--close", piped="a\nb\nc\n")
    assert (repeated.returncode, shell.output("read", "once")) == (0, "a\nb\nc\n")
    assert_command_failed(shell.run("append", "once", "--producer", "p", "--close", piped="a\n"), "closed")
    assert_usage_error(shell.run("append", "once", "--producer", "p", "--bytes", piped="a"), "--lines or --whole")


def test_shorter_input_is_another_input_than_the_producers(shell: Shell) -> None:
    """It would be taken for one that the stream has: nothing is appended, and the stream stays open."""
    shell.output("create", "shorter")
    shell.output("append", "shorter", "--producer", "p", piped="a\nb\n")
    for options in ((), ("--close",)):
        ran = shell.run("append", "shorter", "--producer", "p", *options, piped="x\n")
        assert_usage_error(ran, "shorter has 2 lines of the producer p, and this input only 1")
    assert shell.output("read", "shorter") == "a\nb\n"
    shell.output("append", "shorter", "c")


@pytest.mark.parametrize("producer_id", ["ü", "a\nb", " a"])
def test_id_that_no_header_field_can_have_is_refused(shell: Shell, producer_id: str) -> None:
    """Before anything is sent."""
    shell.output("create", "id")
    assert_usage_error(shell.run("append", "id", "--producer", producer_id, piped="a\n"), "printable ASCII")


def test_prefix_is_spelled_as_names_are(shell: Shell) -> None:
    """With or without escapes, also one that a shell has cut off within an escape."""
    shell.output("create", "ü b/ü c")
    name = "%C3%BC%20b/%C3%BC%20c\n"
    assert [shell.output("ls", prefix) for prefix in ("ü", "ü b/ü", "%C3%BC%20b", "%C3%BC%2")] == [name] * 4
    assert shell.output("export", "--prefix", "ü b").count("\n") == 2
    shell.output("rm", "--prefix", "ü b", "--yes")
    assert_command_failed(shell.run("rm", "--prefix", "ü b", "--yes"), "no stream whose name begins with %C3%BC%20b")
    assert_command_failed(shell.run("export", "--prefix", "ü b"), "no stream whose name begins with %C3%BC%20b")


def test_json_message_of_several_lines_is_printed_in_one(shell: Shell) -> None:
    """In text and as JSON lines; raw bytes stay as they are."""
    shell.output("create", "pretty", "--json")
    shell.output("append", "pretty", "--whole", piped='{\n "a": 1\n}')
    assert shell.output("read", "pretty") == '{  "a": 1 }\n'
    assert shell.output("read", "pretty", "-o", "jsonl") == '{  "a": 1 }\n'
    assert shell.output("read", "pretty", "-o", "raw") == '[{\n "a": 1\n}]'


@pytest.mark.parametrize(
    "command", [("read", "full"), ("ls",), ("info", "full"), ("export", "--all"), ("--help",)], ids=str
)
def test_full_disk_below_the_output_is_one_line(shell: Shell, command: tuple[str, ...]) -> None:
    """/dev/full is a disk without space."""
    shell.run("create", "full")
    shell.run("append", "full", "x" * 100_000)
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        program = [sys.executable, "-m", "fluvial", *command]
        environment = {**os.environ, "FLUVIAL_URL": shell.url, "FLUVIAL_TOKEN": ""}
        ran = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (
        1,
        "Error: cannot write the output: No space left on device",
    )
    assert "Traceback" not in ran.stderr


def test_full_disk_below_an_export_is_one_line(shell: Shell) -> None:
    """With the name of the file."""
    shell.output("create", "export-full")
    assert_command_failed(
        shell.run("export", "export-full", "-o", "/dev/full"), "cannot write /dev/full: No space left"
    )


def test_tail_follows_until_the_stream_is_closed(shell: Shell) -> None:
    """With the last lines first."""
    shell.output("create", "follow")
    shell.output("append", "follow", "a", "b", "c", "--close")
    assert shell.output("tail", "-f", "follow", "-n", "2") == "b\nc\n"


def test_list_shows_names_and_with_l_details(shell: Shell) -> None:
    """Content type, size, state, expiry and last append; the same as JSON."""
    shell.output("create", "list/a", "--json", "--expires-at", "2099-01-01T00:00:00Z")
    shell.output("create", "list/b")
    shell.output("append", "list/b", "12345", "--close")
    assert shell.output("ls", "list/") == "list/a\nlist/b\n"
    heading, first, second = shell.output("ls", "-l", "list/").splitlines()
    assert heading.split() == ["SIZE", "STATE", "EXPIRES", "LAST", "APPEND", "TYPE", "NAME"]
    assert first.split() == ["0", "B", "open", "2099-01-01T00:00:00Z", "-", "application/json", "list/a"]
    assert second.split()[:4] == ["6", "B", "closed", "never"]
    listed = shell.output("ls", "list/", "-o", "jsonl").splitlines()
    assert [msgspec.json.decode(line)["bytes"] for line in listed] == [0, 6]
    assert len(msgspec.json.decode(shell.output("ls", "list/", "-o", "json"))) == 2


def test_info_shows_the_producers(shell: Shell) -> None:
    """And that a stream is not there."""
    shell.output("create", "info")
    shell.output("append", "info", "--producer", "logs", piped="a\n")
    assert '"id":"logs"' in shell.output("info", "info")
    assert_command_failed(shell.run("info", "none"), "there is no stream none", "fluvial ls")


def test_fork_begins_as_its_source(shell: Shell) -> None:
    """And goes on by itself."""
    shell.output("create", "source")
    shell.output("append", "source", "both")
    shell.output("fork", "source", "fork")
    shell.output("append", "fork", "fork alone")
    assert shell.output("read", "fork") == "both\nfork alone\n"
    assert shell.output("read", "source") == "both\n"


def test_remove_deletes_names_or_a_prefix(shell: Shell) -> None:
    """Without a terminal, a prefix needs --yes."""
    for name in ("rm/a", "rm/b", "rm/c"):
        shell.output("create", name)
    shell.output("rm", "rm/a")
    gone = shell.run("rm", "rm/a", "rm/c")
    assert_command_failed(gone, "1 of 2 streams were not deleted")
    assert gone.stderr.startswith("rm/a: ")
    shell.output("create", "rm/c")
    assert_usage_error(shell.run("rm", "--prefix", "rm/"), "2 streams", "--yes")
    shell.output("rm", "--prefix", "rm/", "--yes")
    assert shell.output("ls", "rm/") == ""
    assert_command_failed(shell.run("rm", "rm/a"), "rm/a: ", "not_found")
    for arguments in ((), ("rm/a", "--prefix", "rm/")):
        assert_usage_error(shell.run("rm", *arguments), "either names or --prefix")


def test_closed_stream_takes_nothing_more(shell: Shell) -> None:
    """Closing it again is no error."""
    shell.output("create", "close")
    for _ in range(2):
        shell.output("close", "close")
    assert_command_failed(shell.run("append", "close", "x"), "closed")


def test_lines_are_appended_in_requests_that_the_server_takes(tmp_path: Path) -> None:
    """A line that is too large for any request ends the command, with the lines before it appended."""
    with server_in_thread(tmp_path / "data", "--store", "memory", "--max-body", "100") as server:
        shell = Shell(server.url, tmp_path)
        shell.output("create", "small")
        shell.output("append", "small", piped=LINES * 4)
        assert shell.output("read", "small") == LINES * 4
        ran = shell.run("append", "small", piped="a\nb\n" + "c" * 101 + "\nd\n")
        assert_usage_error(ran, "small: ", "body_too_large", "before it, 2 lines appended")
        assert shell.output("read", "small") == LINES * 4 + "a\nb\n"
        assert_usage_error(shell.run("append", "small", "--whole", piped=LINES * 4), "body_too_large")
        shell.output("append", "small", "--bytes", piped="e")
        assert_usage_error(shell.run("append", "small", "--whole", piped=""), "the input is empty")


def test_append_to_a_server_that_has_gone_tells_what_it_has_appended(tmp_path: Path) -> None:
    """Nothing, here: the server was never there."""
    ran = Shell("http://127.0.0.1:1", tmp_path).run("append", "a", "x")
    assert_command_failed(ran, "Connection refused", "Is the server running?")


def test_info_in_lines_has_lists_and_times(shell: Shell) -> None:
    """Absent values are a dash, and yes or no."""
    shell.output("create", "told", "--ttl", "1h")
    lines = dict(line.split(maxsplit=1) for line in shell.output("info", "told").splitlines())
    assert (lines["closed"], lines["ttlSeconds"], lines["producers"], lines["forkedFrom"]) == ("no", "3600", "-", "-")
    shell.output("fork", "told", "told-fork")
    assert '"stream":"told"' in shell.output("info", "told-fork")
    assert "expiresAt" in lines


def test_list_of_a_server_that_tells_names_alone_asks_for_each(tmp_path: Path) -> None:
    """As servers of an earlier version do."""
    with untrue_server(Answers(is_earlier=True, streams={"/v1/stream/a": b"12345"})) as url:
        shell = Shell(url, tmp_path)
        assert shell.output("ls") == "a\n"
        assert "application/octet-stream" in shell.output("ls", "-l")
        [described] = msgspec.json.decode(shell.output("ls", "-o", "json"))
        assert (described["name"], described["offset"]) == ("a", "5")
