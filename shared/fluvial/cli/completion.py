"""Completion of streams' names in a shell: a single request, without retries."""

import os
from contextlib import suppress

import click
from click.shell_completion import CompletionItem

from fluvial.cli.target import find_target
from fluvial.client.errors import ClientError
from fluvial.model.names import parse_prefix

#: A shell shows no more of them in a useful way.
_NAMES_MAX = 200


def complete_stream(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The names that begin as the incomplete one; none when the server does not tell them."""
    import msgspec  # noqa: PLC0415

    with suppress(click.ClickException, ClientError, msgspec.DecodeError, KeyError, TypeError):
        with find_target(ctx.params, os.environ).connect() as connection:
            query = {"prefix": parse_prefix(incomplete), "limit": str(_NAMES_MAX)}
            answer = connection.request("GET", "/v1/streams", query=query)
        return [CompletionItem(str(name)) for name in msgspec.json.decode(answer.body)["streams"]]
    return []
