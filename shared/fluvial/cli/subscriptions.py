"""`fluvial subscription …`: durable cursors that wake workers, by webhook or by events in a stream."""

import sys
from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec

from fluvial.cli.options import Duration, UsageError
from fluvial.cli.target import Target, refusals_of, with_target
from fluvial.client import subscriptions
from fluvial.model.limits import LEASE_MS_MAX, LEASE_MS_MIN

#: A claim as `fluvial subscription claim` prints it.
_CLAIM_BYTES_MAX: Final = 1_048_576
_CLAIM_FIELDS: Final = frozenset({"wake_id", "generation", "token", "streams"})

_SUBSCRIPTION = click.argument("subscription", metavar="SUBSCRIPTION")


@click.group("subscription")
def subscription_group() -> None:
    """Wake workers when streams have new data.

    SUBSCRIPTION is its id or, on a server with projects, PROJECT/ID. Paths of streams are below the project.
    """


@subscription_group.command("create")
@_SUBSCRIPTION
@click.option("--pattern", metavar="GLOB", help="Streams to follow: * is one segment of a path, ** any number.")
@click.option("--stream", "streams", metavar="PATH", multiple=True, help="Stream to follow; may be repeated.")
@click.option("--webhook", metavar="URL", help="Send wakes to this URL.")
@click.option("--wake-stream", metavar="PATH", help="Append wake events to this stream, for workers that claim.")
@click.option(
    "--lease",
    type=Duration(LEASE_MS_MIN // 1_000, LEASE_MS_MAX // 1_000),
    default="30s",
    show_default=True,
    help="How long a worker has until it acks, from 1s to 10m.",
)
@click.option("--description", help="A text for people.")
@with_target
def _create(  # noqa: PLR0913  one parameter for each option
    *,
    target: Target,
    subscription: str,
    pattern: str | None,
    streams: tuple[str, ...],
    webhook: str | None,
    wake_stream: str | None,
    lease: int,
    description: str | None,
) -> None:
    """Create a subscription, or confirm that it exists with this configuration."""
    if (webhook is None) is (wake_stream is None):
        raise UsageError("give either --webhook or --wake-stream")
    if pattern is None and not streams:
        raise UsageError("give --pattern, --stream or both")
    optional = {"pattern": pattern, "wake_stream": wake_stream, "description": description}
    configuration: dict[str, Any] = {
        "type": "webhook" if wake_stream is None else "pull-wake",
        "lease_ttl_ms": lease * 1_000,
        **({"streams": streams} if streams else {}),
        **({} if webhook is None else {"webhook": {"url": webhook}}),
        **{name: value for name, value in optional.items() if value is not None},
    }
    with target.connect() as connection, refusals_of(subscription):
        run = target.retries().run
        is_new, described = run(
            lambda: subscriptions.create(connection, subscription, configuration), is_repeatable=True
        )
    click.echo(f"{subscription} {'created' if is_new else 'exists'}, with {len(described['streams'])} streams")


@subscription_group.command("show")
@_SUBSCRIPTION
@with_target
def _show(*, target: Target, subscription: str) -> None:
    """Show a subscription with its cursors, as JSON."""
    with target.connect() as connection, refusals_of(subscription):
        found = target.retries().run(lambda: subscriptions.show(connection, subscription), is_repeatable=True)
    _print_json(found)


@subscription_group.command("list")
@click.argument("project", default="")
@with_target
def _list(*, target: Target, project: str) -> None:
    """List the subscriptions of PROJECT, or of a server without projects."""
    with target.connect() as connection, refusals_of(project):
        found = target.retries().run(
            lambda: list(subscriptions.list_subscriptions(connection, project)), is_repeatable=True
        )
    for one in found:
        click.echo(f"{one['id']}  {one['type']}  {one['status']}")


@subscription_group.command("delete")
@click.argument("names", metavar="SUBSCRIPTION...", nargs=-1, required=True)
@with_target
def _delete(*, target: Target, names: tuple[str, ...]) -> None:
    """Delete subscriptions; one that does not exist is no error."""
    with target.connect() as connection:
        for name in names:
            with refusals_of(name):
                target.retries().run(lambda: subscriptions.delete(connection, name), is_repeatable=True)  # noqa: B023


@subscription_group.command("link")
@_SUBSCRIPTION
@click.argument("streams", metavar="PATH...", nargs=-1, required=True)
@with_target
def _link(*, target: Target, subscription: str, streams: tuple[str, ...]) -> None:
    """Follow more streams, from their tails on."""
    with target.connect() as connection, refusals_of(subscription):
        run = target.retries().run
        run(lambda: subscriptions.add_streams(connection, subscription, streams), is_repeatable=True)


@subscription_group.command("unlink")
@_SUBSCRIPTION
@click.argument("stream", metavar="PATH")
@with_target
def _unlink(*, target: Target, subscription: str, stream: str) -> None:
    """Stop following a stream, unless the pattern matches it."""
    with target.connect() as connection, refusals_of(subscription):
        run = target.retries().run
        run(lambda: subscriptions.remove_stream(connection, subscription, stream), is_repeatable=True)


@subscription_group.command("claim")
@_SUBSCRIPTION
@click.option("--worker", metavar="NAME", required=True, help="The worker's name, which others see.")
@with_target
def _claim(*, target: Target, subscription: str, worker: str) -> None:
    """Claim a pull-wake subscription's lease, and print the claim as JSON.

    The claim has the streams with their offsets, and the token for ack and release, which read it.
    """
    with target.connect() as connection, refusals_of(subscription):
        found = target.retries().run(lambda: subscriptions.claim(connection, subscription, worker), is_repeatable=False)
    _print_json(found)


@subscription_group.command("ack")
@_SUBSCRIPTION
@with_target
def _acknowledge(*, target: Target, subscription: str) -> None:
    """Ack all of a claim, which is read from standard input, and end its lease.

    Prints whether more work has come meanwhile.
    """
    claimed = _read_claim()
    with target.connect() as connection, refusals_of(subscription):
        run = target.retries().run
        found = run(lambda: subscriptions.acknowledge(connection, subscription, claimed), is_repeatable=False)
    click.echo("acked; there is more work" if found.get("next_wake") else "acked")


@subscription_group.command("release")
@_SUBSCRIPTION
@with_target
def _release(*, target: Target, subscription: str) -> None:
    """End the lease of a claim, which is read from standard input, without an ack."""
    claimed = _read_claim()
    with target.connect() as connection, refusals_of(subscription):
        run = target.retries().run
        run(lambda: subscriptions.release(connection, subscription, claimed), is_repeatable=False)


def _read_claim() -> Mapping[str, Any]:
    text = sys.stdin.read(_CLAIM_BYTES_MAX)
    try:
        claimed = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise UsageError("standard input is not a claim, as fluvial subscription claim prints it") from exc
    if not isinstance(claimed, dict) or not claimed.keys() >= _CLAIM_FIELDS:
        raise UsageError("standard input is not a claim, as fluvial subscription claim prints it")
    return claimed


def _print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())
