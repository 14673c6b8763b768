"""The command line: `fluvial serve`, `sweep`, `project` and `token`."""

import os
import sys

import click

from fluvial import __version__
from fluvial.cli.projects import project_group
from fluvial.cli.serve import serve_command
from fluvial.cli.sweep import sweep_command
from fluvial.cli.tokens import token_group


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fluvial")
def main() -> None:
    """A server for Durable Streams: append-only streams at plain URLs."""
    _open_standard_streams()


def _open_standard_streams() -> None:
    """Open /dev/null as standard input, output or error if the program was started with one of them closed.

    Otherwise the next file or socket would get that descriptor: prints would be written into it, and libuv aborts when
    it closes one of the three.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor: this one
            os.set_inheritable(number, True)  # noqa: FBT003  takes no keyword
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


for command in (serve_command, sweep_command, project_group, token_group):
    main.add_command(command)
