"""Deliveries into estuaries (fan-in streams): each byte arrives once and in order, whichever processes deliver."""

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
    """The head of a stream, which must exist."""
    head = await rig.store.head(name)
    assert head is not None
    return head


async def wait_for_tail(rig: FanOutRig, name: str, tail: int) -> None:
    """Wait until a stream has this many bytes."""
    seen = await source_head(rig, StreamName(name))
    while seen.tail < tail:
        head = await rig.store.wait(StreamName(name), seen, 10)
        assert head is not None
        assert head.tail > seen.tail, "nothing was delivered"
        seen = head


@also_on_moto
async def test_follower_gets_appends_from_its_subscription_on(rig: FanOutRig) -> None:
    """It does not get earlier ones; and the publisher is returned the number of deliveries."""
    await rig.make_source()
    assert (await rig.append(b"before")).delivered is None
    followed = await rig.follow_with("p/a", "p/b")
    assert [one.cursor.position for one in followed] == [6, 6]
    assert await rig.publish(b"one") == FanOutReport(2, 2, 0, FanOutMode.INLINE)
    assert await rig.publish(b"two") == FanOutReport(2, 2, 0, FanOutMode.INLINE)
    assert [await rig.read(name) for name in ("p/a", "p/b")] == [b"onetwo"] * 2
    assert (await source_head(rig)).delivered == 12


async def test_publish_of_unfollowed_stream_does_nothing(rig: FanOutRig) -> None:
    """A stream without followers pays nothing for fan-out."""
    await rig.make_source()
    head = await rig.append(b"x")
    assert await rig.publisher.publish(Source(SOURCE, head)) is None


async def test_envelope_has_source_and_offset_of_each_message(rig: FanOutRig) -> None:
    """A reader of one estuary follows many streams, and could go on reading each of them by itself."""
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
    assert page.data == b"\xff", "a client may go on reading the source from an envelope's offset"


async def test_next_delivery_includes_missed_appends(rig: FanOutRig) -> None:
    """A later delivery makes up for those that failed, in order."""
    await rig.make_source()
    await rig.follow("p/a")
    for number in range(20):
        await rig.append(b"<%d>" % number)
    await rig.publish(b"last")
    assert await rig.read("p/a") == b"".join(b"<%d>" % number for number in range(20)) + b"last"


@pytest.mark.parametrize("mode", EstuaryMode)
async def test_concurrent_deliveries_add_each_byte_once(rig: FanOutRig, mode: EstuaryMode) -> None:
    """Writers, publishers and redeliveries run at once, with wrong guesses of the follower's cursor."""
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


async def test_repeated_follow_changes_nothing(rig: FanOutRig) -> None:
    """A client that got no answer may repeat its request."""
    await rig.make_source()
    first = await rig.follow("p/a")
    await rig.publish(b"one")
    again = await rig.follow("p/a")
    assert (first.is_new, again.is_new, again.cursor.position) == (True, False, 3)
    await rig.publish(b"two")
    assert await rig.read("p/a") == b"onetwo"


async def test_unsubscribed_estuary_receives_nothing(rig: FanOutRig) -> None:
    """It may follow again, from the tail at that time."""
    await rig.make_source()
    await rig.follow("p/a")
    await rig.publish(b"one")
    assert await rig.estuaries.unfollow(SOURCE, StreamName("p/a")) is None
    assert (await rig.publish(b"two")).count == 0
    await rig.follow("p/a")
    await rig.publish(b"three")
    assert await rig.read("p/a") == b"onethree"


async def test_delivery_removes_follower_that_is_gone(rig: FanOutRig) -> None:
    """Deleted, closed, expired, or created anew without the subscription: the publish does not fail because of it."""
    await rig.make_source()
    incarnation = (await source_head(rig)).incarnation
    await rig.follow("p/kept")
    for name in ("p/deleted", "p/closed", "p/anew"):
        await rig.follow(name)
    await rig.follow("p/expired", ttl_seconds=10)
    await rig.store.apply(StreamName("p/deleted"), delete_commit())
    await rig.store.apply(StreamName("p/closed"), plan_close(Close(name=StreamName("p/closed")), START_MS))
    await rig.store.apply(StreamName("p/anew"), delete_commit())
    assert isinstance(await rig.estuaries.ensure(WantedEstuary(StreamName("p/anew"))), EnsuredEstuary)
    rig.rig.still.time.advance(60_000)
    await rig.publish(b"x")
    assert [one.estuary for one in await rig.store.followers(incarnation, "", 9)] == ["p/kept"]
    assert [await rig.read(name) for name in ("p/kept", "p/anew")] == [b"x", b""]


async def test_deliveries_do_not_renew_the_ttl_of_an_estuary(rig: FanOutRig) -> None:
    """A touch does. If deliveries did, a busy source would keep the estuary of an ended session for ever."""
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


async def test_recreated_source_is_another_source(rig: FanOutRig) -> None:
    """A follower of the former incarnation does not follow the new one, but may."""
    await rig.make_source()
    await rig.follow("p/a")
    await rig.publish(b"old")
    await rig.store.apply(SOURCE, delete_commit())
    await rig.make_source()
    head = await rig.append(b"undelivered")
    assert head.delivered is None
    assert (await rig.follow("p/a")).is_new
    await rig.publish(b"new")
    assert await rig.read("p/a") == b"oldnew"


async def test_deleted_estuary_is_removed_from_its_sources_lists(rig: FanOutRig) -> None:
    """A second deletion is a 404."""
    incarnation = (await rig.make_source()).incarnation
    await rig.follow("p/a")
    assert await rig.estuaries.delete(StreamName("p/a")) is None
    assert await rig.store.followers(incarnation, "", 9) == []
    assert code_of(await rig.estuaries.delete(StreamName("p/a"))) is ErrorCode.NOT_FOUND


async def test_impossible_subscriptions_are_rejected_with_their_codes(rig: FanOutRig) -> None:
    """A missing source, a plain stream as estuary, an estuary as source, another content type, another mode."""
    a, plain, other = StreamName("p/a"), StreamName("p/plain"), StreamName("p/other")
    await rig.make_source()
    await rig.make_source(plain, JSON)
    await rig.make_source(other)
    await rig.follow("p/a")

    async def rejection(name: str, wanted: WantedEstuary) -> ErrorCode:
        return code_of(await rig.estuaries.follow(StreamName(name), wanted))

    assert await rejection("p/nothing", WantedEstuary(a)) is ErrorCode.NOT_FOUND
    assert await rejection("p/source", WantedEstuary(plain)) is ErrorCode.NOT_AN_ESTUARY
    assert await rejection("p/a", WantedEstuary(StreamName("p/b"))) is ErrorCode.ESTUARY_AS_SOURCE
    assert await rejection("p/plain", WantedEstuary(a)) is ErrorCode.CONTENT_TYPE_MISMATCH
    assert await rejection("p/source", WantedEstuary(a, EstuaryMode.ENVELOPE)) is ErrorCode.STREAM_EXISTS
    assert code_of(await rig.estuaries.unfollow(SOURCE, plain)) is ErrorCode.NOT_AN_ESTUARY
    assert code_of(await rig.estuaries.touch(plain)) is ErrorCode.NOT_AN_ESTUARY
    assert code_of(await rig.estuaries.delete(plain)) is ErrorCode.NOT_AN_ESTUARY


async def test_subscription_over_the_limit_of_sources_is_rejected(rig: FanOutRig) -> None:
    """A source that is followed already may be followed again."""
    for number in range(SOURCES_PER_ESTUARY_MAX):
        await rig.make_source(StreamName(f"p/{number}"))
        await rig.follow("p/a", StreamName(f"p/{number}"))
    await rig.make_source()
    estuary = WantedEstuary(StreamName("p/a"))
    assert code_of(await rig.estuaries.follow(SOURCE, estuary)) is ErrorCode.TOO_MANY_SOURCES
    await rig.follow("p/a", StreamName("p/0"))
    assert len((await source_head(rig, StreamName("p/a"))).cursors) == SOURCES_PER_ESTUARY_MAX


async def test_failed_delivery_does_not_fail_the_publish(rig: FanOutRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other followers are delivered to; the source stays marked as behind until the failed one is, too."""
    await rig.make_source()
    await rig.follow_with("p/a", "p/bad", "p/c")
    apply = type(rig.store).apply

    async def fail(store: object, name: StreamName, commit: object) -> object:
        if name == "p/bad":
            raise StoreUnavailable
        return await apply(store, name, commit)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.store), "apply", fail)
        assert await rig.publish(b"x") == FanOutReport(3, 2, 1, FanOutMode.INLINE)
    assert [await rig.read(name) for name in ("p/a", "p/bad", "p/c")] == [b"x", b"", b"x"]
    head = await source_head(rig)
    assert head.delivered == 0
    assert await rig.deliveries.deliver_to_all(Source(SOURCE, head)) == []
    assert await rig.read("p/bad") == b"x"
    assert await rig.publisher.publish(Source(SOURCE, head)) == FanOutReport(3, 3, 0, FanOutMode.INLINE)
    assert (await source_head(rig)).delivered == 1


async def test_retry_after_a_failed_round_delivers(rig: FanOutRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was told of a failure sends its append again: the report is of a new round."""
    await rig.make_source()
    await rig.follow_with("p/a", "p/bad")
    head, publisher = await rig.append(b"x"), rig.publisher

    async def fail(
        _store: object, _clock: object, _source: object, follower: Follower, *_: object, **__: object
    ) -> Delivery:
        if follower.estuary == "p/bad":
            raise StoreUnavailable
        return Delivery.COMPLETE

    with monkeypatch.context() as patched:
        patched.setattr("fluvial.fanout.deliveries.deliver", fail)
        assert await publisher.publish(Source(SOURCE, head), 0) == FanOutReport(2, 1, 1, FanOutMode.INLINE)
    assert await publisher.publish(Source(SOURCE, head)) == FanOutReport(2, 2, 0, FanOutMode.INLINE)
    assert await rig.read("p/bad") == b"x"
    await rig.follow("p/later")
    assert await publisher.publish(Source(SOURCE, head)) == FanOutReport(3, 3, 0, FanOutMode.INLINE)
    assert publisher._queues == {}


async def test_one_round_serves_all_waiting_publishers(rig: FanOutRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a failed round: a follower that hangs must not hold up publishers one after the other."""
    await rig.make_source()
    await rig.follow("p/bad")
    publisher, rounds = rig.publisher, 0
    heads = [await rig.append(b"%d" % number) for number in range(10)]

    async def fail(*_: object, **__: object) -> Delivery:
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0)
        raise StoreUnavailable

    monkeypatch.setattr("fluvial.fanout.deliveries.deliver", fail)
    reports = await asyncio.gather(*(publisher.publish(Source(SOURCE, head)) for head in heads))
    assert reports == [FanOutReport(1, 0, 1, FanOutMode.INLINE)] * 10
    assert rounds == 2, "the first one has begun when the other publishers come, and the second one serves them all"
    assert publisher._queues == {}


async def test_unforeseen_error_of_one_follower_does_not_fail_the_publish(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The append stands, so that its writer must not be answered with an error."""
    await rig.make_source()
    await rig.follow_with("p/a", "p/bad")

    async def fail(
        store: object, clock: object, source: object, follower: Follower, *guess: object, **limits: object
    ) -> Delivery:
        if follower.estuary == "p/bad":
            raise KeyError
        return await deliver(store, clock, source, follower, *guess, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr("fluvial.fanout.deliveries.deliver", fail)
    assert await rig.publish(b"x") == FanOutReport(2, 1, 1, FanOutMode.INLINE)
    assert await rig.read("p/a") == b"x"
    assert "delivery_failed" in caplog.text


async def test_unforeseen_error_of_a_round_does_not_fail_the_publish(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The deliveries are deferred."""
    await rig.make_source()
    await rig.follow_with("p/a")

    async def fail(*_: object) -> list[Follower]:
        raise KeyError

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.store), "followers", fail)
        assert await rig.publish(b"x") == FanOutReport(0, 0, 0, FanOutMode.DEFERRED)
    assert "fan_out_deferred" in caplog.text
    assert await rig.deliveries.deliver_to_all(Source(SOURCE, await source_head(rig))) == []
    assert await rig.read("p/a") == b"x"


async def test_source_with_unforeseen_error_does_not_hold_up_others(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker delivers from the sources behind it, in the order of names, in the same look."""
    bad, good = StreamName("p/0-bad"), StreamName("p/1-good")
    worker = DeliveryWorker(rig.store, rig.deliveries, None)
    rig.backlog = worker
    for source in (bad, good):
        await rig.make_source(source)
        await rig.follow(f"{source}-estuary", source)
        await worker.put(Source(source, await rig.append(b"x", source)))
    head = type(rig.store).head

    async def fail(store: object, name: StreamName) -> Head | None:
        if name == bad:
            raise KeyError
        return await head(store, name)  # type: ignore[arg-type]

    monkeypatch.setattr(type(rig.store), "head", fail)
    worker.start()
    await wait_for_tail(rig, f"{good}-estuary", 1)
    await worker.stop()
    assert list(worker._remembered) == [bad]
    assert "deliveries_failed" in caplog.text


@pytest.mark.parametrize("rig", ["memory", "sqlite"], indirect=True)
async def test_publisher_lists_no_more_followers_than_the_inline_limit(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query tells that there are too many, and the source is put into the backlog once."""
    rig.limits = FanOutLimits(inline_subscribers_max=5)
    incarnation = (await rig.make_source()).incarnation
    await rig.follow("p/first")
    for number in range(1_000):
        follower = Follower(StreamName(f"p/{number}"), EstuaryMode.RAW, SubscriptionId(b"x"))
        await rig.store.add_follower(incarnation, follower)
    queries, put = list[int](), list[Source]()
    followers = type(rig.store).followers

    async def count_query(store: object, source: object, after: str, count_max: int) -> list[Follower]:
        queries.append(count_max)
        return await followers(store, source, after, count_max)  # type: ignore[arg-type]

    class RecordingBacklog(DeliveryWorker):
        async def put(self, source: Source) -> None:
            put.append(source)

    monkeypatch.setattr(type(rig.store), "followers", count_query)
    rig.backlog = RecordingBacklog(rig.store, rig.deliveries, None)
    assert await rig.publish(b"x") == FanOutReport(6, 0, 0, FanOutMode.QUEUED)
    assert queries == [6]
    assert [source.head.tail for source in put] == [1]


async def test_follower_far_behind_catches_up_in_several_deliveries(rig: FanOutRig) -> None:
    """One delivery makes a bounded number of commits."""
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
async def test_worker_delivers_to_followers_over_the_inline_limit(rig: FanOutRig) -> None:
    """The publisher is answered at once; a new process delivers what a killed one has not."""
    rig.limits = FanOutLimits(inline_subscribers_max=5)
    await rig.make_source()
    names = [f"p/{number:03}" for number in range(120)]
    await rig.follow_with(*names)
    assert await rig.publish(b"unfinished") == FanOutReport(6, 0, 0, FanOutMode.QUEUED), "the others are not counted"
    await rig.rig.reopen()
    assert isinstance(rig.store, UndeliveredIndex)
    assert await rig.store.undelivered("", 9) == [SOURCE]
    worker = DeliveryWorker(rig.store, rig.deliveries, rig.store.undelivered)
    rig.backlog = worker
    worker.start()
    await wait_for_tail(rig, names[-1], 10)
    await rig.publish(b", finished")
    await wait_for_tail(rig, names[-1], 20)
    await worker.stop()
    assert [await rig.read(name) for name in names] == [b"unfinished, finished"] * 120


async def test_worker_remembers_sources_where_the_store_has_no_index(rig: FanOutRig) -> None:
    """It remembers them until they are delivered, or turn out not to exist."""
    await rig.make_source()
    await rig.follow("p/a")
    head = await rig.append(b"x")
    worker = DeliveryWorker(rig.store, rig.deliveries, None)
    rig.backlog = worker
    worker.start()
    await worker.put(Source(SOURCE, head))
    await worker.put(Source(StreamName("p/nothing"), head))
    await wait_for_tail(rig, "p/a", 1)
    await eventually(lambda: not worker._remembered, rig.rig.let_pass)
    await worker.stop()
    assert (await source_head(rig)).delivered == 1


async def test_guess_at_the_tail_is_checked(rig: FanOutRig) -> None:
    """A close adds no bytes, so that the position before it does not tell where the followers are."""
    await rig.make_source()
    await rig.follow("p/a")
    head = await rig.append(b"missed")
    assert await rig.publisher.publish(Source(SOURCE, head), head.tail) == FanOutReport(1, 1, 0, FanOutMode.INLINE)
    assert await rig.read("p/a") == b"missed"


async def test_late_delivery_in_another_mode_adds_nothing(rig: FanOutRig) -> None:
    """The estuary was deleted and created anew since, and has envelopes now."""
    await rig.make_source()
    await rig.follow("p/a")
    [late] = await rig.store.followers((await source_head(rig)).incarnation, "", 9)
    await rig.store.apply(StreamName("p/a"), delete_commit())
    await rig.follow("p/a", mode=EstuaryMode.ENVELOPE)
    head = await rig.append(b"x")
    assert await deliver(rig.store, rig.clock, Source(SOURCE, head), late) is Delivery.GONE
    assert await rig.deliveries.deliver_to(Source(SOURCE, head), [late]) == []
    assert await rig.read("p/a") == b""
    assert await rig.deliveries.deliver_to_all(Source(SOURCE, head)) == [], "the later subscription stays"
    assert json.loads((await rig.read("p/a"))[:-1])["payload"] == "x"


async def test_follow_fails_unless_an_append_during_it_is_delivered(
    rig: FanOutRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append is published just before the follower is listed. The client repeats its request, and gets it then."""
    await rig.make_source()
    estuaries = rig.estuaries
    add_follower = type(rig.store).add_follower

    async def publish_first(store: object, source: object, follower: object) -> None:
        await rig.publish(b"in between")
        await add_follower(store, source, follower)  # type: ignore[arg-type]

    async def fail(*_: object, **__: object) -> object:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.store), "add_follower", publish_first)
        patched.setattr("fluvial.fanout.deliveries.deliver", fail)
        with pytest.raises(StoreUnavailable):
            await estuaries.follow(SOURCE, WantedEstuary(StreamName("p/a")))
    await rig.follow("p/a")
    assert await rig.read("p/a") == b"in between"


async def test_timeout_of_a_round_covers_all_its_followers(rig: FanOutRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers that hang hold up a publisher for one timeout, however many of them there are."""
    rig.limits = FanOutLimits(round_timeout_s=0.1, deliveries_at_once=1)

    async def hang(*_: object, **__: object) -> object:
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("fluvial.fanout.deliveries.deliver", hang)
    await rig.make_source()
    head = await rig.append(b"x")
    followers = [Follower(StreamName(f"p/{number}"), EstuaryMode.RAW, SubscriptionId(b"x")) for number in range(200)]
    async with asyncio.timeout(10):  # a tenth of a second each would be twenty
        assert await rig.deliveries.deliver_to(Source(SOURCE, head), followers) == followers


async def test_publisher_keeps_no_queue_without_publishers(rig: FanOutRig) -> None:
    """Neither after rounds of their own nor after they shared one."""
    await rig.make_source()
    await rig.follow("p/a")
    publisher = rig.publisher
    heads = [await rig.append(b"%d" % number) for number in range(3)]
    await asyncio.gather(*(publisher.publish(Source(SOURCE, head)) for head in heads))
    await publisher.publish(Source(SOURCE, heads[0]))
    assert publisher._queues == {}
    assert await rig.read("p/a") == b"012"


async def test_publishers_of_two_incarnations_do_not_share_rounds(rig: FanOutRig) -> None:
    """A late publisher of a deleted incarnation takes the place of no round of the next one."""
    await rig.make_source()
    await rig.follow("p/a")
    former = [Source(SOURCE, await rig.append(b"former")) for _ in range(2)]
    await rig.store.apply(SOURCE, delete_commit())
    await rig.make_source()
    await rig.follow("p/a")
    latest, publisher = Source(SOURCE, await rig.append(b"latest")), rig.publisher
    await asyncio.gather(*(publisher.publish(source) for source in (former[0], latest, former[1])))
    assert await rig.read("p/a") == b"latest"
