"""The parts of storage/contract.py that listings show, tested on every store: last appends, heads, producers."""

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, Commit, UpdateCommit
from fluvial.model.effect import MoveCursor
from fluvial.model.head import EstuaryMode, Head, Incarnation, ReaderKey, SourcePosition
from fluvial.model.limits import ESTUARY_TTL_S_DEFAULT
from fluvial.model.names import StreamName
from fluvial.model.plan import (
    Estuary,
    ForkPosition,
    Replica,
    plan_delivery,
    plan_estuary,
    plan_fork,
    plan_reader_key,
    plan_renewal,
)
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
from tests.support.rigs import Rig, also_on_moto

LATER_MS, LAST_MS = START_MS + 10_000, START_MS + 20_000


async def applied(rig: Rig, commit: Commit, name: StreamName = NAME) -> Head:
    """Apply a commit that must be applied; the head after it."""
    outcome = await rig.store.apply(name, commit)
    assert isinstance(outcome, Applied), outcome
    assert outcome.head is not None
    return outcome.head


async def appended_ms(rig: Rig, name: StreamName = NAME) -> int | None:
    """The time of the last append, as a later process finds it."""
    found = await rig.store.head(name)
    await rig.reopen()
    again = await rig.store.head(name)
    assert found is not None
    assert again is not None
    assert again.appended_ms == found.appended_ms
    return again.appended_ms


@also_on_moto
async def test_head_has_the_time_of_the_last_append(rig: Rig) -> None:
    """Of a first batch and of later ones; after a restart as well."""
    created = await applied(rig, create_commit(body=b"first"))
    assert created.appended_ms == await appended_ms(rig) == START_MS
    for now_ms in (LATER_MS, LAST_MS):
        head = await applied(rig, append_commit(now_ms=now_ms, producer=stamp(seq=(now_ms - LATER_MS) // 10_000)))
        assert head.appended_ms == await appended_ms(rig) == now_ms


async def test_stream_without_a_batch_has_no_last_append(rig: Rig) -> None:
    """A close, a renewal and a new reader key are no appends; neither is a fork, which begins with inherited bytes."""
    assert (await applied(rig, create_commit())).appended_ms is None
    await applied(rig, plan_renewal(LATER_MS))
    await applied(rig, plan_reader_key(ReaderKey("k"), LATER_MS))
    assert await appended_ms(rig) is None
    source = await applied(rig, append_commit(now_ms=LATER_MS))
    await applied(rig, close_commit(now_ms=LAST_MS))
    assert await appended_ms(rig) == LATER_MS
    command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
    fork = plan_fork(command, ForkPosition(source, source.tail, source.tail), Incarnation(2), LAST_MS)
    await applied(rig, fork, OTHER)
    assert await appended_ms(rig, OTHER) is None


async def test_time_of_the_last_append_ends_with_its_incarnation(rig: Rig) -> None:
    """The next stream of the name has none."""
    await applied(rig, create_commit(body=b"x"))
    assert isinstance(await rig.store.apply(NAME, delete_commit()), Applied)
    await applied(rig, create_commit(incarnation=2))
    assert await appended_ms(rig) is None


async def test_delivery_sets_the_time_of_an_estuarys_last_append(rig: Rig) -> None:
    """What comes from a source is appended then."""
    estuary = Estuary(EstuaryMode.RAW, "text/plain", ESTUARY_TTL_S_DEFAULT)
    await applied(rig, plan_estuary(estuary, Incarnation(2), START_MS), OTHER)
    begin, end = SourcePosition(Incarnation(1), 0), SourcePosition(Incarnation(1), 1)
    await applied(rig, UpdateCommit((), (MoveCursor(NAME, begin),)), OTHER)
    assert await appended_ms(rig, OTHER) is None
    await applied(rig, plan_delivery(NAME, Replica(EstuaryMode.RAW, begin, end, b"x"), LATER_MS), OTHER)
    assert await appended_ms(rig, OTHER) == LATER_MS


@also_on_moto
async def test_several_heads_are_those_of_their_names_in_order(rig: Rig) -> None:
    """Also of names without a stream, and of a name that is asked for twice."""
    names = [StreamName(f"many/{number}") for number in range(230)]
    for number in (0, 7, 150, 229):
        await applied(rig, create_commit(number + 1, name=names[number], body=b"x" * number), names[number])
    await applied(rig, append_commit(b"more", LATER_MS), names[7])
    await rig.reopen()
    heads = await rig.store.heads([*reversed(names), names[7]])
    assert heads == [*[await rig.store.head(name) for name in reversed(names)], await rig.store.head(names[7])]
    assert [head.tail for head in heads if head is not None] == [229, 150, 11, 0, 11]
    assert await rig.store.heads([]) == []


async def test_producers_are_listed_with_their_last_stamps_in_order(rig: Rig) -> None:
    """More than a head keeps: some have left it, and one of those is back."""
    await applied(rig, create_commit())
    count = 70
    for number in range(count):
        await applied(rig, append_commit(producer=stamp(producer_id=f"p{number:02}")))
    head = await applied(rig, append_commit(producer=stamp(seq=1, producer_id="p00")))
    assert head.producer_count == count
    expected = [stamp(seq=int(number == 0), producer_id=f"p{number:02}") for number in range(count)]
    for _ in range(2):
        found = await rig.store.head(NAME)
        assert found is not None
        assert await rig.store.producers(found, 100) == expected
        assert await rig.store.producers(found, 3) == expected[:3]
        await rig.reopen()
    await applied(rig, create_commit(2, name=OTHER), OTHER)
    other = await rig.store.head(OTHER)
    assert other is not None
    assert await rig.store.producers(other, 100) == []
