"""Runs checks one after the other, and prints what came of each with the time that it took."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TextIO

import httpx


class CheckFailedError(Exception):
    """The server did something else than it must."""


class CheckSkippedError(Exception):
    """What the check needs was not given."""


class Verdict(StrEnum):
    """What came of a check."""

    PASSED = "ok"
    FAILED = "FAIL"
    SKIPPED = "skip"


@dataclass
class Report:
    """The checks so far. `limit_s` is how long one check may take that does not say so itself."""

    limit_s: float = 60.0
    out: TextIO = field(default_factory=lambda: sys.stdout)
    now_s: Callable[[], float] = time.perf_counter
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    seconds: float = 0.0

    async def run(self, name: str, check: Coroutine[Any, Any, str], limit_s: float | None = None) -> bool:
        """Run a check, whose result is a note about what it saw. False when it failed."""
        began_s = self.now_s()
        limit_s = limit_s or self.limit_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                verdict, note = Verdict.PASSED, await check
        except CheckSkippedError as exc:
            verdict, note = Verdict.SKIPPED, str(exc)
        except CheckFailedError as exc:
            verdict, note = Verdict.FAILED, str(exc)
        except TimeoutError as exc:
            reason = f"nothing for {limit_s:.0f} s" if limit.expired() else str(exc)
            verdict, note = Verdict.FAILED, reason or "a part of it timed out"
        except Exception as exc:  # noqa: BLE001  a broken server may answer with anything: other checks must still run
            verdict, note = Verdict.FAILED, f"{type(exc).__name__}: {exc}"
        self._add(name, verdict, note, self.now_s() - began_s)
        return verdict is not Verdict.FAILED

    def _add(self, name: str, verdict: Verdict, note: str, seconds: float) -> None:
        self.verdicts[verdict] += 1
        self.seconds += seconds
        self.out.write(f"{verdict:<4} {seconds:7.2f} s  {name:<24} {note}".rstrip() + "\n")
        self.out.flush()

    def summary(self) -> str:
        """One line about all checks."""
        counts = ((Verdict.PASSED, "passed"), (Verdict.FAILED, "failed"), (Verdict.SKIPPED, "skipped"))
        return ", ".join(f"{self.verdicts[kind]} {word}" for kind, word in counts) + f" in {self.seconds:.1f} s"

    @property
    def is_good(self) -> bool:
        """Whether something passed and nothing failed."""
        return self.verdicts[Verdict.PASSED] > 0 and not self.verdicts[Verdict.FAILED]


def expect(answer: httpx.Response, *statuses: int) -> httpx.Response:
    """An answer that has one of these statuses. Raises CheckFailedError, with what the answer says instead."""
    if answer.status_code in statuses:
        return answer
    wanted = " or ".join(map(str, statuses))
    request = answer.request
    said = answer.text[:200] if answer.is_closed else ""
    raise CheckFailedError(
        f"{request.method} {request.url.path} answered {answer.status_code} instead of {wanted}: {said}"
    )


def check_that(is_so: bool, otherwise: str) -> None:  # noqa: FBT001  the condition is the point
    """Raise CheckFailedError unless a fact holds."""
    if not is_so:
        raise CheckFailedError(otherwise)
