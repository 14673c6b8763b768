"""The result of an append or a close, the same for HTTP and for direct invocation: `Appended` or `Rejection`."""

from dataclasses import dataclass

from msgspec.structs import replace

from fluvial.model.command import Append, Close
from fluvial.model.commit import (
    EpochBeginsAtZero,
    Exists,
    HasMediaType,
    NoGap,
    NotDuplicate,
    NotFenced,
    Open,
    Outcome,
    PreconditionsHold,
    Requirement,
    RoomAtTail,
    RoomForProducer,
    SeqAfter,
    Unmet,
    expected_seq,
)
from fluvial.model.entity_tag import stream_etag
from fluvial.model.errors import ErrorCode
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.offset import offset_token


@dataclass(frozen=True, slots=True)
class Appended:
    """The stream has the append or the close. If it is a duplicate, an earlier request has made it.

    `producer_seq` is the last sequence number that was accepted from the producer, None without a producer.
    """

    head: Head
    is_duplicate: bool
    producer_seq: int | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Nothing was changed, and the same request would be rejected again. `fields` are header fields of the answer."""

    status: int
    code: ErrorCode
    message: str
    fields: tuple[tuple[str, str], ...] = ()


def append_result(command: Append | Close, outcome: Outcome) -> Appended | Rejection:
    """The answer to an append or a close (spec 5.2, 5.2.1, 5.3)."""
    stamp = command.producer
    if not isinstance(outcome, Unmet):
        assert outcome.head is not None, "an append leaves a head"
        return Appended(outcome.head, is_duplicate=False, producer_seq=None if stamp is None else stamp.seq)
    head = outcome.head
    if isinstance(outcome.requirement, Exists):
        return not_found_or_gone(head, outcome.requirement.now_ms)
    assert head is not None, "only Exists fails without a head"
    match outcome.requirement:
        case Open():
            return _closed_stream_result(command, head)
        case HasMediaType():
            message = f"the stream's content type is {head.content_type}"
            return Rejection(409, ErrorCode.CONTENT_TYPE_MISMATCH, message)
        case SeqAfter():
            message = "sequence conflict: Stream-Seq is not greater than the last one that was appended"
            return Rejection(409, ErrorCode.STREAM_SEQ_REGRESSION, message)
        case PreconditionsHold():
            return precondition_failed(head)
        case RoomAtTail():
            return Rejection(413, ErrorCode.STREAM_FULL, "the stream cannot grow any further")
        case _:
            return _producer_result(outcome.requirement, head)


def not_found_or_gone(head: Head | None, now_ms: int) -> Rejection:
    """404 for an absent stream, 410 for a deleted one that is kept for its forks."""
    if stream_status(head, now_ms) is StreamStatus.GONE:
        return Rejection(410, ErrorCode.GONE, "the stream was deleted")
    return Rejection(404, ErrorCode.NOT_FOUND, "there is no stream at this path")


def precondition_failed(head: Head | None) -> Rejection:
    """412, with the stream's present tag if it exists."""
    fields = () if head is None else (("etag", stream_etag(head).decode()),)
    return Rejection(412, ErrorCode.PRECONDITION_FAILED, "If-Match or If-None-Match does not let this pass", fields)


def _closed_stream_result(command: Append | Close, head: Head) -> Appended | Rejection:
    stamp = command.producer
    # "If the (producerId, epoch, seq) matches the request that closed the stream, return 204 No Content
    # (duplicate/idempotent success) with Stream-Closed: true" -- spec 5.2.1
    if stamp is not None and head.closed_by == stamp:
        return Appended(head, is_duplicate=True, producer_seq=stamp.seq)
    if stamp is None and isinstance(command, Close):
        # "[...] if the request is a state-changing operation that appears to have already been applied to the
        # selected representation, the origin server MAY respond with a 2xx" -- RFC 9110, 13.1.1
        states = (head, replace(head, closed=False))
        if any(command.preconditions.hold(stream_etag(state)) for state in states):
            return Appended(head, is_duplicate=True, producer_seq=None)
        return precondition_failed(head)
    fields = (("stream-next-offset", offset_token(head, head.tail)), ("stream-closed", "true"))
    return Rejection(409, ErrorCode.STREAM_CLOSED, "the stream is closed", fields)


def _producer_result(requirement: Requirement, head: Head) -> Appended | Rejection:
    match requirement:
        case NotDuplicate(stamp):
            return Appended(head, is_duplicate=True, producer_seq=head.producers[stamp.producer_id].seq)
        case NotFenced(stamp):
            current = ("producer-epoch", str(head.producers[stamp.producer_id].epoch))
            return Rejection(403, ErrorCode.PRODUCER_FENCED, "a later epoch of this producer has begun", (current,))
        case EpochBeginsAtZero():
            return Rejection(400, ErrorCode.PRODUCER_EPOCH_START, "a new epoch must begin with Producer-Seq 0")
        case NoGap(stamp):
            seqs = (
                ("producer-expected-seq", str(expected_seq(stamp, head))),
                ("producer-received-seq", str(stamp.seq)),
            )
            return Rejection(409, ErrorCode.PRODUCER_GAP, "an earlier batch of this producer is missing", seqs)
        case RoomForProducer():
            return Rejection(409, ErrorCode.TOO_MANY_PRODUCERS, "the stream has as many producers as it can keep")
        case _:
            raise AssertionError(f"no append requires {requirement}")
