"""Outcomes of one write request to DynamoDB, as values: every caller has to decide about each of them.

The answer to a write can be lost. Then the write may have been carried out, or may still be on its way and be carried
out later. That is `InDoubt`, and it must be treated neither as success nor as failure (docs/decisions/0005).
A request that DynamoDB never accepted raises StoreUnavailable instead: nothing was written.
"""

from dataclasses import dataclass

from fluvial.model.errors import StoreUncertain
from fluvial.storage.dynamodb.table.keys import Item


@dataclass(frozen=True, slots=True)
class Written:
    """The write was carried out. `item` is what the request asked to return, empty for most requests."""

    item: Item


@dataclass(frozen=True, slots=True)
class ConditionFailed:
    """The condition did not hold, nothing was written. `item` is the item it was checked on, None without an item."""

    item: Item | None


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The answer was lost: the write may have been carried out, or may still be. `cause` is the request's error."""

    cause: Exception


@dataclass(frozen=True, slots=True)
class TransactionConditionFailed:
    """Conditions of a transaction did not hold and nothing was written. `items`: by action, the items checked."""

    items: dict[int, Item | None]


WriteOutcome = Written | ConditionFailed | InDoubt
TransactionOutcome = Written | TransactionConditionFailed | InDoubt


def require_known(outcome: WriteOutcome) -> Written | ConditionFailed:
    """The outcome of a write that is not in doubt. Raises StoreUncertain for one that is."""
    if isinstance(outcome, InDoubt):
        raise StoreUncertain from outcome.cause
    return outcome


def require_written(outcome: WriteOutcome) -> Written:
    """The outcome of a write that was carried out.

    Raises StoreUncertain for a write in doubt, and when the condition failed: another process does the same write.
    """
    known = require_known(outcome)
    if isinstance(known, ConditionFailed):
        raise StoreUncertain
    return known
