"""Sweeping: what expired streams, and processes that died in between, have left behind.

Whatever is in the table and the bucket is looked at in turn. What no head leads to any more is deleted once it is a day
old, for a late request may still point to something younger. Each deletion may be done again, and a sweep that breaks
off is gone on with from where it was.
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
from fluvial.storage.dynamodb.table.items import (
    ColdSegment,
    HeadItem,
    HotSegment,
    Placement,
    StoredBatch,
    head_of_item,
    incarnation_value,
    segment_of_item,
)
from fluvial.storage.dynamodb.table.keys import (
    Item,
    Key,
    Value,
    head_key,
    incarnation_partition,
    name_of,
    segment_key,
    segment_sort,
    sweep_key,
)
from fluvial.storage.dynamodb.table.objects import ListedObject
from fluvial.storage.dynamodb.table.write_outcome import InDoubt, require_known
from fluvial.storage.dynamodb.writes.payloads import OWNER_METADATA, STAGED_PREFIX
from fluvial.storage.dynamodb.writes.updates import guarded_update

log = logging.getLogger(__name__)

#: A request that points to something arrives within minutes of its sender's death: its signature ends.
ORPHAN_AGE_MS: Final = 86_400_000

SEGMENTS_PER_QUERY: Final = 100

#: How a life ends that has expired.
Apply = Callable[[StreamName, Commit], Awaitable[Outcome]]


class SweepPhase(StrEnum):
    """What is looked at, in this order."""

    ITEMS = "items"
    SEGMENTS = "segments"
    STAGED = "staged"


_PREFIXES: Final = {SweepPhase.SEGMENTS: f"{SEGMENT_PREFIX}/", SweepPhase.STAGED: f"{STAGED_PREFIX}/"}
_NEXT: Final = {SweepPhase.ITEMS: SweepPhase.SEGMENTS, SweepPhase.SEGMENTS: SweepPhase.STAGED}


class SweepPlace(msgspec.Struct, frozen=True):
    """How far a sweep has come: in the table up to an item's key, in the bucket up to an object's."""

    phase: SweepPhase = SweepPhase.ITEMS
    after: tuple[str, ...] = ()


_PLACE: Final = msgspec.json.Decoder(SweepPlace)


class SweepReport(msgspec.Struct, rename="camel"):
    """What a sweep looked at, and what it removed or, in a dry run, would have removed."""

    items: int = 0
    objects: int = 0
    expired_streams: int = 0
    undelivered_streams: int = 0
    segments: int = 0
    payloads: int = 0
    producers: int = 0
    followers: int = 0
    cold_objects: int = 0
    staged_objects: int = 0
    failures: int = 0


class Sweeper:
    """Sweeps one page after the other."""

    def __init__(self, backend: Backend, apply: Apply, clock: Clock, *, dry_run: bool) -> None:
        """With `dry_run` nothing is deleted and nothing ends; the report says what would."""
        self._backend, self._apply, self._clock, self._dry_run = backend, apply, clock, dry_run
        self.report = SweepReport()
        self._heads: dict[StreamName, HeadItem] = {}
        self._references: dict[StreamName, frozenset[CommitId]] = {}

    async def last_place(self) -> SweepPlace:
        """Where the last sweep had no time left; the beginning if it came to its end. Raises StoreUnavailable."""
        item = await self._backend.table.get(sweep_key())
        return SweepPlace() if item is None else _PLACE.decode(item[a.PLACE]["S"])

    async def keep_place(self, place: SweepPlace | None) -> None:
        """Let the next sweep go on from there. Raises StoreUnavailable, Unknown."""
        if place is None:
            require_known(await self._backend.table.delete(sweep_key()))
        else:
            item = {**sweep_key(), a.PLACE: {"S": msgspec.json.encode(place).decode()}}
            require_known(await self._backend.table.put(item))

    async def page(self, place: SweepPlace) -> SweepPlace | None:
        """Look at what comes after a place; the place after that, None at the end. Raises StoreUnavailable."""
        self._heads, self._references = {}, {}
        if place.phase is SweepPhase.ITEMS:
            return await self._page_of_items(place)
        after = place.after[0] if place.after else ""
        listed = await self._backend.objects.listed(_PREFIXES[place.phase], after)
        look = self._segment_object if place.phase is SweepPhase.SEGMENTS else self._staged_object
        for one in listed:
            self.report.objects += 1
            await self._looked_at(look(one), one.key)
        if listed:
            return SweepPlace(place.phase, (listed[-1].key,))
        return SweepPlace(_NEXT[place.phase]) if place.phase in _NEXT else None

    async def _page_of_items(self, place: SweepPlace) -> SweepPlace:
        start: Key | None = None
        if place.after:
            start = {a.PK: {"S": place.after[0]}, a.SK: {"S": place.after[1]}}
        items, last = await self._backend.table.scan(start)
        for item in items:
            self.report.items += 1
            await self._looked_at(self._item(item), item[a.PK]["S"])
        if last is None:
            return SweepPlace(_NEXT[place.phase])
        return SweepPlace(place.phase, (last[a.PK]["S"], last[a.SK]["S"]))

    async def _looked_at(self, look: Awaitable[None], what: str) -> None:
        """One thing that cannot be looked at, even one that is nobody's, must not keep the others from it."""
        try:
            await look
        except FluvialError as exc:
            self.report.failures += 1
            log.warning("not_swept", extra={"what": what, "reason": str(exc.__cause__ or exc)})
        except Exception:
            self.report.failures += 1
            log.exception("not_swept", extra={"what": what})

    # -- items -------------------------------------------------------------------------------------------------------

    async def _item(self, item: Item) -> None:
        kind, _, rest = item[a.PK]["S"].partition("#")
        match kind:
            case "S" if item[a.SK]["S"] == a.HEAD_SK:
                await self._head(item)
            case "SEG":
                await self._segment(Incarnation(int(rest, 16)), item)
            case "PAYLOAD" if self._is_old(int(item[a.WRITTEN_AT]["N"])):
                commit_id = CommitId(bytes.fromhex(item[a.SK]["S"]))
                if not await self._is_referenced(StreamName(rest), commit_id):
                    self.report.payloads += 1
                    await self._delete_item(item)
            case "PRODUCER":
                if not await self._lives(StreamName(item[a.OWNER]["S"]), Incarnation(int(rest, 16))):
                    self.report.producers += 1
                    await self._delete_item(item)
            case "FOLLOWER":
                if not await self._follows(StreamName(item[a.SK]["S"]), Incarnation(int(rest, 16))):
                    self.report.followers += 1
                    same = f"{a.SUBSCRIPTION} = :id"  # it may have been listed anew meanwhile
                    await self._delete_item(item, same, {":id": item[a.SUBSCRIPTION]})
            case _:
                pass  # DynamoDB itself deletes what else there is

    async def _head(self, item: Item) -> None:
        stored, expiry = head_of_item(item), plan_expiry(self._clock.now_ms())
        if first_unmet(expiry.requires, stored.head) is None:
            self.report.expired_streams += 1
            if not self._dry_run:
                await self._apply(name_of(item), expiry)
        elif stored.head is not None and stored.head.delivered is not None and stored.head.delivered < stored.head.tail:
            self.report.undelivered_streams += 1
            if not self._dry_run:
                await self._shown_again(name_of(item), stored.head)

    async def _shown_again(self, name: StreamName, head: Head) -> None:
        """Let the change feed see a head whose followers lack something: it may have given up on them."""
        e = Expression()
        clauses = [f"{e.name(a.INCARNATION)} = {e.value(incarnation_value(head.incarnation))}"]
        update = f"SET {e.name(a.SHOWN_AT)} = {e.value(self._clock.now_ms())}"
        outcome = await self._backend.table.update(guarded_update(name, e, clauses, update))
        if isinstance(outcome, InDoubt):
            log.info(
                "not_redelivered", extra={"stream": name, "reason": str(outcome.cause)}
            )  # the next sweep tries again

    async def _segment(self, life: Incarnation, item: Item) -> None:
        segment = segment_of_item(item)
        if not self._is_old(segment.written_at_ms):
            return
        stored = await self._stored(segment.owner)
        is_of_life = stored.head is not None and stored.head.incarnation == life
        # A late put may bring back a hot segment that rotation has deleted; a cold one has its bytes.
        if is_of_life and (isinstance(segment, ColdSegment) or segment.end > stored.cold_end):
            return
        self.report.segments += 1
        if isinstance(segment, ColdSegment):
            self.report.cold_objects += 1
            await self._delete_object(segment.object_key)
        elif not is_of_life:
            await self._delete_payloads(segment)
        condition = "" if isinstance(segment, ColdSegment) else f"attribute_not_exists({a.OBJECT_KEY})"
        await self._delete_item(item, condition)

    async def _delete_payloads(self, segment: HotSegment) -> None:
        """Delete the payloads of a life that has ended, however young: nobody else points to them."""
        if not self._dry_run:
            await self._backend.payloads.remove(segment.owner, segment.batches)

    async def _follows(self, estuary: StreamName, life: Incarnation) -> bool:
        """Whether an estuary follows this life of a stream, and the life goes on; it does so before it is listed."""
        stored = await self._stored(estuary)
        cursors = {} if stored.head is None else stored.head.cursors
        sources = [source for source, cursor in cursors.items() if cursor.incarnation == life]
        return bool(sources) and await self._lives(sources[0], life)

    # -- objects -----------------------------------------------------------------------------------------------------

    async def _segment_object(self, listed: ListedObject) -> None:
        if not self._is_old(listed.written_at_ms):
            return
        _, life, span = listed.key.split("/")
        _, end, _ = span.split("-")
        pointer = await self._backend.table.get(segment_key(Incarnation(int(life, 16)), int(end)))
        if pointer is None or pointer.get(a.OBJECT_KEY) != {"S": listed.key}:
            self.report.cold_objects += 1
            await self._delete_object(listed.key)

    async def _staged_object(self, listed: ListedObject) -> None:
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

    async def _stored(self, name: StreamName) -> HeadItem:
        """What is at a name, as it was when it was first asked for in this page.

        A life that was over then is over for good, and what was old then is not pointed to anew.
        """
        if name not in self._heads:
            item = await self._backend.table.get(head_key(name))
            self._heads[name] = HeadItem(None, 0) if item is None else head_of_item(item)
        return self._heads[name]

    async def _lives(self, name: StreamName, life: Incarnation) -> bool:
        """Whether a life goes on, perhaps only for its forks; once over, it never begins again."""
        head = (await self._stored(name)).head
        return head is not None and head.incarnation == life

    async def _is_referenced(self, owner: StreamName, commit_id: CommitId) -> bool:
        """Whether the stream has a batch whose bytes are stored apart by this id."""
        if owner not in self._references:
            self._references[owner] = await self._references_of(owner)
        return commit_id in self._references[owner]

    async def _references_of(self, owner: StreamName) -> frozenset[CommitId]:
        """The batches of the head, then those of its hot segments: in the order in which a batch moves."""
        stored = await self._stored(owner)
        if stored.head is None:
            return frozenset()
        found, after = _stored_apart(stored.buffer), segment_sort(stored.cold_end)
        partition = incarnation_partition(stored.head.incarnation)
        while items := await self._backend.table.query(partition, after=after, limit=SEGMENTS_PER_QUERY):
            after = items[-1][a.SK]["S"]
            for segment in map(segment_of_item, items):
                if isinstance(segment, HotSegment):
                    found |= _stored_apart(segment.batches)
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


def _stored_apart(batches: tuple[StoredBatch, ...]) -> set[CommitId]:
    return {batch.commit_id for batch in batches if batch.placement is not Placement.INLINE}
