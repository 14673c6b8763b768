"""The results of creating and deleting a stream, the same for HTTP and for a program that embeds the server."""

from dataclasses import dataclass

from fluvial.model.append_result import Rejection, not_found_or_gone, precondition_failed
from fluvial.model.command import Create
from fluvial.model.commit import (
    Absent,
    Applied,
    Exists,
    Expired,
    HasMediaType,
    Outcome,
    PreconditionsHold,
    SameIncarnation,
    Unmet,
)
from fluvial.model.content_type import DEFAULT_CONTENT_TYPE, media_type
from fluvial.model.entity_tag import stream_etag
from fluvial.model.errors import ErrorCode
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.lifetime import same_lifetime
from fluvial.model.offset import Offset, ReservedOffset, birth_us_at


@dataclass(frozen=True, slots=True)
class Created:
    """The stream exists as it was asked for; `is_new` is false if it did before."""

    head: Head
    is_new: bool


def create_result(command: Create, outcome: Outcome) -> Created | Rejection:
    """The answer to a create (spec 4.2, 5.1)."""
    match outcome:
        case Applied(head):
            assert head is not None, "a create leaves a head"
            return Created(head, is_new=True)
        case Unmet(Absent(now_ms), head):
            assert head is not None, "a stream that is not absent has a head"
            return _existing_result(command, head, now_ms)
        case Unmet(PreconditionsHold(), head):
            return precondition_failed(head)
        case Unmet(Exists(now_ms), head) if stream_status(head, now_ms) is StreamStatus.GONE:
            return Rejection(409, ErrorCode.SOURCE_GONE, "the source stream was deleted")
        case Unmet(Exists() | SameIncarnation(), _):
            return Rejection(404, ErrorCode.SOURCE_NOT_FOUND, "there is no source stream at that path")
        case Unmet(HasMediaType(), head):
            assert head is not None, "the source was found before its type was compared"
            message = f"the source stream's content type is {head.content_type}"
            return Rejection(409, ErrorCode.CONTENT_TYPE_MISMATCH, message)
        case Unmet(requirement, _):
            raise AssertionError(f"no create requires {requirement}")


def delete_result(outcome: Outcome) -> Rejection | None:
    """None when the stream was deleted (spec 5.4)."""
    match outcome:
        case Applied():
            return None
        case Unmet(Exists(now_ms) | Expired(now_ms), head):
            return not_found_or_gone(head, now_ms)
        case Unmet(PreconditionsHold(), head):
            return precondition_failed(head)
        case Unmet(requirement, _):
            raise AssertionError(f"no delete requires {requirement}")


def _existing_result(command: Create, head: Head, now_ms: int) -> Created | Rejection:
    if stream_status(head, now_ms) is StreamStatus.GONE:
        message = "a deleted stream still has forks, so its path cannot be used again yet"
        return Rejection(409, ErrorCode.STREAM_EXISTS, message)
    # Preconditions are evaluated before the request is carried out, and comparing the configuration is what a PUT does
    # to an existing stream.
    if not command.preconditions.hold(stream_etag(head)):
        return precondition_failed(head)
    difference = _difference(command, head)
    if difference is None:
        return Created(head, is_new=False)
    fields = (("stream-closed", "true"),) if head.closed else ()
    message = f"a stream with another {difference} exists at this path"
    return Rejection(409, ErrorCode.STREAM_EXISTS, message, fields)


def _difference(command: Create, head: Head) -> str | None:
    """The first part of the configuration in which an existing stream differs from the command."""
    content_type = command.content_type or (head.content_type if command.fork else DEFAULT_CONTENT_TYPE)
    if media_type(content_type) != media_type(head.content_type):
        return "content type"
    inherits = head.forked_from is not None and head.forked_from.inherits_lifetime
    if not same_lifetime(command.lifetime, None if inherits else head.lifetime):
        return "lifetime"
    if command.closed is not head.closed:
        return "closure status"
    if command.is_public is not head.is_public:
        return "privacy"
    return _fork_difference(command, head)


def _fork_difference(command: Create, head: Head) -> str | None:
    if (command.fork is None) is not (head.forked_from is None):
        return "origin"
    if command.fork is None or head.forked_from is None:
        return None
    if command.fork.source != head.forked_from.source:
        return "source"
    position = head.forked_from.fork_offset
    match command.fork.fork_offset:
        case None:  # the source's tail when the fork was created, which may have been any position
            is_same = True
        case ReservedOffset.BEGINNING:
            is_same = position == 0
        case offset:
            is_same = offset == Offset(birth_us_at(head, position), position)
    return None if is_same and command.fork.sub_offset == head.forked_from.sub_offset else "fork offset"
