"""`fluvial token …`: tokens are made and looked at where their secret is; no server is asked."""

import sys
from typing import Final

import click
import msgspec

from fluvial.access.tokens import Claims, InvalidToken, mint, parse_stream_claim, unverified, verify
from fluvial.cli.options import OF_STORE, Failed, UsageError, WholeNumber, told, with_settings
from fluvial.cli.projects import run, secret_from, settings_of
from fluvial.clock import Clock
from fluvial.model.lifetime import format_rfc3339
from fluvial.model.limits import TOKEN_BYTES_MAX
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.model.project import Secret, is_project_name

_AGE_S_DEFAULT: Final = 3_600
_AGE_S_MAX: Final = 366 * 86_400

_SECRET_FILE = click.option(
    "--secret-file", metavar="FILE", help="Take the secret from a file, - is standard input, not from the store."
)


@click.group("token")
def token_group() -> None:
    """Make tokens, and look at them."""


@token_group.command("mint")
@click.argument("project")
@click.option("--scope", type=click.Choice([str(scope) for scope in Scope]), default="read", show_default=True)
@click.option(
    "--expires-in",
    type=WholeNumber(1, _AGE_S_MAX),
    default=_AGE_S_DEFAULT,
    show_default=True,
    help="Seconds that it is good for.",
)
@click.option("--stream", help="The only stream that it is for; with a slash at the end, all that begin so.")
@click.option("--jti", help="A name of its own.")
@_SECRET_FILE
@with_settings(OF_STORE)
def _mint(  # noqa: PLR0913  one for each claim
    project: str,
    *,
    scope: str,
    expires_in: int,
    stream: str | None,
    jti: str | None,
    secret_file: str | None,
    **values: str,
) -> None:
    """Print a token for a project, signed with its newest secret. The project * is an operator's: --secret-file."""
    secrets = _secrets(project, secret_file, values)
    now_s = Clock().now_ms() // 1_000
    try:
        named = None if stream is None else parse_stream_claim(stream)
        claims = Claims(project, Scope(scope), now_s + expires_in, iat=now_s, stream=named, jti=jti)
        token = mint(secrets[0], claims)
        verify(token, project, secrets, Clock().now_ms())
    except InvalidToken as exc:
        raise UsageError(f"no server would take the token: {exc}") from exc
    click.echo(token)


@token_group.command("inspect")
@click.argument("token", default="-")
@_SECRET_FILE
@with_settings(OF_STORE)
def _inspect(token: str, secret_file: str | None, **values: str) -> None:
    """Print what a token says, and whether a server would take it; - is standard input.

    The exit status is 1 when no server would.
    """
    if token == "-":  # noqa: S105  standard input
        if secret_file == "-":  # noqa: S105  likewise
            raise UsageError("the token and the secret cannot both come from standard input")
        token = sys.stdin.read(TOKEN_BYTES_MAX + 2)
    token = token.strip()
    try:
        header, claims = unverified(token)
    except InvalidToken as exc:
        raise UsageError(str(exc)) from exc
    shown: dict[str, object] = {"header": header, "claims": claims}
    expires = claims.get("exp")
    if isinstance(expires, int | float) and 0 <= expires < 10**11:
        shown["expires"] = format_rfc3339(int(expires * 1_000))
    reason = _reason(token, str(claims.get("sub", "")), secret_file, values)
    shown["valid"] = reason is None
    if reason is not None:
        shown["reason"] = reason
    click.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())
    if reason is not None:
        sys.exit(1)


def _reason(token: str, project: str, secret_file: str | None, values: dict[str, str]) -> str | None:
    """Why no server would take a token."""
    try:
        verify(token, project, _secrets(project, secret_file, values), Clock().now_ms())
    except InvalidToken as exc:
        return str(exc)
    except (UsageError, Failed) as exc:
        return exc.message
    return None


def _secrets(project: str, secret_file: str | None, values: dict[str, str]) -> tuple[Secret, ...]:
    if secret_file is not None:
        with told():
            return (secret_from(secret_file),)
    if project == OPERATOR:
        raise UsageError("an operator's token is signed with the operators' secret: give --secret-file")
    if not is_project_name(project):
        raise UsageError("no project has that name")
    return run(settings_of(values), lambda registry: registry.get(project)).secrets
