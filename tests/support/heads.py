"""Strategies: heads of every shape, and requirements on them."""

from hypothesis import strategies as st

from fluvial.model.commit import (
    Absent,
    CursorAt,
    DeliveredBefore,
    EpochBeginsAtZero,
    Exists,
    Expired,
    HasMediaType,
    IsEstuary,
    NoGap,
    NotDuplicate,
    NotFenced,
    NotFollowing,
    Open,
    PreconditionsHold,
    Requirement,
    RoomAtTail,
    RoomForProducer,
    RoomForSource,
    SameIncarnation,
    SeqAfter,
)
from fluvial.model.entity_tag import AnyTag, Preconditions, TagList
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
from fluvial.model.limits import POSITION_MAX, PRODUCERS_PER_STREAM_MAX, SOURCES_PER_ESTUARY_MAX
from fluvial.model.names import StreamName

NOW_MS = 1_800_000_000_000
PRODUCER_IDS = ("p", "a.b[0]", "#x:", "é")

_TAILS = [0, 7, POSITION_MAX - 1, POSITION_MAX]

_moments = st.integers(NOW_MS - 2, NOW_MS + 2)
_small = st.integers(0, 3)
_incarnations = st.sampled_from([Incarnation(1), Incarnation(2**63 - 1)])
_types = st.sampled_from(["text/plain", "application/json", "text/plain; charset=utf-8", "Text/HTML"])
_stamps = st.builds(ProducerStamp, st.sampled_from(PRODUCER_IDS), _small, _small)
_seqs = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), min_size=1, max_size=3)
_spans = st.lists(st.builds(Span, _incarnations, st.just(0), st.just(3)), max_size=2).map(tuple)
_sources = st.sampled_from([StreamName("a/b"), StreamName("a.b[0]#")])
_cursors = st.builds(SourcePosition, _incarnations, _small)
_full_estuary = {
    StreamName(f"s/{number}"): SourcePosition(Incarnation(1), 0) for number in range(SOURCES_PER_ESTUARY_MAX)
}
_origins = st.builds(ForkOrigin, st.just(StreamName("a/b")), _incarnations, _small, _small, _small, st.booleans())
_stream_tags = st.builds(
    lambda incarnation, tail, suffix: b'"%x:0:%d%s"' % (incarnation, tail, suffix),
    _incarnations,
    st.sampled_from(_TAILS),
    st.sampled_from([b"", b":c"]),
)
_foreign_tags = st.sampled_from([b'""', b'"1:7:7"', b'"01:0:7"', b'"1:0:07"', b'"1:0:7:d"', b'"8000000000000000:0:7"'])
_tags = st.frozensets(_stream_tags | _foreign_tags, max_size=3)
_entity_tags = st.none() | st.just(AnyTag.ANY) | st.builds(TagList, _tags, _tags)


@st.composite
def heads(draw: st.DrawFn) -> Head:
    """A head that a store may have."""
    lifetime: Lifetime = draw(
        st.none() | st.builds(SlidingTtl, _small) | st.builds(ExpiresAt, _moments, st.just("2027-01-01T00:00:00Z"))
    )
    live_until_ms = None
    if isinstance(lifetime, SlidingTtl):
        live_until_ms = draw(_moments)
    elif isinstance(lifetime, ExpiresAt):
        live_until_ms = lifetime.at_ms
    producers = draw(st.dictionaries(st.sampled_from(PRODUCER_IDS), st.builds(ProducerState, _small, _small)))
    closed, origin = draw(st.booleans()), draw(st.none() | _origins)
    estuary = draw(st.none() | st.sampled_from(EstuaryMode))
    cursors = st.dictionaries(_sources, _cursors) | st.just(_full_estuary)
    full = st.sampled_from([PRODUCERS_PER_STREAM_MAX - 1, PRODUCERS_PER_STREAM_MAX])
    return Head(
        incarnation=draw(_incarnations),
        content_type=draw(_types),
        lifetime=lifetime,
        live_until_ms=live_until_ms,
        tail=draw(st.sampled_from(_TAILS)),
        closed=closed,
        closed_by=draw(st.none() | _stamps) if closed else None,
        stream_seq=draw(st.none() | _seqs),
        producers=producers,
        producer_count=draw(st.just(len(producers)) | full),
        references=draw(st.integers(0, 2)),
        soft_deleted=draw(st.booleans()),
        forked_from=origin,
        lineage=draw(_spans) if origin else (),
        estuary=estuary,
        cursors=draw(cursors) if estuary else {},
        delivered=draw(st.none() | _small),
        is_public=draw(st.booleans()),
        reader_key=draw(st.none() | st.just(ReaderKey("k"))),
        appended_ms=draw(st.none() | _moments),
    )


requirements: st.SearchStrategy[Requirement] = st.one_of(
    st.builds(Exists, st.just(NOW_MS)),
    st.builds(Absent, st.just(NOW_MS)),
    st.builds(Expired, st.just(NOW_MS)),
    st.builds(SameIncarnation, _incarnations),
    st.builds(Open),
    st.builds(HasMediaType, st.sampled_from(["text/plain", "application/json", "text/html"])),
    st.builds(NotFenced, _stamps),
    st.builds(EpochBeginsAtZero, _stamps),
    st.builds(NotDuplicate, _stamps),
    st.builds(NoGap, _stamps),
    st.builds(RoomForProducer, st.sampled_from(PRODUCER_IDS)),
    st.builds(SeqAfter, _seqs),
    st.builds(RoomAtTail, st.integers(1, 2)),
    st.builds(PreconditionsHold, st.builds(Preconditions, _entity_tags, _entity_tags)),
    st.builds(IsEstuary, st.none() | st.sampled_from(EstuaryMode)),
    st.builds(NotFollowing, _sources, _incarnations),
    st.builds(RoomForSource, _sources),
    st.builds(CursorAt, _sources, _cursors),
    st.builds(DeliveredBefore, _small),
)
