"""Enforces a project's limits: requests per second, open live reads, and bytes per day. Over a limit the answer is 429.

Rules:
1. Requests and live reads are counted in each process, and bytes per day in all processes together.
2. Anonymous clients of a project have a rate and a number of live reads of their own, so that they lock no client with
   a token out.
3. A write takes room in the quota while it is in progress. So concurrent writes do not pass the quota together.
4. If the store cannot count, writes go on: a quota bounds costs, and is no reason to reject appends.
"""

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

#: Projects whose rates and bytes are remembered. One that is evicted may send a full burst again.
PROJECTS_MAX: Final = 4_096

#: A process adds the bytes that it has counted to the sum of all processes at most so often.
REPORT_INTERVAL_MS: Final = 5_000

_DAY_MS: Final = 86_400_000

#: The Retry-After of a rejected live read; when another one ends is not known.
_LIVE_RETRY_S: Final = 5


#: A project, and whether its clients are anonymous.
_Clients = tuple[ProjectName, bool]


@dataclass(slots=True)
class _Bucket:
    """A token bucket: how many requests may come at once at a time."""

    level: float
    at_ms: int


@dataclass(slots=True)
class _Usage:
    """A day's bytes: the sum of all processes, what this one has not added to it yet, and what it is writing."""

    day: int
    reported_at_ms: int
    counted: int = 0
    unreported: int = 0
    in_progress: int = 0
    is_loaded: asyncio.Event = field(default_factory=asyncio.Event)  # set after the first report


def _limit_error(code: ErrorCode, message: str, retry_after_s: int) -> RequestError:
    return RequestError(code, message, 429, (("retry-after", str(max(1, retry_after_s))),))


class Throttle:
    """Counts the requests, live reads and bytes of projects that have limits."""

    def __init__(self, projects: Projects, clock: Clock) -> None:
        """`projects` keeps the sums of all processes."""
        self._projects, self._clock = projects, clock
        self._buckets: LRUCache[_Clients, _Bucket] = LRUCache(PROJECTS_MAX)
        self._usage: LRUCache[ProjectName, _Usage] = LRUCache(PROJECTS_MAX)
        self._live_reads: Counter[_Clients] = Counter()

    def check_rate(self, project: Project, *, is_anonymous: bool) -> None:
        """Count a request. Raises RequestError over the rate."""
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
            raise _limit_error(ErrorCode.RATE_LIMITED, f"the project has {rate} requests a second", wait_s)
        bucket.level -= 1

    async def write_within_quota(
        self, project: Project | None, byte_count: int, write: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        """Carry out a write, and count its bytes for the day's quota. Raises RequestError over it.

        A rejected write and a duplicate do not count. A write in doubt does, because nothing counts it later.
        """
        if project is None or project.limits.bytes_per_day is None or byte_count == 0:
            return await write()
        usage = await self._usage_with_room(project.name, project.limits.bytes_per_day, byte_count)
        usage.in_progress += byte_count
        is_counted = True
        try:
            outcome = await write()
            is_counted = isinstance(outcome, Applied)
        except (RequestError, StoreUnavailable):
            is_counted = False
            raise
        finally:
            usage.in_progress -= byte_count
            usage.unreported += byte_count if is_counted else 0
        return outcome

    async def _usage_with_room(self, name: ProjectName, quota: int, byte_count: int) -> _Usage:
        now_ms = self._clock.now_ms()
        day = now_ms // _DAY_MS
        usage = self._usage.get(name)
        if usage is None or usage.day != day:
            usage = self._usage[name] = _Usage(day, now_ms - REPORT_INTERVAL_MS)
        if now_ms - usage.reported_at_ms >= REPORT_INTERVAL_MS:
            usage.reported_at_ms = now_ms
            await self._report(name, usage)
        await usage.is_loaded.wait()
        if usage.counted + usage.unreported + usage.in_progress + byte_count > quota:
            remaining_s = ((day + 1) * _DAY_MS - now_ms) // 1_000
            message = f"the project may append {quota} bytes a day (UTC)"
            raise _limit_error(ErrorCode.QUOTA_EXCEEDED, message, remaining_s)
        return usage

    async def _report(self, name: ProjectName, usage: _Usage) -> None:
        """Add the bytes that this process has counted to the sum; until it is known they count as in progress."""
        reported, usage.unreported = usage.unreported, 0
        usage.in_progress += reported
        is_added = False
        try:
            usage.counted = await self._projects.add_usage(name, usage.day, reported)
            is_added = True
        except StoreError as exc:
            log.warning("usage_not_counted", extra={"project": name, "reason": str(exc.__cause__ or exc)})
        finally:  # also when the request was cancelled that waits here: its bytes are not the only ones in the report
            usage.in_progress -= reported
            usage.unreported += 0 if is_added else reported
            usage.is_loaded.set()

    @contextlib.contextmanager
    def count_live_read(self, project: Project | None, *, is_anonymous: bool) -> Iterator[None]:
        """Count a live read while it is open. Raises RequestError over the project's number."""
        if project is None or project.limits.live_reads is None:
            yield
            return
        key, count_max = (project.name, is_anonymous), project.limits.live_reads
        if self._live_reads[key] >= count_max:
            message = f"the project may have {count_max} live reads open"
            raise _limit_error(ErrorCode.TOO_MANY_LIVE_READS, message, _LIVE_RETRY_S)
        self._live_reads[key] += 1
        try:
            yield
        finally:
            self._live_reads[key] -= 1
            if not self._live_reads[key]:
                del self._live_reads[key]
