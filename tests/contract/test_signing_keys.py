"""The contract of stores of signing keys, for every store."""

import asyncio

from fluvial.model.signing_keys import KeyRing, SigningKey
from tests.support.clocks import START_MS
from tests.support.rigs import MemoryRig, Rig, also_on_moto


def key(number: int) -> SigningKey:
    """A key whose halves are of some bytes."""
    return SigningKey(bytes([number]) * 32, bytes([number + 100]) * 32, START_MS, START_MS, START_MS + number)


@also_on_moto
async def test_keys_are_stored_with_all_fields(rig: Rig) -> None:
    """Also over a restart, if the store has one."""
    ring = KeyRing((key(1), key(2)))
    assert await rig.store.signing_keys.get() is None
    assert await rig.store.signing_keys.put(ring)
    if not isinstance(rig, MemoryRig):
        await rig.reopen()
    assert await rig.store.signing_keys.get() == ring


@also_on_moto
async def test_only_one_of_two_changes_of_a_version_is_stored(rig: Rig) -> None:
    """And only one of two first versions."""
    keys = rig.store.signing_keys
    assert not await keys.put(KeyRing((key(1),), version=2))
    assert sorted(await asyncio.gather(keys.put(KeyRing((key(1),))), keys.put(KeyRing((key(2),))))) == [False, True]
    changes = (keys.put(KeyRing((key(number),), version=2)) for number in (3, 4))
    assert sorted(await asyncio.gather(*changes)) == [False, True]
    assert not await keys.put(KeyRing((key(5),)))
    assert not await keys.put(KeyRing((key(5),), version=4))
    stored = await keys.get()
    assert stored is not None
    assert stored.version == 2
