"""`fluvial subscription …` against a server."""

import msgspec
import pytest

from tests.cli.verbs import Shell
from tests.support.program import assert_command_failed, assert_usage_error

PULL = ("--pattern", "jobs/*", "--wake-stream", "wake/jobs")


def test_worker_in_a_shell_claims_and_acks(shell: Shell) -> None:
    """create, claim, release, ack, show, and list."""
    shell.output("create", "wake/jobs", "--json")
    assert shell.output("subscription", "create", "jobs", *PULL) == "jobs created, with 0 streams\n"
    assert shell.output("subscription", "create", "jobs", *PULL) == "jobs exists, with 0 streams\n"
    assert_command_failed(shell.run("subscription", "create", "jobs", "--stream", "x", *PULL[2:]), "another config")
    assert_command_failed(shell.run("subscription", "claim", "jobs", "--worker", "me"), "NO_PENDING_WORK")
    shell.output("create", "jobs/1")
    shell.output("append", "jobs/1", "do it")
    claimed = shell.output("subscription", "claim", "jobs", "--worker", "me")
    assert [stream["path"] for stream in msgspec.json.decode(claimed)["streams"]] == ["jobs/1"]
    assert_command_failed(shell.run("subscription", "claim", "jobs", "--worker", "you"), "ALREADY_CLAIMED")
    shell.output("subscription", "release", "jobs", piped=claimed)
    assert_command_failed(shell.run("subscription", "ack", "jobs", piped=claimed), "FENCED")
    again = shell.output("subscription", "claim", "jobs", "--worker", "you")
    assert shell.output("subscription", "ack", "jobs", piped=again) == "acked\n"
    told = msgspec.json.decode(shell.output("subscription", "show", "jobs"))
    assert told["streams"][0]["acked_offset"] == msgspec.json.decode(again)["streams"][0]["tail_offset"]
    assert shell.output("subscription", "list") == "jobs  pull-wake  active\n"
    shell.output("subscription", "delete", "jobs", "jobs")
    assert_command_failed(shell.run("subscription", "show", "jobs"), "SUBSCRIPTION_NOT_FOUND")


def test_streams_are_linked_and_unlinked(shell: Shell) -> None:
    """Explicitly."""
    shell.output("subscription", "create", "links", "--stream", "a", "--wake-stream", "wake")
    shell.output("subscription", "link", "links", "b", "c/d")
    shell.output("subscription", "unlink", "links", "c/d")
    told = msgspec.json.decode(shell.output("subscription", "show", "links"))
    assert [stream["path"] for stream in told["streams"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "x", "--pattern", "a/*"), "--webhook or --wake-stream"),
        (("create", "x", "--pattern", "a/*", "--webhook", "https://x", "--wake-stream", "w"), "either"),
        (("create", "x", "--wake-stream", "w"), "--pattern, --stream"),
        (("create", "x", *PULL, "--lease", "11m"), "11m"),
        (("ack", "x"), "not a claim"),
    ],
)
def test_wrong_arguments_are_one_line(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    """With exit status 2."""
    assert_usage_error(shell.run("subscription", *arguments, piped="[]"), words)


def test_many_subscriptions_are_listed_in_pages(shell: Shell) -> None:
    """A page has a hundred."""
    for number in range(101):
        shell.output("subscription", "create", f"page-{number:03d}", "--stream", "a", "--wake-stream", "w")
    listed = shell.output("subscription", "list").splitlines()
    assert len([line for line in listed if line.startswith("page-")]) == 101
