"""`fluvial project …`: projects, by whoever may write to the store; a server that is running sees it in seconds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import click
import msgspec

from fluvial.commands.options import OF_STORE, Refused, told, with_settings
from fluvial.core.project import Project, ProjectLimits, Secret, parse_origins, parse_secret
from fluvial.opening import open_projects, open_store
from fluvial.operations.projects import Registry, described
from fluvial.settings import Settings, settings_from
from fluvial.world import World

T = TypeVar("T")

_LISTED_AT_ONCE = 1_000


@click.group("project")
def project_group() -> None:
    """Make, see, change and end projects.

    While a store has none, its server is open to everybody. From the first one on a stream's path begins with its
    project's name, and whoever reads or writes needs a token that the project has signed.
    """


@asynccontextmanager
async def registry_of(settings: Settings) -> AsyncIterator[Registry]:
    """The projects of a store, whether or not a server is using it."""
    world = World()
    async with open_projects(settings, world) as projects:
        yield Registry(projects, world, _nobody_here)


def _nobody_here(_name: str) -> None:
    """This process keeps nothing that it would have to forget."""


def run(values: dict[str, str], work: Callable[[Registry], Awaitable[T]]) -> T:
    """Do something with the projects of the store that the options name."""

    async def done(settings: Settings) -> T:
        async with registry_of(settings) as registry:
            return await work(registry)

    with told(), asyncio.Runner() as runner:
        return runner.run(done(settings_from(values)))


def secret_from(file: str | None) -> Secret:
    """The secret in a file (`-`: standard input), or a new one."""
    world = World()
    if file is None:
        return Secret(world.new_secret(), world.now_ms())
    try:
        with click.open_file(file) as opened:
            return parse_secret(opened.read().strip(), world.now_ms())
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"cannot read {file}: {exc}") from exc


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
@with_settings(OF_STORE)
def _create(name: str, origins: tuple[str, ...], secret_file: str | None, *, public: bool, **values: str) -> None:
    """Make a project, and print the secret that signs its tokens: once, for nothing tells it again."""
    with told():
        secret, allowed = secret_from(secret_file), parse_origins(list(origins))
    run(values, lambda registry: registry.create(name, secret, origins=allowed, is_public=public))
    if secret_file is None:
        click.echo(secret.value)
    click.echo(f"Its streams are below /v1/stream/{name}/, and whoever uses them needs a token:", err=True)
    click.echo(f"    fluvial token mint {name} --scope write", err=True)


@project_group.command("list")
@with_settings(OF_STORE)
def _list(**values: str) -> None:
    """Print the names of all projects."""

    async def listed(registry: Registry) -> None:
        after = ""
        while found := await registry.listed(after, _LISTED_AT_ONCE):
            for project in found:
                click.echo(project.name)
            after = found[-1].name

    run(values, listed)


@project_group.command("show")
@click.argument("name")
@with_settings(OF_STORE)
def _show(name: str, **values: str) -> None:
    """Print a project as JSON; of its secrets only what they are called by."""
    _print(run(values, lambda registry: registry.get(name)))


@project_group.command("add-secret")
@click.argument("name")
@_SECRET_FILE
@with_settings(OF_STORE)
def _add_secret(name: str, secret_file: str | None, **values: str) -> None:
    """Add a secret, which signs from now on, and print it: once. What the others have signed stays good."""
    with told():
        secret = secret_from(secret_file)
    run(values, lambda registry: registry.add_secret(name, secret))
    if secret_file is None:
        click.echo(secret.value)
    click.echo(f"It is called {secret.id}.", err=True)


@project_group.command("remove-secret")
@click.argument("name")
@click.argument("secret_id")
@with_settings(OF_STORE)
def _remove_secret(name: str, secret_id: str, **values: str) -> None:
    """Remove a secret by what it is called: tokens that it has signed are good for nothing any more."""
    run(values, lambda registry: registry.remove_secret(name, secret_id))


@project_group.command("set")
@click.argument("name")
@_ORIGINS
@click.option("--no-origins", is_flag=True, help="Let no page of another origin use the streams.")
@click.option("--public/--private", default=None, help="Let everybody read its streams, or only who has a token.")
@click.option("--requests-per-second", type=click.IntRange(0), help="For each process; 0 is as many as come.")
@click.option("--live-reads", type=click.IntRange(0), help="Open at once in each process; 0: as many as the server's.")
@click.option("--body-bytes", type=click.IntRange(0), help="Of one request; 0: as many as the server's.")
@click.option("--bytes-per-day", type=click.IntRange(0), help="Appended in a day (UTC); 0 is as many as come.")
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
                raise Refused("--origin and --no-origins exclude each other")
            rules["origins"] = parse_origins(list(origins))
    if public is not None:
        rules["is_public"] = public
    named = {field: limit or None for field, limit in limits.items() if limit is not None}

    async def changed(registry: Registry) -> Project:
        known = (await registry.get(name)).limits
        return await registry.change(name, **rules, limits=msgspec.structs.replace(known, **named))

    _print(run({key: str(value) for key, value in values.items()}, changed))


@project_group.command("delete")
@click.argument("name")
@with_settings(OF_STORE)
def _delete(name: str, **values: str) -> None:
    """End a project that has no streams any more. With SQLite no server may be running."""

    async def deleted(settings: Settings) -> None:
        world = World()
        store = await open_store(settings, world)
        try:
            await Registry(store.projects, world, _nobody_here).remove(name, store)
        finally:
            await store.close()

    with told(), asyncio.Runner() as runner:
        runner.run(deleted(settings_from(values)))


def _print(project: Project) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(described(project))).decode())
