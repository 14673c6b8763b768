"""`fluvial serve`."""

import asyncio
import logging
import os
import signal
import sys

import click
import msgspec

from fluvial import __version__
from fluvial.cli.options import setting_options, told
from fluvial.cli.store_options import place_of
from fluvial.settings import LogFormat, Settings, service_variables, settings_from

log = logging.getLogger(__name__)


def _serve(**values: str) -> None:
    """Serve streams over HTTP until SIGTERM or Ctrl-C."""
    signal.signal(signal.SIGTERM, _end)
    # Imported now, for it takes as long as all else: who is told to stop meanwhile ends as at any other time.
    import uvloop  # noqa: PLC0415

    from fluvial.logs import configure_logs  # noqa: PLC0415
    from fluvial.serve import serve  # noqa: PLC0415

    with told():
        settings = settings_from(values)
        configure_logs(settings)
        if variables := service_variables(os.environ):
            hint = "Kubernetes has set them for a Service named fluvial; to set the port, give --port"
            log.warning("service_variables_ignored", extra={"variables": variables, "hint": hint})
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, lambda url: _print_banner(url, settings)))


def _end(_number: int, _frame: object) -> None:
    """SIGTERM before the server is there: nothing is under way, and what is open is closed on the way out."""
    raise SystemExit(0)


def _print_banner(url: str, settings: Settings) -> None:
    """Tell on standard output that connections are taken: a line for people, or an object for programs."""
    banner = f"fluvial {__version__} serves {url}/v1/stream/"
    if settings.log_format is LogFormat.JSON:
        told = {"event": "serving", "message": banner, "url": url, "version": __version__, "place": place_of(settings)}
        click.echo(msgspec.json.encode(told))
    else:
        click.echo(f"{banner}  (streams are kept {place_of(settings)}; Ctrl-C stops)")
    sys.stdout.flush()


serve_command = click.Command("serve", callback=_serve, help=_serve.__doc__, params=setting_options())
