"""Preconditions are judged in the same step as the change that they guard, in every store."""

import asyncio

import pytest
from msgspec.structs import replace

from fluvial.model.command import Append, Close
from fluvial.model.commit import Applied, Commit, NotDuplicate, Open, Outcome, PreconditionsHold, Unmet
from fluvial.model.entity_tag import AnyTag, Preconditions, TagList, stream_etag
from fluvial.model.head import Head
from fluvial.model.plan import plan_close, plan_delete
from fluvial.operations.create_stream import create
from fluvial.wire.response import append_response
from tests.support.clocks import START_MS
from tests.support.commands import NAME, TEXT, append_commit, close_commit, create_command, create_commit, stamp
from tests.support.rigs import Rig

WRITERS = 20


def if_match(*heads: Head) -> Preconditions:
    """Only in one of these states."""
    return Preconditions(if_match=TagList(frozenset(map(stream_etag, heads))))


def unless(*heads: Head) -> Preconditions:
    """In none of these states."""
    return Preconditions(if_none_match=TagList(frozenset(map(stream_etag, heads))))


NEVER = Preconditions(if_none_match=AnyTag.ANY)


async def apply(rig: Rig, commit: Commit) -> Outcome:
    """A commit's outcome."""
    return await rig.store.apply(NAME, commit)


async def begun(rig: Rig, incarnation: int = 1) -> Head:
    """A stream with one batch."""
    outcome = await apply(rig, create_commit(incarnation, body=b"first,"))
    assert isinstance(outcome, Applied)
    assert outcome.head is not None
    return outcome.head


def applied(outcomes: list[Outcome]) -> list[Head]:
    """The heads after those that were applied; the others were refused for their preconditions."""
    refused = [outcome for outcome in outcomes if isinstance(outcome, Unmet)]
    assert all(isinstance(outcome.requirement, PreconditionsHold) for outcome in refused)
    return [outcome.head for outcome in outcomes if isinstance(outcome, Applied) and outcome.head is not None]


async def test_of_writers_with_the_same_if_match_one_wins(rig: Rig) -> None:
    """The others change nothing, however close they come."""
    seen = await begun(rig)
    commits = [append_commit(b"%02d," % number, preconditions=if_match(seen)) for number in range(WRITERS)]
    outcomes = await asyncio.gather(*(apply(rig, commit) for commit in commits))
    [winner] = applied(outcomes)
    assert winner.tail == seen.tail + 3
    await rig.reopen()
    assert await rig.store.head(NAME) == winner
    assert len(rig.raw_bytes(seen.incarnation)) == winner.tail


async def test_a_writer_goes_on_from_the_tag_of_its_last_write(rig: Rig) -> None:
    """The head after a commit is that commit's, also among others that are under way at the same time."""
    seen = await begun(rig)

    async def write(mark: bytes) -> int:
        """Write as long as nobody else does; how often that was."""
        head, count = seen, 0
        while True:
            outcome = await apply(rig, append_commit(mark, preconditions=if_match(head)))
            if isinstance(outcome, Unmet):
                return count
            assert outcome.head is not None
            head, count = outcome.head, count + 1
            if count == 5:
                return count

    counts = await asyncio.gather(*(write(mark) for mark in (b"a", b"b", b"c")))
    assert sorted(counts) == [0, 0, 5]
    written = rig.raw_bytes(seen.incarnation).removeprefix(b"first,")
    assert len(written) == 5
    assert len(set(written)) == 1


async def test_appends_without_conditions_spoil_a_guarded_one_or_come_after_it(rig: Rig) -> None:
    """A guarded append lands exactly at the tail that it was for."""
    seen = await begun(rig)
    others = [append_commit(b"other,") for _ in range(WRITERS)]
    commits = [*others, append_commit(b"guarded,", preconditions=if_match(seen))]
    outcomes = await asyncio.gather(*(apply(rig, commit) for commit in reversed(commits)))
    data = rig.raw_bytes(seen.incarnation)
    assert len(applied(outcomes)) >= WRITERS
    assert data.find(b"guarded,") in {-1, seen.tail}
    assert isinstance(outcomes[0], Applied) is (b"guarded," in data)


async def test_a_failed_precondition_changes_nothing(rig: Rig) -> None:
    """Neither bytes nor the state of a producer, nor a sequence, nor the closure."""
    old = await begun(rig)
    await apply(rig, append_commit(b"more,"))
    before = await rig.store.head(NAME)
    refused: list[Commit] = [
        append_commit(b"x", preconditions=if_match(old), producer=stamp(), stream_seq="a"),
        append_commit(b"x", preconditions=if_match(old), closes=True),
        append_commit(b"x", preconditions=NEVER),
        plan_close(Close(name=NAME, preconditions=if_match(old)), START_MS),
        plan_delete(START_MS, if_match(old)),
        plan_delete(START_MS, NEVER),
    ]
    for commit in refused:
        outcome = await apply(rig, commit)
        assert isinstance(outcome, Unmet)
        assert isinstance(outcome.requirement, PreconditionsHold)
        assert outcome.head == before
    await rig.reopen()
    assert await rig.store.head(NAME) == before
    assert rig.raw_bytes(old.incarnation) == b"first,more,"


async def test_conditions_that_hold_let_everything_pass(rig: Rig) -> None:
    """A tag among others, `*`, and tags that are not the stream's."""
    first = await begun(rig)
    future = replace(first, tail=99)
    [second] = applied([await apply(rig, append_commit(b"x", preconditions=if_match(future, first)))])
    assert isinstance(await apply(rig, append_commit(b"x", preconditions=unless(first, second))), Unmet)
    [third] = applied([await apply(rig, append_commit(b"x", preconditions=unless(first)))])
    [closed] = applied([await apply(rig, plan_close(Close(name=NAME, preconditions=if_match(third)), START_MS))])
    assert closed.closed
    assert isinstance(await apply(rig, plan_delete(START_MS, if_match(third))), Unmet), "it is closed since"
    assert isinstance(await apply(rig, plan_delete(START_MS, if_match(closed))), Applied)
    assert await rig.store.head(NAME) is None


async def test_of_deletes_and_appends_with_the_same_if_match_one_wins(rig: Rig) -> None:
    """A stream is never deleted with more in it than its deleter knew."""
    seen = await begun(rig)
    deletes: list[Commit] = [plan_delete(START_MS, if_match(seen)) for _ in range(3)]
    appends: list[Commit] = [append_commit(b"more,", preconditions=if_match(seen)) for _ in range(3)]
    outcomes = await asyncio.gather(*(apply(rig, commit) for commit in [*deletes, *appends]))
    assert sum(isinstance(outcome, Applied) for outcome in outcomes) == 1
    head = await rig.store.head(NAME)
    assert head is None or head.tail == seen.tail + 5


async def test_of_creators_that_want_no_other_one_wins(rig: Rig) -> None:
    """`If-None-Match: *` is a lock that the store keeps."""
    clock = rig.still.clock()
    commands = [create_command(body=b"%02d," % number, preconditions=NEVER) for number in range(WRITERS)]
    outcomes = await asyncio.gather(*(create(rig.store, clock, command) for command in commands))
    [winner] = [outcome.head for outcome in outcomes if isinstance(outcome, Applied)]
    assert winner is not None
    assert await rig.store.head(NAME) == winner


async def test_a_put_that_wants_to_match_begins_nothing(rig: Rig) -> None:
    """Where nothing is, nothing matches."""
    outcome = await create(
        rig.store, rig.still.clock(), create_command(preconditions=Preconditions(if_match=AnyTag.ANY))
    )
    assert isinstance(outcome, Unmet)
    assert isinstance(outcome.requirement, PreconditionsHold)
    assert await rig.store.head(NAME) is None


@pytest.mark.parametrize("closes", [False, True], ids=["append", "last append"])
async def test_a_producers_retry_is_a_duplicate_though_the_tag_has_moved_on(rig: Rig, closes: bool) -> None:  # noqa: FBT001
    """By its own first try; whoever lost the answer is told that it has landed."""
    seen = await begun(rig)
    command = Append(
        name=NAME,
        content_type=TEXT,
        data=b"once,",
        closes=closes,
        producer=stamp(),
        preconditions=if_match(seen),
    )
    commit = append_commit(b"once,", closes=closes, producer=stamp(), preconditions=if_match(seen))
    assert append_response(command, await apply(rig, commit)).status == 200
    if not closes:
        await apply(rig, append_commit(b"another's,"))
    retried = await apply(rig, commit)
    assert isinstance(retried, Unmet)
    assert isinstance(retried.requirement, Open if closes else NotDuplicate)
    answer = append_response(command, retried)
    assert answer.status == 204
    assert b"etag" not in dict(answer.headers), "others may have written since"
    assert rig.raw_bytes(seen.incarnation).count(b"once,") == 1


async def test_a_repeated_close_is_told_as_done_unless_more_was_written(rig: Rig) -> None:
    """A writer that closes what it knows learns that the closed stream has more in it."""
    seen = await begun(rig)
    command = Close(name=NAME, preconditions=if_match(seen))
    for _ in range(2):
        assert append_response(command, await apply(rig, plan_close(command, START_MS))).status == 204
    await apply(rig, plan_delete(START_MS))
    seen = await begun(rig, incarnation=2)
    await apply(rig, append_commit(b"unseen,"))
    await apply(rig, close_commit())
    command = Close(name=NAME, preconditions=if_match(seen))
    assert append_response(command, await apply(rig, plan_close(command, START_MS))).status == 412
