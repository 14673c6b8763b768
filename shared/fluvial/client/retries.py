"""Trying a request again, for a bounded time, when that cannot do it twice."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from fluvial.client.errors import ServerRefused, ServerUnreachable

T = TypeVar("T")

DELAY_S_FIRST: Final = 0.1
DELAY_S_MAX: Final = 5.0

#: Codes of a 503 after which the request may have been carried out.
_IN_DOUBT: Final = frozenset({"store_uncertain", ""})

#: Statuses of a server, or of a proxy before it, that may pass: the request may have been carried out.
_PASSING_STATUSES: Final = frozenset({500, 502, 503, 504})
_TOO_MANY_REQUESTS: Final = 429
_UNAVAILABLE: Final = 503


@dataclass
class Retries:
    """How long to keep trying while the server does not answer.

    `for_s` None: not at all before the first answer, so that a wrong URL is reported at once, and `later_s` after it.
    `tell` is called once for each time without answers.
    """

    for_s: float | None = None
    later_s: float = 30.0
    tell: Callable[[str], None] = lambda _: None
    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    has_answer: bool = False

    def run(self, request: Callable[[], T], *, is_repeatable: bool) -> T:
        """The result of a request. One that may not be made twice is tried again only if it was not made."""
        began_s, delay_s, is_told = self.now_s(), DELAY_S_FIRST, False
        while True:
            try:
                result = request()
            except (ServerUnreachable, ServerRefused) as exc:
                wait_s = self._wait_s(exc, delay_s, is_repeatable=is_repeatable)
                if wait_s is None or self.now_s() - began_s + wait_s > self._limit_s(exc):
                    raise
                if not is_told:
                    self.tell(f"{exc}; trying again")
                    is_told = True
                self.sleep(wait_s)
                delay_s = min(2 * delay_s, DELAY_S_MAX)
            else:
                self.has_answer = True
                return result

    def _limit_s(self, error: ServerUnreachable | ServerRefused) -> float:
        if self.for_s is not None:
            return self.for_s
        return self.later_s if self.has_answer or isinstance(error, ServerRefused) else 0.0

    def _wait_s(self, error: ServerUnreachable | ServerRefused, delay_s: float, *, is_repeatable: bool) -> float | None:
        """How long to wait after an error; None if the request may not or need not be tried again."""
        wait_s = delay_s * (0.5 + self.jitter() / 2)
        if isinstance(error, ServerUnreachable):
            return None if error.may_have_arrived and not is_repeatable else wait_s
        is_throttled = error.status == _TOO_MANY_REQUESTS and error.code != "quota_exceeded"
        is_undone = error.status == _UNAVAILABLE and error.code not in _IN_DOUBT
        is_safe = is_throttled or is_undone or (is_repeatable and error.status in _PASSING_STATUSES)
        if not is_safe:
            return None
        after = error.fields.get("retry-after", "")
        return max(wait_s, float(after)) if after.isascii() and after.isdecimal() else wait_s
