"""Once: a commit with a key of its sender's is applied once, however often and by whomever it is sent.

The key's item remembers the commit id, and it is put after the head's fence was read. Whoever finds it there raises
the fence first: from then on no earlier attempt can land, and the batch is either found or may be written. Then it is
written under a new commit id, which first takes the place of the old one: what an earlier attempt has stored for that
one may be swept at any moment.
"""

import contextlib
import dataclasses
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from msgspec.structs import replace

from fluvial.clock import Clock
from fluvial.model.commit import Applied, Commit, CommitId, Unmet
from fluvial.model.effect import AddBatch
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.names import StreamName
from fluvial.storage.contract import IdempotentOutcome
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import ConditionFailed, OutcomeUnknown
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import number
from fluvial.storage.dynamodb.table.keys import Item, Key, head_key, once_key
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.writes.commit_writer import CommitWriter
from fluvial.storage.dynamodb.writes.in_doubt import InDoubtResolver
from fluvial.storage.dynamodb.writes.payloads import Payloads

#: A key is remembered for longer than any queue keeps a message: SQS does for 14 days at most.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
REMEMBERED_S: Final = 15 * 86_400


@dataclass(frozen=True, slots=True)
class _Intent:
    """What is to be written, and under which fence at the earliest."""

    commit_id: CommitId
    began_ms: int
    fence: int


class IdempotentWriter:
    """Writes commits that have a key."""

    def __init__(
        self, table: Table, payloads: Payloads, settler: InDoubtResolver, writer: CommitWriter, heads: HeadCache
    ) -> None:
        """Nothing is written yet."""
        self._table, self._payloads, self._settler = table, payloads, settler
        self._writer, self._heads = writer, heads

    async def write(self, name: StreamName, commit: Commit, key: str, clock: Clock) -> IdempotentOutcome:
        """See IdempotentAppender.apply_idempotently."""
        [data] = [effect.data for effect in commit.effects if isinstance(effect, AddBatch)]
        stored = self._heads.note(name, await self._table.get(head_key(name)))
        mine = _Intent(clock.new_commit_id(), clock.now_ms(), stored.fence)
        intent = await self._remembered(name, key, mine)
        if intent != mine:
            stored = await self._settler.raise_fence(name)
            if intent.fence < stored.began:
                raise StoreUncertain  # it may have landed in a life that is over
            end = await self._settler.find(stored, intent.commit_id, None, intent.began_ms)
            if end is not None and stored.head is not None:
                return IdempotentOutcome(Applied(replace(stored.head, tail=end)), is_repeat=True)
            mine = dataclasses.replace(mine, fence=stored.fence)
            await self._replaced(name, key, intent, mine)
        batch = await self._payloads.laid_out(name, mine.commit_id, data, mine.began_ms)
        outcome = await self._writer.write_exclusively(name, commit, batch, stored, clock)
        if isinstance(outcome, Unmet):
            await self._forgotten(name, key, mine)
        return IdempotentOutcome(outcome, is_repeat=False)

    async def _remembered(self, name: StreamName, key: str, mine: _Intent) -> _Intent:
        """The intent that is remembered by the key: this one, or that of an earlier attempt."""
        try:
            await self._table.put(_item(name, key, mine), ConditionExpression=f"attribute_not_exists({a.PK})")
        except ConditionFailed as exc:
            earlier: Item = exc.item or {}
            began_ms, fence = int(earlier[a.WRITTEN_AT]["N"]), int(earlier[a.FENCE]["N"])
            return _Intent(CommitId(earlier[a.COMMIT_IDS]["B"]), began_ms, fence)
        except OutcomeUnknown as exc:
            raise StoreUncertain from exc
        return mine

    async def _replaced(self, name: StreamName, key: str, old: _Intent, new: _Intent) -> None:
        """Let another intent take an old one's place, which can land no more. Raises StoreUncertain."""
        try:
            await self._table.put(_item(name, key, new), **_still(old))
        except (ConditionFailed, OutcomeUnknown) as exc:  # somebody else is at it, or nobody knows
            raise StoreUncertain from exc

    async def _forgotten(self, name: StreamName, key: str, refused: _Intent) -> None:
        """What was refused may be sent again, perhaps to a stream that is there by then."""
        with contextlib.suppress(ConditionFailed, OutcomeUnknown, StoreUnavailable):
            await self._table.delete(_key(name, key), **_still(refused))


def _still(intent: _Intent) -> dict[str, Any]:
    """The condition that an intent is the one that is remembered."""
    e = Expression()
    condition = f"{e.name(a.COMMIT_IDS)} = {e.value({'B': intent.commit_id})}"
    return {"ConditionExpression": condition, **e.parameters()}


def _key(name: StreamName, key: str) -> Key:
    return once_key(sha256(f"{name}\0{key}".encode()).hexdigest())


def _item(name: StreamName, key: str, intent: _Intent) -> Item:
    return {
        **_key(name, key),
        a.COMMIT_IDS: {"B": intent.commit_id},
        a.WRITTEN_AT: number(intent.began_ms),
        a.FENCE: number(intent.fence),
        a.TTL: number(intent.began_ms // 1_000 + REMEMBERED_S),
    }
