"""`fluvial token …`: mint and inspect tokens with a secret from the store or from a file, without a server."""

import sys
from typing import Final

import click
import msgspec

from fluvial.access.tokens import Claims, InvalidToken, decode_unverified, mint, parse_stream_claim, verify
from fluvial.cli.options import STORE_SETTINGS, CommandFailed, Duration, UsageError, cli_errors, with_settings
from fluvial.cli.projects import parse_settings, read_or_make_secret, run_with_project_admin
from fluvial.clock import Clock
from fluvial.model.duration import format_duration
from fluvial.model.lifetime import format_rfc3339
from fluvial.model.limits import TOKEN_BYTES_MAX
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.model.project import Secret, is_project_name

_EXPIRES_IN_S_DEFAULT: Final = 3_600
_EXPIRES_IN_S_MAX: Final = 366 * 86_400

_SECRET_FILE_OPTION = click.option(
    "--secret-file", metavar="FILE", help="Read the secret from a file (- is standard input), not from the store."
)


@click.group("token")
def token_group() -> None:
    """Mint and inspect tokens."""


@token_group.command("mint")
@click.argument("project")
@click.option(
    "--scope",
    type=click.Choice([str(scope) for scope in Scope]),
    default="read",
    show_default=True,
    help="What the token allows; each scope includes those before it.",
)
@click.option(
    "--expires-in",
    type=Duration(1, _EXPIRES_IN_S_MAX),
    default=format_duration(_EXPIRES_IN_S_DEFAULT),
    show_default=True,
    help="Time until the token expires, e.g. 90s, 15m, 24h, 7d or 1w; a number is seconds, 366d at most.",
)
@click.option(
    "--stream", help="Restrict the token to this stream of the project or, with a slash at its end, to all below."
)
@click.option("--jti", help="Id of the token, its jti claim; servers ignore it.")
@_SECRET_FILE_OPTION
@with_settings(STORE_SETTINGS)
def _mint(  # noqa: PLR0913  one parameter for each option
    project: str,
    *,
    scope: str,
    expires_in: int,
    stream: str | None,
    jti: str | None,
    secret_file: str | None,
    **values: str,
) -> None:
    """Print a token for a project.

    The token is signed with the project's newest secret, or with the one in --secret-file.

    PROJECT * makes an operator's token, and needs --secret-file with the operators' secret.
    """
    secrets = _load_secrets(project, secret_file, values)
    now_s = Clock().now_ms() // 1_000
    try:
        stream_claim = None if stream is None else parse_stream_claim(stream)
        claims = Claims(project, Scope(scope), now_s + expires_in, iat=now_s, stream=stream_claim, jti=jti)
        token = mint(secrets[0], claims)
        verify(token, project, secrets, Clock().now_ms())
    except InvalidToken as exc:
        raise UsageError(f"no server would accept the token: {exc}") from exc
    click.echo(token)


@token_group.command("inspect")
@click.argument("token", default="-")
@_SECRET_FILE_OPTION
@with_settings(STORE_SETTINGS)
def _inspect(token: str, secret_file: str | None, **values: str) -> None:
    """Show a token, and whether a server would accept it.

    Prints the header and the claims as JSON. TOKEN - is standard input, the default. The exit status is 1 if no server
    would accept the token.
    """
    if token == "-":  # noqa: S105  standard input
        if secret_file == "-":  # noqa: S105  likewise
            raise UsageError("the token and the secret cannot both come from standard input")
        token = sys.stdin.read(TOKEN_BYTES_MAX + 2)
    token = token.strip()
    try:
        header, claims = decode_unverified(token)
    except InvalidToken as exc:
        raise UsageError(str(exc)) from exc
    report: dict[str, object] = {"header": header, "claims": claims}
    expires = claims.get("exp")
    if isinstance(expires, int | float) and 0 <= expires < 10**11:
        report["expires"] = format_rfc3339(int(expires * 1_000))
    reason = _find_defect(token, str(claims.get("sub", "")), secret_file, values)
    report["valid"] = reason is None
    if reason is not None:
        report["reason"] = reason
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    if reason is not None:
        sys.exit(1)


def _find_defect(token: str, project: str, secret_file: str | None, values: dict[str, str]) -> str | None:
    """The reason why no server would accept a token; None for a valid one."""
    try:
        verify(token, project, _load_secrets(project, secret_file, values), Clock().now_ms())
    except InvalidToken as exc:
        return str(exc)
    except (UsageError, CommandFailed) as exc:
        return exc.message
    return None


def _load_secrets(project: str, secret_file: str | None, values: dict[str, str]) -> tuple[Secret, ...]:
    if secret_file is not None:
        with cli_errors():
            return (read_or_make_secret(secret_file),)
    if project == OPERATOR:
        raise UsageError("an operator's token is signed with the operators' secret: give it with --secret-file")
    if not is_project_name(project):
        raise UsageError("no project can have that name")
    return run_with_project_admin(parse_settings(values), lambda admin: admin.get(project)).secrets
