"""The order within a group, which one process can promise and several cannot."""

import asyncio

from fluvial.core.commit import Applied, Open, Unmet
from fluvial.core.head import Incarnation
from tests.support.commands import NAME, append_commit, close_commit, create_commit
from tests.support.rigs import SqliteRig


async def test_commits_of_a_group_land_in_the_order_of_their_calls(rig: SqliteRig) -> None:
    """Also those of different writers."""
    await rig.store.apply(NAME, create_commit())
    batches = [b"%03d," % number for number in range(200)]
    await asyncio.gather(*(rig.store.apply(NAME, append_commit(batch)) for batch in batches))
    assert rig.raw_bytes(Incarnation(1)) == b"".join(batches)


async def test_a_refusal_is_judged_on_the_commits_before_it(rig: SqliteRig) -> None:
    """A later commit of the group sees what an earlier one did."""
    await rig.store.apply(NAME, create_commit())
    closed, late = await asyncio.gather(
        rig.store.apply(NAME, close_commit()), rig.store.apply(NAME, append_commit(b"late"))
    )
    assert isinstance(closed, Applied)
    assert isinstance(late, Unmet)
    assert late.requirement == Open()
    assert late.head == closed.head
    assert rig.raw_bytes(Incarnation(1)) == b""
