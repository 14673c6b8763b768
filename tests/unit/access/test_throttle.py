"""What a project may take: rates, days and live reads, by a clock that stands still."""

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


def taken(throttle: Throttle, one: Project, count: int) -> int:
    """How many of so many requests are let through."""
    through = 0
    for _ in range(count):
        with suppress(RequestError):
            throttle.check_rate(one, is_anonymous=False)
            through += 1
    return through


async def append(throttle: Throttle, one: Project, byte_count: int, outcome: Outcome = APPLIED) -> Outcome:
    """A write of so many bytes, which ends so."""

    async def write() -> Outcome:
        return outcome

    return await throttle.write_within_quota(one, byte_count, write)


def test_a_rate_is_a_burst_and_then_so_many_a_second() -> None:
    """For each project by itself, and nobody else's."""
    still = FixedClock()
    throttle, one = Throttle(MemoryProjects(), still.clock()), limited(requests_per_second=10)
    assert taken(throttle, one, 50) == 10
    with pytest.raises(RequestError) as refused:
        throttle.check_rate(one, is_anonymous=False)
    assert (refused.value.code, refused.value.status) == (ErrorCode.RATE_LIMITED, 429)
    assert dict(refused.value.fields)["retry-after"] == "1"
    still.time.advance(500)
    assert taken(throttle, one, 50) == 5
    still.time.advance(3_600_000)
    assert taken(throttle, one, 50) == 10
    assert taken(throttle, project("other", limits=one.limits), 50) == 10
    assert taken(throttle, project("unlimited"), 50) == 50


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 30)), max_size=20))
def test_no_rhythm_gets_more_than_the_burst_and_the_rate(rate: int, steps: list[tuple[int, int]]) -> None:
    """However requests and pauses alternate; a clock that is set back gives nothing."""
    still = FixedClock()
    throttle, one = Throttle(MemoryProjects(), still.clock()), limited(requests_per_second=rate)
    through = 0
    for pause, count in steps:
        still.time.advance(pause)
        through += taken(throttle, one, count)
    assert through <= rate + rate * sum(pause for pause, _ in steps) / 1_000
    still.time.advance(-10_000)
    assert taken(throttle, one, 1_000) <= rate


async def test_a_days_bytes_are_one_sum_for_all_processes_within_what_each_counts_alone() -> None:
    """And begin anew at midnight, which Retry-After tells."""
    still, projects = FixedClock(), MemoryProjects()
    clock, one = still.clock(), limited(bytes_per_day=100)
    first, second = Throttle(projects, clock), Throttle(projects, clock)
    await append(first, one, 60)
    await append(first, one, 40)
    with pytest.raises(RequestError) as refused:
        await append(first, one, 1)
    assert (refused.value.code, refused.value.status) == (ErrorCode.QUOTA_EXCEEDED, 429)
    midnight_s = (still.time.now_ms // DAY_MS + 1) * DAY_MS // 1_000 - still.time.now_ms // 1_000
    assert dict(refused.value.fields)["retry-after"] == str(midnight_s)
    still.time.advance(REPORT_INTERVAL_MS)
    with pytest.raises(RequestError):
        await append(first, one, 1)  # and tells the others what it has counted
    with pytest.raises(RequestError):
        await append(second, one, 1)
    await append(second, one, 0)  # a close takes nothing
    still.time.advance(DAY_MS)
    await append(second, one, 100)


async def test_only_what_was_applied_uses_up_a_days_bytes() -> None:
    """Refusals, duplicates and a store that is busy take nothing; what may have landed does."""
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


async def test_appends_that_meet_do_not_pass_a_days_quota_together() -> None:
    """What is under way takes up room until it is known what became of it."""
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
    """Adds to its sums when it is let."""

    def __init__(self) -> None:
        """At once, until `may_answer` is cleared."""
        super().__init__()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        await self.may_answer.wait()
        return await super().add_usage(name, day, byte_count)


async def test_what_is_being_reported_takes_up_room_in_a_days_quota() -> None:
    """Appends that come while the sums are added to find no more room than before."""
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


async def test_a_process_that_starts_lets_nothing_pass_before_it_knows_what_the_others_took() -> None:
    """Appends that come together wait for the one answer; one that fails holds up nobody for long."""
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


async def test_a_client_that_goes_while_its_project_is_looked_up_takes_no_count_with_it() -> None:
    """What was to be reported is reported by the next one."""
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


async def test_live_reads_are_counted_while_they_are_open() -> None:
    """For each project by itself."""
    throttle, one = Throttle(MemoryProjects(), FixedClock().clock()), limited(live_reads=2)
    with ExitStack() as open_reads:
        for _ in range(2):
            open_reads.enter_context(throttle.live_read(one, is_anonymous=False))
        with pytest.raises(RequestError) as refused, throttle.live_read(one, is_anonymous=False):
            pass
        assert refused.value.status == 429
        open_reads.enter_context(throttle.live_read(project("other", limits=one.limits), is_anonymous=False))
        open_reads.enter_context(throttle.live_read(None, is_anonymous=True))
    with throttle.live_read(one, is_anonymous=False):
        pass
    assert not throttle._live_reads


def test_strangers_use_up_nothing_of_those_who_have_tokens() -> None:
    """They have a rate and a number of live reads of their own."""
    throttle, one = Throttle(MemoryProjects(), FixedClock().clock()), limited(requests_per_second=1, live_reads=1)
    throttle.check_rate(one, is_anonymous=True)
    with pytest.raises(RequestError):
        throttle.check_rate(one, is_anonymous=True)
    throttle.check_rate(one, is_anonymous=False)
    with throttle.live_read(one, is_anonymous=True), throttle.live_read(one, is_anonymous=False):
        pass


class FailingProjects(MemoryProjects):
    """Keeps no sums for a while."""

    fails = True

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        if self.fails:
            raise StoreUncertain
        return await super().add_usage(name, day, byte_count)


async def test_a_store_that_cannot_count_stops_nobody_and_loses_nothing() -> None:
    """What was appended meanwhile is counted once it can again, and in this process all the time."""
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
