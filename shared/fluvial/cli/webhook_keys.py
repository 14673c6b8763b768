"""`fluvial webhook-key …`: the keys that sign webhooks, from the command line, also beside a running server."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import click

from fluvial.app import open_projects
from fluvial.cli.options import STORE_SETTINGS, CommandFailed, cli_errors, with_settings
from fluvial.cli.store_options import store_location
from fluvial.clock import Clock
from fluvial.model.errors import SettingsError
from fluvial.model.signing_keys import SigningKey, TooManyKeysError, active_key, published_keys
from fluvial.settings import Settings, StoreKind, settings_from
from fluvial.storage.signing_keys import SigningKeys
from fluvial.webhooks.keys import WebhookKeys

T = TypeVar("T")


@click.group("webhook-key")
def webhook_key_group() -> None:
    """List and rotate the keys that sign webhooks.

    The first webhook subscription makes a key. Receivers find the public keys at /v1/stream/__ds/jwks.json.
    """


@webhook_key_group.command("list")
@with_settings(STORE_SETTINGS)
def _list(**values: str) -> None:
    """Print the ids of the published keys, the newest first, and what each is for."""
    settings = _parse(values)
    ring = _run(settings, lambda keys, _: keys.get())
    if ring is None:
        click.echo(f"There are no keys yet {store_location(settings)}.", err=True)
        return
    now_ms = Clock().now_ms()
    active = active_key(ring, now_ms)
    for key in published_keys(ring, now_ms):
        click.echo(f"{key.kid}  {_use(key, active, now_ms)}")


@webhook_key_group.command("rotate")
@click.option(
    "--compromised",
    is_flag=True,
    help="Others may know the keys: sign with a new one now, and publish no other. Receivers refuse what is under way.",
)
@with_settings(STORE_SETTINGS)
def _rotate(*, compromised: bool, **values: str) -> None:
    """Make a new key, and print its id.

    It is published now and signs in ten minutes, so that receivers know it by then. The old key stays published for a
    day after that. A running server notices the new key within seconds.
    """
    settings = _parse(values)

    async def rotate(store: SigningKeys, clock: Clock) -> SigningKey:
        keys = WebhookKeys(store, clock)
        return await (keys.replace_all() if compromised else keys.rotate())

    try:
        key = _run(settings, rotate)
    except TooManyKeysError as exc:
        advice = f"rotate again after {_time(exc.until_ms)}, or give --compromised"
        raise CommandFailed(f"{exc}: {advice} ({store_location(settings)})") from exc
    click.echo(key.kid)
    when = "now, and no other is published" if compromised else f"from {_time(key.signs_from_ms)}"
    click.echo(f"The new key signs {when} {store_location(settings)}.", err=True)


def _parse(values: dict[str, str]) -> Settings:
    with cli_errors():
        settings = settings_from(values)
        if settings.store is StoreKind.MEMORY:
            raise SettingsError("--store memory keeps no keys: they end with the server")
        return settings


def _run(settings: Settings, work: Callable[[SigningKeys, Clock], Awaitable[T]]) -> T:
    """Run `work` on the keys of an existing store."""
    clock = Clock()

    async def open_and_work() -> T:
        async with open_projects(settings, clock) as storage:
            return await work(storage.signing_keys, clock)

    with cli_errors(store_location(settings)), asyncio.Runner() as runner:
        return runner.run(open_and_work())


def _use(key: SigningKey, active: SigningKey, now_ms: int) -> str:
    """What a published key is for."""
    until = "" if key.retires_ms is None else f", published until {_time(key.retires_ms)}"
    if key == active:
        return f"signs since {_time(key.signs_from_ms)}{until}"
    return f"signs from {_time(key.signs_from_ms)}{until}" if key.signs_from_ms > now_ms else f"signs no more{until}"


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
