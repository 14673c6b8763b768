"""What a project may take: requests a second, open live reads, and bytes a day. Past it the answer is 429."""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

from fluvial.clock import Clock
from fluvial.model.commit import Applied, Outcome
from fluvial.model.errors import ErrorCode, RequestError, StoreError, StoreUnavailable
from fluvial.model.project import Project, ProjectName
from fluvial.storage.projects import Projects

log = logging.getLogger(__name__)

#: Projects whose rates are remembered; one that is pushed out begins anew with all that it may have at once.
PROJECTS_MAX: Final = 4_096

#: How long a process counts by itself what is appended, before it adds that to what all have counted.
REPORT_INTERVAL_MS: Final = 5_000

_DAY_MS: Final = 86_400_000

#: A live read that is refused may come back when others have ended; nobody knows when that is.
_LIVE_RETRY_S: Final = 5


#: A project, and whether it is strangers who take: those who read what is public without a token.
_Taker = tuple[ProjectName, bool]


@dataclass(slots=True)
class _Bucket:
    """Requests that may come at once, as of a moment."""

    level: float
    at_ms: int


@dataclass(slots=True)
class _Usage:
    """A day's bytes: as all processes had counted them, and what this one has counted since or is writing now."""

    day: int
    asked_at_ms: int
    counted: int = 0
    uncounted: int = 0
    under_way: int = 0
    is_told: asyncio.Event = field(default_factory=asyncio.Event)  # whether the others' count was asked for once


def _limited(code: ErrorCode, message: str, retry_after_s: int) -> RequestError:
    return RequestError(code, message, 429, (("retry-after", str(max(1, retry_after_s))),))


class Throttle:
    """Counts what projects take that have limits; of others it knows nothing."""

    def __init__(self, projects: Projects, clock: Clock) -> None:
        """Nothing was taken yet."""
        self._projects, self._clock = projects, clock
        self._buckets: LRUCache[_Taker, _Bucket] = LRUCache(PROJECTS_MAX)
        self._usage: LRUCache[ProjectName, _Usage] = LRUCache(PROJECTS_MAX)
        self._live_reads: Counter[_Taker] = Counter()

    def check_rate(self, project: Project, *, is_anonymous: bool) -> None:
        """Count a request. Raises RequestError past the rate; strangers have one of their own."""
        rate = project.limits.requests_per_second
        if rate is None:
            return
        now_ms = self._clock.now_ms()
        key = (project.name, is_anonymous)
        bucket = self._buckets.get(key) or _Bucket(rate, now_ms)
        bucket.level = min(rate, bucket.level + max(0, now_ms - bucket.at_ms) * rate / 1_000)
        bucket.at_ms = now_ms
        self._buckets[key] = bucket
        if bucket.level < 1:
            wait_s = math.ceil((1 - bucket.level) / rate)
            raise _limited(ErrorCode.RATE_LIMITED, f"the project has {rate} requests a second", wait_s)
        bucket.level -= 1

    async def write_within_quota(
        self, project: Project | None, byte_count: int, write: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        """Carry out a write, whose bytes count to the day's quota if it is applied. Raises RequestError past it.

        What is under way takes up room, so that writes that meet do not pass the quota together. A refusal and a
        duplicate take none; what may have landed does, for nobody counts it later.
        """
        if project is None or project.limits.bytes_per_day is None or byte_count == 0:
            return await write()
        usage = await self._usage_with_room(project.name, project.limits.bytes_per_day, byte_count)
        usage.under_way += byte_count
        is_counted = True
        try:
            outcome = await write()
            is_counted = isinstance(outcome, Applied)
        except (RequestError, StoreUnavailable):
            is_counted = False
            raise
        finally:
            usage.under_way -= byte_count
            usage.uncounted += byte_count if is_counted else 0
        return outcome

    async def _usage_with_room(self, name: ProjectName, quota: int, byte_count: int) -> _Usage:
        now_ms = self._clock.now_ms()
        day = now_ms // _DAY_MS
        usage = self._usage.get(name)
        if usage is None or usage.day != day:
            usage = self._usage[name] = _Usage(day, now_ms - REPORT_INTERVAL_MS)
        if now_ms - usage.asked_at_ms >= REPORT_INTERVAL_MS:
            usage.asked_at_ms = now_ms
            await self._report(name, usage)
        await usage.is_told.wait()
        if usage.counted + usage.uncounted + usage.under_way + byte_count > quota:
            remaining_s = ((day + 1) * _DAY_MS - now_ms) // 1_000
            raise _limited(ErrorCode.QUOTA_EXCEEDED, f"the project may append {quota} bytes a day (UTC)", remaining_s)
        return usage

    async def _report(self, name: ProjectName, usage: _Usage) -> None:
        """Add what was counted here to the sum of all processes; meanwhile it takes up room as before."""
        reported, usage.uncounted = usage.uncounted, 0
        usage.under_way += reported
        is_added = False
        try:
            usage.counted = await self._projects.add_usage(name, usage.day, reported)
            is_added = True
        except StoreError as exc:  # a quota bounds costs: it is no reason to take nothing at all
            log.warning("usage_not_counted", extra={"project": name, "reason": str(exc.__cause__ or exc)})
        finally:  # also when whoever asked has gone meanwhile
            usage.under_way -= reported
            usage.uncounted += 0 if is_added else reported
            usage.is_told.set()

    @contextlib.contextmanager
    def live_read(self, project: Project | None, *, is_anonymous: bool) -> Iterator[None]:
        """Count a live read as long as it is open; strangers have a number of their own. Raises RequestError."""
        if project is None or project.limits.live_reads is None:
            yield
            return
        key, count_max = (project.name, is_anonymous), project.limits.live_reads
        if self._live_reads[key] >= count_max:
            message = f"the project may have {count_max} live reads open"
            raise _limited(ErrorCode.TOO_MANY_LIVE_READS, message, _LIVE_RETRY_S)
        self._live_reads[key] += 1
        try:
            yield
        finally:
            self._live_reads[key] -= 1
            if not self._live_reads[key]:
                del self._live_reads[key]
