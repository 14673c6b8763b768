"""Histories on AWS's own engine over a network that loses, delays and throttles requests: every answer is true."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, NotDuplicate
from fluvial.model.errors import StoreError, StoreUnavailable
from fluvial.model.head import Incarnation, ProducerStamp
from fluvial.model.plan import ForkPosition, plan_delete, plan_fork
from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.faults.test_concurrent_appends import read_all
from tests.support.budget import luck, seeds
from tests.support.clocks import START_MS
from tests.support.commands import NAME, OTHER, append_commit, create_command, create_commit
from tests.support.network import Network, crashing
from tests.support.rigs import IMPATIENT, DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.medium

#: What each writer appends. Writers of one process share requests: with fewer, some histories had no late one at all.
BATCHES = 20


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, rotation after a few batches, and short timeouts."""
    async with dynamodb_local_rig(tmp_path, replace(IMPATIENT, segment_batches=12)) as opened:
        yield opened


@dataclass
class Answers:
    """The answers to writers: batches by their end, batches that were not written, and batches in doubt."""

    applied: dict[int, bytes] = field(default_factory=dict)
    unwritten: list[bytes] = field(default_factory=list)
    in_doubt: list[bytes] = field(default_factory=list)
    produced: list[bytes] = field(default_factory=list)

    def must_be_true_of(self, data: bytes) -> None:
        """Fail if a stream's data has not all that was acknowledged, where and as often as it was told, or more."""
        for end, payload in self.applied.items():
            assert data[end - len(payload) : end] == payload
        for payload in [*self.applied.values(), *self.produced]:
            assert data.count(payload) == 1
        for payload in self.unwritten:
            assert payload not in data
        for payload in self.in_doubt:
            assert data.count(payload) <= 1


def batch(rng: random.Random, writer: str, number: int) -> bytes:
    """A unique payload, mostly small."""
    size = rng.choice([0, 0, 30, 100, 300, 600])
    return b"<%s:%d:%s>" % (writer.encode(), number, b"x" * size)


async def plain_writer(store: DynamoDbStore, network: Network, writer: str, answers: Answers) -> None:
    """Append without a producer: the store itself resolves what is in doubt."""
    for number in range(BATCHES):
        data = batch(network.rng, writer, number)
        try:
            outcome = await store.apply(NAME, append_commit(data))
        except StoreUnavailable:
            answers.unwritten.append(data)
        except StoreError:
            answers.in_doubt.append(data)
        else:
            assert isinstance(outcome, Applied)
            assert outcome.head is not None
            answers.applied[outcome.head.tail] = data
        if network.rng.random() < 0.5:
            network.deliver_late(1)


async def producer(store: DynamoDbStore, network: Network, writer: str, answers: Answers) -> None:
    """Append as an idempotent producer, which repeats each batch until it is acknowledged."""
    for number in range(BATCHES):
        data = batch(network.rng, writer, number)
        while True:
            try:
                outcome = await store.apply(NAME, append_commit(data, producer=ProducerStamp(writer, 0, number)))
            except StoreError:
                continue
            assert isinstance(outcome, Applied) or isinstance(outcome.requirement, NotDuplicate)
            break
        answers.produced.append(data)


@pytest.mark.slow
@luck
@seeds(6)
async def test_stream_has_exactly_the_acknowledged_appends(rig: DynamoDbRig, seed: int) -> None:
    """No acknowledged batch is lost, none is there twice, and none that failed is appended later.

    Every second history has its payloads in the bucket, and in one of four only some processes put them there.
    """
    rng = random.Random(seed)
    bounds = ((8_192,) * 3, (0,) * 3, (8_192, 0, 300_000), (0,) * 3)[seed % 4]
    network = Network(rng, request_lost=0.05, request_late=0.08, response_lost=0.08, throttled=0.04)
    configs = [replace(rig.config, payload_item_bytes_max=bound) for bound in bounds]
    stores = [DynamoDbStore(config, rig.still.own_clock()) for config in configs]
    await rig.store.apply(NAME, create_commit())
    for store in stores:
        network.attach(store)
    answers = Answers()
    await asyncio.gather(
        *(plain_writer(store, network, f"w{number}", answers) for number, store in enumerate(stores)),
        *(producer(store, network, f"p{number}", answers) for number, store in enumerate(stores)),
    )
    network.deliver_late()
    for store in stores:
        await store.close()
    await rig.reopen()
    answers.must_be_true_of(await read_all(rig.store))
    assert network.seen["delivered late"] > 0
    assert network.seen["response lost"] > 0


@pytest.mark.slow
@luck
@seeds(5)
async def test_append_with_idempotency_key_is_applied_once(rig: DynamoDbRig, seed: int) -> None:
    """Three processes get each message at the same time and once more, and all retry until they are answered."""
    rng = random.Random(seed)
    network = Network(rng, request_lost=0.05, request_late=0.1, response_lost=0.1, throttled=0.03)
    stores = [DynamoDbStore(rig.config, rig.still.own_clock()) for _ in range(3)]
    await rig.store.apply(NAME, create_commit())
    for store in stores:
        network.attach(store)
    messages = [b"<%d:%s>" % (number, b"z" * rng.choice([0, 200, 700])) for number in range(8)]
    ends: dict[bytes, set[int]] = {message: set() for message in messages}

    async def receive(store: DynamoDbStore) -> None:
        for message in rng.sample(messages * 2, len(messages) * 2):
            while True:
                try:
                    result = await store.apply_idempotently(NAME, append_commit(message), message[:4].decode())
                except StoreError:
                    continue
                assert isinstance(result.outcome, Applied)
                assert result.outcome.head is not None
                ends[message].add(result.outcome.head.tail)
                break
            if rng.random() < 0.5:
                network.deliver_late(1)

    await asyncio.gather(*(receive(store) for store in stores))
    network.deliver_late()
    for store in stores:
        await store.close()
    await rig.reopen()
    data = await read_all(rig.store)
    assert sorted(data.split(b">")[:-1]) == sorted(message[:-1] for message in messages)
    for message, [end] in ends.items():
        assert data[end - len(message) : end] == message


async def append_some(store: DynamoDbStore, count: int = 14) -> bytes:
    """Append enough to spill and to rotate; one batch is too large for the head."""
    payloads = [b"<%d:%s>" % (number, b"y" * (700 if number == 3 else 60)) for number in range(count)]
    for payload in payloads:
        await store.apply(NAME, append_commit(payload))
    return b"".join(payloads)


@pytest.mark.slow
async def test_crash_between_any_two_calls_of_a_spill_or_rotation_loses_nothing(rig: DynamoDbRig) -> None:
    """Acknowledged batches are read back, and the next process finishes the work."""
    for at in range(200):
        await rig.store.apply(NAME, create_commit(incarnation=at + 1))
        acknowledged = list[bytes]()

        async def step(store: DynamoDbStore, at: int = at, acknowledged: list[bytes] = acknowledged) -> None:
            for number in range(14):
                payload = b"<%d:%d:%s>" % (at, number, b"y" * (700 if number == 3 else 60))
                await store.apply(NAME, append_commit(payload))
                acknowledged.append(payload)
            await store.rotate(NAME)

        crashed = await crashing(rig, step, at)
        await rig.reopen()
        data = await read_all(rig.store)
        assert data.startswith(b"".join(acknowledged))
        await rig.store.rotate(NAME)
        assert await read_all(rig.store) == data
        await rig.store.apply(NAME, plan_delete(START_MS))
        if not crashed:
            assert at > 14
            return
    raise AssertionError("the step never came to its end")


@pytest.mark.slow
async def test_crash_between_any_two_calls_of_a_fork_or_delete_leaves_whole_streams(rig: DynamoDbRig) -> None:
    """A fork has all that it inherits or does not exist; a stream is deleted with its references or not at all."""
    for at in range(100):
        await rig.store.apply(NAME, create_commit(incarnation=2 * at + 1))
        inherited = await append_some(rig.store, 5)

        async def step(store: DynamoDbStore, at: int = at) -> None:
            source = await store.head(NAME)
            assert source is not None
            command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
            position = ForkPosition(source, source.tail, source.tail)
            fork = plan_fork(command, position, Incarnation(2 * at + 2), START_MS)
            await store.apply(OTHER, fork)
            await store.apply(NAME, plan_delete(START_MS))
            await store.apply(OTHER, plan_delete(START_MS))

        crashed = await crashing(rig, step, at)
        await rig.reopen()
        source, fork = await rig.store.head(NAME), await rig.store.head(OTHER)
        assert (source.references if source else 0) == (1 if fork else 0)
        for name, head in ((NAME, source), (OTHER, fork)):
            if head is not None:
                assert (await rig.store.read(name, head, 0, 10_000)).data == inherited
        for name in (OTHER, NAME):
            await rig.store.apply(name, plan_delete(START_MS))
        assert await rig.store.head(NAME) is None
        assert await rig.store.head(OTHER) is None
        if not crashed:
            return
    raise AssertionError("the step never came to its end")


async def test_append_that_is_cancelled_under_way_keeps_its_payload(rig: DynamoDbRig) -> None:
    """Its client has gone, and the head's update lands all the same: the bytes that the head points to are there."""
    await rig.store.apply(NAME, create_commit())
    for size in (1_000, 400_000):
        update, under_way = rig.store.table.update, asyncio.Event()

        async def slow(request: Any, on_busy: Any = None, update: Any = update, under_way: Any = under_way) -> Any:  # noqa: ANN401
            landing = asyncio.ensure_future(update(request, on_busy))
            under_way.set()
            return await asyncio.shield(landing)

        rig.store.table.update = slow  # type: ignore[method-assign]
        append = asyncio.create_task(rig.store.apply(NAME, append_commit(b"x" * size)))
        await under_way.wait()
        append.cancel()
        await asyncio.gather(append, return_exceptions=True)
        assert append.cancelled()
        rig.store.table.update = update  # type: ignore[method-assign]
    await rig.reopen()
    assert len(await read_all(rig.store)) == 401_000
