"""The command line: `fluvial serve`. Each setting is an option and an environment variable."""

import asyncio
import sys
from typing import get_type_hints

import click
import msgspec
import uvloop

from fluvial import __version__
from fluvial.core.errors import StartupRefused
from fluvial.logs import configure_logs
from fluvial.server import serve
from fluvial.settings import ENVIRONMENT_PREFIX, Settings, StoreKind, settings_from


class _Refused(click.ClickException):
    """One clear line, and exit status 2."""

    exit_code = 2


def _option(field: msgspec.structs.FieldInfo) -> click.Option:
    hints = get_type_hints(Settings, include_extras=True)
    description = hints[field.name].__metadata__[0].description
    kind = get_type_hints(Settings)[field.name]
    if kind is bool:
        return click.Option(
            [f"--{field.name.replace('_', '-')}", field.name],
            is_flag=True,
            default=field.default,
            envvar=f"{ENVIRONMENT_PREFIX}{field.name.upper()}",
            help=description,
            show_envvar=True,
        )
    choices = [str(member) for member in kind] if issubclass(kind, str) and kind is not str else None
    return click.Option(
        [f"--{field.name.replace('_', '-')}", field.name],
        default=str(field.default),
        envvar=f"{ENVIRONMENT_PREFIX}{field.name.upper()}",
        help=description,
        metavar=f"[{'|'.join(choices)}]" if choices else kind.__name__.upper(),
        show_default=True,
        show_envvar=True,
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fluvial")
def main() -> None:
    """A server for Durable Streams: append-only streams at plain URLs."""


def _serve(**values: str) -> None:
    """Serve streams over HTTP until SIGTERM or Ctrl-C."""
    try:
        settings = settings_from(values)
        configure_logs(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, lambda url: _print_banner(url, settings)))
    except StartupRefused as exc:
        raise _Refused(str(exc)) from exc


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


main.add_command(
    click.Command(
        "serve",
        callback=_serve,
        help=_serve.__doc__,
        params=[_option(f) for f in msgspec.structs.fields(Settings)],
    )
)
