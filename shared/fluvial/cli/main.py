"""The command line: `fluvial` and the table of its commands."""

import os
import sys
from typing import Final

import click

from fluvial import __version__
from fluvial.cli.lazy import Entry, LazyGroup

#: All commands, by the headings of `fluvial --help`: name, place in this package, and first sentence of the help text.
SECTIONS: Final = {
    "Streams": (
        Entry("create", "streams:create_command", "Create a stream."),
        Entry("append", "append:append_command", "Append texts, a file or standard input to a stream."),
        Entry("read", "read:read_command", "Print what a stream has."),
        Entry("tail", "read:tail_command", "Print the end of a stream, and with -f what is appended to it."),
        Entry("ls", "listing:list_command", "List the streams whose names begin with PREFIX."),
        Entry("info", "listing:info_command", "Show all that the server tells of a stream."),
        Entry("close", "streams:close_command", "Close a stream, so that readers see its end."),
        Entry("fork", "streams:fork_command", "Create a stream that begins as another one."),
        Entry("rm", "streams:remove_command", "Delete streams."),
        Entry("subscription", "subscriptions:subscription_group", "Wake workers when streams have new data."),
        Entry("context", "contexts:context_group", "Keep servers and tokens by name."),
    ),
    "Server": (Entry("serve", "serve:serve_command", "Serve streams over HTTP until SIGTERM or Ctrl-C."),),
    "Access": (
        Entry("project", "projects:project_group", "Create, show, change and delete projects."),
        Entry("token", "tokens:token_group", "Mint and inspect tokens."),
        Entry("webhook-key", "webhook_keys:webhook_key_group", "List and rotate the keys that sign webhooks."),
    ),
    "Care": (
        Entry("backup", "care:backup_command", "Back up a data folder, also while a server uses it."),
        Entry("restore", "care:restore_command", "Restore a backup into a new data folder."),
        Entry("verify", "care:verify_command", "Check stored data: each byte, checksum and offset."),
        Entry("export", "transfer:export_command", "Print streams as lines of JSON, with offsets and a checksum."),
        Entry("import", "transfer:import_command", "Create the streams of an export, and append their contents."),
        Entry("top", "top:top_command", "Show what a server does, and its busiest streams."),
        Entry("bench", "bench:bench_command", "Measure how fast a server takes appends."),
        Entry("cost", "cost:cost_command", "Estimate what a load costs a month on AWS."),
        Entry("undelete", "undelete:undelete_command", "Bring back the objects that a restored table points to."),
        Entry("sweep", "sweep:sweep_command", "Sweep a table and a bucket once, from beginning to end."),
    ),
}


@click.group(cls=LazyGroup, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
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
