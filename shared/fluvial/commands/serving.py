"""`fluvial serve`."""

import asyncio
import sys

import click
import uvloop

from fluvial import __version__
from fluvial.commands.options import setting_options, told
from fluvial.logs import configure_logs
from fluvial.server import serve
from fluvial.settings import Settings, StoreKind, settings_from


def _serve(**values: str) -> None:
    """Serve streams over HTTP until SIGTERM or Ctrl-C."""
    with told():
        settings = settings_from(values)
        configure_logs(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, lambda url: _print_banner(url, settings)))


def _print_banner(url: str, settings: Settings) -> None:
    kept = _place(settings)
    click.echo(f"fluvial {__version__} serves {url}/v1/stream/  (streams are kept {kept}; Ctrl-C stops)")
    sys.stdout.flush()


def _place(settings: Settings) -> str:
    match settings.store:
        case StoreKind.SQLITE:
            return f"in {settings.data_dir}"
        case StoreKind.DYNAMODB:
            return f"in the table {settings.table} and the bucket {settings.bucket}"
        case StoreKind.MEMORY:
            return "in memory: they go with this process"


serve_command = click.Command("serve", callback=_serve, help=_serve.__doc__, params=setting_options())
