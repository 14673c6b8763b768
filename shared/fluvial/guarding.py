"""Guarding: settings become what lets requests in."""

import asyncio
import logging
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fluvial.access.gate import Gate, OperatorSecrets, no_operator
from fluvial.access.throttle import Throttle
from fluvial.core.errors import RefusedRequest, SettingsRefused, StartupRefused, StoreUnavailable
from fluvial.core.origins import LOCAL_ORIGINS
from fluvial.core.project import Secret, parse_origins, parse_secret
from fluvial.opening import directory_of
from fluvial.settings import Settings
from fluvial.stores.projects import Projects
from fluvial.world import World

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.parameters import SecretsProvider

log = logging.getLogger(__name__)

#: How long a function keeps the operators' secret; what it was before is good for as long.
OPERATOR_CACHE_S: Final = 300

#: How long it is not asked for after it could not be had.
RETRY_S: Final = 5.0

CONNECT_TIMEOUT_S: Final = 1
READ_TIMEOUT_S: Final = 3


def gate_of(settings: Settings, projects: Projects, world: World, operators: OperatorSecrets | None = None) -> Gate:
    """What every request passes; `operators` if they were looked up before.

    Raises as `operators_of` does, and SettingsRefused for an origin that is none.
    """
    _check_origins(settings.cors_origins)
    directory, operators = directory_of(settings, projects, world), operators or operators_of(settings)
    return Gate(directory, Throttle(projects, world), world, operators, settings.cors_origins)


def _check_origins(text: str) -> None:
    """An origin that no browser sends would match nothing, and whoever has set it would wonder."""
    origins = [origin for origin in text.replace(" ", "").split(",") if origin]
    try:
        parse_origins([origin for origin in origins if origin != LOCAL_ORIGINS])
    except RefusedRequest as exc:
        message = f"--cors-origins: {exc.message}, or localhost for pages of this machine"
        raise SettingsRefused(message) from exc


def operators_of(settings: Settings) -> OperatorSecrets:
    """What operators' tokens are signed with. Raises SettingsRefused for what is no secret, StartupRefused.

    The file is read once, for it may be a pipe.
    """
    if settings.operator_secret_file:
        return _kept(_secret_in(Path(settings.operator_secret_file)))
    if settings.operator_secret_arn:
        if find_spec("aws_lambda_powertools") is None:
            raise StartupRefused("--operator-secret-arn needs aws-lambda-powertools: it is for the edge function")
        return _OperatorSecret(settings.operator_secret_arn).current
    return no_operator


def _secret_in(file: Path) -> Secret:
    try:
        return parse_secret(file.read_text("utf-8").strip(), 0)
    except (OSError, UnicodeDecodeError) as exc:
        message = f"--operator-secret-file: cannot read {file}: {exc}"
        raise SettingsRefused(message) from exc
    except RefusedRequest as exc:
        message = f"--operator-secret-file: {exc.message}"
        raise SettingsRefused(message) from exc


def _kept(secret: Secret) -> OperatorSecrets:
    async def secrets() -> tuple[Secret, ...]:
        return (secret,)

    return secrets


class _OperatorSecret:
    """The operators' secret of Secrets Manager; after a failure it is not asked again for a while."""

    def __init__(self, arn: str) -> None:
        self._arn, self._failed_at_s = arn, float("-inf")
        self._provider: SecretsProvider | None = None

    async def current(self) -> tuple[Secret, ...]:
        """The secret as it is, or was lately. Raises StoreUnavailable."""
        if time.monotonic() - self._failed_at_s < RETRY_S:
            raise StoreUnavailable
        return (await asyncio.to_thread(self._fetched),)

    def _fetched(self) -> Secret:
        # Only the edge function has an operator, and only a request on a control route asks.
        from aws_lambda_powertools.utilities.parameters import SecretsProvider  # noqa: PLC0415
        from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        if self._provider is None:
            config = Config(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S)
            self._provider = SecretsProvider(boto_config=config)
        try:
            return parse_secret(str(self._provider.get(self._arn, max_age=OPERATOR_CACHE_S)), 0)
        except (GetParameterError, RefusedRequest) as exc:
            self._failed_at_s = time.monotonic()
            reason = exc.message if isinstance(exc, RefusedRequest) else type(exc.__cause__ or exc).__name__
            log.error("operator_secret_unavailable", extra={"reason": reason})  # noqa: TRY400  its text may be the secret
            raise StoreUnavailable from None
