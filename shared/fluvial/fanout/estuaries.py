"""Estuaries: streams that follow others. What an estuary follows is in its head; a source lists who follows it."""

from dataclasses import dataclass

from fluvial.clock import Clock
from fluvial.fanout.publisher import Publisher
from fluvial.fanout.replication import Source
from fluvial.model.append_result import Rejection, not_found_or_gone
from fluvial.model.commit import (
    Absent,
    Applied,
    Exists,
    HasMediaType,
    IsEstuary,
    NotFollowing,
    RoomForSource,
    SameIncarnation,
    Unmet,
)
from fluvial.model.content_type import DEFAULT_CONTENT_TYPE
from fluvial.model.errors import ErrorCode, StoreUnavailable
from fluvial.model.followers import Follower
from fluvial.model.head import EstuaryMode, Head, SourcePosition, StreamStatus, stream_status
from fluvial.model.limits import ESTUARY_TTL_S_DEFAULT, SOURCES_PER_ESTUARY_MAX
from fluvial.model.names import StreamName
from fluvial.model.plan import (
    Estuary,
    plan_delete,
    plan_estuary,
    plan_follow,
    plan_mark_followed,
    plan_renewal,
    plan_unfollow,
)
from fluvial.storage.contract import Store


@dataclass(frozen=True, slots=True)
class WantedEstuary:
    """What an estuary is to be, where something in particular is wanted; it is made if it is not there."""

    name: StreamName
    mode: EstuaryMode | None = None
    content_type: str | None = None
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class EnsuredEstuary:
    """An estuary is there; `is_new` when this call has made it."""

    head: Head
    is_new: bool


@dataclass(frozen=True, slots=True)
class FollowedSource:
    """An estuary follows a source from `cursor` on; `is_new` when it did not before."""

    estuary: Head
    cursor: SourcePosition
    is_new: bool


class Estuaries:
    """Makes, changes and ends estuaries."""

    def __init__(self, store: Store, clock: Clock, publisher: Publisher) -> None:
        """Over an open store; `publisher` fills what begins to follow."""
        self._store, self._clock, self._publisher = store, clock, publisher

    async def open(self, wanted: WantedEstuary) -> EnsuredEstuary | Rejection:
        """Make an estuary, or confirm one that is as wanted."""
        now_ms = self._clock.now_ms()
        estuary = Estuary(
            wanted.mode or EstuaryMode.RAW,
            wanted.content_type or DEFAULT_CONTENT_TYPE,
            wanted.ttl_seconds or ESTUARY_TTL_S_DEFAULT,
            self._clock.new_reader_key(),
        )
        commit = plan_estuary(estuary, self._clock.new_incarnation(), now_ms)
        match await self._store.apply(wanted.name, commit):
            case Applied(head):
                assert head is not None, "a beginning leaves a head"
                return EnsuredEstuary(head, is_new=True)
            case Unmet(Absent(), head):
                assert head is not None, "what is not absent has a head"
                return _confirmed(wanted, head, now_ms)
            case Unmet(requirement, _):
                raise AssertionError(f"no estuary requires {requirement}")

    async def follow(self, name: StreamName, wanted: WantedEstuary) -> FollowedSource | Rejection:
        """Let an estuary follow a stream from its tail on; asked again, nothing changes.

        Each step may be done again, and the order loses nothing: from the first one on appends are delivered to
        whoever follows; from the second one on the estuary knows where it began; with the third it is found.
        """
        source = await self._gained(name)
        if isinstance(source, Rejection):
            return source
        if wanted.content_type is None:
            wanted = WantedEstuary(wanted.name, wanted.mode, source.content_type, wanted.ttl_seconds)
        opened = await self.open(wanted)
        if isinstance(opened, Rejection):
            return opened
        mode = opened.head.estuary
        assert mode is not None, "what was opened is an estuary"
        outcome = await self._store.apply(wanted.name, plan_follow(name, source, mode, self._clock.now_ms()))
        if isinstance(outcome, Unmet) and not isinstance(outcome.requirement, NotFollowing):
            return _not_followed(outcome)
        assert outcome.head is not None, "an estuary that follows has a head"
        follower = Follower(wanted.name, mode, self._clock.new_subscription_id())
        await self._store.add_follower(source.incarnation, follower)
        # What was appended between the first step and the third has passed by the new follower.
        now = await self._store.head(name)
        is_same = now is not None and now.incarnation == source.incarnation
        if now is not None and is_same and await self._publisher.deliver_to(Source(name, now), [follower]):
            raise StoreUnavailable  # what has passed by is not there yet, and the next append may be far
        cursor = outcome.head.cursors[name]
        return FollowedSource(outcome.head, cursor, is_new=isinstance(outcome, Applied))

    async def unfollow(self, name: StreamName, estuary: StreamName) -> Rejection | None:
        """Let an estuary follow a stream no more; what it has stays."""
        head = await self._store.head(estuary)
        if head is not None and name in head.cursors:
            await self._unlisted(head.cursors[name], estuary)
        outcome = await self._store.apply(estuary, plan_unfollow(name, self._clock.now_ms()))
        return _not_an_estuary(outcome) if isinstance(outcome, Unmet) else None

    async def head(self, estuary: StreamName) -> Head | Rejection:
        """An estuary as it is; this does not count as a use."""
        head, now_ms = await self._store.head(estuary), self._clock.now_ms()
        if head is None or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            return not_found_or_gone(head, now_ms)
        return head if head.estuary is not None else _is_a_plain_stream()

    async def touch(self, estuary: StreamName) -> Head | Rejection:
        """Renew an estuary's time to live."""
        head = await self.head(estuary)
        if isinstance(head, Rejection):
            return head
        outcome = await self._store.apply(estuary, plan_renewal(self._clock.now_ms()))
        if isinstance(outcome, Unmet):
            return _not_an_estuary(outcome)
        assert outcome.head is not None, "a renewal leaves a head"
        return outcome.head

    async def end(self, estuary: StreamName) -> Rejection | None:
        """End an estuary and all that it follows."""
        head = await self.head(estuary)
        if isinstance(head, Rejection):
            return head
        for cursor in head.cursors.values():
            await self._unlisted(cursor, estuary)
        outcome = await self._store.apply(estuary, plan_delete(self._clock.now_ms()))
        return _not_an_estuary(outcome) if isinstance(outcome, Unmet) else None

    async def _gained(self, name: StreamName) -> Head | Rejection:
        """The head of a stream that is marked as followed."""
        source, now_ms = await self._store.head(name), self._clock.now_ms()
        if source is None or stream_status(source, now_ms) is not StreamStatus.EXISTS:
            return not_found_or_gone(source, now_ms)
        if source.estuary is not None:
            return Rejection(409, ErrorCode.ESTUARY_AS_SOURCE, "an estuary cannot be followed by another one")
        if source.delivered is not None:
            return source
        outcome = await self._store.apply(name, plan_mark_followed(source, now_ms))
        if isinstance(outcome, Unmet):
            head = None if isinstance(outcome.requirement, SameIncarnation) else outcome.head
            return not_found_or_gone(head, now_ms)
        assert outcome.head is not None, "a stream that gains followers has a head"
        return outcome.head

    async def _unlisted(self, cursor: SourcePosition, estuary: StreamName) -> None:
        follower = await self._store.follower(cursor.incarnation, estuary)
        if follower is not None:
            await self._store.remove_follower(cursor.incarnation, follower)


def _confirmed(wanted: WantedEstuary, head: Head, now_ms: int) -> EnsuredEstuary | Rejection:
    if stream_status(head, now_ms) is not StreamStatus.EXISTS:
        return not_found_or_gone(head, now_ms)
    if head.estuary is None:
        return _is_a_plain_stream()
    if wanted.mode is not None and wanted.mode is not head.estuary:
        return Rejection(409, ErrorCode.STREAM_EXISTS, f"the estuary's mode is {head.estuary}")
    return EnsuredEstuary(head, is_new=False)


def _not_followed(outcome: Unmet) -> Rejection:
    match outcome.requirement:
        case HasMediaType():
            assert outcome.head is not None, "the estuary was found before its type was compared"
            message = f"the estuary's content type is {outcome.head.content_type}, and its mode is raw"
            return Rejection(409, ErrorCode.CONTENT_TYPE_MISMATCH, message)
        case RoomForSource():
            message = f"an estuary may follow up to {SOURCES_PER_ESTUARY_MAX} streams"
            return Rejection(409, ErrorCode.TOO_MANY_SOURCES, message)
        case _:
            return _not_an_estuary(outcome)


def _not_an_estuary(outcome: Unmet) -> Rejection:
    match outcome.requirement:
        case Exists(now_ms):
            return not_found_or_gone(outcome.head, now_ms)
        case IsEstuary():
            return _is_a_plain_stream()
        case requirement:
            raise AssertionError(f"nothing that an estuary is asked for requires {requirement}")


def _is_a_plain_stream() -> Rejection:
    return Rejection(409, ErrorCode.NOT_AN_ESTUARY, "the stream at this path is not an estuary")
