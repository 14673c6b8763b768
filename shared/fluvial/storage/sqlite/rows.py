"""Rows: how heads, batch ranges and followers are encoded. No other module knows the columns."""

from typing import Any

import msgspec

from fluvial.model.followers import Follower, SubscriptionId
from fluvial.model.head import EstuaryMode, ForkOrigin, Head, Incarnation, ProducerStamp, SourcePosition, Span
from fluvial.model.lifetime import ExpiresAt, SlidingTtl
from fluvial.model.names import StreamName
from fluvial.storage.batch_range import BatchRange, pack_ends, unpack_ends

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


def new_head_row(name: StreamName, head: Head) -> Row:
    """The parameters of `save_new_head`."""
    return (name, head.incarnation, _encode_config(head), *_changeable(head))


def head_row(name: StreamName, head: Head) -> Row:
    """The parameters of `save_head`."""
    return (*_changeable(head), name)


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
        head.closed,
        None if head.closed_by is None else msgspec.json.encode(head.closed_by),
        head.stream_seq,
        head.live_until_ms,
        head.references,
        head.soft_deleted,
        head.producer_count,
        head.delivered,
        msgspec.json.encode(head.cursors) if head.cursors else None,
        head.reader_key,
        head.appended_ms,
    )


def head_of_row(row: Row) -> Head:
    """The head in a row of `load_head`, without its producers. Raises msgspec.DecodeError when it is damaged."""
    incarnation, encoded_config, tail, closed, closed_by, stream_seq, live_until_ms, *counts = row
    config = _CONFIG.decode(encoded_config)
    references, soft_deleted, producer_count, delivered, cursors, reader_key, appended_ms = counts
    return Head(
        incarnation=Incarnation(incarnation),
        content_type=config.content_type,
        born_us=config.born_us,
        lifetime=config.expires_at if config.ttl_seconds is None else SlidingTtl(config.ttl_seconds),
        live_until_ms=live_until_ms,
        tail=tail,
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
        appended_ms=appended_ms,
    )


def hot_range_row(incarnation: Incarnation, added: BatchRange, appended_ms: int) -> Row:
    """The parameters of `add_hot_range`."""
    ends = None if len(added.ends) == 1 else pack_ends(added.ends)
    return (incarnation, added.end, added.start, len(added.ends), ends, added.data, appended_ms)


def batch_range_of_row(row: Row) -> BatchRange:
    """The batch range in a row of `hot_ranges_after`."""
    start, end, ends, data = row
    return BatchRange(start, (end,) if ends is None else unpack_ends(ends), data)


def follower_row(source: Incarnation, follower: Follower) -> Row:
    """The parameters of `add_follower`."""
    return (source, follower.estuary, follower.mode.value, follower.subscription)


def follower_of_row(row: Row) -> Follower:
    """The follower in a row of `followers_after`."""
    estuary, mode, subscription = row
    return Follower(StreamName(estuary), EstuaryMode(mode), SubscriptionId(subscription))
