"""`fluvial serve`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

import click
import msgspec

from fluvial import __version__
from fluvial.cli.options import CommandFailed, cli_errors, setting_options
from fluvial.cli.store_options import store_location
from fluvial.settings import LogFormat, Settings, kubernetes_service_variables, settings_from

log = logging.getLogger(__name__)

NOT_ON_WINDOWS: Final = "fluvial serve runs on Linux and macOS; on Windows use WSL"


def _serve(**values: str) -> None:
    """Serve streams over HTTP until SIGTERM or Ctrl-C."""
    if sys.platform == "win32":
        raise CommandFailed(NOT_ON_WINDOWS)
    signal.signal(signal.SIGTERM, _exit_before_start)
    # These imports take half of the start-up time. The handler is set before, so that SIGTERM exits cleanly.
    import uvloop  # noqa: PLC0415

    from fluvial.logs import configure_logs  # noqa: PLC0415
    from fluvial.serve import serve  # noqa: PLC0415

    with cli_errors():
        settings = settings_from(values)
        configure_logs(settings, _request_ids(settings))
        if variables := kubernetes_service_variables(os.environ):
            hint = "Kubernetes sets them for a Service named fluvial; to set the port, give --port"
            log.warning("service_variables_ignored", extra={"variables": variables, "hint": hint})
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, lambda url: _print_banner(url, settings)))


def _request_ids(settings: Settings) -> Mapping[str, str]:
    """The ids that each line has in a Lambda function; none elsewhere."""
    if settings.log_format is not LogFormat.LAMBDA:
        return {}
    from fluvial.aws.web_adapter import REQUEST_IDS  # noqa: PLC0415  only the live function has them

    return REQUEST_IDS


def _exit_before_start(_number: int, _frame: object) -> None:
    """Handle SIGTERM until the server's own handler is set: no request is running, and unwinding closes all files."""
    raise SystemExit(0)


def _print_banner(url: str, settings: Settings) -> None:
    """Print that the server accepts connections: a line for people, or a JSON object for programs."""
    banner = f"fluvial {__version__} serves {url}/v1/stream/"
    if settings.log_format.is_json:
        fields = {"event": "serving", "message": banner, "url": url, "version": __version__}
        click.echo(msgspec.json.encode({**fields, "place": store_location(settings)}))
    else:
        click.echo(f"{banner}  (streams are kept {store_location(settings)}; Ctrl-C stops)")
    sys.stdout.flush()


serve_command = click.Command("serve", callback=_serve, help=_serve.__doc__, params=setting_options())
