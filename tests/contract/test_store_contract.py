"""The promises of storage/contract.py, tested on every store."""

import asyncio

import pytest

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Absent, Applied, Commit, Exists, NoGap, NotDuplicate, Open, SeqAfter, Unmet
from fluvial.model.errors import StoreUnavailable, StreamVanished
from fluvial.model.head import Head, Incarnation, ProducerStamp, ReaderKey
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.plan import ForkPosition, plan_expiry, plan_fork, plan_reader_key, plan_renewal
from tests.support.clocks import START_MS
from tests.support.commands import (
    NAME,
    OTHER,
    append_commit,
    close_commit,
    create_command,
    create_commit,
    delete_commit,
    stamp,
)
from tests.support.rigs import Rig, also_on_moto, eventually

FIRST = Incarnation(1)


async def applied(rig: Rig, commit: Commit, name: str = NAME) -> Head:
    """Apply a commit that must be applied; the head after it."""
    outcome = await rig.store.apply(name, commit)  # type: ignore[arg-type]
    assert isinstance(outcome, Applied), outcome
    assert outcome.head is not None
    return outcome.head


async def unmet(rig: Rig, commit: Commit) -> Unmet:
    """Apply a commit that must be rejected; its outcome."""
    outcome = await rig.store.apply(NAME, commit)
    assert isinstance(outcome, Unmet)
    return outcome


async def read_all(rig: Rig, head: Head, byte_count_max: int = 1_000_000, *, name: StreamName = NAME) -> bytes:
    """All bytes of a stream, read page by page."""
    position, data = 0, b""
    while position < head.tail:
        page = await rig.store.read(name, head, position, byte_count_max)
        assert page.start == position < page.end
        assert len(page.data) == page.end - page.start
        data, position = data + page.data, page.end
    return data


def fork_of(source: Head, position: int, incarnation: int = 2, *, body: bytes = b"") -> Commit:
    """A commit that forks NAME at a position."""
    command = create_command(name=OTHER, content_type=None, body=body, fork=ForkPoint(NAME, None, 0))
    return plan_fork(command, ForkPosition(source, source.tail, position), Incarnation(incarnation), START_MS)


@also_on_moto
async def test_created_stream_is_the_same_after_a_restart(rig: Rig) -> None:
    """Its head and its bytes."""
    head = await applied(rig, create_commit(body=b"hello"))
    await rig.reopen()
    assert await rig.store.head(NAME) == head
    assert await read_all(rig, head) == b"hello"


async def test_append_to_an_unknown_name_is_rejected(rig: Rig) -> None:
    """The name has no head, before and after."""
    assert await rig.store.head(NAME) is None
    assert (await unmet(rig, append_commit())).requirement == Exists(START_MS)
    assert await rig.store.head(NAME) is None


async def test_second_create_is_rejected_with_the_existing_head(rig: Rig) -> None:
    """Unmet has the head on which it was evaluated."""
    head = await applied(rig, create_commit())
    rejection = await unmet(rig, create_commit(incarnation=2))
    assert rejection == Unmet(Absent(START_MS), head)


async def test_concurrent_appends_are_each_applied_once(rig: Rig) -> None:
    """In any order; each batch ends at the tail of its outcome."""
    await applied(rig, create_commit())
    batches = [b"%03d," % number for number in range(200)]
    outcomes = await asyncio.gather(*(rig.store.apply(NAME, append_commit(batch)) for batch in batches))
    batch_by_tail = {}
    for batch, outcome in zip(batches, outcomes, strict=True):
        assert isinstance(outcome, Applied)
        assert outcome.head is not None
        batch_by_tail[outcome.head.tail] = batch
    head = await rig.store.head(NAME)
    assert head is not None
    assert await read_all(rig, head) == b"".join(batch_by_tail[tail] for tail in range(4, 801, 4))


async def test_appends_of_one_producer_are_applied_in_the_order_of_their_calls(rig: Rig) -> None:
    """Their calls overlap; none of them is a gap."""
    await applied(rig, create_commit())
    batches = [b"%03d," % number for number in range(200)]
    calls = (append_commit(batch, producer=stamp(seq=seq)) for seq, batch in enumerate(batches))
    outcomes = await asyncio.gather(*(rig.store.apply(NAME, call) for call in calls))
    tails = [outcome.head.tail for outcome in outcomes if isinstance(outcome, Applied) and outcome.head]
    assert tails == [4 * number for number in range(1, 201)]
    head = await rig.store.head(NAME)
    assert head is not None
    assert await read_all(rig, head) == b"".join(batches)
    assert rig.raw_bytes(FIRST) == b"".join(batches)


@also_on_moto
async def test_rejected_commit_changes_nothing(rig: Rig) -> None:
    """Only its last requirement fails; the head and the bytes stay the same."""
    before = await applied(rig, create_commit(body=b"first"))
    before = await applied(rig, append_commit(b"!", stream_seq="b"))
    rejection = await unmet(rig, append_commit(b"lost", stream_seq="a", producer=stamp()))
    assert rejection.requirement == SeqAfter("a")
    assert await rig.store.head(NAME) == before
    assert rig.raw_bytes(FIRST) == b"first!"


@also_on_moto
async def test_producer_retry_is_a_duplicate_after_a_restart(rig: Rig) -> None:
    """A producer's state is as durable as its batch."""
    await applied(rig, create_commit())
    await applied(rig, append_commit(b"one", producer=stamp(seq=0)))
    await rig.reopen()
    assert isinstance((await unmet(rig, append_commit(b"one", producer=stamp(seq=0)))).requirement, NotDuplicate)
    assert isinstance((await unmet(rig, append_commit(b"three", producer=stamp(seq=2)))).requirement, NoGap)
    await applied(rig, append_commit(b"two", producer=stamp(seq=1)))
    assert rig.raw_bytes(FIRST) == b"onetwo"


async def test_states_of_a_hundred_producers_are_kept(rig: Rig) -> None:
    """More than any cache has: every producer's next batch is applied, and its retry is a duplicate."""
    await applied(rig, create_commit())
    producers = [f"producer-{number}" for number in range(100)]
    for seq in (0, 1):
        await asyncio.gather(
            *(rig.store.apply(NAME, append_commit(b"x", producer=ProducerStamp(one, 0, seq))) for one in producers)
        )
    outcomes = await asyncio.gather(
        *(rig.store.apply(NAME, append_commit(b"x", producer=ProducerStamp(one, 0, 1))) for one in producers)
    )
    assert all(isinstance(one, Unmet) and isinstance(one.requirement, NotDuplicate) for one in outcomes)
    head = await rig.store.head(NAME)
    assert head is not None
    assert (head.tail, head.producer_count) == (200, 100)


async def test_page_has_whole_batches_that_fit(rig: Rig) -> None:
    """And at least one batch, from memory and from the disk."""
    await applied(rig, create_commit())
    for batch in (b"aaaa", b"bb", b"cccccc"):
        head = await applied(rig, append_commit(batch))
    assert (await rig.store.read(NAME, head, 0, 6)).data == b"aaaabb"
    assert (await rig.store.read(NAME, head, 0, 7)).data == b"aaaabb"
    assert (await rig.store.read(NAME, head, 0, 1)).data == b"aaaa"
    assert (await rig.store.read(NAME, head, 6, 1)).data == b"cccccc"
    await rig.reopen()
    assert (await rig.store.read(NAME, head, 0, 7)).data == b"aaaabb"
    assert (await rig.store.read(NAME, head, 4, 100)).data == b"bbcccccc"


async def test_page_from_a_position_inside_a_batch_has_the_whole_batch(rig: Rig) -> None:
    """Clients may count bytes. The page is the same from memory and from the disk."""
    await applied(rig, create_commit(body=b"aaaa"))
    head = await applied(rig, append_commit(b"bbbb"))
    for _ in range(2):
        for position in (1, 3, 5, 7):
            page = await rig.store.read(NAME, head, position, 100)
            start = position // 4 * 4
            assert (page.start, page.end, page.data) == (start, 8, b"aaaabbbb"[start:])
            assert page.ends == ((4, 8) if start == 0 else (8,))
        await rig.reopen()


async def test_page_ends_at_the_tail_of_the_given_head(rig: Rig) -> None:
    """Later bytes are not in it."""
    old = await applied(rig, create_commit(body=b"one"))
    await applied(rig, append_commit(b"two"))
    assert (await rig.store.read(NAME, old, 0, 100)).data == b"one"


async def test_wait_returns_at_once_when_the_head_has_changed(rig: Rig) -> None:
    """A commit between a reader's read and its wait is not missed."""
    seen = await applied(rig, create_commit())
    now = await applied(rig, append_commit())
    assert await rig.store.wait(NAME, seen, 10) == now


@pytest.mark.parametrize(
    "news", [append_commit(b"x"), close_commit(), delete_commit()], ids=["append", "close", "delete"]
)
async def test_wait_ends_with_the_next_append_close_or_delete(rig: Rig, news: Commit) -> None:
    """All waiting calls return the new head."""
    seen = await applied(rig, create_commit())
    waiting = [asyncio.create_task(rig.store.wait(NAME, seen, 10)) for _ in range(3)]
    await asyncio.sleep(0)
    outcome = await rig.store.apply(NAME, news)
    assert isinstance(outcome, Applied)
    assert await asyncio.gather(*waiting) == [outcome.head] * 3


async def test_wait_returns_the_same_head_after_its_timeout(rig: Rig) -> None:
    """When no commit comes."""
    seen = await applied(rig, create_commit())
    assert await rig.store.wait(NAME, seen, 0.01) == seen


async def test_cancelled_wait_is_not_counted_any_more(rig: Rig) -> None:
    """It frees all that it holds."""
    seen = await applied(rig, create_commit())
    waiting = asyncio.create_task(rig.store.wait(NAME, seen, 10))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert rig.store._notifier.count == 0  # type: ignore[attr-defined]


@also_on_moto
async def test_deleted_stream_frees_its_name_for_a_new_incarnation(rig: Rig) -> None:
    """The new stream has none of the old one's bytes."""
    old = await applied(rig, create_commit(body=b"old"))
    assert isinstance(await rig.store.apply(NAME, delete_commit()), Applied)
    assert await rig.store.head(NAME) is None
    new = await applied(rig, create_commit(incarnation=2, body=b"new"))
    await rig.reopen()
    assert await read_all(rig, new) == b"new"
    assert new.incarnation != old.incarnation


async def test_read_of_a_deleted_stream_raises_stream_vanished(rig: Rig) -> None:
    """With its last head, once garbage collection has deleted its bytes."""
    head = await applied(rig, create_commit(body=b"x"))
    await rig.store.apply(NAME, delete_commit())
    await rig.reopen()
    await eventually(lambda: rig.raw_bytes(FIRST) == b"", rig.let_pass)
    with pytest.raises(StreamVanished):
        await rig.store.read(NAME, head, 0, 1)


async def test_names_are_listed_in_pages(rig: Rig) -> None:
    """In order, with a prefix, after the last name of the page before, and without deleted streams."""
    names = [f"a/{number:02}" for number in range(25)] + ["a", "ab", "b/1"]
    for number, name in enumerate(names, 1):
        await applied(rig, create_commit(incarnation=number), name)
    await rig.store.apply(StreamName("a/07"), delete_commit())
    left = sorted(set(names) - {"a/07"})

    async def listed(prefix: str, after: str = "", count_max: int = 100) -> list[str]:
        return [str(name) for name in await rig.store.names(prefix, after, count_max)]

    assert await listed("") == left
    assert await listed("a/") == [name for name in left if name.startswith("a/")]
    assert await listed("b") == ["b/1"]
    assert await listed("a/", after="b") == []
    pages, after = list[str](), ""
    while page := await listed("a", after, 7):
        assert len(page) <= 7
        pages, after = pages + page, page[-1]
    assert pages == [name for name in left if name.startswith("a")]


async def test_create_replaces_an_expired_stream(rig: Rig) -> None:
    """An append to the expired stream is rejected before."""
    await applied(rig, create_commit(lifetime=SlidingTtl(1), body=b"old"))
    later = START_MS + 2_000
    assert isinstance((await unmet(rig, append_commit(now_ms=later))).requirement, Exists)
    new = await applied(rig, create_commit(incarnation=2, now_ms=later))
    assert (new.incarnation, new.tail) == (2, 0)


async def test_renewal_and_append_move_a_sliding_deadline(rig: Rig) -> None:
    """An expiry before the deadline is rejected, one at the deadline deletes the stream."""
    first = await applied(rig, create_commit(lifetime=SlidingTtl(10)))
    assert first.live_until_ms == START_MS + 10_500
    renewed = await applied(rig, plan_renewal(START_MS + 5_000))
    assert renewed.live_until_ms == START_MS + 15_500
    written = await applied(rig, append_commit(now_ms=START_MS + 6_000))
    await rig.reopen()
    assert written.live_until_ms == START_MS + 16_500
    assert isinstance(await rig.store.apply(NAME, plan_expiry(START_MS + 16_499)), Unmet)
    assert isinstance(await rig.store.apply(NAME, plan_expiry(START_MS + 16_500)), Applied)
    assert await rig.store.head(NAME) is None


async def test_renew_moves_the_deadline_for_the_last_of_many_reads(rig: Rig) -> None:
    """It raises nothing for a name without a stream."""
    await applied(rig, create_commit(lifetime=SlidingTtl(10)))
    await asyncio.gather(*(rig.store.renew(NAME, START_MS + 5_000 + number) for number in range(20)))
    await rig.store.renew(StreamName("nothing"), START_MS)
    head = await rig.store.head(NAME)
    assert head is not None
    assert head.live_until_ms is not None
    assert head.live_until_ms >= START_MS + 15_019
    assert await rig.store.head(StreamName("nothing")) is None


async def test_sliding_deadline_never_moves_back(rig: Rig) -> None:
    """By a late renewal, by a writer whose clock is slow, or by a process that has just started."""
    await applied(rig, create_commit(lifetime=SlidingTtl(10)))
    moved = await applied(rig, plan_renewal(START_MS + 8_000))
    assert moved.live_until_ms == START_MS + 18_500
    for late in (plan_renewal(START_MS + 5_000), append_commit(now_ms=START_MS + 6_000), close_commit(None, START_MS)):
        await rig.reopen()
        assert (await applied(rig, late)).live_until_ms == START_MS + 18_500
        assert await rig.store.head(NAME) == (await applied(rig, plan_renewal(START_MS + 8_400)))
    head = await rig.store.head(NAME)
    assert head is not None
    assert (head.live_until_ms, head.tail, head.closed) == (START_MS + 18_500, 1, True)


async def test_concurrent_appends_move_a_deadline_to_the_latest(rig: Rig) -> None:
    """In any order of their times."""
    await applied(rig, create_commit(lifetime=SlidingTtl(10)))
    uses = [append_commit(b"%d" % late, now_ms=START_MS + late) for late in range(9_000, 0, -600)]
    await asyncio.gather(*(rig.store.apply(NAME, use) for use in uses))
    head = await rig.store.head(NAME)
    assert head is not None
    assert head.live_until_ms is not None
    assert head.live_until_ms >= START_MS + 9_000 + 10_000


async def test_closed_store_raises_unavailable_at_once(rig: Rig) -> None:
    """Commits from before the close are applied."""
    await applied(rig, create_commit())
    before = [asyncio.create_task(rig.store.apply(NAME, append_commit(b"%d," % number))) for number in range(20)]
    await asyncio.sleep(0)
    await rig.store.close()
    assert all(isinstance(outcome, Applied) for outcome in await asyncio.wait_for(asyncio.gather(*before), 10))
    for late in (append_commit(b"late"), create_commit(incarnation=2), delete_commit()):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(rig.store.apply(NAME, late), 10)


@also_on_moto
async def test_fork_has_inherited_bytes_and_its_own(rig: Rig) -> None:
    """One page has both; the source's later bytes are not the fork's."""
    source = await applied(rig, create_commit(body=b"shared,"))
    fork = await applied(rig, fork_of(source, source.tail, body=b"mine,"), OTHER)
    await applied(rig, append_commit(b"theirs,"))
    assert fork.tail == len(b"shared,mine,")
    assert (await rig.store.read(OTHER, fork, 0, 100)).data == b"shared,mine,"
    await rig.reopen()
    assert await read_all(rig, fork, 1, name=OTHER) == b"shared,mine,"
    now = await rig.store.head(NAME)
    assert now is not None
    assert now.references == 1


async def test_fork_may_begin_inside_a_batch(rig: Rig) -> None:
    """There a batch of the fork ends, though none of its source's does."""
    source = await applied(rig, create_commit(body=b"abcdef"))
    fork = await applied(rig, fork_of(source, 4, body=b"XY"), OTHER)
    for _ in range(2):
        assert await read_all(rig, fork, name=OTHER) == b"abcdXY"
        assert (await rig.store.read(OTHER, fork, 4, 10)).data == b"XY"
        assert (await rig.store.read(OTHER, fork, 0, 1)).data == b"abcd"
        assert (await rig.store.read(NAME, source, 4, 10)).start == 0
        assert (await rig.store.read(OTHER, fork, 2, 10)).data == b"abcdXY"
        await rig.reopen()


async def test_deleted_source_is_soft_deleted_until_its_last_fork_is_deleted(rig: Rig) -> None:
    """The fork still has its bytes; with the fork both are deleted."""
    source = await applied(rig, create_commit(body=b"shared"))
    fork = await applied(rig, fork_of(source, source.tail, body=b"mine"), OTHER)
    deleted = await applied(rig, delete_commit())
    assert deleted.soft_deleted
    assert isinstance((await unmet(rig, create_commit(incarnation=3))).requirement, Absent)
    await rig.reopen()
    assert await read_all(rig, fork, name=OTHER) == b"sharedmine"
    assert isinstance(await rig.store.apply(OTHER, delete_commit()), Applied)
    assert await rig.store.head(NAME) is None
    assert await rig.store.head(OTHER) is None


async def test_fork_of_a_deleted_source_is_rejected(rig: Rig) -> None:
    """The source is checked in the same step as the fork's own name."""
    source = await applied(rig, create_commit(body=b"x"))
    fork = fork_of(source, source.tail)
    await rig.store.apply(NAME, delete_commit())
    assert isinstance(await rig.store.apply(OTHER, fork), Unmet)
    assert await rig.store.head(OTHER) is None


@also_on_moto
async def test_closed_stream_stays_closed_after_a_restart(rig: Rig) -> None:
    """Its head has the closing producer's stamp, by which that producer's retry is recognized."""
    await applied(rig, create_commit())
    await applied(rig, append_commit(b"end", producer=stamp(), closes=True))
    await rig.reopen()
    rejection = await unmet(rig, append_commit(b"more"))
    assert rejection.requirement == Open()
    assert rejection.head is not None
    assert rejection.head.closed_by == stamp()


async def test_batch_larger_than_a_page_is_read_whole(rig: Rig) -> None:
    """From memory and from the disk."""
    large = bytes(range(256)) * 20_000
    await applied(rig, create_commit())
    head = await applied(rig, append_commit(large))
    assert (await rig.store.read(NAME, head, 0, 1_000)).data == large
    await rig.reopen()
    assert (await rig.store.read(NAME, head, 0, 1_000)).data == large


async def test_reader_key_is_rotated_and_ends_with_its_incarnation(rig: Rig) -> None:
    """And a stream stays public until its incarnation ends, also after a restart."""
    key, rotated = ReaderKey("first"), ReaderKey("second")
    before = await applied(rig, create_commit(reader_key=key, is_public=True))
    assert (before.reader_key, before.is_public) == (key, True)
    await applied(rig, plan_reader_key(rotated, START_MS))
    await applied(rig, append_commit())
    await rig.reopen()
    after = await rig.store.head(NAME)
    assert after is not None
    assert (after.reader_key, after.is_public, after.tail) == (rotated, True, 1)
    assert isinstance(await rig.store.apply(NAME, delete_commit()), Applied)
    await unmet(rig, plan_reader_key(key, START_MS))
    created = await applied(rig, create_commit(incarnation=2))
    assert (created.reader_key, created.is_public) == (None, False)
