"""Estuaries: streams that other streams flow into (fan-in streams). They are created, subscribed and deleted here.

- An estuary's head has a cursor for each source that it follows. A source lists its followers apart from its head.
- Each operation is a sequence of commits, any of which may be repeated: a client that is not answered asks again.
"""

from dataclasses import dataclass

from fluvial.clock import Clock
from fluvial.fanout.deliveries import Deliveries
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
    """An estuary as a client asks for it; None where any value will do."""

    name: StreamName
    mode: EstuaryMode | None = None
    content_type: str | None = None
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class EnsuredEstuary:
    """The estuary exists; `is_new` when this call has created it."""

    head: Head
    is_new: bool


@dataclass(frozen=True, slots=True)
class FollowedSource:
    """The estuary follows a source: deliveries begin at `cursor`; `is_new` when it did not follow it before."""

    estuary: Head
    cursor: SourcePosition
    is_new: bool


class Estuaries:
    """The estuaries of one store."""

    def __init__(self, store: Store, clock: Clock, deliveries: Deliveries) -> None:
        """`deliveries` copy to a new follower what was appended while it began to follow."""
        self._store, self._clock, self._deliveries = store, clock, deliveries

    async def ensure(self, wanted: WantedEstuary) -> EnsuredEstuary | Rejection:
        """Create an estuary, or confirm that the existing one is as wanted."""
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
                assert head is not None, "a creation leaves a head"
                return EnsuredEstuary(head, is_new=True)
            case Unmet(Absent(), head):
                assert head is not None, "a stream that is not absent has a head"
                return _confirm(wanted, head, now_ms)
            case Unmet(requirement, _):
                raise AssertionError(f"the creation of an estuary does not require {requirement}")

    async def follow(self, name: StreamName, wanted: WantedEstuary) -> FollowedSource | Rejection:
        """Let an estuary follow a stream from its tail on; repeated, it changes nothing.

        1. The source is marked as followed: from now on its appends are delivered to its listed followers.
        2. The estuary's cursor for the source is set to the source's tail.
        3. The estuary is listed among the source's followers.
        4. It is delivered to once. An append between steps 1 and 3 was delivered to the followers listed at the time,
           and marked as delivered; without this step the estuary would lack it until the next append.
        Each step may be repeated, so that a call that fails in between is made good by the next one.
        """
        source = await self._mark_followed(name)
        if isinstance(source, Rejection):
            return source
        if wanted.content_type is None:
            wanted = WantedEstuary(wanted.name, wanted.mode, source.content_type, wanted.ttl_seconds)
        ensured = await self.ensure(wanted)
        if isinstance(ensured, Rejection):
            return ensured
        mode = ensured.head.estuary
        assert mode is not None, "an estuary has a mode"
        outcome = await self._store.apply(wanted.name, plan_follow(name, source, mode, self._clock.now_ms()))
        if isinstance(outcome, Unmet) and not isinstance(outcome.requirement, NotFollowing):
            return _reject_follow(outcome)
        assert outcome.head is not None, "an estuary that follows has a head"
        follower = Follower(wanted.name, mode, self._clock.new_subscription_id())
        await self._store.add_follower(source.incarnation, follower)
        now = await self._store.head(name)
        is_same = now is not None and now.incarnation == source.incarnation
        if now is not None and is_same and await self._deliveries.deliver_to(Source(name, now), [follower]):
            raise StoreUnavailable  # the client repeats the call; the next append may be far away
        cursor = outcome.head.cursors[name]
        return FollowedSource(outcome.head, cursor, is_new=isinstance(outcome, Applied))

    async def unfollow(self, name: StreamName, estuary: StreamName) -> Rejection | None:
        """Let an estuary stop following a stream; the bytes that it has stay."""
        head = await self._store.head(estuary)
        if head is not None and name in head.cursors:
            await self._remove_from_list(head.cursors[name], estuary)
        outcome = await self._store.apply(estuary, plan_unfollow(name, self._clock.now_ms()))
        return _reject_unmet(outcome) if isinstance(outcome, Unmet) else None

    async def head(self, estuary: StreamName) -> Head | Rejection:
        """An estuary's head; this does not renew its time to live."""
        head, now_ms = await self._store.head(estuary), self._clock.now_ms()
        if head is None or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            return not_found_or_gone(head, now_ms)
        return head if head.estuary is not None else _reject_plain_stream()

    async def touch(self, estuary: StreamName) -> Head | Rejection:
        """Renew an estuary's time to live."""
        head = await self.head(estuary)
        if isinstance(head, Rejection):
            return head
        outcome = await self._store.apply(estuary, plan_renewal(self._clock.now_ms()))
        if isinstance(outcome, Unmet):
            return _reject_unmet(outcome)
        assert outcome.head is not None, "a renewal leaves a head"
        return outcome.head

    async def delete(self, estuary: StreamName) -> Rejection | None:
        """Delete an estuary and its subscriptions."""
        head = await self.head(estuary)
        if isinstance(head, Rejection):
            return head
        for cursor in head.cursors.values():
            await self._remove_from_list(cursor, estuary)
        outcome = await self._store.apply(estuary, plan_delete(self._clock.now_ms()))
        return _reject_unmet(outcome) if isinstance(outcome, Unmet) else None

    async def _mark_followed(self, name: StreamName) -> Head | Rejection:
        """Mark a stream as one whose appends are delivered; its head."""
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
        assert outcome.head is not None, "a stream that is marked as followed has a head"
        return outcome.head

    async def _remove_from_list(self, cursor: SourcePosition, estuary: StreamName) -> None:
        follower = await self._store.follower(cursor.incarnation, estuary)
        if follower is not None:
            await self._store.remove_follower(cursor.incarnation, follower)


def _confirm(wanted: WantedEstuary, head: Head, now_ms: int) -> EnsuredEstuary | Rejection:
    if stream_status(head, now_ms) is not StreamStatus.EXISTS:
        return not_found_or_gone(head, now_ms)
    if head.estuary is None:
        return _reject_plain_stream()
    if wanted.mode is not None and wanted.mode is not head.estuary:
        return Rejection(409, ErrorCode.STREAM_EXISTS, f"the estuary's mode is {head.estuary}")
    return EnsuredEstuary(head, is_new=False)


def _reject_follow(outcome: Unmet) -> Rejection:
    match outcome.requirement:
        case HasMediaType():
            assert outcome.head is not None, "an estuary exists whose content type was compared"
            message = f"the estuary's content type is {outcome.head.content_type}, and its mode is raw"
            return Rejection(409, ErrorCode.CONTENT_TYPE_MISMATCH, message)
        case RoomForSource():
            message = f"an estuary may follow up to {SOURCES_PER_ESTUARY_MAX} streams"
            return Rejection(409, ErrorCode.TOO_MANY_SOURCES, message)
        case _:
            return _reject_unmet(outcome)


def _reject_unmet(outcome: Unmet) -> Rejection:
    match outcome.requirement:
        case Exists(now_ms):
            return not_found_or_gone(outcome.head, now_ms)
        case IsEstuary():
            return _reject_plain_stream()
        case requirement:
            raise AssertionError(f"no commit on an existing estuary requires {requirement}")


def _reject_plain_stream() -> Rejection:
    return Rejection(409, ErrorCode.NOT_AN_ESTUARY, "the stream at this path is not an estuary")
