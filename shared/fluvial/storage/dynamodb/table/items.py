"""Encoding of heads, batches and segments as items: the only module that encodes and decodes them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import msgspec

from fluvial.model.commit import COMMIT_ID_BYTES, CommitId
from fluvial.model.content_type import media_type
from fluvial.model.head import (
    EstuaryMode,
    ForkOrigin,
    Head,
    Incarnation,
    ProducerStamp,
    ProducerState,
    ReaderKey,
    SourcePosition,
    Span,
)
from fluvial.model.lifetime import ExpiresAt, Lifetime, SlidingTtl
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.format import with_format
from fluvial.storage.dynamodb.table.item_size import item_bytes
from fluvial.storage.dynamodb.table.keys import Item, Value, head_key, segment_key

_PLACEMENT_SHIFT: Final = 30
_LENGTH_MASK: Final = (1 << _PLACEMENT_SHIFT) - 1
_ORIGIN = msgspec.json.Decoder(ForkOrigin)
_LINEAGE = msgspec.json.Decoder(tuple[Span, ...])


class Placement(IntEnum):
    """Where a batch's bytes are: in the head or segment itself, in a payload item, or in a payload object in S3.

    GROUP: several batches that were committed together, in one payload item.
    """

    INLINE = 0
    ITEM = 1
    OBJECT = 2
    GROUP = 3


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch in a head's buffer or in a hot segment; `data` is empty unless the placement is INLINE.

    A group is stored like one batch, with the commit id of its last; `batch_count` says how many batches it is.
    """

    commit_id: CommitId
    byte_count: int
    placement: Placement = Placement.INLINE
    data: bytes = b""
    batch_count: int = 1


@dataclass(frozen=True, slots=True)
class HeadItem:
    """A head item: a head, or the tombstone of an incarnation that has ended (`head` is None).

    The buffer's batches are the stream's bytes [base, head.tail). `cold_end` is the position where the segments in S3
    end, `spilled` counts the batches in hot segments, `evictions` counts evictions of producers. `began` is the fence
    that the incarnation, or the tombstone, began with: a request that names a lower fence was sent to an earlier
    incarnation. `ended_by` and `ended_incarnation` are a tombstone's: the commit and the incarnation that ended.
    `born_us` is the head's, or that of the ended incarnation. `used_s` has the second in which each of the head's
    producers wrote last. `connected_until_s` is when the last WebSocket connection ends, in seconds since 1970; None in
    items of an older format, whose streams may have any.
    """

    head: Head | None
    fence: int
    base: int = 0
    buffer: tuple[StoredBatch, ...] = ()
    cold_end: int = 0
    spilled: int = 0
    evictions: int = 0
    item_bytes: int = 0
    ended_by: CommitId | None = None
    ended_incarnation: Incarnation | None = None
    began: int = 0
    born_us: int = 0
    used_s: Mapping[str, int] = field(default_factory=dict)
    connected_until_s: int | None = 0


@dataclass(frozen=True, slots=True)
class HotSegment:
    """Bytes [start, end) of an incarnation in one item; its payloads are stored under the name `owner`."""

    start: int
    batches: tuple[StoredBatch, ...]
    owner: StreamName
    written_at_ms: int

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.start + sum(batch.byte_count for batch in self.batches)


@dataclass(frozen=True, slots=True)
class ColdSegment:
    """Bytes [start, end) of an incarnation in one S3 object; `ends` are the positions where its batches end."""

    start: int
    ends: tuple[int, ...]
    object_key: str
    owner: StreamName
    written_at_ms: int

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.ends[-1]


Segment = HotSegment | ColdSegment


def number(value: int) -> Value:
    """An integer as an attribute value."""
    return {"N": str(value)}


def _integer(item: Item, name: str, default: int = 0) -> int:
    value = item.get(name)
    return default if value is None else int(value["N"])


# -- batches ---------------------------------------------------------------------------------------------------------


def encode_batch(batch: StoredBatch) -> bytes:
    """A batch as an element of a head's buffer."""
    length = b"" if batch.placement is Placement.INLINE else struct.pack("<I", batch.byte_count)
    return bytes((batch.placement,)) + batch.commit_id + length + _encode_content(batch)


def decode_batch(stored: bytes) -> StoredBatch:
    """Decode an element of a head's buffer."""
    placement, commit_id = Placement(stored[0]), CommitId(stored[1 : 1 + COMMIT_ID_BYTES])
    rest = stored[1 + COMMIT_ID_BYTES :]
    if placement is Placement.INLINE:
        return StoredBatch(commit_id, len(rest), placement, rest)
    byte_count, *batch_count = struct.unpack("<II" if placement is Placement.GROUP else "<I", rest)
    return StoredBatch(commit_id, byte_count, placement, b"", *batch_count)


def encode_batches(batches: Sequence[StoredBatch]) -> Item:
    """Batches as the attributes of a hot segment, or of a group's payload."""
    lengths = [batch.byte_count | batch.placement << _PLACEMENT_SHIFT for batch in batches]
    return {
        a.LENGTHS: {"B": struct.pack(f"<{len(lengths)}I", *lengths)},
        a.COMMIT_IDS: {"B": b"".join(batch.commit_id for batch in batches)},
        a.DATA: {"B": b"".join(map(_encode_content, batches))},
    }


def _encode_content(batch: StoredBatch) -> bytes:
    return struct.pack("<I", batch.batch_count) if batch.placement is Placement.GROUP else batch.data


def decode_batches(item: Item) -> tuple[StoredBatch, ...]:
    """Decode the batches of a hot segment, or of a group's payload."""
    ids, data, at, batches = item[a.COMMIT_IDS]["B"], item[a.DATA]["B"], 0, list[StoredBatch]()
    for index, (packed,) in enumerate(struct.iter_unpack("<I", item[a.LENGTHS]["B"])):
        commit_id = CommitId(ids[index * COMMIT_ID_BYTES : (index + 1) * COMMIT_ID_BYTES])
        placement, length = Placement(packed >> _PLACEMENT_SHIFT), packed & _LENGTH_MASK
        here = {Placement.INLINE: length, Placement.GROUP: 4}.get(placement, 0)
        content, at = data[at : at + here], at + here
        if placement is Placement.GROUP:
            batches.append(StoredBatch(commit_id, length, placement, b"", *struct.unpack("<I", content)))
        else:
            batches.append(StoredBatch(commit_id, length, placement, content))
    return tuple(batches)


# -- heads -----------------------------------------------------------------------------------------------------------


def encode_producer(state: ProducerState | ProducerStamp, used_s: int) -> Value:
    """A producer's entry in the head; `used_s` is the second in which it wrote last."""
    return {"L": [number(state.epoch), number(state.seq), number(0), number(used_s)]}


def encode_closed(by: ProducerStamp | None) -> Value:
    """The mark of a closed stream: the stamp of the producer that closed it, if a producer did."""
    if by is None:
        return {"BOOL": True}
    return {"L": [{"S": by.producer_id}, number(by.epoch), number(by.seq)]}


def encode_incarnation(incarnation: Incarnation) -> Value:
    """An incarnation in eight bytes."""
    return {"B": incarnation.to_bytes(8, "big")}


def encode_cursor(cursor: SourcePosition) -> Value:
    """A source's entry in an estuary's head."""
    born = [number(cursor.born_us)] if cursor.born_us else []  # absent as in entries from before `born_us` existed
    return {"L": [encode_incarnation(cursor.incarnation), number(cursor.position), *born]}


def encode_head_item(name: StreamName, stored: HeadItem) -> Item:
    """Encode a head, also a soft-deleted one."""
    head = stored.head
    assert head is not None, "a tombstone is written by an update"
    item: Item = {
        **head_key(name),
        a.INCARNATION: encode_incarnation(head.incarnation),
        a.FENCE: number(stored.fence),
        a.TAIL: number(head.tail),
        a.BASE: number(stored.base),
        a.BUFFER: {"L": [{"B": encode_batch(batch)} for batch in stored.buffer]},
        a.MEDIA_TYPE: {"S": media_type(head.content_type)},
        a.PRODUCERS: {
            "M": {
                producer: encode_producer(state, stored.used_s.get(producer, 0))
                for producer, state in head.producers.items()
            }
        },
        a.PRODUCER_COUNT: number(head.producer_count),
        **_lifetime_attributes(head.lifetime, head.live_until_ms),
    }
    if head.content_type != item[a.MEDIA_TYPE]["S"]:
        item[a.CONTENT_TYPE] = {"S": head.content_type}
    if head.closed:
        item[a.CLOSED] = encode_closed(head.closed_by)
    if head.stream_seq is not None:
        item[a.STREAM_SEQ] = {"S": head.stream_seq}
    if head.forked_from is not None:
        item[a.ORIGIN] = {"B": msgspec.json.encode(head.forked_from)}
        item[a.LINEAGE] = {"B": msgspec.json.encode(head.lineage)}
    if head.estuary is not None:
        item[a.ESTUARY] = {"S": head.estuary.value}
        item[a.CURSORS] = {"M": {source: encode_cursor(cursor) for source, cursor in head.cursors.items()}}
    if head.reader_key is not None:
        item[a.READER_KEY] = {"S": head.reader_key}
    if head.delivered is not None:
        item[a.DELIVERED] = number(head.delivered)
    counts = {a.BORN_US: head.born_us, a.REFERENCES: head.references, a.COLD_END: stored.cold_end}
    counts |= {a.SPILLED: stored.spilled, a.EVICTIONS: stored.evictions, a.BEGAN: stored.began}
    counts |= {a.SOFT_DELETED: int(head.soft_deleted), a.PUBLIC: int(head.is_public)}
    counts |= {a.APPENDED_MS: head.appended_ms or 0}
    item |= {attribute: number(count) for attribute, count in counts.items() if count}
    if stored.connected_until_s is not None:
        item[a.CONNECTED_UNTIL] = number(stored.connected_until_s)
    return with_format(item)


def _lifetime_attributes(lifetime: Lifetime, live_until_ms: int | None) -> Item:
    match lifetime:
        case SlidingTtl():
            assert live_until_ms is not None, "a sliding lifetime has a deadline"
            window = lifetime.deadline_ms(0)
            return {
                a.WINDOW: number(window),
                a.TTL_SECONDS: number(lifetime.seconds),
                a.USED_UNTIL: number(live_until_ms),
            }
        case ExpiresAt(at_ms, text):
            return {a.EXPIRES_AT: number(at_ms), a.EXPIRES_TEXT: {"S": text}}
        case None:
            return {}


def decode_head_item(item: Item) -> HeadItem:
    """Decode a head item or a tombstone."""
    ended_by = item.get(a.ENDED_BY)
    return HeadItem(
        head=_head(item) if a.INCARNATION in item else None,
        fence=_integer(item, a.FENCE),
        base=_integer(item, a.BASE),
        buffer=tuple(decode_batch(element["B"]) for element in item[a.BUFFER]["L"]) if a.BUFFER in item else (),
        cold_end=_integer(item, a.COLD_END),
        spilled=_integer(item, a.SPILLED),
        evictions=_integer(item, a.EVICTIONS),
        item_bytes=item_bytes(item),
        ended_by=None if ended_by is None else CommitId(ended_by["B"]),
        ended_incarnation=decode_incarnation(item[a.ENDED_LIFE]) if a.ENDED_LIFE in item else None,
        began=_integer(item, a.BEGAN),
        born_us=_integer(item, a.BORN_US),
        used_s=_used_s(item[a.PRODUCERS]["M"]) if a.PRODUCERS in item else {},
        connected_until_s=_integer(item, a.CONNECTED_UNTIL) if a.CONNECTED_UNTIL in item else None,
    )


def _used_s(producers: Item) -> dict[str, int]:
    """The second in which each producer wrote last; entries of an older format lack it, and count as oldest."""
    return {producer: int(state["L"][3]["N"]) for producer, state in producers.items() if len(state["L"]) > 3}  # noqa: PLR2004  its place


def _head(item: Item) -> Head:
    media, content_type = item[a.MEDIA_TYPE]["S"], item.get(a.CONTENT_TYPE)
    closed, stream_seq = item.get(a.CLOSED), item.get(a.STREAM_SEQ)
    origin = item.get(a.ORIGIN)
    lifetime, live_until_ms = _lifetime(item)
    return Head(
        incarnation=decode_incarnation(item[a.INCARNATION]),
        content_type=media if content_type is None else content_type["S"],
        born_us=_integer(item, a.BORN_US),
        lifetime=lifetime,
        live_until_ms=live_until_ms,
        tail=_integer(item, a.TAIL),
        closed=closed is not None,
        closed_by=_stamp(closed),
        stream_seq=None if stream_seq is None else stream_seq["S"],
        producers={
            producer: ProducerState(int(state["L"][0]["N"]), int(state["L"][1]["N"]))
            for producer, state in item[a.PRODUCERS]["M"].items()
        },
        producer_count=_integer(item, a.PRODUCER_COUNT),
        references=_integer(item, a.REFERENCES),
        soft_deleted=a.SOFT_DELETED in item,
        forked_from=None if origin is None else _ORIGIN.decode(origin["B"]),
        lineage=() if origin is None else _LINEAGE.decode(item[a.LINEAGE]["B"]),
        estuary=EstuaryMode(item[a.ESTUARY]["S"]) if a.ESTUARY in item else None,
        cursors={
            StreamName(source): _cursor(cursor)
            for source, cursor in (item[a.CURSORS]["M"] if a.CURSORS in item else {}).items()
        },
        delivered=_integer(item, a.DELIVERED) if a.DELIVERED in item else None,
        is_public=a.PUBLIC in item,
        reader_key=ReaderKey(item[a.READER_KEY]["S"]) if a.READER_KEY in item else None,
        appended_ms=_integer(item, a.APPENDED_MS) or None,
    )


def _cursor(value: Value) -> SourcePosition:
    incarnation, position, *born = value["L"]
    return SourcePosition(decode_incarnation(incarnation), int(position["N"]), int(born[0]["N"]) if born else 0)


def decode_incarnation(value: Value) -> Incarnation:
    """Decode an incarnation from eight bytes."""
    return Incarnation(int.from_bytes(value["B"], "big"))


def _stamp(closed: Value | None) -> ProducerStamp | None:
    if closed is None or "L" not in closed:
        return None
    producer_id, epoch, seq = closed["L"]
    return ProducerStamp(producer_id["S"], int(epoch["N"]), int(seq["N"]))


def _lifetime(item: Item) -> tuple[Lifetime, int | None]:
    if a.TTL_SECONDS in item:
        return SlidingTtl(_integer(item, a.TTL_SECONDS)), _integer(item, a.USED_UNTIL)
    if a.EXPIRES_AT in item:
        at_ms = _integer(item, a.EXPIRES_AT)
        return ExpiresAt(at_ms, item[a.EXPIRES_TEXT]["S"]), at_ms
    return None, None


# -- segments --------------------------------------------------------------------------------------------------------


def encode_hot_segment(incarnation: Incarnation, segment: HotSegment) -> Item:
    """The item of a hot segment."""
    return {
        **segment_key(incarnation, segment.end),
        a.START: number(segment.start),
        **encode_batches(segment.batches),
        a.OWNER: {"S": segment.owner},
        a.WRITTEN_AT: number(segment.written_at_ms),
    }


def encode_cold_segment(incarnation: Incarnation, segment: ColdSegment) -> Item:
    """The item that points to a cold segment."""
    starts = (segment.start, *segment.ends)
    lengths = [end - start for start, end in zip(starts, segment.ends, strict=False)]
    return {
        **segment_key(incarnation, segment.end),
        a.START: number(segment.start),
        a.LENGTHS: {"B": struct.pack(f"<{len(lengths)}I", *lengths)},
        a.OBJECT_KEY: {"S": segment.object_key},
        a.OWNER: {"S": segment.owner},
        a.WRITTEN_AT: number(segment.written_at_ms),
    }


def decode_segment(item: Item) -> Segment:
    """Decode a hot segment, or the pointer to a cold one."""
    start, owner, written_at_ms = _integer(item, a.START), StreamName(item[a.OWNER]["S"]), _integer(item, a.WRITTEN_AT)
    if a.OBJECT_KEY not in item:
        return HotSegment(start, decode_batches(item), owner, written_at_ms)
    ends, position = list[int](), start
    for (length,) in struct.iter_unpack("<I", item[a.LENGTHS]["B"]):
        position += length
        ends.append(position)
    return ColdSegment(start, tuple(ends), item[a.OBJECT_KEY]["S"], owner, written_at_ms)
