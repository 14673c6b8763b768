"""`fluvial context …`: servers and tokens by name."""

import sys
from typing import Final

import click
from msgspec.structs import replace

from fluvial.cli.context_file import Contexts, ServerContext, contexts_path, load_contexts, save_contexts
from fluvial.cli.options import UsageError

_NAME: Final = click.argument("name")


@click.group("context")
def context_group() -> None:
    """Keep servers and tokens by name.

    Commands that talk to a server use the current context, unless options or the environment name another server. The
    file of contexts is private to the user, and no command prints a token.
    """


@context_group.command("add")
@_NAME
@click.option("--url", required=True, metavar="URL", help="Server.")
@click.option("--token", metavar="TOKEN", help="Token; other users of the machine may see it in the list of processes.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
def _add(name: str, url: str, token: str | None, *, token_stdin: bool) -> None:
    """Add a context, or replace it. The first one becomes the current one."""
    from fluvial.client.connection import parse_server_url  # noqa: PLC0415

    if token is not None and token_stdin:
        raise UsageError("--token and --token-stdin exclude each other")
    try:
        parse_server_url(url)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    if token_stdin:
        token = sys.stdin.readline().strip()
        if not token:
            raise UsageError("there is no token on standard input")
    known = load_contexts()
    added = {**known.contexts, name: ServerContext(url, token)}
    save_contexts(Contexts(added, known.current or name))
    click.echo(f"Added the context {name} in {contexts_path()}.", err=True)


@context_group.command("use")
@_NAME
def _use(name: str) -> None:
    """Make a context the current one."""
    known = load_contexts()
    _check(name, known)
    save_contexts(replace(known, current=name))


@context_group.command("ls")
def _list() -> None:
    """List the contexts; a * marks the current one."""
    known = load_contexts()
    width = max(map(len, known.contexts), default=0)
    for name, context in sorted(known.contexts.items()):
        mark = "*" if name == known.current else " "
        click.echo(f"{mark} {name:{width}}  {context.url}{'' if context.token is None else '  with a token'}")


@context_group.command("show")
@click.argument("name", required=False)
def _show(name: str | None) -> None:
    """Show a context, or the current one, without its token."""
    known = load_contexts()
    name = name or known.current
    if name is None:
        raise UsageError("there is no current context")
    context = _check(name, known)
    click.echo(f"name   {name}\nurl    {context.url}\ntoken  {'none' if context.token is None else 'kept'}")


@context_group.command("rm")
@_NAME
def _remove(name: str) -> None:
    """Remove a context and its token."""
    known = load_contexts()
    _check(name, known)
    rest = {key: context for key, context in known.contexts.items() if key != name}
    save_contexts(Contexts(rest, None if known.current == name else known.current))


def _check(name: str, known: Contexts) -> ServerContext:
    if name not in known.contexts:
        raise UsageError(f"there is no context {name}; fluvial context ls lists them")
    return known.contexts[name]
