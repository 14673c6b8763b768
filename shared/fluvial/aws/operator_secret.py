"""The operators' secret in AWS Secrets Manager, loaded when the first control request needs it.

- It is cached, so that a rotated secret takes up to OPERATOR_CACHE_S to be known, and the old one is valid for as long.
- After a failure it is not loaded again for RETRY_S: requests are answered at once that the store is unavailable.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from fluvial.model.errors import RequestError, StoreUnavailable
from fluvial.model.project import Secret, parse_secret

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.parameters import SecretsProvider

log = logging.getLogger(__name__)

#: How long a function uses the secret before it loads it again.
OPERATOR_CACHE_S: Final = 300

#: How long the secret is not loaded again after a failure.
RETRY_S: Final = 5.0

CONNECT_TIMEOUT_S: Final = 1
READ_TIMEOUT_S: Final = 3


class OperatorSecret:
    """The secret at one ARN."""

    def __init__(self, arn: str) -> None:
        """`arn` is the secret's; AWS is called when the secret is first needed."""
        self._arn, self._failed_at_s = arn, float("-inf")
        self._provider: SecretsProvider | None = None

    async def current(self) -> tuple[Secret, ...]:
        """The secret, which may be OPERATOR_CACHE_S old. Raises StoreUnavailable."""
        if time.monotonic() - self._failed_at_s < RETRY_S:
            raise StoreUnavailable
        return (await asyncio.to_thread(self._load),)

    def _load(self) -> Secret:
        # Imported here, because only the edge function's control routes need the secret.
        from aws_lambda_powertools.utilities.parameters import SecretsProvider  # noqa: PLC0415
        from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        try:
            if self._provider is None:
                config = Config(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S)
                self._provider = SecretsProvider(boto_config=config)
            return parse_secret(str(self._provider.get(self._arn, max_age=OPERATOR_CACHE_S)), 0)
        except (BotoCoreError, GetParameterError, RequestError) as exc:
            self._failed_at_s = time.monotonic()
            reason = exc.message if isinstance(exc, RequestError) else type(exc.__cause__ or exc).__name__
            log.error("operator_secret_unavailable", extra={"reason": reason})  # noqa: TRY400  its text may be the secret
            raise StoreUnavailable from None
