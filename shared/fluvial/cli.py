"""The command line: `fluvial serve`, `sweep`, `project` and `token`."""

import click

from fluvial import __version__
from fluvial.commands.projects import project_group
from fluvial.commands.serving import serve_command
from fluvial.commands.sweeping import sweep_command
from fluvial.commands.tokens import token_group


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fluvial")
def main() -> None:
    """A server for Durable Streams: append-only streams at plain URLs."""


for command in (serve_command, sweep_command, project_group, token_group):
    main.add_command(command)
