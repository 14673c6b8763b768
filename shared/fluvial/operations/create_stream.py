"""Creates streams. A fork's source is loaded first, because the fork inherits from it."""

from dataclasses import replace

from fluvial.clock import Clock
from fluvial.model.command import Create, ForkPoint
from fluvial.model.commit import Absent, Exists, HasMediaType, Outcome, PreconditionsHold, Unmet
from fluvial.model.content_type import media_type
from fluvial.model.errors import ErrorCode, RequestError, StreamVanished
from fluvial.model.head import Head
from fluvial.model.plan import ForkPosition, fork_offset_position, plan_create, plan_fork, sub_offset_position
from fluvial.storage.contract import Store


async def create_stream(store: Store, clock: Clock, command: Create) -> Outcome:
    """Create the stream; Unmet with the existing one if there is one. Raises RequestError for an impossible fork."""
    now_ms = clock.now_ms()
    if command.preconditions.if_match is not None:
        return await _reject_or_confirm(store, command, Absent(now_ms))
    command = replace(command, reader_key=clock.new_reader_key())
    if command.fork is None:
        return await store.apply(command.name, plan_create(command, clock.new_incarnation(), now_ms))
    absent, existing = Absent(now_ms), await store.head(command.name)
    if not absent.holds(existing):
        return Unmet(absent, existing)
    exists, source = Exists(now_ms), await store.head(command.fork.source)
    if source is None or not exists.holds(source):
        return Unmet(exists, source)
    if command.content_type is not None:
        same_type = HasMediaType(media_type(command.content_type))
        if not same_type.holds(source):
            return Unmet(same_type, source)
    fork_offset = fork_offset_position(command, source)
    try:
        position = await _fork_position(store, source, fork_offset, command.fork)
    except StreamVanished:
        return Unmet(exists, None)
    return await store.apply(
        command.name, plan_fork(command, ForkPosition(source, fork_offset, position), clock.new_incarnation(), now_ms)
    )


async def _reject_or_confirm(store: Store, command: Create, absent: Absent) -> Unmet:
    """The outcome of a PUT with If-Match. It creates nothing, because an absent stream has no tag that could match."""
    head = await store.head(command.name)
    return Unmet(PreconditionsHold(command.preconditions), None) if absent.holds(head) else Unmet(absent, head)


async def _fork_position(store: Store, source: Head, fork_offset: int, fork: ForkPoint) -> int:
    """The position where the fork diverges, in the batch that begins at the fork offset."""
    if fork_offset == source.tail:
        return sub_offset_position(fork_offset, fork.sub_offset, source.content_type, b"")
    batch = await store.read(fork.source, source, fork_offset, 1)
    if batch.start != fork_offset:
        raise RequestError(
            ErrorCode.UNKNOWN_FORK_OFFSET, "Stream-Fork-Offset is not between two of the source's batches"
        )
    return sub_offset_position(fork_offset, fork.sub_offset, source.content_type, batch.data)
