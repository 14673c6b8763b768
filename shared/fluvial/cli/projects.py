"""`fluvial project …`: manage a store's projects from the command line, also beside a running server.

A running server notices a change within seconds, as far as it caches projects.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import click
import msgspec

from fluvial.app import ProjectStorage, check_data_exists, open_adoption, open_projects, open_store
from fluvial.cli.options import STORE_SETTINGS, CommandFailed, UsageError, WholeNumber, cli_errors, with_settings
from fluvial.cli.store_options import options_for_store, store_location
from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError, SettingsError, StartupError, StoreError
from fluvial.model.project import Project, ProjectLimits, Secret, parse_origins, parse_project_name, parse_secret
from fluvial.operations.manage_projects import ProjectAdmin, describe_project
from fluvial.settings import Settings, StoreKind, settings_from

if TYPE_CHECKING:
    from fluvial.storage.sqlite.adoption import AdoptableStreams, Adoption

T = TypeVar("T")

_PROJECTS_PER_PAGE: Final = 1_000

#: Names of adopted streams that are printed.
ADOPTED_NAMES_SHOWN_MAX: Final = 5

_CUT_OFF_ADVICE: Final = (
    ". Move them into the project with --adopt PREFIX (while no server is running), or give them up with --cut-off"
)


@click.group("project")
def project_group() -> None:
    """Create, show, change and delete projects.

    A server whose store has no project is open to everybody. From the first project on, a stream's path begins with
    the name of its project, and every request needs a token that is signed with one of the project's secrets.
    """


@asynccontextmanager
async def open_project_admin(settings: Settings) -> AsyncIterator[tuple[ProjectAdmin, ProjectStorage]]:
    """Open the projects of an existing store, beside a server that may be using it."""
    clock = Clock()
    async with open_projects(settings, clock) as storage:
        yield ProjectAdmin(storage.projects, clock), storage


def parse_settings(values: Mapping[str, str]) -> Settings:
    """The settings that the options give. Raises UsageError."""
    with cli_errors():
        return settings_from(values)


def run_with_project_admin(settings: Settings, work: Callable[[ProjectAdmin], Awaitable[T]]) -> T:
    """Run `work` on the projects of a store."""

    async def open_and_work() -> T:
        async with open_project_admin(settings) as (admin, _):
            return await work(admin)

    with cli_errors(store_location(settings)), asyncio.Runner() as runner:
        return runner.run(open_and_work())


def read_or_make_secret(file: str | None) -> Secret:
    """Read a secret from a file (`-` is standard input), or make a new one without a file."""
    clock = Clock()
    if file is None:
        return Secret(clock.new_secret(), clock.now_ms())
    try:
        with click.open_file(file) as opened:
            return parse_secret(opened.read().strip(), clock.now_ms())
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {file}: {exc}") from exc


def _print_new_secret(secret: Secret, file: str | None) -> None:
    """Print a secret that was made here, because no other command shows it."""
    if file is None:
        click.echo(secret.value)


_SECRET_FILE_OPTION = click.option(
    "--secret-file", metavar="FILE", help="Read the secret from a file (- is standard input) instead of making one."
)
_ORIGINS_OPTION = click.option(
    "--origin", "origins", multiple=True, metavar="ORIGIN", help="Origin whose pages may use the streams; * is all."
)


@project_group.command("create")
@click.argument("name")
@_ORIGINS_OPTION
@click.option("--public", is_flag=True, help="Let everybody read the project's streams.")
@_SECRET_FILE_OPTION
@click.option(
    "--adopt",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Move streams into the project whose paths begin with PREFIX and that have no project.",
)
@click.option("--cut-off", is_flag=True, help="Create the first project even if it makes streams unreachable.")
@with_settings(STORE_SETTINGS)
def _create(  # noqa: PLR0913  one parameter for each option
    name: str,
    origins: tuple[str, ...],
    secret_file: str | None,
    *,
    public: bool,
    prefixes: tuple[str, ...],
    cut_off: bool,
    **values: str,
) -> None:
    """Create a project, and print its secret.

    The secret signs the project's tokens. No other command shows it again.

    The first project closes the server: from then on, only streams below /v1/stream/NAME/ can be reached. If there are
    others, the command fails, unless they are adopted or --cut-off is given. See also: fluvial project adopt.
    """
    with cli_errors():
        secret, allowed = read_or_make_secret(secret_file), parse_origins(list(origins))
    settings = parse_settings(values)
    rules: dict[str, object] = {"origins": allowed, "is_public": public}
    with cli_errors(store_location(settings)), asyncio.Runner() as runner:
        try:
            adopted = runner.run(_create_and_adopt(settings, name, secret, rules, prefixes, cut_off=cut_off))
        except RequestError as exc:
            if exc.code is not ErrorCode.STREAMS_CUT_OFF:
                raise
            raise CommandFailed(f"{exc.message} ({store_location(settings)}){_CUT_OFF_ADVICE}") from exc
        except CommandFailed:  # the project exists, and this is the only chance to see its secret
            _print_new_secret(secret, secret_file)
            raise
    _print_new_secret(secret, secret_file)
    click.echo(f"Created the project {name} {store_location(settings)}.", err=True)
    if adopted is not None:
        _print_adopted(name, adopted)
    click.echo(f"Its streams are below /v1/stream/{name}/, and requests need a token, for example:", err=True)
    click.echo(f"    fluvial token mint {name} --scope write {options_for_store(settings)}", err=True)


async def _create_and_adopt(  # noqa: PLR0913  as the command's
    settings: Settings,
    name: str,
    secret: Secret,
    rules: Mapping[str, object],
    prefixes: tuple[str, ...],
    *,
    cut_off: bool,
) -> "AdoptableStreams | None":
    """Create a project, and move the streams with the prefixes into it. CommandFailed if only the first succeeds."""
    async with (
        _open_adoption_if_asked(settings, prefixes) as adoption,
        open_project_admin(settings) as (admin, storage),
    ):
        if not cut_off:
            await admin.check_no_stream_is_cut_off(name, storage.stream_names, prefixes)
        if adoption is None:
            await admin.create(name, secret, **rules)
            return None
        project_name = parse_project_name(name)
        adopted = await adoption.find(prefixes, project_name, storage.projects, ADOPTED_NAMES_SHOWN_MAX)
        await admin.create(name, secret, **rules)
        try:
            await adoption.rename()
        except StoreError as exc:
            message = "the project is created, but its streams are not renamed; run fluvial project adopt"
            raise CommandFailed(f"{message} ({store_location(settings)}): {exc.__cause__ or exc}") from exc
        return adopted


@project_group.command("adopt")
@click.argument("name")
@click.argument("prefixes", metavar="PREFIX...", nargs=-1, required=True)
@with_settings(STORE_SETTINGS)
def _adopt(name: str, prefixes: tuple[str, ...], **values: str) -> None:
    """Move existing streams into a project.

    The streams are all whose paths, as /v1/streams lists them, begin with a PREFIX ('' for all), except those that have
    a project. A stream a/b gets the path NAME/a/b, and keeps its bytes, offsets, producers, forks and followers;
    estuaries can still be read. This needs --store sqlite, and no server may be running.
    """
    settings = parse_settings(values)

    async def adopt() -> "AdoptableStreams":
        async with (
            _open_adoption_if_asked(settings, prefixes) as adoption,
            open_project_admin(settings) as (admin, storage),
        ):
            assert adoption is not None, "click requires a prefix"
            project = await admin.get(name)
            adopted = await adoption.find(prefixes, project.name, storage.projects, ADOPTED_NAMES_SHOWN_MAX)
            await adoption.rename()
            return adopted

    with cli_errors(store_location(settings)), asyncio.Runner() as runner:
        _print_adopted(name, runner.run(adopt()))


@asynccontextmanager
async def _open_adoption_if_asked(settings: Settings, prefixes: tuple[str, ...]) -> "AsyncIterator[Adoption | None]":
    """Lock the data folder for renaming streams, if there are prefixes to adopt. Raises StartupError."""
    if not prefixes:
        yield None
        return
    if settings.store is not StoreKind.SQLITE:
        message = "only --store sqlite can adopt streams: in a table, a stream's name is the key of all its items"
        raise SettingsError(message)
    check_data_exists(settings)
    try:
        adoption = open_adoption(settings)
    except StartupError as exc:
        raise StartupError(f"{exc}: streams are adopted while no server is running") from exc
    with contextlib.closing(adoption):
        yield adoption


def _print_adopted(name: str, adopted: "AdoptableStreams") -> None:
    names = ", ".join(f"{name}/{one}" for one in adopted.first) + ", …" * (adopted.count > len(adopted.first))
    streams = "stream" if adopted.count == 1 else "streams"
    click.echo(f"Adopted {adopted.count:,} {streams}" + f": {names}" * (adopted.count > 0), err=True)


@project_group.command("list")
@with_settings(STORE_SETTINGS)
def _list(**values: str) -> None:
    """Print the names of all projects."""
    settings = parse_settings(values)

    async def print_names(admin: ProjectAdmin) -> None:
        after = ""
        while projects := await admin.list_after(after, _PROJECTS_PER_PAGE):
            for project in projects:
                click.echo(project.name)
            after = projects[-1].name
        if not after:
            click.echo(f"There are no projects {store_location(settings)}.", err=True)

    run_with_project_admin(settings, print_names)


@project_group.command("show")
@click.argument("name")
@with_settings(STORE_SETTINGS)
def _show(name: str, **values: str) -> None:
    """Print a project as JSON.

    It shows the ids of the secrets, not the secrets.
    """
    _print_project(run_with_project_admin(parse_settings(values), lambda admin: admin.get(name)))


@project_group.command("add-secret")
@click.argument("name")
@_SECRET_FILE_OPTION
@with_settings(STORE_SETTINGS)
def _add_secret(name: str, secret_file: str | None, **values: str) -> None:
    """Add a secret to a project, and print it.

    New tokens are signed with it from now on; tokens that are signed with the project's other secrets stay valid. No
    other command shows the secret again.
    """
    with cli_errors():
        secret = read_or_make_secret(secret_file)
    settings = parse_settings(values)
    run_with_project_admin(settings, lambda admin: admin.add_secret(name, secret))
    _print_new_secret(secret, secret_file)
    click.echo(f"Added the secret {secret.id}: it signs new tokens of {name} {store_location(settings)}.", err=True)


@project_group.command("remove-secret")
@click.argument("name")
@click.argument("secret_id")
@with_settings(STORE_SETTINGS)
def _remove_secret(name: str, secret_id: str, **values: str) -> None:
    """Remove a secret from a project.

    Tokens that are signed with the secret become invalid. Its id is in the output of fluvial project show.
    """
    settings = parse_settings(values)
    run_with_project_admin(settings, lambda admin: admin.remove_secret(name, secret_id))
    click.echo(f"Removed the secret {secret_id} of {name} {store_location(settings)}.", err=True)


@project_group.command("set")
@click.argument("name")
@_ORIGINS_OPTION
@click.option("--no-origins", is_flag=True, help="Let no page of another origin use the streams.")
@click.option("--public/--private", default=None, help="Let everybody read the streams, or only clients with a token.")
@click.option("--requests-per-second", type=WholeNumber(0), help="Limit for each server process; 0 is no limit.")
@click.option("--live-reads", type=WholeNumber(0), help="Most at a time in each process; 0 is the server's limit.")
@click.option("--body-bytes", type=WholeNumber(0), help="Largest request body; 0 is the server's limit.")
@click.option("--bytes-per-day", type=WholeNumber(0), help="Most bytes appended in a day (UTC); 0 is no limit.")
@with_settings(STORE_SETTINGS)
def _set(
    name: str, origins: tuple[str, ...], *, no_origins: bool, public: bool | None, **values: str | int | None
) -> None:
    """Change a project's rules, and print it as JSON.

    Rules whose option is not given stay as they are.
    """
    limits = {field: values.pop(field) for field in ProjectLimits.__struct_fields__}
    rules: dict[str, object] = {}
    with cli_errors():
        if origins or no_origins:
            if origins and no_origins:
                raise UsageError("--origin and --no-origins exclude each other")
            rules["origins"] = parse_origins(list(origins))
    if public is not None:
        rules["is_public"] = public
    new_limits = {field: int(limit) or None for field, limit in limits.items() if limit is not None}
    settings = parse_settings({key: str(value) for key, value in values.items()})
    _print_project(run_with_project_admin(settings, lambda admin: admin.change(name, new_limits, **rules)))
    click.echo(f"Changed {name} {store_location(settings)}.", err=True)


@project_group.command("delete")
@click.argument("name")
@with_settings(STORE_SETTINGS)
def _delete(name: str, **values: str) -> None:
    """Delete a project that has no streams left.

    With --store sqlite, no server may be running.
    """
    settings = parse_settings(values)

    async def delete() -> None:
        check_data_exists(settings)
        clock = Clock()
        store = await open_store(settings, clock)
        try:
            await ProjectAdmin(store.projects, clock).remove(name, store)
        finally:
            await store.close()

    with cli_errors(store_location(settings)), asyncio.Runner() as runner:
        runner.run(delete())
    click.echo(f"Deleted {name} {store_location(settings)}.", err=True)


def _print_project(project: Project) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(describe_project(project))).decode())
