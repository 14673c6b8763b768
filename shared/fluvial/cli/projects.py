"""`fluvial project …`: projects, by whoever may write to the store; a server that is running sees it in seconds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import click
import msgspec

from fluvial.app import Owners, check_data_exists, open_adoption, open_owners, open_store
from fluvial.cli.options import OF_STORE, Failed, UsageError, WholeNumber, told, with_settings
from fluvial.cli.store_options import options_to, place_of
from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError, SettingsError, StartupError, StoreError
from fluvial.model.project import Project, ProjectLimits, Secret, parse_origins, parse_project_name, parse_secret
from fluvial.operations.manage_projects import Registry, described
from fluvial.settings import Settings, StoreKind, settings_from

if TYPE_CHECKING:
    from fluvial.storage.sqlite.adoption import Adoption, Found

T = TypeVar("T")

_LISTED_AT_ONCE: Final = 1_000

#: Names of adopted streams that are printed.
SHOWN_MAX: Final = 5

_WAYS_ON: Final = (
    ". Take them into the project with --adopt PREFIX (while no server is running), or leave them with --cut-off"
)


@click.group("project")
def project_group() -> None:
    """Make, see, change and end projects.

    While a store has none, its server is open to everybody. From the first one on a stream's path begins with its
    project's name, and whoever reads or writes needs a token that the project has signed.
    """


@asynccontextmanager
async def registry_of(settings: Settings) -> AsyncIterator[tuple[Registry, Owners]]:
    """The projects of a store, whether or not a server is using it."""
    clock = Clock()
    async with open_owners(settings, clock) as owners:
        yield Registry(owners.projects, clock, _nobody_here), owners


def _nobody_here(_name: str) -> None:
    """This process keeps nothing that it would have to forget."""


def settings_of(values: Mapping[str, str]) -> Settings:
    """The settings that the options name."""
    with told():
        return settings_from(values)


def run(settings: Settings, work: Callable[[Registry], Awaitable[T]]) -> T:
    """Do something with the projects of a store."""

    async def done() -> T:
        async with registry_of(settings) as (registry, _):
            return await work(registry)

    with told(place_of(settings)), asyncio.Runner() as runner:
        return runner.run(done())


def secret_from(file: str | None) -> Secret:
    """The secret in a file (`-`: standard input), or a new one."""
    clock = Clock()
    if file is None:
        return Secret(clock.new_secret(), clock.now_ms())
    try:
        with click.open_file(file) as opened:
            return parse_secret(opened.read().strip(), clock.now_ms())
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {file}: {exc}") from exc


def _tell_secret(secret: Secret, file: str | None) -> None:
    """Print a secret that was made here: nothing tells it again."""
    if file is None:
        click.echo(secret.value)


_SECRET_FILE = click.option(
    "--secret-file", metavar="FILE", help="Take the secret from a file, - is standard input, rather than make one."
)
_ORIGINS = click.option(
    "--origin", "origins", multiple=True, metavar="ORIGIN", help="A page's origin that may use the streams; * is any."
)


@project_group.command("create")
@click.argument("name")
@_ORIGINS
@click.option("--public", is_flag=True, help="Let everybody read its streams.")
@_SECRET_FILE
@click.option(
    "--adopt",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Take streams into the project whose paths begin so, and that are no project's yet: see project adopt.",
)
@click.option("--cut-off", is_flag=True, help="Make the first project although nobody reaches other streams any more.")
@with_settings(OF_STORE)
def _create(  # noqa: PLR0913  one for each rule
    name: str,
    origins: tuple[str, ...],
    secret_file: str | None,
    *,
    public: bool,
    prefixes: tuple[str, ...],
    cut_off: bool,
    **values: str,
) -> None:
    """Make a project, and print the secret that signs its tokens: once, for nothing tells it again.

    The first one closes the server: only streams below /v1/stream/NAME/ can be reached from then on. When there are
    others it is refused, unless they are adopted or --cut-off is given.
    """
    with told():
        secret, allowed = secret_from(secret_file), parse_origins(list(origins))
    settings = settings_of(values)

    async def created() -> "Found | None":
        async with adopting(settings, prefixes) as adoption, registry_of(settings) as (registry, owners):
            if not cut_off:
                await registry.check_reach(name, owners.streams, prefixes)
            found = None
            if adoption is not None:
                found = await adoption.find(prefixes, parse_project_name(name), owners.projects, SHOWN_MAX)
            await registry.create(name, secret, origins=allowed, is_public=public)
            if adoption is not None:
                try:
                    await adoption.rename()
                except StoreError as exc:
                    _tell_secret(secret, secret_file)
                    message = "the project is made, but its streams are not renamed; go on with fluvial project adopt"
                    raise Failed(f"{message} ({place_of(settings)}): {exc.__cause__ or exc}") from exc
            return found

    with told(place_of(settings)), asyncio.Runner() as runner:
        try:
            found = runner.run(created())
        except RequestError as exc:
            if exc.code is not ErrorCode.STREAMS_CUT_OFF:
                raise
            raise Failed(f"{exc.message} ({place_of(settings)}){_WAYS_ON}") from exc
    _tell_secret(secret, secret_file)
    click.echo(f"Made the project {name} {place_of(settings)}.", err=True)
    if found is not None:
        _tell_adopted(name, found)
    click.echo(f"Its streams are below /v1/stream/{name}/, and whoever uses them needs a token:", err=True)
    click.echo(f"    fluvial token mint {name} --scope write {options_to(settings)}", err=True)


@project_group.command("adopt")
@click.argument("name")
@click.argument("prefixes", metavar="PREFIX...", nargs=-1, required=True)
@with_settings(OF_STORE)
def _adopt(name: str, prefixes: tuple[str, ...], **values: str) -> None:
    """Take streams into a project whose paths begin with a PREFIX, as /v1/streams tells them; '' is all.

    Only those that are no project's. A stream a/b gets the path NAME/a/b, and keeps its bytes, offsets, producers,
    forks and followers; estuaries stay streams that can be read. It needs --store sqlite, and no server may be running.
    """
    settings = settings_of(values)

    async def adopted() -> "Found":
        async with adopting(settings, prefixes) as adoption, registry_of(settings) as (registry, owners):
            assert adoption is not None, "there are prefixes"
            project = await registry.get(name)
            found = await adoption.find(prefixes, project.name, owners.projects, SHOWN_MAX)
            await adoption.rename()
            return found

    with told(place_of(settings)), asyncio.Runner() as runner:
        _tell_adopted(name, runner.run(adopted()))


@asynccontextmanager
async def adopting(settings: Settings, prefixes: tuple[str, ...]) -> "AsyncIterator[Adoption | None]":
    """What renames streams, if any are to be adopted. Raises StartupError."""
    if not prefixes:
        yield None
        return
    if settings.store is not StoreKind.SQLITE:
        message = "only --store sqlite can adopt streams: in a table a stream's name is the key of all that it has"
        raise SettingsError(message)
    check_data_exists(settings)
    try:
        adoption = open_adoption(settings)
    except StartupError as exc:
        raise StartupError(f"{exc}: streams are adopted while no server is running") from exc
    with contextlib.closing(adoption):
        yield adoption


def _tell_adopted(name: str, found: "Found") -> None:
    shown = ", ".join(f"{name}/{one}" for one in found.first) + ", …" * (found.count > len(found.first))
    streams = "stream" if found.count == 1 else "streams"
    click.echo(f"Adopted {found.count:,} {streams}" + f": {shown}" * (found.count > 0), err=True)


@project_group.command("list")
@with_settings(OF_STORE)
def _list(**values: str) -> None:
    """Print the names of all projects."""
    settings = settings_of(values)

    async def listed(registry: Registry) -> None:
        after = ""
        while found := await registry.listed(after, _LISTED_AT_ONCE):
            for project in found:
                click.echo(project.name)
            after = found[-1].name
        if not after:
            click.echo(f"There are no projects {place_of(settings)}.", err=True)

    run(settings, listed)


@project_group.command("show")
@click.argument("name")
@with_settings(OF_STORE)
def _show(name: str, **values: str) -> None:
    """Print a project as JSON; of its secrets only what they are called by."""
    _print(run(settings_of(values), lambda registry: registry.get(name)))


@project_group.command("add-secret")
@click.argument("name")
@_SECRET_FILE
@with_settings(OF_STORE)
def _add_secret(name: str, secret_file: str | None, **values: str) -> None:
    """Add a secret, which signs from now on, and print it: once. What the others have signed stays good."""
    with told():
        secret = secret_from(secret_file)
    settings = settings_of(values)
    run(settings, lambda registry: registry.add_secret(name, secret))
    _tell_secret(secret, secret_file)
    click.echo(f"It is called {secret.id}, and signs the tokens of {name} {place_of(settings)}.", err=True)


@project_group.command("remove-secret")
@click.argument("name")
@click.argument("secret_id")
@with_settings(OF_STORE)
def _remove_secret(name: str, secret_id: str, **values: str) -> None:
    """Remove a secret by what it is called: tokens that it has signed are good for nothing any more."""
    settings = settings_of(values)
    run(settings, lambda registry: registry.remove_secret(name, secret_id))
    click.echo(f"Removed the secret {secret_id} of {name} {place_of(settings)}.", err=True)


@project_group.command("set")
@click.argument("name")
@_ORIGINS
@click.option("--no-origins", is_flag=True, help="Let no page of another origin use the streams.")
@click.option("--public/--private", default=None, help="Let everybody read its streams, or only who has a token.")
@click.option("--requests-per-second", type=WholeNumber(0), help="For each process; 0 is as many as come.")
@click.option("--live-reads", type=WholeNumber(0), help="Open at once in each process; 0: as many as the server's.")
@click.option("--body-bytes", type=WholeNumber(0), help="Of one request; 0: as many as the server's.")
@click.option("--bytes-per-day", type=WholeNumber(0), help="Appended in a day (UTC); 0 is as many as come.")
@with_settings(OF_STORE)
def _set(
    name: str, origins: tuple[str, ...], *, no_origins: bool, public: bool | None, **values: str | int | None
) -> None:
    """Change a project's rules; what is not named stays as it is. Prints the project as it is then."""
    limits = {field: values.pop(field) for field in ProjectLimits.__struct_fields__}
    rules: dict[str, object] = {}
    with told():
        if origins or no_origins:
            if origins and no_origins:
                raise UsageError("--origin and --no-origins exclude each other")
            rules["origins"] = parse_origins(list(origins))
    if public is not None:
        rules["is_public"] = public
    named = {field: int(limit) or None for field, limit in limits.items() if limit is not None}
    settings = settings_of({key: str(value) for key, value in values.items()})
    _print(run(settings, lambda registry: registry.change(name, named, **rules)))
    click.echo(f"Changed {name} {place_of(settings)}.", err=True)


@project_group.command("delete")
@click.argument("name")
@with_settings(OF_STORE)
def _delete(name: str, **values: str) -> None:
    """End a project that has no streams any more. With SQLite no server may be running."""
    settings = settings_of(values)

    async def deleted() -> None:
        check_data_exists(settings)
        clock = Clock()
        store = await open_store(settings, clock)
        try:
            await Registry(store.projects, clock, _nobody_here).remove(name, store)
        finally:
            await store.close()

    with told(place_of(settings)), asyncio.Runner() as runner:
        runner.run(deleted())
    click.echo(f"Deleted {name} {place_of(settings)}.", err=True)


def _print(project: Project) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(described(project))).decode())
