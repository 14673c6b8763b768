"""What a project may take: requests a second, open live reads, and bytes a day. Past it the answer is 429."""

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from fluvial.core.errors import ErrorCode, RefusedRequest, StoreError
from fluvial.core.project import Project, ProjectName
from fluvial.stores.projects import Projects
from fluvial.world import World

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
    """A day's bytes: as all processes had counted them, and what this one has counted since."""

    day: int
    counted: int
    uncounted: int
    asked_at_ms: int


def _limited(code: ErrorCode, message: str, retry_after_s: int) -> RefusedRequest:
    return RefusedRequest(code, message, 429, (("retry-after", str(max(1, retry_after_s))),))


class Throttle:
    """Counts what projects take that have limits; of others it knows nothing."""

    def __init__(self, projects: Projects, world: World) -> None:
        """Nothing was taken yet."""
        self._projects, self._world = projects, world
        self._buckets: LRUCache[_Taker, _Bucket] = LRUCache(PROJECTS_MAX)
        self._usage: LRUCache[ProjectName, _Usage] = LRUCache(PROJECTS_MAX)
        self._live_reads: Counter[_Taker] = Counter()

    def take_request(self, project: Project, *, is_stranger: bool) -> None:
        """Count a request. Raises RefusedRequest past the rate; strangers have one of their own."""
        rate = project.limits.requests_per_second
        if rate is None:
            return
        now_ms = self._world.now_ms()
        key = (project.name, is_stranger)
        bucket = self._buckets.get(key) or _Bucket(rate, now_ms)
        bucket.level = min(rate, bucket.level + max(0, now_ms - bucket.at_ms) * rate / 1_000)
        bucket.at_ms = now_ms
        self._buckets[key] = bucket
        if bucket.level < 1:
            wait_s = math.ceil((1 - bucket.level) / rate)
            raise _limited(ErrorCode.RATE_LIMITED, f"the project has {rate} requests a second", wait_s)
        bucket.level -= 1

    async def take_bytes(self, project: Project, byte_count: int) -> None:
        """Count what is about to be appended. Raises RefusedRequest past the day's quota."""
        quota = project.limits.bytes_per_day
        if quota is None or byte_count == 0:
            return
        now_ms = self._world.now_ms()
        day = now_ms // _DAY_MS
        usage = self._usage.get(project.name)
        if usage is None or usage.day != day:
            usage = self._usage[project.name] = _Usage(day, 0, 0, now_ms - REPORT_INTERVAL_MS)
        if now_ms - usage.asked_at_ms >= REPORT_INTERVAL_MS:
            reported, usage.uncounted, usage.asked_at_ms = usage.uncounted, 0, now_ms
            try:
                usage.counted = await self._projects.add_usage(project.name, day, reported)
            except StoreError as exc:  # a quota bounds costs: it is no reason to take nothing at all
                usage.uncounted += reported
                log.warning("usage_not_counted", extra={"project": project.name, "reason": str(exc.__cause__ or exc)})
        if usage.counted + usage.uncounted + byte_count > quota:
            rest_s = ((day + 1) * _DAY_MS - now_ms) // 1_000
            raise _limited(ErrorCode.QUOTA_EXCEEDED, f"the project may append {quota} bytes a day (UTC)", rest_s)
        usage.uncounted += byte_count

    @contextlib.contextmanager
    def live_read(self, project: Project | None, *, is_stranger: bool) -> Iterator[None]:
        """Count a live read as long as it is open; strangers have a number of their own. Raises RefusedRequest."""
        if project is None or project.limits.live_reads is None:
            yield
            return
        key, count_max = (project.name, is_stranger), project.limits.live_reads
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
