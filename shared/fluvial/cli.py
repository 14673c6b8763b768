"""The command line: `fluvial serve` and `fluvial sweep`. Each setting is an option and an environment variable."""

import asyncio
import sys
from typing import Final, get_type_hints

import click
import msgspec
import uvloop

from fluvial import __version__
from fluvial.core.errors import StartupRefused, StoreError
from fluvial.logs import configure_logs
from fluvial.opening import dynamodb_store
from fluvial.server import serve
from fluvial.settings import ENVIRONMENT_PREFIX, Settings, StoreKind, settings_from
from fluvial.world import World

#: The settings that a sweep needs.
_OF_SWEEP: Final = {"table", "bucket", "region", "endpoint_url", "s3_endpoint_url", "log_level", "log_format"}


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


def _sweep(*, dry_run: bool, **values: str) -> None:
    """Sweep a table and a bucket once, from beginning to end.

    Ends streams that have expired, and deletes what nothing leads to any more: what is left of processes that died. On
    AWS the sweep function does so every day. Prints what was found, as JSON.
    """
    try:
        settings = settings_from(values)
        configure_logs(settings)
        with asyncio.Runner() as runner:
            report = runner.run(_swept(settings, dry_run=dry_run))
    except StartupRefused as exc:
        raise _Refused(str(exc)) from exc
    except StoreError as exc:
        raise click.ClickException(f"{exc.public_message}: {exc.__cause__ or exc}") from exc
    if sys.stderr.isatty():
        click.echo(err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())


async def _swept(settings: Settings, *, dry_run: bool) -> dict[str, object]:
    # Only this command and what chooses the store need boto3.
    from fluvial.triggers.sweeping import sweep_all  # noqa: PLC0415

    store = await dynamodb_store(settings, World())
    try:
        return await sweep_all(store, _print_progress if sys.stderr.isatty() else _print_nothing, dry_run=dry_run)
    finally:
        await store.close()


def _print_progress(items: int, objects: int) -> None:
    click.echo(f"\r{items:,} items and {objects:,} objects looked at", nl=False, err=True)


def _print_nothing(_items: int, _objects: int) -> None:
    """Nobody watches."""


main.add_command(
    click.Command(
        "serve",
        callback=_serve,
        help=_serve.__doc__,
        params=[_option(f) for f in msgspec.structs.fields(Settings)],
    )
)
main.add_command(
    click.Command(
        "sweep",
        callback=_sweep,
        help=_sweep.__doc__,
        params=[
            click.Option(["--dry-run"], is_flag=True, help="Only report what there is to do."),
            *(_option(f) for f in msgspec.structs.fields(Settings) if f.name in _OF_SWEEP),
        ],
    )
)
