"""Preconditions are checked in the same step as the change that they guard, on every store."""

import asyncio

import pytest
from msgspec.structs import replace

from fluvial.model.command import Append, Close
from fluvial.model.commit import Applied, Commit, NotDuplicate, Open, Outcome, PreconditionsHold, Unmet
from fluvial.model.entity_tag import AnyTag, Preconditions, TagList, stream_etag
from fluvial.model.head import Head
from fluvial.model.plan import plan_close, plan_delete
from fluvial.operations.create_stream import create_stream as create
from fluvial.wire.response import append_response
from tests.support.clocks import START_MS
from tests.support.commands import NAME, TEXT, append_commit, close_commit, create_command, create_commit, stamp
from tests.support.rigs import Rig

WRITERS = 20


def if_match(*heads: Head) -> Preconditions:
    """If-Match: the stream must have one of these states."""
    return Preconditions(if_match=TagList(frozenset(map(stream_etag, heads))))


def if_none_match(*heads: Head) -> Preconditions:
    """If-None-Match: the stream must have none of these states."""
    return Preconditions(if_none_match=TagList(frozenset(map(stream_etag, heads))))


NEVER = Preconditions(if_none_match=AnyTag.ANY)


async def apply(rig: Rig, commit: Commit) -> Outcome:
    """Apply a commit; its outcome."""
    return await rig.store.apply(NAME, commit)


async def create_stream(rig: Rig, incarnation: int = 1) -> Head:
    """Create a stream with one batch; its head."""
    outcome = await apply(rig, create_commit(incarnation, body=b"first,"))
    assert isinstance(outcome, Applied)
    assert outcome.head is not None
    return outcome.head


def heads_of_applied(outcomes: list[Outcome]) -> list[Head]:
    """The heads of the applied commits; the others must have been rejected for their preconditions."""
    rejected = [outcome for outcome in outcomes if isinstance(outcome, Unmet)]
    assert all(isinstance(outcome.requirement, PreconditionsHold) for outcome in rejected)
    return [outcome.head for outcome in outcomes if isinstance(outcome, Applied) and outcome.head is not None]


async def test_one_of_concurrent_appends_with_the_same_if_match_is_applied(rig: Rig) -> None:
    """The others change nothing."""
    seen = await create_stream(rig)
    commits = [append_commit(b"%02d," % number, preconditions=if_match(seen)) for number in range(WRITERS)]
    outcomes = await asyncio.gather(*(apply(rig, commit) for commit in commits))
    [winner] = heads_of_applied(outcomes)
    assert winner.tail == seen.tail + 3
    await rig.reopen()
    assert await rig.store.head(NAME) == winner
    assert len(rig.raw_bytes(seen.incarnation)) == winner.tail


async def test_writer_continues_with_the_tag_of_its_last_write(rig: Rig) -> None:
    """The head of an outcome is the head right after that commit, also among concurrent commits."""
    seen = await create_stream(rig)

    async def write(mark: bytes) -> int:
        """Write five times, until another writer has written; the number of batches written."""
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


async def test_guarded_append_among_unconditional_ones_is_applied_at_its_tail_or_rejected(rig: Rig) -> None:
    """Its tail is that of the head whose tag it names."""
    seen = await create_stream(rig)
    others = [append_commit(b"other,") for _ in range(WRITERS)]
    commits = [*others, append_commit(b"guarded,", preconditions=if_match(seen))]
    outcomes = await asyncio.gather(*(apply(rig, commit) for commit in reversed(commits)))
    data = rig.raw_bytes(seen.incarnation)
    assert len(heads_of_applied(outcomes)) >= WRITERS
    assert data.find(b"guarded,") in {-1, seen.tail}
    assert isinstance(outcomes[0], Applied) is (b"guarded," in data)


async def test_commit_with_a_failed_precondition_changes_nothing(rig: Rig) -> None:
    """Not the bytes, the producer's state, the Stream-Seq or the closure."""
    old = await create_stream(rig)
    await apply(rig, append_commit(b"more,"))
    before = await rig.store.head(NAME)
    rejected: list[Commit] = [
        append_commit(b"x", preconditions=if_match(old), producer=stamp(), stream_seq="a"),
        append_commit(b"x", preconditions=if_match(old), closes=True),
        append_commit(b"x", preconditions=NEVER),
        plan_close(Close(name=NAME, preconditions=if_match(old)), START_MS),
        plan_delete(START_MS, if_match(old)),
        plan_delete(START_MS, NEVER),
    ]
    for commit in rejected:
        outcome = await apply(rig, commit)
        assert isinstance(outcome, Unmet)
        assert isinstance(outcome.requirement, PreconditionsHold)
        assert outcome.head == before
    await rig.reopen()
    assert await rig.store.head(NAME) == before
    assert rig.raw_bytes(old.incarnation) == b"first,more,"


async def test_commits_whose_preconditions_hold_are_applied(rig: Rig) -> None:
    """With the stream's tag among others in If-Match, or with other tags in If-None-Match."""
    first = await create_stream(rig)
    future = replace(first, tail=99)
    [second] = heads_of_applied([await apply(rig, append_commit(b"x", preconditions=if_match(future, first)))])
    assert isinstance(await apply(rig, append_commit(b"x", preconditions=if_none_match(first, second))), Unmet)
    [third] = heads_of_applied([await apply(rig, append_commit(b"x", preconditions=if_none_match(first)))])
    [closed] = heads_of_applied(
        [await apply(rig, plan_close(Close(name=NAME, preconditions=if_match(third)), START_MS))]
    )
    assert closed.closed
    assert isinstance(await apply(rig, plan_delete(START_MS, if_match(third))), Unmet), "it is closed since"
    assert isinstance(await apply(rig, plan_delete(START_MS, if_match(closed))), Applied)
    assert await rig.store.head(NAME) is None


async def test_one_of_concurrent_deletes_and_appends_with_the_same_if_match_is_applied(rig: Rig) -> None:
    """A client never deletes bytes that it has not seen."""
    seen = await create_stream(rig)
    deletes: list[Commit] = [plan_delete(START_MS, if_match(seen)) for _ in range(3)]
    appends: list[Commit] = [append_commit(b"more,", preconditions=if_match(seen)) for _ in range(3)]
    outcomes = await asyncio.gather(*(apply(rig, commit) for commit in [*deletes, *appends]))
    assert sum(isinstance(outcome, Applied) for outcome in outcomes) == 1
    head = await rig.store.head(NAME)
    assert head is None or head.tail == seen.tail + 5


async def test_one_of_concurrent_creates_with_if_none_match_any_is_applied(rig: Rig) -> None:
    """`If-None-Match: *` works as a lock."""
    clock = rig.still.clock()
    commands = [create_command(body=b"%02d," % number, preconditions=NEVER) for number in range(WRITERS)]
    outcomes = await asyncio.gather(*(create(rig.store, clock, command) for command in commands))
    [winner] = [outcome.head for outcome in outcomes if isinstance(outcome, Applied)]
    assert winner is not None
    assert await rig.store.head(NAME) == winner


async def test_create_with_if_match_is_rejected_for_an_unknown_name(rig: Rig) -> None:
    """A name without a stream matches no tag, not even `*`."""
    outcome = await create(
        rig.store, rig.still.clock(), create_command(preconditions=Preconditions(if_match=AnyTag.ANY))
    )
    assert isinstance(outcome, Unmet)
    assert isinstance(outcome.requirement, PreconditionsHold)
    assert await rig.store.head(NAME) is None


@pytest.mark.parametrize("closes", [False, True], ids=["append", "last append"])
async def test_producer_retry_is_a_duplicate_although_its_if_match_fails_by_now(rig: Rig, closes: bool) -> None:  # noqa: FBT001
    """Its own first try changed the tag. If the answer to that was lost, the producer learns that it was applied."""
    seen = await create_stream(rig)
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
    assert b"etag" not in dict(answer.headers), "other writers may have appended since"
    assert rig.raw_bytes(seen.incarnation).count(b"once,") == 1


async def test_repeated_close_succeeds_unless_bytes_were_appended_before_the_close(rig: Rig) -> None:
    """A writer that closes a state with If-Match learns that the closed stream has bytes that it has not seen."""
    seen = await create_stream(rig)
    command = Close(name=NAME, preconditions=if_match(seen))
    for _ in range(2):
        assert append_response(command, await apply(rig, plan_close(command, START_MS))).status == 204
    await apply(rig, plan_delete(START_MS))
    seen = await create_stream(rig, incarnation=2)
    await apply(rig, append_commit(b"unseen,"))
    await apply(rig, close_commit())
    command = Close(name=NAME, preconditions=if_match(seen))
    assert append_response(command, await apply(rig, plan_close(command, START_MS))).status == 412
