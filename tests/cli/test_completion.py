"""Completion of streams' names, as bash asks for it."""

import pytest

from tests.cli.verbs import Shell


def complete(shell: Shell, words: str, **environment: str) -> list[str]:
    """What bash is told for a command line whose cursor is behind its last character."""
    asked = {"_FLUVIAL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    ran = shell.run(**asked, **environment)
    assert ran.returncode == 0, ran
    return [line.removeprefix("plain,") for line in ran.stdout.splitlines() if line]


def test_commands_are_completed(shell: Shell) -> None:
    """Without a request, so also when there is no server."""
    assert complete(shell, "fluvial re", FLUVIAL_URL="http://127.0.0.1:1") == ["read", "restore"]


@pytest.mark.parametrize("command", ["read", "append", "rm", "tail"])
def test_names_of_streams_are_completed(shell: Shell, command: str) -> None:
    """Those on the server that begin with what is typed."""
    for name in ("complete/a", "complete/b"):
        shell.output("create", name)
    assert complete(shell, f"fluvial {command} complete/") == ["complete/a", "complete/b"]
    assert complete(shell, f"fluvial {command} complete/b") == ["complete/b"]


def test_no_names_are_completed_without_a_server(shell: Shell) -> None:
    """And nothing is printed that would disturb the line."""
    assert complete(shell, "fluvial read a", FLUVIAL_URL="http://127.0.0.1:1") == []
    assert complete(shell, "fluvial read a", FLUVIAL_URL="nonsense") == []
