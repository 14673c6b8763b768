"""A stream of an embedded server, without HTTP: the same commands, commits, reads and deliveries as of a request.

- What a client would get as an error of HTTP is raised as RequestError, with the same code and message.
- There are no tokens, rates and quotas: they are for clients. The limit of a request's body holds.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from fluvial.access.authorizer import Authorization
from fluvial.embed.engine import Engine
from fluvial.embed.values import Appended, Created, Message, StreamInfo, StreamPage, page_messages
from fluvial.fanout.publisher import publish_append
from fluvial.model.append_result import Rejection, append_result, not_found_or_gone
from fluvial.model.command import Create, ForkPoint
from fluvial.model.commit import Unmet
from fluvial.model.content_type import JSON_MEDIA_TYPE, parse_content_type
from fluvial.model.create_result import create_result, delete_result
from fluvial.model.errors import RequestError, StreamVanished
from fluvial.model.head import Head, ProducerStamp, StreamStatus, stream_status
from fluvial.model.lifetime import ExpiresAt, Lifetime, SlidingTtl
from fluvial.model.limits import PAGE_BYTES_MAX
from fluvial.model.names import StreamName, parse_name
from fluvial.model.offset import offset_token, parse_read_from
from fluvial.model.plan import plan_delete, plan_write
from fluvial.operations.create_stream import create_stream
from fluvial.operations.open_read import OpenedRead, load_head_and_renew, resolve_position
from fluvial.server.live_reads import LiveReads, Step
from fluvial.wire.content_coding import body_too_large
from fluvial.wire.request import LiveMode, ReadQuery, parse_fork_offset, parse_lifetime, producer_stamp, write_command

T = TypeVar("T")

#: The authorization of the program's own reads. Not that of an open server, which ends with the first project.
_OWN: Final = Authorization(None)

_FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream by its name, whether it exists or not. Its methods may be called from any event loop.

    All raise RequestError for what cannot be done (its `code` says why), StoreError when the store fails, and NotOpen.
    """

    _engine: Engine
    name: StreamName

    async def create(  # noqa: PLR0913  one name for each thing that a stream begins with
        self,
        *,
        content_type: str | None = None,
        data: bytes | str = b"",
        ttl: int | None = None,
        expires_at: datetime | None = None,
        closed: bool = False,
        public: bool = False,
    ) -> Created:
        """Create the stream, or confirm that it exists with the same configuration.

        `ttl` is in seconds after the last use. `data` is its first append.
        """
        lifetime = _lifetime(ttl, expires_at)
        command = Create(
            name=self.name,
            content_type=_parse_type(content_type),
            body=_to_bytes(data),
            lifetime=lifetime,
            closed=closed,
            is_public=public,
        )
        return await self._engine.call(self._create(command))

    async def fork(  # noqa: PLR0913  likewise
        self,
        name: str,
        *,
        offset: str | None = None,
        sub_offset: int = 0,
        ttl: int | None = None,
        expires_at: datetime | None = None,
        public: bool = False,
    ) -> "Stream":
        """Create a stream that begins with this one's data up to an offset, by default the tail; the new stream.

        `sub_offset` counts messages (bytes, unless the stream is JSON) after the offset.
        """
        fork_offset = None if offset is None else parse_fork_offset(offset)
        command = Create(
            name=parse_name(name),
            content_type=None,
            lifetime=_lifetime(ttl, expires_at),
            fork=ForkPoint(self.name, fork_offset, sub_offset),
            is_public=public,
        )
        await self._engine.call(self._create(command))
        return Stream(self._engine, command.name)

    async def append(
        self,
        data: bytes | str,
        *,
        content_type: str | None = None,
        producer: ProducerStamp | None = None,
        stream_seq: str | None = None,
        close: bool = False,
    ) -> Appended:
        """Append bytes, or text in UTF-8; the content type is the stream's own unless it is given.

        With `close` it is the last append.
        """
        return await self._engine.call(
            self._append(_to_bytes(data), content_type, producer, stream_seq, close=close),
        )

    async def append_json(
        self,
        *messages: object,
        producer: ProducerStamp | None = None,
        stream_seq: str | None = None,
        close: bool = False,
    ) -> Appended:
        """Append messages to a JSON stream, in one step. A message that is a list stays one message."""
        body = msgspec.json.encode(messages)
        return await self._engine.call(self._append(body, JSON_MEDIA_TYPE, producer, stream_seq, close=close))

    async def close(self, *, producer: ProducerStamp | None = None) -> Appended:
        """Close the stream for ever; closing a closed stream changes nothing."""
        return await self._engine.call(self._append(b"", None, producer, None, close=True))

    async def delete(self) -> None:
        """Delete the stream."""
        await self._engine.call(self._delete())

    async def info(self) -> StreamInfo:
        """The stream's metadata. It does not count as a use of the stream."""
        return await self._engine.call(self._info())

    async def read(self, offset: str = "-1") -> StreamPage:
        """A page from an offset on: `-1` is the beginning, `now` the tail."""
        return await self._engine.call(self._read(offset))

    async def follow(self, offset: str = "-1") -> AsyncGenerator[Message]:
        """The messages from an offset on, and new ones as they come, until the stream is closed or the server closes.

        Raises RequestError also when the stream is deleted meanwhile.
        """
        pages = self._pages(offset)
        try:
            while (messages := await self._engine.call(_next_or_none(pages))) is not None:
                for message in messages:
                    yield message
        finally:
            if self._engine.current is not None:
                await self._engine.call(_finish(pages))

    async def _create(self, command: Create) -> Created:
        application = self._engine.application
        _check_size(command.body, application.streams.body_bytes_max)
        streams = application.streams
        result = create_result(command, await create_stream(streams.store, streams.clock, command))
        if isinstance(result, Rejection):
            raise _error(result)
        return Created(offset_token(result.head, result.head.tail), result.is_new)

    async def _append(
        self,
        body: bytes,
        content_type: str | None,
        producer: ProducerStamp | None,
        stream_seq: str | None,
        *,
        close: bool,
    ) -> Appended:
        streams = self._engine.application.streams
        _check_size(body, streams.body_bytes_max)
        if body and content_type is None:
            head = await streams.store.head(self.name)
            content_type = None if head is None else head.content_type
            if head is None:
                raise _error(not_found_or_gone(None, streams.clock.now_ms()))
        command = write_command(
            self.name,
            body,
            content_type=content_type,
            closes=close,
            stream_seq=stream_seq,
            producer=None if producer is None else producer_stamp(producer.producer_id, producer.epoch, producer.seq),
        )
        outcome = await streams.store.apply(self.name, plan_write(command, streams.clock.now_ms()))
        result = append_result(command, outcome)
        if isinstance(result, Rejection):
            raise _error(result)
        report = await publish_append(streams.publisher, command, outcome, streams.clock.now_ms())
        head = result.head
        return Appended(offset_token(head, head.tail), head.closed, result.is_duplicate, report)

    async def _delete(self) -> None:
        streams = self._engine.application.streams
        rejection = delete_result(await streams.store.apply(self.name, plan_delete(streams.clock.now_ms())))
        if rejection is not None:
            raise _error(rejection)

    async def _info(self) -> StreamInfo:
        head = await self._existing_head()
        lifetime = head.lifetime
        return StreamInfo(
            name=self.name,
            content_type=head.content_type,
            offset=offset_token(head, head.tail),
            byte_count=head.tail,
            closed=head.closed,
            public=head.is_public,
            ttl_seconds=lifetime.seconds if isinstance(lifetime, SlidingTtl) else None,
            expires_at=lifetime.text if isinstance(lifetime, ExpiresAt) else None,
        )

    async def _existing_head(self) -> Head:
        streams = self._engine.application.streams
        head, now_ms = await streams.store.head(self.name), streams.clock.now_ms()
        if head is None or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            raise _error(not_found_or_gone(head, now_ms))
        return head

    async def _read(self, offset: str) -> StreamPage:
        live, read = self._engine.application.live, await self._open_read(offset, LiveMode.NONE)
        head = read.head
        try:
            page = await live.pages.at(self.name, head, read.position, PAGE_BYTES_MAX)
        except StreamVanished as exc:
            raise _error(not_found_or_gone(None, live.clock.now_ms())) from exc
        is_at_tail = page.end == head.tail
        return StreamPage(
            page_messages(head, page), offset_token(head, page.end), is_at_tail, is_at_tail and head.closed
        )

    async def _open_read(self, offset: str, live: LiveMode) -> OpenedRead:
        read_from = parse_read_from(offset)
        streams = self._engine.application.streams
        head = await load_head_and_renew(streams.store, streams.clock, self.name)
        if isinstance(head, Unmet):
            raise _error(not_found_or_gone(head.head, streams.clock.now_ms()))
        query = ReadQuery(read_from, live, None, None, is_cache_safe=False)
        return OpenedRead(self.name, head, resolve_position(head, read_from), query, _OWN)

    async def _pages(self, offset: str) -> AsyncGenerator[tuple[Message, ...]]:
        """The messages of each page, until the stream is closed or the server closes."""
        read = await self._open_read(offset, LiveMode.WEBSOCKET)
        session = self._engine.session
        steps, last = _steps(session.application.live, read), None
        while not session.closing.done():
            step = await self._engine.until_closing(_next_or_none(steps))
            if step is None:
                break
            last = step
            if step.page.data:
                yield page_messages(step.head, step.page)
        is_complete = last is not None and last.head.closed and last.page.end == last.head.tail
        if not session.closing.done() and not is_complete:
            head = await self._existing_head()
            if head.incarnation != read.head.incarnation:
                raise _error(not_found_or_gone(None, session.application.streams.clock.now_ms()))


async def _steps(live: LiveReads, read: OpenedRead) -> AsyncIterator[Step]:
    try:
        page = await live.load_first_page(read)
    except StreamVanished as exc:
        raise _error(not_found_or_gone(None, live.clock.now_ms())) from exc
    async for step in live.follow(read, page, _FOREVER):
        yield step


async def _next_or_none(iterator: AsyncIterator[T]) -> T | None:
    return await anext(iterator, None)


def _error(rejection: Rejection) -> RequestError:
    return RequestError(rejection.code, rejection.message, rejection.status, rejection.fields)


def _check_size(body: bytes, byte_count_max: int) -> None:
    if len(body) > byte_count_max:
        raise body_too_large(byte_count_max)


def _to_bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _parse_type(content_type: str | None) -> str | None:
    return parse_content_type(content_type or "")


def _lifetime(ttl: int | None, expires_at: datetime | None) -> Lifetime:
    return parse_lifetime(None if ttl is None else str(ttl), None if expires_at is None else expires_at.isoformat())


async def _finish(pages: AsyncGenerator[T]) -> None:
    await pages.aclose()
