"""Projects' limits: requests per second, bytes per day and live reads, with a fixed clock."""

import asyncio
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.access.throttle import REPORT_INTERVAL_MS, Throttle
from fluvial.model.commit import Applied, Exists, Outcome, Unmet
from fluvial.model.errors import ErrorCode, RequestError, StoreUnavailable, StoreUncertain
from fluvial.model.project import Project, ProjectLimits, ProjectName
from fluvial.storage.memory_projects import MemoryProjects
from tests.support.access import project
from tests.support.clocks import FixedClock

DAY_MS = 86_400_000

APPLIED = Applied(None)


def limited(**limits: int) -> Project:
    """A project with limits."""
    return project(limits=ProjectLimits(**limits))


def count_allowed(throttle: Throttle, one: Project, count: int) -> int:
    """Send so many requests; the number that the rate allows."""
    allowed = 0
    for _ in range(count):
        with suppress(RequestError):
            throttle.check_rate(one, is_anonymous=False)
            allowed += 1
    return allowed


async def append(throttle: Throttle, one: Project, byte_count: int, outcome: Outcome = APPLIED) -> Outcome:
    """Write so many bytes with this outcome."""

    async def write() -> Outcome:
        return outcome

    return await throttle.write_within_quota(one, byte_count, write)


def test_rate_allows_a_burst_and_then_the_rate() -> None:
    """Each project has its own rate; without a limit there is none."""
    still = FixedClock()
    throttle, one = Throttle(MemoryProjects(), still.clock()), limited(requests_per_second=10)
    assert count_allowed(throttle, one, 50) == 10
    with pytest.raises(RequestError) as rejected:
        throttle.check_rate(one, is_anonymous=False)
    assert (rejected.value.code, rejected.value.status) == (ErrorCode.RATE_LIMITED, 429)
    assert dict(rejected.value.fields)["retry-after"] == "1"
    still.time.advance(500)
    assert count_allowed(throttle, one, 50) == 5
    still.time.advance(3_600_000)
    assert count_allowed(throttle, one, 50) == 10
    assert count_allowed(throttle, project("other", limits=one.limits), 50) == 10
    assert count_allowed(throttle, project("unlimited"), 50) == 50


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 30)), max_size=20))
def test_no_sequence_of_requests_exceeds_the_burst_and_the_rate(rate: int, steps: list[tuple[int, int]]) -> None:
    """Whatever the pauses between requests are, and also when the clock is set back."""
    still = FixedClock()
    throttle, one = Throttle(MemoryProjects(), still.clock()), limited(requests_per_second=rate)
    through = 0
    for pause, count in steps:
        still.time.advance(pause)
        through += count_allowed(throttle, one, count)
    assert through <= rate + rate * sum(pause for pause, _ in steps) / 1_000
    still.time.advance(-10_000)
    assert count_allowed(throttle, one, 1_000) <= rate


async def test_bytes_per_day_are_summed_over_processes() -> None:
    """The sum is reset at midnight UTC, and Retry-After is the time until then."""
    still, projects = FixedClock(), MemoryProjects()
    clock, one = still.clock(), limited(bytes_per_day=100)
    first, second = Throttle(projects, clock), Throttle(projects, clock)
    await append(first, one, 60)
    await append(first, one, 40)
    with pytest.raises(RequestError) as rejected:
        await append(first, one, 1)
    assert (rejected.value.code, rejected.value.status) == (ErrorCode.QUOTA_EXCEEDED, 429)
    midnight_s = (still.time.now_ms // DAY_MS + 1) * DAY_MS // 1_000 - still.time.now_ms // 1_000
    assert dict(rejected.value.fields)["retry-after"] == str(midnight_s)
    still.time.advance(REPORT_INTERVAL_MS)
    with pytest.raises(RequestError):
        await append(first, one, 1)  # and reports its count to the other process
    with pytest.raises(RequestError):
        await append(second, one, 1)
    await append(second, one, 0)  # a close has no bytes
    still.time.advance(DAY_MS)
    await append(second, one, 100)


async def test_only_applied_and_in_doubt_writes_count_for_the_quota() -> None:
    """Rejections, duplicates and a busy store do not count; a write in doubt does."""
    throttle, one = Throttle(MemoryProjects(), FixedClock().clock()), limited(bytes_per_day=100)
    for _ in range(20):
        await append(throttle, one, 60, Unmet(Exists(0), None))
    for error in (StoreUnavailable(), RequestError(ErrorCode.UNKNOWN_FORK_OFFSET, "no"), StoreUncertain()):

        async def fail(raised: Exception = error) -> Outcome:
            raise raised

        with suppress(type(error)):
            await throttle.write_within_quota(one, 60, fail)
    with pytest.raises(RequestError):
        await append(throttle, one, 41)
    await append(throttle, one, 40)


async def test_concurrent_appends_do_not_exceed_the_quota() -> None:
    """A write that is in progress counts until its outcome is known."""
    throttle, one = Throttle(MemoryProjects(), FixedClock().clock()), limited(bytes_per_day=100)
    landing = asyncio.Event()

    async def land() -> Outcome:
        await landing.wait()
        return Applied(None)

    first = asyncio.ensure_future(throttle.write_within_quota(one, 60, land))
    await asyncio.sleep(0.01)
    with pytest.raises(RequestError):
        await append(throttle, one, 60)
    landing.set()
    await first
    await append(throttle, one, 40)


class SlowProjects(MemoryProjects):
    """Answers while an event is set."""

    def __init__(self) -> None:
        """`may_answer` is set at first."""
        super().__init__()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        await self.may_answer.wait()
        return await super().add_usage(name, day, byte_count)


async def test_bytes_that_are_being_reported_count_for_the_quota() -> None:
    """An append during a report has no more room than before."""
    still, projects = FixedClock(), SlowProjects()
    throttle, one = Throttle(projects, still.clock()), limited(bytes_per_day=100)
    await append(throttle, one, 90)
    still.time.advance(REPORT_INTERVAL_MS)
    projects.may_answer.clear()
    reporting = asyncio.ensure_future(append(throttle, one, 5))
    await asyncio.sleep(0)
    with pytest.raises(RequestError):
        await append(throttle, one, 60)
    projects.may_answer.set()
    await reporting
    await append(throttle, one, 5)
    with pytest.raises(RequestError):
        await append(throttle, one, 1)


async def test_new_process_loads_the_sum_before_its_first_append() -> None:
    """Concurrent appends of a new process wait for the same report."""
    still, projects = FixedClock(), SlowProjects()
    one = limited(bytes_per_day=100)
    await projects.add_usage(one.name, still.time.now_ms // DAY_MS, 90)
    projects.may_answer.clear()
    throttle = Throttle(projects, still.clock())
    appends = [asyncio.ensure_future(append(throttle, one, byte_count)) for byte_count in (5, 60, 5)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in appends)
    projects.may_answer.set()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [isinstance(outcome, RequestError) for outcome in outcomes] == [False, True, False]


async def test_cancelled_report_loses_no_bytes() -> None:
    """The next report has them."""
    still, projects = FixedClock(), SlowProjects()
    throttle, one = Throttle(projects, still.clock()), limited(bytes_per_day=100)
    await append(throttle, one, 90)
    still.time.advance(REPORT_INTERVAL_MS)
    projects.may_answer.clear()
    reporting = asyncio.ensure_future(append(throttle, one, 5))
    await asyncio.sleep(0)
    reporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reporting
    with pytest.raises(RequestError):
        await append(throttle, one, 11)


async def test_open_live_reads_are_counted_per_project() -> None:
    """Each project has its own number; without a limit there is none."""
    throttle, one = Throttle(MemoryProjects(), FixedClock().clock()), limited(live_reads=2)
    with ExitStack() as open_reads:
        for _ in range(2):
            open_reads.enter_context(throttle.count_live_read(one, is_anonymous=False))
        with pytest.raises(RequestError) as rejected, throttle.count_live_read(one, is_anonymous=False):
            pass
        assert rejected.value.status == 429
        open_reads.enter_context(throttle.count_live_read(project("other", limits=one.limits), is_anonymous=False))
        open_reads.enter_context(throttle.count_live_read(None, is_anonymous=True))
    with throttle.count_live_read(one, is_anonymous=False):
        pass
    assert not throttle._live_reads


def test_anonymous_clients_have_a_rate_and_live_reads_of_their_own() -> None:
    """So they do not use up those of clients with tokens."""
    throttle, one = Throttle(MemoryProjects(), FixedClock().clock()), limited(requests_per_second=1, live_reads=1)
    throttle.check_rate(one, is_anonymous=True)
    with pytest.raises(RequestError):
        throttle.check_rate(one, is_anonymous=True)
    throttle.check_rate(one, is_anonymous=False)
    with throttle.count_live_read(one, is_anonymous=True), throttle.count_live_read(one, is_anonymous=False):
        pass


class FailingProjects(MemoryProjects):
    """Fails to add to a sum while `fails` is set."""

    fails = True

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        if self.fails:
            raise StoreUncertain
        return await super().add_usage(name, day, byte_count)


async def test_store_that_cannot_count_rejects_no_append_and_loses_no_bytes() -> None:
    """The bytes count in this process at once, and are reported when the store can count again."""
    still, projects = FixedClock(), FailingProjects()
    throttle, one = Throttle(projects, still.clock()), limited(bytes_per_day=100)
    for _ in range(3):
        await append(throttle, one, 30)
        still.time.advance(REPORT_INTERVAL_MS)
    with pytest.raises(RequestError):
        await append(throttle, one, 30)
    projects.fails = False
    still.time.advance(REPORT_INTERVAL_MS)
    await append(throttle, one, 10)
    assert await projects.add_usage(one.name, still.time.now_ms // DAY_MS, 0) == 90
