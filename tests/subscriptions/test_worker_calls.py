"""What a call of a worker costs before its token is known to be good."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.subscriptions.configuration import SubscriptionType
from fluvial.model.subscriptions.moves import Refusal
from fluvial.subscriptions.service import Claimed, WakeCall
from fluvial.wire.subscriptions import AckFields, WakeRequest, claim_fields
from tests.support.rigs import memory_rig
from tests.support.subscriptions import pull_wake
from tests.support.wakes import PLACE, TAKEN, WakeProcess, answering


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[WakeProcess]:
    """A process with a store in memory."""
    async with memory_rig(tmp_path / "data") as rig:
        yield WakeProcess(rig.store, rig.still.clock(), answering(TAKEN))


async def claimed(process: WakeProcess) -> dict[str, Any]:
    """The answer to a claim of a pull-wake subscription with work."""
    await process.append("wake/pool")
    await process.create(pull_wake())
    await process.append("events/a")
    await process.run()
    claim = await process.claim()
    assert isinstance(claim, Claimed)
    assert claim.subscription.wake is not None
    return claim_fields(claim.subscription, claim.subscription.wake, claim.token)


def load_no_heads(process: WakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every load of heads fail the test."""

    async def fail(*_args: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(process.ledger, "load_heads", fail)


async def test_forged_token_loads_no_heads(process: WakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is checked before the acks are parsed, too: an offset that is none is not looked at."""
    wake = await claimed(process)
    load_no_heads(process, monkeypatch)
    request = WakeRequest(wake["wake_id"], wake["generation"], (AckFields("no offset", "events/a"),))
    for authorization in (b"Bearer " + wake["token"].encode() + b"x", b"Basic x", None):
        call = WakeCall(request, authorization, SubscriptionType.PULL_WAKE)
        with pytest.raises(RequestError) as raised:
            await process.service.acknowledge(PLACE, "sub-1", call)
        assert raised.value.code is ErrorCode.WAKE_TOKEN_INVALID
        with pytest.raises(RequestError):
            await process.service.check_token(PLACE, "sub-1", authorization)


async def test_stale_call_loads_no_heads(process: WakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good token with another generation or wake id."""
    wake = await claimed(process)
    load_no_heads(process, monkeypatch)
    for stale in ({**wake, "generation": 7}, {**wake, "wake_id": "w_other"}):
        refused = await process.acknowledge(stale, acks={"events/a": "no offset"})
        assert isinstance(refused, Refusal)
        assert refused.code is ErrorCode.FENCED
