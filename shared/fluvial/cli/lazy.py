"""A group whose commands are imported when they are called, so that `fluvial --help` is quick."""

import errno
import os
import signal
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, Final

import click

#: What a shell reports for a program that Ctrl-C has ended.
INTERRUPTED_EXIT_CODE: Final = 128 + signal.SIGINT

#: Errors of a file that takes no more.
_NOT_WRITTEN: Final = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO})


class Entry(click.Command):
    """A command in the table: where its object is, and the first sentence of its help text."""

    def __init__(self, name: str, location: str, short_help: str) -> None:
        """`location` is `module:object`, in the package of the command line."""
        super().__init__(name, short_help=short_help)
        self.location = location

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.location.partition(":")
        command = getattr(import_module(f"fluvial.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by their names, each imported when it is asked for."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        """The commands of a table."""
        self._entries = dict[str, click.Command](entries)

    def __getitem__(self, name: str) -> click.Command:
        """Import a command."""
        entry = self._entries[name]
        return entry.load() if isinstance(entry, Entry) else entry

    def __setitem__(self, name: str, command: click.Command) -> None:
        """Add a command that is imported already."""
        self._entries[name] = command

    def __delitem__(self, name: str) -> None:
        """Remove a command."""
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """The names, without an import."""
        return iter(self._entries)

    def __len__(self) -> int:
        """How many commands there are."""
        return len(self._entries)


class LazyGroup(click.Group):
    """A group of commands that are imported late, whose help text lists them in sections."""

    def __init__(
        self,
        name: str | None = None,
        *,
        sections: Mapping[str, tuple[Entry, ...]],
        **attributes: Any,  # noqa: ANN401  click's
    ) -> None:
        """`sections` has the commands by the headings of the help text."""
        self.sections = sections
        entries = {entry.name or "": entry for section in sections.values() for entry in section}
        attributes["commands"] = LazyCommands(entries)
        super().__init__(name, **attributes)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by sections, with the texts of the table."""
        del ctx
        width = max(map(len, self.commands))
        for heading, entries in self.sections.items():
            rows = [((entry.name or "").ljust(width), entry.get_short_help_str(limit=100)) for entry in entries]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def main(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  click's
        """Run the command line, and exit. A full disk below standard output is one line and exit status 1."""
        try:
            try:
                return super().main(*args, **options)
            finally:
                sys.stdout.flush()
        except OSError as exc:
            if exc.errno not in _NOT_WRITTEN or exc.filename is not None:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes again at its end
            click.echo(f"Error: cannot write the output: {exc.strerror}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. Ctrl-C ends it without a message."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            return ctx.exit(INTERRUPTED_EXIT_CODE)
