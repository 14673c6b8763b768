"""The sweep job: the sweeps of DynamoDB's store, as a scheduled function or from the command line.

The function sweeps as long as its time lasts, and notes the cursor after each page: the next invocation goes on from
there. A dry run starts at the beginning, and notes and deletes nothing.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.upkeep.sweep import SweepCursor, Sweeper

#: The longest that a page and the note of its cursor may take.
PAGE_MS_MAX: Final = 60_000

Report = dict[str, Any]


class SweepEvent(msgspec.Struct, frozen=True, rename="camel"):
    """The function's event; the fields that EventBridge Scheduler adds are ignored."""

    dry_run: bool = False


async def sweep(store: DynamoDbStore, event: object, remaining_ms: Callable[[], int]) -> Report:
    """Sweep until the end, or until a further page may not fit in the remaining time; the report of what was found.

    It `isWhole` if this call went from the beginning to the end. Raises msgspec.ValidationError for an event of another
    kind, StoreUnavailable when every request would fail.
    """
    dry_run = msgspec.convert(event, SweepEvent).dry_run
    sweeper = store.sweeper(dry_run=dry_run)
    cursor: SweepCursor | None = SweepCursor() if dry_run else await sweeper.load_cursor()
    is_from_start = cursor == SweepCursor()
    while cursor is not None and remaining_ms() > PAGE_MS_MAX:
        cursor = await sweeper.sweep_page(cursor)
        if not dry_run:
            await sweeper.save_cursor(cursor)
    is_complete = cursor is None
    return _build_report(sweeper, dry_run=dry_run, is_complete=is_complete, is_whole=is_from_start and is_complete)


def left_something(report: Report) -> bool:
    """Whether a sweep is not done: it ran out of time, or something could not be inspected or deleted."""
    return not report["isComplete"] or report["failures"] > 0


async def sweep_all(store: DynamoDbStore, on_progress: Callable[[int, int], None], *, dry_run: bool) -> Report:
    """Sweep from the beginning to the end; the report of what was found.

    `on_progress` is called after each page with the numbers of items and objects so far. Raises StoreUnavailable.
    """
    sweeper = store.sweeper(dry_run=dry_run)
    cursor: SweepCursor | None = SweepCursor()
    while cursor is not None:
        cursor = await sweeper.sweep_page(cursor)
        on_progress(sweeper.report.items, sweeper.report.objects)
    return _build_report(sweeper, dry_run=dry_run, is_complete=True, is_whole=True)


def _build_report(sweeper: Sweeper, *, dry_run: bool, is_complete: bool, is_whole: bool) -> Report:
    return {"dryRun": dry_run, "isComplete": is_complete, "isWhole": is_whole, **msgspec.to_builtins(sweeper.report)}
