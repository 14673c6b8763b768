"""Which server a command talks to: options, environment, the current context, or this machine's."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Never

import click

from fluvial.cli.context_file import Contexts, ServerContext, load_contexts
from fluvial.cli.options import CommandFailed, Duration, UsageError, cli_errors
from fluvial.model.names import StreamName, parse_name, parse_prefix

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from fluvial.client.connection import Connection
    from fluvial.client.errors import ServerRefused
    from fluvial.client.retries import Retries

DEFAULT_URL: Final = "http://127.0.0.1:4437"

#: Refusals that another input may avoid.
_USAGE_ERROR_STATUSES: Final = frozenset({400, 414})


class StreamPath(click.ParamType[StreamName]):
    """A stream's name: its path below /v1/stream/."""

    name = "stream"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> StreamName:
        """Parse it into its one spelling."""
        del param, ctx
        if value == "":
            raise UsageError("a stream's name is missing")
        with cli_errors():
            return parse_name(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """The names on the server, as far as it tells them at once."""
        del param
        from fluvial.cli.completion import complete_stream  # noqa: PLC0415

        return complete_stream(ctx, incomplete)


class NamePrefix(click.ParamType[str]):
    """The beginning of streams' names."""

    name = "prefix"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Spell it as names are."""
        del param, ctx
        return parse_prefix(str(value))


@dataclass(frozen=True, slots=True)
class Target:
    """A server, the value of the Authorization field, and how long to keep trying."""

    url: str
    authorization: str | None = None
    retry_for_s: int | None = None

    def connect(self) -> "Connection":
        """A connection to the server. Raises UsageError for a wrong URL."""
        from fluvial.client.connection import Connection  # noqa: PLC0415  httpx takes a tenth of a second

        try:
            return Connection(self.url, self.authorization)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc

    def retries(self, later_s: float | None = None) -> "Retries":
        """How to try again. `later_s` is how long to do so after the first answer, without --retry-for."""
        from fluvial.client.retries import Retries  # noqa: PLC0415

        retries = Retries(for_s=self.retry_for_s, tell=tell)
        if later_s is not None:
            retries.later_s = later_s
        return retries


def tell(message: str) -> None:
    """Print a message for a person."""
    click.echo(message, err=True)


def find_target(
    values: Mapping[str, object], environment: Mapping[str, str], load: Callable[[], Contexts] = load_contexts
) -> Target:
    """The server that options and environment name, or the current context.

    Options come before the environment, and that before the current context. A context's token is sent to the
    context's server alone, and --context does not mix it with the environment's.
    """
    url, token, named = (_text(values, name) for name in ("url", "token", "context"))
    if url and named:
        raise UsageError("--url and --context exclude each other")
    url = url or (None if named else environment.get("FLUVIAL_URL") or None)
    wanted = named or environment.get("FLUVIAL_CONTEXT")
    context = None if url else _find_context(wanted, load())
    if not url and not wanted and (official := environment.get("STREAM_URL")):
        url, context = official, None
    if not token and not (named and context and context.token):
        token = environment.get("FLUVIAL_TOKEN")
    authorization = f"Bearer {token}" if token else environment.get("STREAM_AUTH") or None
    if context is not None:
        url = context.url
        if not token and context.token is not None:
            authorization = f"Bearer {context.token}"
    retry_for = values.get("retry_for")
    if authorization is not None and not re.fullmatch(r"[\x21-\x7e]+( [\x21-\x7e]+)*", authorization):
        raise UsageError("the token has characters that no token has")
    return Target(url or DEFAULT_URL, authorization, retry_for if isinstance(retry_for, int) else None)


def _text(values: Mapping[str, object], name: str) -> str | None:
    value = values.get(name)
    return str(value) if value else None


def _find_context(wanted: str | None, known: Contexts) -> ServerContext | None:
    name = wanted or known.current
    if name is None:
        return None
    if name not in known.contexts:
        raise UsageError(f"there is no context {name}; fluvial context ls lists them")
    return known.contexts[name]


def with_target(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with the options of a server. It gets a `target`, and its errors become one line.

    A command may have an argument `server_url`, which is another way to give --url.
    """

    @functools.wraps(command)
    def call(**values: object) -> None:
        options = {name: values.pop(name) for name in ("url", "token", "context", "retry_for")}
        if (server_url := values.pop("server_url", None)) is not None:
            if options["url"]:
                raise UsageError("give the server's URL once")
            options["url"] = server_url
        target = find_target(options, os.environ)
        with server_errors():
            command(target=target, **values)

    params: list[click.Parameter] = call.__dict__.setdefault("__click_params__", [])
    params[:0] = reversed(_target_options())
    return call


def _target_options() -> list[click.Parameter]:
    return [
        click.Option(["--url"], metavar="URL", help=f"Server; FLUVIAL_URL, the context or {DEFAULT_URL} without it."),
        click.Option(["--token"], metavar="TOKEN", help="Token; FLUVIAL_TOKEN or the context's without it."),
        click.Option(["--context"], metavar="NAME", help="Context to use instead of the current one."),
        click.Option(
            ["--retry-for"],
            type=Duration(),
            help="How long to keep trying while the server does not answer, e.g. 5m.",
        ),
    ]


@contextmanager
def server_errors() -> Iterator[None]:
    """Turn errors of the client into UsageError and CommandFailed."""
    from fluvial.client.errors import ClientError, ServerRefused, ServerUnreachable  # noqa: PLC0415

    try:
        yield
    except ServerUnreachable as exc:
        raise CommandFailed(f"{exc}. Is the server running? --url, FLUVIAL_URL or a context names another one") from exc
    except ServerRefused as exc:
        fail_refused(exc)
    except ClientError as exc:
        raise CommandFailed(str(exc)) from exc


@contextmanager
def refusals_of(name: str) -> Iterator[None]:
    """Turn refusals into UsageError and CommandFailed with the name of the stream."""
    from fluvial.client.errors import ServerRefused  # noqa: PLC0415

    try:
        yield
    except ServerRefused as exc:
        fail_refused(exc, name)


def fail_refused(refused: "ServerRefused", name: str = "") -> Never:
    """Raise UsageError or CommandFailed with the stream's name, the server's message, its code, and what to do."""
    kind = UsageError if refused.status in _USAGE_ERROR_STATUSES else CommandFailed
    subject = f"{name}: " if name else ""
    hint = f": {refused.hint}" if refused.hint else ""
    raise kind(f"{subject}{refused}{hint}") from refused


def write_out(data: bytes) -> None:
    """Write bytes to standard output."""
    sys.stdout.buffer.write(data)


def flush_out() -> None:
    """Pass on what was written."""
    sys.stdout.flush()
    sys.stdout.buffer.flush()
