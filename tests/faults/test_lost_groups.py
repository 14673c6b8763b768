"""Groups of appends on AWS's own engine over a network that loses, delays and throttles requests, and in a crash."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fluvial.model.commit import Applied, NotDuplicate, Outcome, Unmet
from fluvial.model.errors import StoreError, StoreUnavailable
from fluvial.model.head import ProducerStamp
from fluvial.model.plan import plan_delete
from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.faults.test_concurrent_appends import read_all
from tests.faults.test_lost_answers import Answers, batch, plain_writer
from tests.support.budget import luck, seeds
from tests.support.clocks import START_MS
from tests.support.commands import NAME, append_commit, create_commit
from tests.support.network import CrashError, Network, crashing
from tests.support.rigs import IMPATIENT, DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.medium

#: Appends that a producer sends before it has the answers to the ones before.
WINDOW = 6
BATCHES = 24


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, rotation after some groups, and short timeouts."""
    async with dynamodb_local_rig(tmp_path, replace(IMPATIENT, segment_batches=40)) as opened:
        yield opened


async def pipelining_producer(stores: list[DynamoDbStore], network: Network, name: str, answers: Answers) -> None:
    """Append several batches at once, to any of the processes, and all that were not acknowledged again."""
    batches, done = [batch(network.rng, name, number) for number in range(BATCHES)], 0
    while done < len(batches):
        store, window = network.rng.choice(stores), range(done, min(len(batches), done + WINDOW))
        commits = [append_commit(batches[seq], producer=ProducerStamp(name, 0, seq)) for seq in window]
        results = await asyncio.gather(*(store.apply(NAME, one) for one in commits), return_exceptions=True)
        for result in results:
            if not is_acknowledged(result):
                break
            done += 1
    answers.produced += batches


def is_acknowledged(result: Outcome | BaseException) -> bool:
    """Whether the batch is in the stream; a gap is left by one before it that failed."""
    if isinstance(result, BaseException):
        assert isinstance(result, StoreError)
        return False
    return isinstance(result, Applied) or isinstance(result.requirement, NotDuplicate)


@pytest.mark.slow
@luck
@seeds(5)
async def test_stream_has_exactly_what_groups_were_acknowledged(rig: DynamoDbRig, seed: int) -> None:
    """Twenty writers and two pipelining producers in two processes: none lost, none twice, each where it was told."""
    rng = random.Random(seed)
    network = Network(rng, request_lost=0.05, request_late=0.08, response_lost=0.08, throttled=0.04)
    stores = [DynamoDbStore(rig.config, rig.still.own_clock()) for _ in range(2)]
    await rig.store.apply(NAME, create_commit())
    for store in stores:
        network.attach(store)
    answers = Answers()
    await asyncio.gather(
        *(plain_writer(stores[number % 2], network, f"w{number}", answers) for number in range(20)),
        *(pipelining_producer(stores, network, f"p{number}", answers) for number in range(2)),
    )
    network.deliver_late()
    for store in stores:
        await store.close()
    await rig.reopen()
    data = await read_all(rig.store)
    answers.must_be_true_of(data)
    for number in range(2):
        places = [data.index(payload) for payload in answers.produced if payload.startswith(b"<p%d:" % number)]
        assert places == sorted(places)
    assert network.seen["delivered late"] > 0
    assert network.seen["response lost"] > 0


async def test_group_that_fails_is_answered_and_the_next_one_written(rig: DynamoDbRig) -> None:
    """A table that is too busy for the group's update takes nothing of it."""
    await rig.store.apply(NAME, create_commit())
    network = Network(random.Random(1), throttled=1.0)
    network.attach(rig.store)
    calls = (rig.store.apply(NAME, append_commit(b"%d" % number)) for number in range(5))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) for one in results)
    network.throttled = 0.0
    await rig.reopen()  # a new process has not seen how busy the table was
    await asyncio.gather(*(rig.store.apply(NAME, append_commit(b"abc"[at : at + 1])) for at in range(3)))
    assert await read_all(rig.store) == b"abc"


@pytest.mark.slow
async def test_crash_between_any_two_calls_of_groups_loses_nothing(rig: DynamoDbRig) -> None:
    """What was acknowledged is read back, and a group that was not is there whole or not at all."""
    for at in range(200):
        await rig.store.apply(NAME, create_commit(incarnation=at + 1))
        acknowledged, groups = list[bytes](), list[list[bytes]]()

        async def step(
            store: DynamoDbStore,
            acknowledged: list[bytes] = acknowledged,
            groups: list[list[bytes]] = groups,
        ) -> None:
            for turn in range(4):
                payloads = [b"<%d:%d:%s>" % (turn, number, b"y" * (700 if number == 3 else 60)) for number in range(12)]
                groups.append(payloads[1:])  # the first is written alone
                calls = (store.apply(NAME, append_commit(payload)) for payload in payloads)
                results = await asyncio.gather(*calls, return_exceptions=True)
                acknowledged += [one for one, got in zip(payloads, results, strict=True) if isinstance(got, Applied)]
                if any(isinstance(got, BaseException) for got in results):
                    raise CrashError
                assert not any(isinstance(got, Unmet) for got in results)
            await store.rotate(NAME)

        crashed = await crashing(rig, step, at)
        await rig.reopen()
        data = await read_all(rig.store)
        assert all(data.count(payload) == 1 for payload in acknowledged)
        for group in groups:
            assert [data.count(payload) for payload in group] in ([0] * 11, [1] * 11)
        await rig.store.rotate(NAME)
        assert await read_all(rig.store) == data
        await rig.store.apply(NAME, plan_delete(START_MS))
        if not crashed:
            assert at > 12
            return
    raise AssertionError("the step never came to its end")
