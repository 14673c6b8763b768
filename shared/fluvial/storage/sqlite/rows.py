"""Rows: how heads, batch ranges and followers are encoded. No other module knows the columns."""

from typing import Any

import msgspec

from fluvial.model.errors import StorageDamaged
from fluvial.model.followers import Follower, SubscriptionId
from fluvial.model.head import (
    EstuaryMode,
    ForkOrigin,
    Head,
    Incarnation,
    ProducerStamp,
    ProducerState,
    SourcePosition,
    Span,
)
from fluvial.model.lifetime import ExpiresAt, SlidingTtl
from fluvial.model.names import StreamName
from fluvial.storage.batch_range import BatchRange, pack_ends, unpack_ends
from fluvial.storage.sqlite.checksums import check_row, row_checksum
from fluvial.storage.sqlite.segment_files import SegmentKey, SegmentLayout, StoredSegment

Row = tuple[Any, ...]


class _Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of a head that never change during an incarnation; the column `config`, as JSON."""

    content_type: str
    born_us: int = 0
    ttl_seconds: int | None = None
    expires_at: ExpiresAt | None = None
    origin: ForkOrigin | None = None
    lineage: tuple[Span, ...] = ()
    estuary: EstuaryMode | None = None
    is_public: bool = False


_CONFIG = msgspec.json.Decoder(_Config)
_CURSORS = msgspec.json.Decoder(dict[StreamName, SourcePosition])
_STAMP = msgspec.json.Decoder(ProducerStamp)


def _encode_config(head: Head) -> bytes:
    return msgspec.json.encode(
        _Config(
            content_type=head.content_type,
            born_us=head.born_us,
            ttl_seconds=head.lifetime.seconds if isinstance(head.lifetime, SlidingTtl) else None,
            expires_at=head.lifetime if isinstance(head.lifetime, ExpiresAt) else None,
            origin=head.forked_from,
            lineage=head.lineage,
            estuary=head.estuary,
            is_public=head.is_public,
        )
    )


def head_row(name: StreamName, head: Head) -> Row:
    """The parameters of `save_new_head` and of `save_head`."""
    return _with_checksum(name, head.incarnation, _encode_config(head), *_changeable(head))


def _with_checksum(*columns: Any) -> Row:  # noqa: ANN401  whatever SQLite stores
    return (*columns, row_checksum(*columns))


def has_only_grown(before: Head, head: Head) -> bool:
    """Whether the head's row may stay as it is, because only the tail moved and the hot log tells the tail.

    The hot log tells the time of the last append, too. The row of a followed stream is written all the same:
    `undelivered_names` finds the stream by the tail in it.
    """
    return (
        head.delivered is None
        and before.delivered is None
        and head.closed is before.closed
        and head.stream_seq == before.stream_seq
        and head.live_until_ms == before.live_until_ms
        and head.producer_count == before.producer_count
        and head.references == before.references
        and head.soft_deleted is before.soft_deleted
        and head.cursors is before.cursors
        and head.reader_key == before.reader_key
    )


def _changeable(head: Head) -> Row:
    return (
        head.tail,
        int(head.closed),
        None if head.closed_by is None else msgspec.json.encode(head.closed_by),
        head.stream_seq,
        head.live_until_ms,
        head.references,
        int(head.soft_deleted),
        head.producer_count,
        head.delivered,
        msgspec.json.encode(head.cursors) if head.cursors else None,
        head.reader_key,
        head.appended_ms,
    )


def head_of_row(row: Row) -> Head:
    """The head in a row of `load_head`, without its producers.

    Its tail is the end of the hot log, or the saved tail where the hot log is empty or ends before; so with the time of
    the last append. Raises StorageDamaged, msgspec.DecodeError.
    """
    *stored, hot_end, hot_appended_ms = row
    check_row(tuple(stored), "the head")
    if not isinstance(hot_end, int | None):
        raise StorageDamaged("the end of the hot log is no number")
    _, incarnation, encoded_config, tail, closed, closed_by, stream_seq, live_until_ms, *more = stored
    config = _CONFIG.decode(encoded_config)
    references, soft_deleted, producer_count, delivered, cursors, reader_key, appended_ms, _ = more
    return Head(
        incarnation=Incarnation(incarnation),
        content_type=config.content_type,
        born_us=config.born_us,
        lifetime=config.expires_at if config.ttl_seconds is None else SlidingTtl(config.ttl_seconds),
        live_until_ms=live_until_ms,
        tail=max(tail, hot_end or 0),
        closed=bool(closed),
        closed_by=None if closed_by is None else _STAMP.decode(closed_by),
        stream_seq=stream_seq,
        producer_count=producer_count,
        references=references,
        soft_deleted=bool(soft_deleted),
        forked_from=config.origin,
        lineage=config.lineage,
        estuary=config.estuary,
        cursors={} if cursors is None else _CURSORS.decode(cursors),
        delivered=delivered,
        is_public=config.is_public,
        reader_key=reader_key,
        appended_ms=appended_ms if hot_appended_ms is None else hot_appended_ms,
    )


def hot_range_row(incarnation: Incarnation, added: BatchRange, appended_ms: int) -> Row:
    """The parameters of `add_hot_range`."""
    ends = None if len(added.ends) == 1 else pack_ends(added.ends)
    return _with_checksum(incarnation, added.end, added.start, len(added.ends), ends, added.data, appended_ms)


def batch_range_of_row(row: Row) -> BatchRange:
    """The batch range in a row of `hot_ranges_after`. Raises StorageDamaged."""
    incarnation, end, start, _, ends, data, *_ = row
    check_row(row, f"the hot log of {incarnation:x} at {start}")
    return BatchRange(start, (end,) if ends is None else unpack_ends(ends), data)


def segment_row(segment: StoredSegment) -> Row:
    """The parameters of `add_segment`."""
    key = segment.key
    return _with_checksum(key.incarnation, key.end, key.start, segment.batch_count, segment.layout.value)


def segment_of_row(row: Row) -> StoredSegment:
    """The segment in a row of `segment_after`. Raises StorageDamaged."""
    incarnation, end, start, batch_count, layout, _ = row
    check_row(row, f"the segment of {incarnation:x} at {start}")
    return StoredSegment(SegmentKey(Incarnation(incarnation), start, end), batch_count, SegmentLayout(layout))


def producer_row(incarnation: Incarnation, producer_id: str, state: ProducerState) -> Row:
    """The parameters of `save_producer`."""
    return _with_checksum(incarnation, producer_id, state.epoch, state.seq)


def producer_of_row(row: Row) -> ProducerStamp:
    """The producer in a row of `load_producer`. Raises StorageDamaged."""
    incarnation, producer_id, epoch, seq, _ = row
    check_row(row, f"a producer of {incarnation:x}")
    return ProducerStamp(producer_id, epoch, seq)


def ended_row(incarnation: Incarnation) -> Row:
    """The parameters of `add_ended_incarnation`."""
    return _with_checksum(incarnation)


def newest_birth_row(born_us: int) -> Row:
    """The parameters of `save_newest_birth`."""
    return _with_checksum(born_us)


def follower_row(source: Incarnation, follower: Follower) -> Row:
    """The parameters of `add_follower`."""
    return _with_checksum(source, follower.estuary, follower.mode.value, follower.subscription)


def follower_of_row(row: Row) -> Follower:
    """The follower in a row of `followers_after`. Raises StorageDamaged."""
    source, estuary, mode, subscription, _ = row
    check_row(row, f"a follower of {source:x}")
    return Follower(StreamName(estuary), EstuaryMode(mode), SubscriptionId(subscription))
