"""What flows into estuaries: everything, once, in order, whoever delivers and however often."""

import asyncio
import json
import random
from itertools import count

import pytest

from fluvial.fanout.delivery_worker import DeliveryWorker
from fluvial.fanout.estuaries import EnsuredEstuary, WantedEstuary
from fluvial.fanout.limits import FanOutLimits
from fluvial.fanout.publisher import FanOutMode, FanOutReport
from fluvial.fanout.replication import Delivery, Source, deliver
from fluvial.model.command import Close
from fluvial.model.errors import ErrorCode, StoreUnavailable
from fluvial.model.followers import Follower, SubscriptionId
from fluvial.model.head import EstuaryMode, Head
from fluvial.model.limits import SOURCES_PER_ESTUARY_MAX
from fluvial.model.names import StreamName
from fluvial.model.offset import offset_token
from fluvial.model.plan import plan_close
from fluvial.storage.contract import UndeliveredIndex
from tests.support.clocks import START_MS
from tests.support.commands import delete_commit
from tests.support.estuaries import SOURCE, FanOutRig, code_of
from tests.support.rigs import also_on_moto, eventually

JSON = "application/json"


async def source_head(rig: FanOutRig, name: StreamName = SOURCE) -> Head:
    """A stream's head."""
    head = await rig.store.head(name)
    assert head is not None
    return head


async def filled(rig: FanOutRig, name: str, tail: int) -> None:
    """Wait until a stream has so many bytes."""
    seen = await source_head(rig, StreamName(name))
    while seen.tail < tail:
        news = await rig.store.wait(StreamName(name), seen, 10)
        assert news is not None
        assert news.tail > seen.tail, "nothing came"
        seen = news


@also_on_moto
async def test_a_follower_gets_what_is_appended_from_then_on(rig: FanOutRig) -> None:
    """Not what was there before; and the publisher hears how it went."""
    await rig.make_source()
    assert (await rig.append(b"before")).delivered is None
    followed = await rig.follow_with("p/a", "p/b")
    assert [one.cursor.position for one in followed] == [6, 6]
    assert await rig.publish(b"one") == FanOutReport(2, 2, 0, FanOutMode.INLINE)
    assert await rig.publish(b"two") == FanOutReport(2, 2, 0, FanOutMode.INLINE)
    assert [await rig.read(name) for name in ("p/a", "p/b")] == [b"onetwo"] * 2
    assert (await source_head(rig)).delivered == 12


async def test_a_stream_that_nobody_follows_is_not_published(rig: FanOutRig) -> None:
    """It costs nothing to be able to."""
    await rig.make_source()
    head = await rig.append(b"x")
    assert await rig.publisher.publish(Source(SOURCE, head)) is None


async def test_an_envelope_says_where_each_message_comes_from(rig: FanOutRig) -> None:
    """One connection follows many streams, with the offset of each."""
    texts, numbers = StreamName("p/texts"), StreamName("p/numbers")
    await rig.make_source(texts)
    await rig.make_source(numbers, JSON)
    await rig.make_source(SOURCE, "application/octet-stream")
    for name in (texts, numbers, SOURCE):
        await rig.follow("p/all", name, EstuaryMode.ENVELOPE)
    await rig.publish('"é'.encode(), texts)
    await rig.publish(b"[1, 2],{},", numbers, JSON)
    await rig.publish(b"\xff", texts)
    await rig.publish(b"\x00\x01", SOURCE, "application/octet-stream")
    found = json.loads(b"[%s]" % (await rig.read("p/all"))[:-1])
    heads = {name: await source_head(rig, name) for name in (texts, numbers, SOURCE)}
    end = offset_token(heads[numbers], 10)
    assert found == [
        {"stream": "p/texts", "offset": offset_token(heads[texts], 3), "type": "text/plain", "payload": '"é'},
        {"stream": "p/numbers", "offset": end, "type": JSON, "payload": [1, 2]},
        {"stream": "p/numbers", "offset": end, "type": JSON, "payload": {}},
        {
            "stream": "p/texts",
            "offset": offset_token(heads[texts], 4),
            "type": "text/plain",
            "payload": "/w==",
            "encoding": "base64",
        },
        {
            "stream": "p/source",
            "offset": offset_token(heads[SOURCE], 2),
            "type": "application/octet-stream",
            "payload": "AAE=",
            "encoding": "base64",
        },
    ]
    page = await rig.store.read(texts, await source_head(rig, texts), 3, 100)
    assert page.data == b"\xff", "a client may go on at the source from the offset that it was told"


async def test_what_was_missed_comes_with_the_next_delivery(rig: FanOutRig) -> None:
    """A delivery that failed, for whatever reason, is made good by any later one, in order."""
    await rig.make_source()
    await rig.follow("p/a")
    for number in range(20):
        await rig.append(b"<%d>" % number)
    await rig.publish(b"last")
    assert await rig.read("p/a") == b"".join(b"<%d>" % number for number in range(20)) + b"last"


@pytest.mark.parametrize("mode", EstuaryMode)
async def test_however_many_deliver_at_once_each_byte_arrives_once(rig: FanOutRig, mode: EstuaryMode) -> None:
    """Writers, publishers and redeliveries, all with wrong guesses of where the follower is."""
    await rig.make_source(content_type=JSON)
    await rig.follow("p/a", mode=mode)
    [follower] = await rig.store.followers((await source_head(rig)).incarnation, "", 9)
    dice, numbers, ends = random.Random(3), count(), [0]

    async def write() -> None:
        for _ in range(6):
            head = await rig.append(b'{"n":%d},' % next(numbers), content_type=JSON)
            ends.append(head.tail)
            await rig.publisher.publish(Source(SOURCE, head), dice.choice([None, *ends]))

    async def redeliver() -> None:
        for _ in range(6):
            source = Source(SOURCE, await source_head(rig))
            guess = source.at(min(source.head.tail, dice.choice(ends)))
            await deliver(rig.store, rig.clock, source, follower, dice.choice([None, guess]))

    await asyncio.gather(*(write() for _ in range(4)), *(redeliver() for _ in range(3)))
    source, estuary = await rig.read(SOURCE), await rig.read("p/a")
    if mode is EstuaryMode.RAW:
        assert estuary == source
    else:
        payloads = [one["payload"] for one in json.loads(b"[%s]" % estuary[:-1])]
        assert payloads == json.loads(b"[%s]" % source[:-1])


async def test_to_follow_twice_changes_nothing(rig: FanOutRig) -> None:
    """A client that did not hear the answer asks again."""
    await rig.make_source()
    first = await rig.follow("p/a")
    await rig.publish(b"one")
    again = await rig.follow("p/a")
    assert (first.is_new, again.is_new, again.cursor.position) == (True, False, 3)
    await rig.publish(b"two")
    assert await rig.read("p/a") == b"onetwo"


async def test_who_stops_following_gets_no_more(rig: FanOutRig) -> None:
    """And may begin again from the tail of that time."""
    await rig.make_source()
    await rig.follow("p/a")
    await rig.publish(b"one")
    assert await rig.estuaries.unfollow(SOURCE, StreamName("p/a")) is None
    assert (await rig.publish(b"two")).count == 0
    await rig.follow("p/a")
    await rig.publish(b"three")
    assert await rig.read("p/a") == b"onethree"


async def test_a_follower_that_is_gone_is_taken_off_the_list(rig: FanOutRig) -> None:
    """Deleted, closed, expired, or begun anew without the subscription: the publish does not fail for it."""
    await rig.make_source()
    life = (await source_head(rig)).incarnation
    await rig.follow("p/kept")
    for name in ("p/deleted", "p/closed", "p/anew"):
        await rig.follow(name)
    await rig.follow("p/expired", ttl_seconds=10)
    await rig.store.apply(StreamName("p/deleted"), delete_commit())
    await rig.store.apply(StreamName("p/closed"), plan_close(Close(name=StreamName("p/closed")), START_MS))
    await rig.store.apply(StreamName("p/anew"), delete_commit())
    assert isinstance(await rig.estuaries.open(WantedEstuary(StreamName("p/anew"))), EnsuredEstuary)
    rig.rig.still.time.advance(60_000)
    await rig.publish(b"x")
    assert [one.estuary for one in await rig.store.followers(life, "", 9)] == ["p/kept"]
    assert [await rig.read(name) for name in ("p/kept", "p/anew")] == [b"x", b""]


async def test_deliveries_do_not_keep_an_unused_estuary_alive(rig: FanOutRig) -> None:
    """A touch does; otherwise a busy source would never let a session lapse."""
    await rig.make_source()
    for name in ("p/touched", "p/unused"):
        await rig.follow(name, ttl_seconds=100)
    rig.rig.still.time.advance(80_000)
    await rig.publish(b"x")
    assert isinstance(await rig.estuaries.touch(StreamName("p/touched")), Head)
    rig.rig.still.time.advance(80_000)
    assert (await rig.publish(b"y")).count == 2
    assert await rig.read("p/touched") == b"xy"
    assert code_of(await rig.estuaries.head(StreamName("p/unused"))) is ErrorCode.NOT_FOUND


async def test_a_source_that_begins_anew_is_another_source(rig: FanOutRig) -> None:
    """Who followed the former life follows no more, and may follow the new one."""
    await rig.make_source()
    await rig.follow("p/a")
    await rig.publish(b"old")
    await rig.store.apply(SOURCE, delete_commit())
    await rig.make_source()
    head = await rig.append(b"unseen")
    assert head.delivered is None
    assert (await rig.follow("p/a")).is_new
    await rig.publish(b"new")
    assert await rig.read("p/a") == b"oldnew"


async def test_an_estuary_ends_with_its_subscriptions(rig: FanOutRig) -> None:
    """Its sources list it no more."""
    life = (await rig.make_source()).incarnation
    await rig.follow("p/a")
    assert await rig.estuaries.end(StreamName("p/a")) is None
    assert await rig.store.followers(life, "", 9) == []
    assert code_of(await rig.estuaries.end(StreamName("p/a"))) is ErrorCode.NOT_FOUND


async def test_what_cannot_be_followed_is_refused_and_changes_nothing(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own code."""
    a, plain, other = StreamName("p/a"), StreamName("p/plain"), StreamName("p/other")
    await rig.make_source()
    await rig.make_source(plain, JSON)
    await rig.make_source(other)
    await rig.follow("p/a")

    async def refused(name: str, wanted: WantedEstuary) -> ErrorCode:
        return code_of(await rig.estuaries.follow(StreamName(name), wanted))

    assert await refused("p/nothing", WantedEstuary(a)) is ErrorCode.NOT_FOUND
    assert await refused("p/source", WantedEstuary(plain)) is ErrorCode.NOT_AN_ESTUARY
    assert await refused("p/a", WantedEstuary(StreamName("p/b"))) is ErrorCode.ESTUARY_AS_SOURCE
    assert await refused("p/plain", WantedEstuary(a)) is ErrorCode.CONTENT_TYPE_MISMATCH
    assert await refused("p/source", WantedEstuary(a, EstuaryMode.ENVELOPE)) is ErrorCode.STREAM_EXISTS
    assert code_of(await rig.estuaries.unfollow(SOURCE, plain)) is ErrorCode.NOT_AN_ESTUARY
    assert code_of(await rig.estuaries.touch(plain)) is ErrorCode.NOT_AN_ESTUARY
    assert code_of(await rig.estuaries.end(plain)) is ErrorCode.NOT_AN_ESTUARY


async def test_an_estuary_has_so_many_sources(rig: FanOutRig) -> None:
    """Past them the next one is refused, and one that is followed already is not."""
    for number in range(SOURCES_PER_ESTUARY_MAX):
        await rig.make_source(StreamName(f"p/{number}"))
        await rig.follow("p/a", StreamName(f"p/{number}"))
    await rig.make_source()
    estuary = WantedEstuary(StreamName("p/a"))
    assert code_of(await rig.estuaries.follow(SOURCE, estuary)) is ErrorCode.TOO_MANY_SOURCES
    await rig.follow("p/a", StreamName("p/0"))
    assert len((await source_head(rig, StreamName("p/a"))).cursors) == SOURCES_PER_ESTUARY_MAX


async def test_one_follower_that_fails_does_not_fail_the_publish(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have theirs; the source is known to be behind until it is made good."""
    await rig.make_source()
    await rig.follow_with("p/a", "p/bad", "p/c")
    apply = type(rig.store).apply

    async def failing(store: object, name: StreamName, commit: object) -> object:
        if name == "p/bad":
            raise StoreUnavailable
        return await apply(store, name, commit)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.store), "apply", failing)
        assert await rig.publish(b"x") == FanOutReport(3, 2, 1, FanOutMode.INLINE)
    assert [await rig.read(name) for name in ("p/a", "p/bad", "p/c")] == [b"x", b"", b"x"]
    head = await source_head(rig)
    assert head.delivered == 0
    assert await rig.publisher.deliver_to_all(Source(SOURCE, head)) == []
    assert await rig.read("p/bad") == b"x"
    assert (await source_head(rig)).delivered == 1


async def test_a_retry_after_a_failed_round_delivers(rig: FanOutRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was told of a failure sends its append again; it hears how things are now, not how they were."""
    await rig.make_source()
    await rig.follow_with("p/a", "p/bad")
    head, publisher = await rig.append(b"x"), rig.publisher

    async def failing(
        _store: object, _clock: object, _source: object, follower: Follower, *_: object, **__: object
    ) -> Delivery:
        if follower.estuary == "p/bad":
            raise StoreUnavailable
        return Delivery.COMPLETE

    with monkeypatch.context() as patched:
        patched.setattr("fluvial.fanout.publisher.deliver", failing)
        assert await publisher.publish(Source(SOURCE, head), 0) == FanOutReport(2, 1, 1, FanOutMode.INLINE)
    assert await publisher.publish(Source(SOURCE, head)) == FanOutReport(2, 2, 0, FanOutMode.INLINE)
    assert await rig.read("p/bad") == b"x"
    await rig.follow("p/later")
    assert await publisher.publish(Source(SOURCE, head)) == FanOutReport(3, 3, 0, FanOutMode.INLINE)
    assert publisher._wanted == {}


async def test_one_round_serves_all_that_waited_for_it(rig: FanOutRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that fails: a follower that hangs must not hold up publishers one after the other."""
    await rig.make_source()
    await rig.follow("p/bad")
    publisher, rounds = rig.publisher, 0
    heads = [await rig.append(b"%d" % number) for number in range(10)]

    async def failing(*_: object, **__: object) -> Delivery:
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0)
        raise StoreUnavailable

    monkeypatch.setattr("fluvial.fanout.publisher.deliver", failing)
    reports = await asyncio.gather(*(publisher.publish(Source(SOURCE, head)) for head in heads))
    assert reports == [FanOutReport(1, 0, 1, FanOutMode.INLINE)] * 10
    assert rounds == 2, "the first has begun when the others come, and the second serves them all"
    assert publisher._wanted == {}


async def test_an_unforeseen_error_of_one_follower_does_not_fail_the_publish(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The append stands, so its writer must not be told otherwise."""
    await rig.make_source()
    await rig.follow_with("p/a", "p/bad")

    async def failing(
        store: object, clock: object, source: object, follower: Follower, *guess: object, **limits: object
    ) -> Delivery:
        if follower.estuary == "p/bad":
            raise KeyError
        return await deliver(store, clock, source, follower, *guess, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr("fluvial.fanout.publisher.deliver", failing)
    assert await rig.publish(b"x") == FanOutReport(2, 1, 1, FanOutMode.INLINE)
    assert await rig.read("p/a") == b"x"
    assert "delivery_failed" in caplog.text


async def test_an_unforeseen_error_of_a_round_does_not_fail_the_publish(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it had to deliver comes later."""
    await rig.make_source()
    await rig.follow_with("p/a")

    async def failing(*_: object) -> list[Follower]:
        raise KeyError

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.store), "followers", failing)
        assert await rig.publish(b"x") == FanOutReport(0, 0, 0, FanOutMode.DEFERRED)
    assert "fan_out_deferred" in caplog.text
    assert await rig.publisher.deliver_to_all(Source(SOURCE, await source_head(rig))) == []
    assert await rig.read("p/a") == b"x"


async def test_a_source_that_cannot_be_looked_at_holds_up_no_other(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its error is: those behind it in the order of names get what they lack in the same look."""
    bad, good = StreamName("p/0-bad"), StreamName("p/1-good")
    worker = DeliveryWorker(rig.store, None)
    rig.backlog = worker
    for source in (bad, good):
        await rig.make_source(source)
        await rig.follow(f"{source}-estuary", source)
        await worker.put(Source(source, await rig.append(b"x", source)))
    head = type(rig.store).head

    async def failing(store: object, name: StreamName) -> Head | None:
        if name == bad:
            raise KeyError
        return await head(store, name)  # type: ignore[arg-type]

    monkeypatch.setattr(type(rig.store), "head", failing)
    worker.start(rig.publisher)
    await filled(rig, f"{good}-estuary", 1)
    await worker.stop()
    assert list(worker._in_mind) == [bad]
    assert "deliveries_failed" in caplog.text


@pytest.mark.parametrize("rig", ["memory", "sqlite"], indirect=True)
async def test_a_publisher_does_not_count_the_followers_that_it_does_not_wait_for(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look tells that they are too many, and the source is put into the backlog once."""
    rig.limits = FanOutLimits(inline_subscribers_max=5)
    life = (await rig.make_source()).incarnation
    await rig.follow("p/first")
    for number in range(1_000):
        follower = Follower(StreamName(f"p/{number}"), EstuaryMode.RAW, SubscriptionId(b"x"))
        await rig.store.add_follower(life, follower)
    looks, put = list[int](), list[Source]()
    followers = type(rig.store).followers

    async def counted(store: object, source: object, after: str, count_max: int) -> list[Follower]:
        looks.append(count_max)
        return await followers(store, source, after, count_max)  # type: ignore[arg-type]

    class Noting(DeliveryWorker):
        async def put(self, source: Source) -> None:
            put.append(source)

    monkeypatch.setattr(type(rig.store), "followers", counted)
    rig.backlog = Noting(rig.store, None)
    assert await rig.publish(b"x") == FanOutReport(6, 0, 0, FanOutMode.QUEUED)
    assert looks == [6]
    assert [source.head.tail for source in put] == [1]


async def test_a_follower_far_behind_goes_on_at_the_next_occasion(rig: FanOutRig) -> None:
    """One occasion takes a bounded number of steps."""
    limits = FanOutLimits(steps_max=2, enveloped_batches_max=3)
    await rig.make_source()
    await rig.follow("p/a", mode=EstuaryMode.ENVELOPE)
    for number in range(10):
        await rig.append(b"%d" % number)
    source = Source(SOURCE, await source_head(rig))
    [follower] = await rig.store.followers(source.head.incarnation, "", 9)
    results = [await deliver(rig.store, rig.clock, source, follower, limits=limits) for _ in range(3)]
    assert results == [Delivery.BEHIND, Delivery.COMPLETE, Delivery.COMPLETE]
    assert [one["payload"] for one in json.loads(b"[%s]" % (await rig.read("p/a"))[:-1])] == list("0123456789")


@pytest.mark.parametrize("rig", ["memory", "sqlite"], indirect=True)
async def test_more_followers_than_a_publisher_waits_for_are_served_soon(rig: FanOutRig) -> None:
    """The publisher is answered at once; what a killed process left undone, the next one does."""
    rig.limits = FanOutLimits(inline_subscribers_max=5)
    await rig.make_source()
    names = [f"p/{number:03}" for number in range(120)]
    await rig.follow_with(*names)
    assert await rig.publish(b"unfinished") == FanOutReport(6, 0, 0, FanOutMode.QUEUED), "they are not counted"
    await rig.rig.reopen()
    assert isinstance(rig.store, UndeliveredIndex)
    assert await rig.store.undelivered("", 9) == [SOURCE]
    worker = DeliveryWorker(rig.store, rig.store.undelivered)
    rig.backlog = worker
    worker.start(rig.publisher)
    await filled(rig, names[-1], 10)
    await rig.publish(b", finished")
    await filled(rig, names[-1], 20)
    await worker.stop()
    assert [await rig.read(name) for name in names] == [b"unfinished, finished"] * 120


async def test_a_store_that_cannot_tell_is_worked_from_memory(rig: FanOutRig) -> None:
    """The worker keeps in mind what it was told, until it is done."""
    await rig.make_source()
    await rig.follow("p/a")
    head = await rig.append(b"x")
    worker = DeliveryWorker(rig.store, None)
    rig.backlog = worker
    worker.start(rig.publisher)
    await worker.put(Source(SOURCE, head))
    await worker.put(Source(StreamName("p/nothing"), head))
    await filled(rig, "p/a", 1)
    await eventually(lambda: not worker._in_mind, rig.rig.let_pass)
    await worker.stop()
    assert (await source_head(rig)).delivered == 1


async def test_a_guess_at_the_tail_is_looked_at(rig: FanOutRig) -> None:
    """What adds nothing, such as a close, does not tell where the followers are."""
    await rig.make_source()
    await rig.follow("p/a")
    head = await rig.append(b"missed")
    assert await rig.publisher.publish(Source(SOURCE, head), head.tail) == FanOutReport(1, 1, 0, FanOutMode.INLINE)
    assert await rig.read("p/a") == b"missed"


async def test_a_late_delivery_in_another_mode_is_refused(rig: FanOutRig) -> None:
    """The estuary has begun anew since, and keeps envelopes now."""
    await rig.make_source()
    await rig.follow("p/a")
    [late] = await rig.store.followers((await source_head(rig)).incarnation, "", 9)
    await rig.store.apply(StreamName("p/a"), delete_commit())
    await rig.follow("p/a", mode=EstuaryMode.ENVELOPE)
    head = await rig.append(b"x")
    assert await deliver(rig.store, rig.clock, Source(SOURCE, head), late) is Delivery.GONE
    assert await rig.publisher.deliver_to(Source(SOURCE, head), [late]) == []
    assert await rig.read("p/a") == b""
    assert await rig.publisher.deliver_to_all(Source(SOURCE, head)) == [], "the later subscription stands"
    assert json.loads((await rig.read("p/a"))[:-1])["payload"] == "x"


async def test_to_follow_is_not_done_before_what_passed_by_is_there(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks again, and nothing is missing then."""
    await rig.make_source()
    estuaries = rig.estuaries
    add_follower = type(rig.store).add_follower

    async def overtaken(store: object, source: object, follower: object) -> None:
        await rig.publish(b"passed by")
        await add_follower(store, source, follower)  # type: ignore[arg-type]

    async def failing(*_: object, **__: object) -> object:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.store), "add_follower", overtaken)
        patched.setattr("fluvial.fanout.publisher.deliver", failing)
        with pytest.raises(StoreUnavailable):
            await estuaries.follow(SOURCE, WantedEstuary(StreamName("p/a")))
    await rig.follow("p/a")
    assert await rig.read("p/a") == b"passed by"


async def test_followers_that_hang_hold_up_a_publisher_once(rig: FanOutRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not each for itself, however many of them there are."""
    rig.limits = FanOutLimits(round_timeout_s=0.1, deliveries_at_once=1)

    async def hanging(*_: object, **__: object) -> object:
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("fluvial.fanout.publisher.deliver", hanging)
    await rig.make_source()
    head = await rig.append(b"x")
    followers = [Follower(StreamName(f"p/{number}"), EstuaryMode.RAW, SubscriptionId(b"x")) for number in range(200)]
    async with asyncio.timeout(10):  # a tenth of a second each would be twenty
        assert await rig.publisher.deliver_to(Source(SOURCE, head), followers) == followers


async def test_a_publisher_keeps_nothing_in_mind_that_is_done(rig: FanOutRig) -> None:
    """Also of those whose append another one's round has served."""
    await rig.make_source()
    await rig.follow("p/a")
    publisher = rig.publisher
    heads = [await rig.append(b"%d" % number) for number in range(3)]
    await asyncio.gather(*(publisher.publish(Source(SOURCE, head)) for head in heads))
    await publisher.publish(Source(SOURCE, heads[0]))
    assert publisher._wanted == {}
    assert await rig.read("p/a") == b"012"
