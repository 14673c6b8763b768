"""What stores tell of themselves: probes, sizes, and what their observers are told."""

import pytest

from fluvial.model.names import StreamName
from fluvial.storage.observer import MeasuredStore, StoreSize, WriteProbe
from tests.support.commands import create_commit
from tests.support.rigs import Rig

NAME = StreamName("observed")


async def test_probe_of_writing_changes_no_stream(rig: Rig) -> None:
    """Neither one that exists nor one that does not."""
    store = rig.store
    assert isinstance(store, WriteProbe)
    await store.apply(NAME, create_commit())
    before = await store.head(NAME)
    await store.probe_write()
    await rig.reopen()
    assert await rig.store.head(NAME) == before
    assert await rig.store.names("", "", 10) == [NAME]


async def test_size_counts_streams_and_bytes(rig: Rig) -> None:
    """In the stores that measure themselves."""
    if not isinstance(rig.store, MeasuredStore):
        pytest.skip("counting items of DynamoDB would cost money")
    await rig.store.apply(NAME, create_commit())
    size = await rig.store.measure()
    assert isinstance(size, StoreSize)
    assert size.stream_count == 1
    assert all(count >= 0 for count in size.part_bytes.values())
