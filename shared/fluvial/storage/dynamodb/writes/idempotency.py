"""Idempotency keys: a commit with a sender's key is applied once, however often and by whichever process it is sent.

An item per key holds the *intent*: a commit id and the head's fence as it was before. The sequence:

1. Read the head, then put the intent, on the condition that the key has none.
2. When the key has one already, an earlier attempt may be under way. Raise the fence: from then on no earlier attempt
   can land. Its batch is found, and the call is a repeat; or its batch is absent, and the commit may be written.
3. Then a new intent with a new commit id takes the old one's place before the batch is written. Under the old commit id
   the batch could point to a payload that the sweep may delete at any moment, because the earlier attempt stored it.
"""

import dataclasses
import logging
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from fluvial.clock import Clock
from fluvial.model.commit import CommitId, Unmet, UpdateCommit
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.names import StreamName
from fluvial.storage.contract import IdempotentOutcome
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import number
from fluvial.storage.dynamodb.table.keys import Item, Key, idempotency_key
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, Written, require_written
from fluvial.storage.dynamodb.writes.commit_writer import CommitWriter
from fluvial.storage.dynamodb.writes.in_doubt import InDoubtResolver
from fluvial.storage.dynamodb.writes.payloads import Payloads

log = logging.getLogger(__name__)

#: A key is remembered longer than any queue keeps a message: SQS keeps one for 14 days at most.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
REMEMBERED_S: Final = 15 * 86_400


@dataclass(frozen=True, slots=True)
class _Intent:
    """A commit that is about to be written, and the lowest fence that it may be written under."""

    commit_id: CommitId
    began_ms: int
    fence: int


class IdempotentWriter:
    """Writes commits that have an idempotency key."""

    def __init__(
        self, table: Table, payloads: Payloads, resolver: InDoubtResolver, writer: CommitWriter, heads: HeadCache
    ) -> None:
        """`resolver` finds earlier attempts, `writer` writes the commit."""
        self._table, self._payloads, self._resolver = table, payloads, resolver
        self._writer, self._heads = writer, heads

    async def write(self, name: StreamName, commit: UpdateCommit, key: str, clock: Clock) -> IdempotentOutcome:
        """See IdempotentAppender.apply_idempotently."""
        data = commit.data
        assert data is not None, "only a commit that adds a batch can be found again"
        stored = await self._heads.load(name)
        mine = _Intent(clock.new_commit_id(), clock.now_ms(), stored.fence)
        intent = await self._put_intent(name, key, mine)
        if intent != mine:
            stored = await self._resolver.raise_fence(name)
            if intent.fence < stored.began:
                raise StoreUncertain  # the batch may have landed in an earlier incarnation
            applied = await self._resolver.find_applied(stored, intent.commit_id, None, intent.began_ms)
            if applied is not None:
                return IdempotentOutcome(applied, is_repeat=True)
            mine = dataclasses.replace(mine, fence=stored.fence)
            await self._replace_intent(name, key, intent, mine)
        batch = await self._payloads.store(name, mine.commit_id, data, mine.began_ms)
        outcome = await self._writer.write_exclusively(name, commit, batch, stored, clock)
        if isinstance(outcome, Unmet):
            await self._delete_intent(name, key, mine)
        return IdempotentOutcome(outcome, is_repeat=False)

    async def _put_intent(self, name: StreamName, key: str, mine: _Intent) -> _Intent:
        """The intent that the key has then: this one, or that of an earlier attempt. Raises StoreUncertain."""
        outcome = await self._table.put(
            _intent_item(name, key, mine), ConditionExpression=f"attribute_not_exists({a.PK})"
        )
        match outcome:
            case Written():
                return mine
            case ConditionFailed(item):
                earlier: Item = item or {}
                began_ms, fence = int(earlier[a.WRITTEN_AT]["N"]), int(earlier[a.FENCE]["N"])
                return _Intent(CommitId(earlier[a.COMMIT_IDS]["B"]), began_ms, fence)
            case InDoubt(cause):
                raise StoreUncertain from cause

    async def _replace_intent(self, name: StreamName, key: str, old: _Intent, new: _Intent) -> None:
        """Let another intent take the place of one that can land no longer. Raises StoreUncertain."""
        require_written(await self._table.put(_intent_item(name, key, new), **_is_intent(old)))

    async def _delete_intent(self, name: StreamName, key: str, rejected: _Intent) -> None:
        """Let a rejected commit be sent again: the stream may exist by then. A failure costs a lookup later."""
        try:
            outcome = await self._table.delete(_intent_key(name, key), **_is_intent(rejected))
        except StoreUnavailable as exc:
            log.info("intent_left", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
            return
        if isinstance(outcome, InDoubt):
            log.info("intent_left", extra={"stream": name, "reason": str(outcome.cause)})


def _is_intent(intent: _Intent) -> dict[str, Any]:
    """The condition that the key still has this intent."""
    e = Expression()
    condition = f"{e.name(a.COMMIT_IDS)} = {e.value({'B': intent.commit_id})}"
    return {"ConditionExpression": condition, **e.parameters()}


def _intent_key(name: StreamName, key: str) -> Key:
    return idempotency_key(sha256(f"{name}\0{key}".encode()).hexdigest())


def _intent_item(name: StreamName, key: str, intent: _Intent) -> Item:
    return {
        **_intent_key(name, key),
        a.COMMIT_IDS: {"B": intent.commit_id},
        a.WRITTEN_AT: number(intent.began_ms),
        a.FENCE: number(intent.fence),
        a.TTL: number(intent.began_ms // 1_000 + REMEMBERED_S),
    }
