"""The token bucket with which API Gateway throttles a stage.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-request-throttling.html
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.aws_local.template import parameter_default


@dataclass
class TokenBucket:
    """`burst` requests at once, and `per_second` more each second."""

    per_second: float
    burst: float
    now_s: Callable[[], float] = time.monotonic
    _tokens: float = field(init=False)
    _filled_at_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin full."""
        self._tokens, self._filled_at_s = self.burst, self.now_s()

    def take(self) -> bool:
        """Take one token, if there is one."""
        now_s = self.now_s()
        self._tokens = min(self.burst, self._tokens + (now_s - self._filled_at_s) * self.per_second)
        self._filled_at_s = now_s
        is_there = self._tokens >= 1
        self._tokens -= is_there
        return is_there


def stage_throttle() -> TokenBucket:
    """The stage's throttle: the environment's, or the template's default."""

    def limit(parameter: str) -> float:
        return float(os.environ.get(parameter) or parameter_default(parameter))

    return TokenBucket(limit("RequestsPerSecond"), limit("RequestsAtOnce"))
