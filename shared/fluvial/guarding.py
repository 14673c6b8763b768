"""Guarding: settings become what lets requests in."""

import asyncio
from pathlib import Path
from typing import Final

from fluvial.access.gate import Gate, OperatorSecrets, no_operator
from fluvial.access.throttle import Throttle
from fluvial.core.errors import RefusedRequest, StartupRefused, StoreUnavailable
from fluvial.core.project import Secret, parse_secret
from fluvial.opening import directory_of
from fluvial.settings import Settings
from fluvial.stores.projects import Projects
from fluvial.world import World

#: How long a function keeps the operators' secret; what it was before is good for as long.
OPERATOR_CACHE_S: Final = 300


def gate_of(settings: Settings, projects: Projects, world: World) -> Gate:
    """What every request passes. Raises StartupRefused for an operators' secret that is none."""
    directory = directory_of(settings, projects, world)
    return Gate(directory, Throttle(projects, world), world, _operators(settings), settings.cors_origins)


def _operators(settings: Settings) -> OperatorSecrets:
    if settings.operator_secret_file:
        return _kept(_secret_in(Path(settings.operator_secret_file)))
    if settings.operator_secret_arn:
        return _of_secrets_manager(settings.operator_secret_arn)
    return no_operator


def _secret_in(file: Path) -> Secret:
    try:
        return parse_secret(file.read_text("utf-8").strip(), 0)
    except (OSError, UnicodeDecodeError) as exc:
        message = f"--operator-secret-file: cannot read {file}: {exc}"
        raise StartupRefused(message) from exc
    except RefusedRequest as exc:
        message = f"--operator-secret-file: {exc.message}"
        raise StartupRefused(message) from exc


def _kept(secret: Secret) -> OperatorSecrets:
    async def secrets() -> tuple[Secret, ...]:
        return (secret,)

    return secrets


def _of_secrets_manager(arn: str) -> OperatorSecrets:
    """The secret, kept for a while. Raises StoreUnavailable when it cannot be had: nobody is let in on a guess."""

    def fetched() -> Secret:
        # Only the edge function has an operator, and only an operator's or a manager's request asks.
        from aws_lambda_powertools.utilities.parameters import get_secret  # noqa: PLC0415
        from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError  # noqa: PLC0415

        try:
            return parse_secret(str(get_secret(arn, max_age=OPERATOR_CACHE_S)), 0)
        except GetParameterError as exc:
            raise StoreUnavailable from exc

    async def secrets() -> tuple[Secret, ...]:
        return (await asyncio.to_thread(fetched),)

    return secrets
