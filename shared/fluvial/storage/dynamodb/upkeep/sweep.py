"""The sweep: delete expired streams, and the data that dead processes have left behind.

Rules:

1. A sweep inspects every item of the table, then every object of the bucket.
2. Data that no head leads to is deleted once it is a day old: a late request may still point to younger data.
3. The bucket must belong to the table: another table may point to what this one does not.
4. Each deletion may be repeated, and a sweep that is interrupted continues where it stopped.
"""

import base64
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

import msgspec

from fluvial.clock import Clock
from fluvial.model.commit import Commit, CommitId, Outcome, first_unmet
from fluvial.model.errors import FluvialError
from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_expiry
from fluvial.storage.dynamodb.backend import Backend
from fluvial.storage.dynamodb.reads.cold_segments import SEGMENT_PREFIX
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import NotFound
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.format import require_understood
from fluvial.storage.dynamodb.table.items import (
    ColdSegment,
    HeadItem,
    HotSegment,
    Placement,
    StoredBatch,
    decode_head_item,
    decode_segment,
    encode_incarnation,
)
from fluvial.storage.dynamodb.table.keys import (
    Item,
    Key,
    Value,
    head_key,
    incarnation_partition,
    name_of,
    payload_of,
    segment_key,
    segment_sort,
    sweep_key,
)
from fluvial.storage.dynamodb.table.objects import ListedObject
from fluvial.storage.dynamodb.table.write_outcome import InDoubt, require_known
from fluvial.storage.dynamodb.writes.payloads import OWNER_METADATA, STAGED_PREFIX
from fluvial.storage.dynamodb.writes.updates import guarded_update

log = logging.getLogger(__name__)

#: A request may arrive after its sender has died, but only for minutes: then its signature has expired.
ORPHAN_AGE_MS: Final = 86_400_000

SEGMENTS_PER_QUERY: Final = 100

#: Applies the deletion of an expired stream.
Apply = Callable[[StreamName, Commit], Awaitable[Outcome]]


class SweepPhase(StrEnum):
    """The phases of a sweep, in order."""

    ITEMS = "items"
    SEGMENTS = "segments"
    STAGED = "staged"


_PREFIXES: Final = {SweepPhase.SEGMENTS: f"{SEGMENT_PREFIX}/", SweepPhase.STAGED: f"{STAGED_PREFIX}/"}
_NEXT: Final = {SweepPhase.ITEMS: SweepPhase.SEGMENTS, SweepPhase.SEGMENTS: SweepPhase.STAGED}


class SweepCursor(msgspec.Struct, frozen=True):
    """The progress of a sweep: in the table up to an item's key, in the bucket up to an object's key."""

    phase: SweepPhase = SweepPhase.ITEMS
    after: tuple[str, ...] = ()


_CURSOR: Final = msgspec.json.Decoder(SweepCursor)


class SweepReport(msgspec.Struct, rename="camel"):
    """Counts of what a sweep inspected, and of what it deleted or, in a dry run, would have deleted.

    `connections` are the WebSocket connections that are open.
    """

    items: int = 0
    objects: int = 0
    expired_streams: int = 0
    undelivered_streams: int = 0
    segments: int = 0
    payloads: int = 0
    producers: int = 0
    followers: int = 0
    connections: int = 0
    cold_objects: int = 0
    staged_objects: int = 0
    failures: int = 0


class Sweeper:
    """Sweeps page by page."""

    def __init__(self, backend: Backend, apply: Apply, clock: Clock, *, dry_run: bool) -> None:
        """With `dry_run` nothing is deleted; the report counts what would be."""
        self._backend, self._apply, self._clock, self._dry_run = backend, apply, clock, dry_run
        self.report = SweepReport()
        self._heads: dict[StreamName, HeadItem] = {}
        self._references: dict[StreamName, frozenset[CommitId]] = {}

    async def load_cursor(self) -> SweepCursor:
        """Where the last sweep stopped; the beginning if it was complete. Raises StoreUnavailable."""
        item = await self._backend.table.get(sweep_key())
        return SweepCursor() if item is None else _CURSOR.decode(item[a.PLACE]["S"])

    async def save_cursor(self, cursor: SweepCursor | None) -> None:
        """Let the next sweep continue from there. Raises StoreUnavailable, StoreUncertain."""
        if cursor is None:
            require_known(await self._backend.table.delete(sweep_key()))
        else:
            item = {**sweep_key(), a.PLACE: {"S": msgspec.json.encode(cursor).decode()}}
            require_known(await self._backend.table.put(item))

    async def sweep_page(self, cursor: SweepCursor) -> SweepCursor | None:
        """Sweep the page after a cursor; the next cursor, None at the end.

        Raises BucketOfAnotherTable before anything is deleted, StoreUnavailable.
        """
        await (self._backend.owner.check() if self._dry_run else self._backend.owner.claim())
        self._heads, self._references = {}, {}
        if cursor.phase is SweepPhase.ITEMS:
            return await self._sweep_items(cursor)
        after = cursor.after[0] if cursor.after else ""
        listed = await self._backend.objects.list_after(_PREFIXES[cursor.phase], after)
        sweep_one = self._sweep_segment_object if cursor.phase is SweepPhase.SEGMENTS else self._sweep_staged_object
        for one in listed:
            self.report.objects += 1
            await self._inspect(sweep_one(one), one.key)
        if listed:
            return SweepCursor(cursor.phase, (listed[-1].key,))
        return SweepCursor(_NEXT[cursor.phase]) if cursor.phase in _NEXT else None

    async def _sweep_items(self, cursor: SweepCursor) -> SweepCursor:
        start: Key | None = None
        if cursor.after:
            start = {a.PK: {"S": cursor.after[0]}, a.SK: {"S": cursor.after[1]}}
        items, last = await self._backend.table.scan(start)
        for item in items:
            self.report.items += 1
            await self._inspect(self._sweep_item(item), item[a.PK]["S"])
        if last is None:
            return SweepCursor(_NEXT[cursor.phase])
        return SweepCursor(cursor.phase, (last[a.PK]["S"], last[a.SK]["S"]))

    async def _inspect(self, look: Awaitable[None], what: str) -> None:
        """Inspect one item or object. A failure must not keep the sweep from the others."""
        try:
            await look
        except FluvialError as exc:
            self.report.failures += 1
            log.warning("not_swept", extra={"what": what, "reason": str(exc.__cause__ or exc)})
        except Exception:
            self.report.failures += 1
            log.exception("not_swept", extra={"what": what})

    # -- items -------------------------------------------------------------------------------------------------------

    async def _sweep_item(self, item: Item) -> None:
        require_understood(item)
        kind, _, rest = item[a.PK]["S"].partition("#")
        match kind:
            case "S" if item[a.SK]["S"] == a.HEAD_SK:
                await self._sweep_head(item)
            case "S" if item[a.SK]["S"].startswith(a.CONNECTION_SK_PREFIX):
                self.report.connections += self._clock.now_ms() < int(item[a.TTL]["N"]) * 1_000
            case "SEG":
                await self._sweep_segment(Incarnation(int(rest, 16)), item)
            case a.PAYLOAD_KIND | a.GATHERED_PAYLOAD_KIND if self._is_old(int(item[a.WRITTEN_AT]["N"])):
                if not await self._is_referenced(*payload_of(item)):
                    self.report.payloads += 1
                    await self._delete_item(item)
            case "PRODUCER":
                if not await self._is_alive(StreamName(item[a.OWNER]["S"]), Incarnation(int(rest, 16))):
                    self.report.producers += 1
                    await self._delete_item(item)
            case "FOLLOWER":
                if not await self._is_following(StreamName(item[a.SK]["S"]), Incarnation(int(rest, 16))):
                    self.report.followers += 1
                    same = f"{a.SUBSCRIPTION} = :id"  # the estuary may have subscribed again meanwhile
                    await self._delete_item(item, same, {":id": item[a.SUBSCRIPTION]})
            case _:
                pass  # DynamoDB deletes the other kinds of items by their TTL

    async def _sweep_head(self, item: Item) -> None:
        stored, expiry = decode_head_item(item), plan_expiry(self._clock.now_ms())
        if first_unmet(expiry.requires, stored.head) is None:
            self.report.expired_streams += 1
            if not self._dry_run:
                await self._apply(name_of(item), expiry)
        elif stored.head is not None and stored.head.delivered is not None and stored.head.delivered < stored.head.tail:
            self.report.undelivered_streams += 1
            if not self._dry_run:
                await self._touch(name_of(item), stored.head)

    async def _touch(self, name: StreamName, head: Head) -> None:
        """Touch a head whose followers lack something, so that the change feed delivers it again."""
        e = Expression()
        clauses = [f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(head.incarnation))}"]
        update = f"SET {e.name(a.TOUCHED_AT)} = {e.value(self._clock.now_ms())}"
        outcome = await self._backend.table.update(guarded_update(name, e, clauses, update))
        if isinstance(outcome, InDoubt):
            log.info(
                "not_redelivered", extra={"stream": name, "reason": str(outcome.cause)}
            )  # the next sweep tries again

    async def _sweep_segment(self, incarnation: Incarnation, item: Item) -> None:
        segment = decode_segment(item)
        if not self._is_old(segment.written_at_ms):
            return
        stored = await self._load_head(segment.owner)
        is_current = stored.head is not None and stored.head.incarnation == incarnation
        # A late put may bring back a hot segment that rotation has deleted; a cold segment has its bytes.
        if is_current and (isinstance(segment, ColdSegment) or segment.end > stored.cold_end):
            return
        self.report.segments += 1
        if isinstance(segment, ColdSegment):
            self.report.cold_objects += 1
            await self._delete_object(segment.object_key)
        elif not is_current:
            await self._delete_payloads(segment)
        condition = "" if isinstance(segment, ColdSegment) else f"attribute_not_exists({a.OBJECT_KEY})"
        await self._delete_item(item, condition)

    async def _delete_payloads(self, segment: HotSegment) -> None:
        """Delete the payloads of an ended incarnation, whatever their age: no other segment points to them."""
        if not self._dry_run:
            await self._backend.payloads.remove(segment.owner, segment.batches)

    async def _is_following(self, estuary: StreamName, incarnation: Incarnation) -> bool:
        """Whether an estuary follows this incarnation, and the incarnation is alive.

        The estuary's cursor is written before the follower is listed, so a listed follower without a cursor is stale.
        """
        stored = await self._load_head(estuary)
        cursors = {} if stored.head is None else stored.head.cursors
        sources = [source for source, cursor in cursors.items() if cursor.incarnation == incarnation]
        return bool(sources) and await self._is_alive(sources[0], incarnation)

    # -- objects -----------------------------------------------------------------------------------------------------

    async def _sweep_segment_object(self, listed: ListedObject) -> None:
        if not self._is_old(listed.written_at_ms):
            return
        _, incarnation, span = listed.key.split("/")
        _, end, _ = span.split("-")
        pointer = await self._backend.table.get(segment_key(Incarnation(int(incarnation, 16)), int(end)))
        if pointer is None or pointer.get(a.OBJECT_KEY) != {"S": listed.key}:
            self.report.cold_objects += 1
            await self._delete_object(listed.key)

    async def _sweep_staged_object(self, listed: ListedObject) -> None:
        if not self._is_old(listed.written_at_ms):
            return
        try:
            metadata = await self._backend.objects.metadata(listed.key)
        except NotFound:
            return
        owner = StreamName(base64.urlsafe_b64decode(metadata[OWNER_METADATA]).decode())
        if not await self._is_referenced(owner, CommitId(bytes.fromhex(listed.key.rsplit("/", 1)[1]))):
            self.report.staged_objects += 1
            await self._delete_object(listed.key)

    # -- reachability ------------------------------------------------------------------------------------------------

    def _is_old(self, written_at_ms: int) -> bool:
        return written_at_ms < self._clock.now_ms() - ORPHAN_AGE_MS

    async def _load_head(self, name: StreamName) -> HeadItem:
        """A head item as it was when this page first loaded it.

        An incarnation that had ended by then has ended for good, and no new pointer to old data is made.
        """
        if name not in self._heads:
            item = await self._backend.table.get(head_key(name))
            self._heads[name] = HeadItem(None, 0) if item is None else decode_head_item(item)
        return self._heads[name]

    async def _is_alive(self, name: StreamName, incarnation: Incarnation) -> bool:
        """Whether an incarnation is alive, perhaps only for its forks. An ended one never begins again."""
        head = (await self._load_head(name)).head
        return head is not None and head.incarnation == incarnation

    async def _is_referenced(self, owner: StreamName, commit_id: CommitId) -> bool:
        """Whether the stream has a batch whose payload has this commit id."""
        if owner not in self._references:
            self._references[owner] = await self._load_references(owner)
        return commit_id in self._references[owner]

    async def _load_references(self, owner: StreamName) -> frozenset[CommitId]:
        """Commit ids of payloads: first the head's, then the hot segments', in the order in which batches move.

        In the other order a batch could move from the head into a segment that was read already, and be missed.
        """
        stored = await self._load_head(owner)
        if stored.head is None:
            return frozenset()
        found, after = _payload_ids(stored.buffer), segment_sort(stored.cold_end)
        partition = incarnation_partition(stored.head.incarnation)
        while items := await self._backend.table.query(partition, after=after, limit=SEGMENTS_PER_QUERY):
            after = items[-1][a.SK]["S"]
            for segment in map(decode_segment, items):
                if isinstance(segment, HotSegment):
                    found |= _payload_ids(segment.batches)
        return frozenset(found)

    # -- deletions ---------------------------------------------------------------------------------------------------

    async def _delete_item(self, item: Item, condition: str = "", values: dict[str, Value] | None = None) -> None:
        if self._dry_run:
            return
        guard: dict[str, object] = {"ConditionExpression": condition} if condition else {}
        if values:
            guard["ExpressionAttributeValues"] = values
        outcome = await self._backend.table.delete({a.PK: item[a.PK], a.SK: item[a.SK]}, **guard)
        require_known(outcome)  # when the condition fails, a needed item has taken the place of this one

    async def _delete_object(self, key: str) -> None:
        if not self._dry_run:
            await self._backend.objects.delete(key)


def _payload_ids(batches: tuple[StoredBatch, ...]) -> set[CommitId]:
    return {batch.commit_id for batch in batches if batch.placement is not Placement.INLINE}
