"""Sweeps: on a schedule, as many pages as there is time for, and the next one goes on from there; or all at once."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.upkeep.sweep import SweepCursor, Sweeper

#: What a page may take, and the note of its cursor.
PAGE_MS_MAX: Final = 60_000

Report = dict[str, Any]


class SweepEvent(msgspec.Struct, frozen=True, rename="camel"):
    """What is asked for; a schedule's own fields say nothing."""

    dry_run: bool = False


async def sweep(store: DynamoDbStore, event: object, remaining_ms: Callable[[], int]) -> Report:
    """Sweep until the end or until the time is nearly over; what was found, and whether that was all.

    A dry run begins at the beginning and leaves everything as it is. Raises msgspec.ValidationError for another kind of
    event, StoreUnavailable when there is no use in going on.
    """
    dry_run = msgspec.convert(event, SweepEvent).dry_run
    sweeper = store.sweeper(dry_run=dry_run)
    cursor: SweepCursor | None = SweepCursor() if dry_run else await sweeper.load_cursor()
    while cursor is not None and remaining_ms() > PAGE_MS_MAX:
        cursor = await sweeper.sweep_page(cursor)
        if not dry_run:
            await sweeper.save_cursor(cursor)
    return _reported(sweeper, dry_run=dry_run, is_complete=cursor is None)


async def sweep_all(store: DynamoDbStore, told: Callable[[int, int], None], *, dry_run: bool) -> Report:
    """Sweep from the beginning to the end; `told` hears how many items and objects have been looked at.

    Raises StoreUnavailable when there is no use in going on.
    """
    sweeper = store.sweeper(dry_run=dry_run)
    cursor: SweepCursor | None = SweepCursor()
    while cursor is not None:
        cursor = await sweeper.sweep_page(cursor)
        told(sweeper.report.items, sweeper.report.objects)
    return _reported(sweeper, dry_run=dry_run, is_complete=True)


def _reported(sweeper: Sweeper, *, dry_run: bool, is_complete: bool) -> Report:
    return {"dryRun": dry_run, "isComplete": is_complete, **msgspec.to_builtins(sweeper.report)}
