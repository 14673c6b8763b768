"""The operators' secret in AWS Secrets Manager."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from fluvial.model.errors import RequestError, StoreUnavailable
from fluvial.model.project import Secret, parse_secret

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.parameters import SecretsProvider

log = logging.getLogger(__name__)

#: How long a function keeps the operators' secret; what it was before is good for as long.
OPERATOR_CACHE_S: Final = 300

#: How long it is not asked for after it could not be had.
RETRY_S: Final = 5.0

CONNECT_TIMEOUT_S: Final = 1
READ_TIMEOUT_S: Final = 3


class OperatorSecret:
    """The operators' secret of Secrets Manager; after a failure it is not asked again for a while."""

    def __init__(self, arn: str) -> None:
        """Nothing is asked of AWS before the first call."""
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
        except (GetParameterError, RequestError) as exc:
            self._failed_at_s = time.monotonic()
            reason = exc.message if isinstance(exc, RequestError) else type(exc.__cause__ or exc).__name__
            log.error("operator_secret_unavailable", extra={"reason": reason})  # noqa: TRY400  its text may be the secret
            raise StoreUnavailable from None
