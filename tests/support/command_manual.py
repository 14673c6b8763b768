"""The help texts of all commands in docs/cli.md; `python -m tests.support.command_manual` renews them."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from fluvial.cli.main import main

PATH = Path(__file__).parents[2] / "docs" / "cli.md"


def command_paths(command: click.Command) -> Iterator[tuple[str, ...]]:
    """The words that call each command."""
    if not isinstance(command, click.Group):
        yield ()
        return
    for name, child in command.commands.items():
        for path in command_paths(child):
            yield (name, *path)


def help_of(*path: str) -> str:
    """The help text of a command."""
    done = CliRunner().invoke(main, [*path, "--help"], prog_name="fluvial", env={"COLUMNS": "100"})
    assert done.exit_code == 0
    return done.stdout.strip()


def renewed(manual: str) -> str:
    """The manual with the help text of each command; a new command comes last."""
    for path in command_paths(main):
        name = " ".join(("fluvial", *path))
        old = re.compile(rf"```text\nUsage: {name} (?=[^a-z]).*?\n```\n", re.DOTALL)
        new = f"```text\n{help_of(*path)}\n```\n"
        if old.search(manual) is None:
            manual += f"\n`{name} --help` prints:\n\n{new}"
        manual = old.sub(new.replace("\\", r"\\"), manual)
    return manual


if __name__ == "__main__":
    PATH.write_text(renewed(PATH.read_text()))
