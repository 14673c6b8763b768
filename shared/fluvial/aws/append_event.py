"""The append function: an event that asks for one append is carried out, without HTTP.

- A rejection is a result, a fault raises: Lambda repeats an asynchronous invocation that raises, and the same append
  would be rejected again.
- An event that is no append at all raises, too: it comes from a service that reads no result, and would take one for
  success.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable
from typing import Final

import msgspec

from fluvial.access.project_cache import ProjectCache
from fluvial.aws.append_message import JsonObject, build_rejection, encode_result
from fluvial.clock import Clock
from fluvial.lambda_client import AppendAccepted, AppendEvent, AppendResult
from fluvial.model.append_result import Appended, Rejection, append_result
from fluvial.model.command import Append, Close
from fluvial.model.content_type import JSON_MEDIA_TYPE
from fluvial.model.errors import ErrorCode, FluvialError, RequestError
from fluvial.model.limits import IDEMPOTENCY_KEY_LENGTH_MAX
from fluvial.model.names import StreamName, parse_name
from fluvial.model.offset import offset_token
from fluvial.model.plan import plan_write
from fluvial.storage.contract import IdempotentAppender, IdempotentOutcome
from fluvial.wire.request import producer_stamp, write_command

_FIELDS: Final = frozenset(AppendEvent.__struct_encode_fields__)


class NotAnAppendError(FluvialError):
    """The event has none of an append's fields."""


async def answer_append(
    store: IdempotentAppender,
    clock: Clock,
    project_cache: ProjectCache,
    event: object,
    on_append: Callable[[int], None] = lambda _: None,
) -> JsonObject:
    """Carry out an append; its encoded result. `on_append` is told the bytes of one that was applied.

    Raises StoreUnavailable: nothing was written. StoreUncertain: it may have been; with a producer or a key the event
    may be sent again. NotAnAppendError.
    """
    return encode_result(await _append(store, clock, project_cache, event, on_append))


async def _append(
    store: IdempotentAppender,
    clock: Clock,
    project_cache: ProjectCache,
    event: object,
    on_append: Callable[[int], None],
) -> AppendResult:
    try:
        command, key = _parse(event)
        await _check_project(project_cache, command.name)
    except RequestError as exc:
        return build_rejection(exc.code, exc.message)
    commit = plan_write(command, clock.now_ms())
    if key is None or isinstance(command, Close):  # a repeated close changes nothing
        result = IdempotentOutcome(await store.apply(command.name, commit), is_repeat=False)
    else:
        result = await store.apply_idempotently(command.name, commit, key)
    match append_result(command, result.outcome):
        case Appended(head, is_duplicate):
            is_repeat = is_duplicate or result.is_repeat
            if isinstance(command, Append) and not is_repeat:
                on_append(len(command.data))
            return AppendAccepted(offset_token(head, head.tail), head.closed, is_repeat)
        case Rejection(_, code, message, fields):
            return build_rejection(code, message, fields)


async def _check_project(project_cache: ProjectCache, name: StreamName) -> None:
    """A caller whom IAM lets invoke the function may append to every project, but the project must exist."""
    if await project_cache.is_open():
        return
    project, _, stream = name.partition("/")
    if not stream or await project_cache.find(project) is None:
        raise RequestError(ErrorCode.PROJECT_NOT_FOUND, "the stream's path does not begin with a project's name")


def _parse(event: object) -> tuple[Append | Close, str | None]:
    """The command of an event, and its idempotency key. Raises RequestError, NotAnAppendError."""
    if not isinstance(event, dict) or (event and not _FIELDS & event.keys()):
        raise NotAnAppendError("the event is no append; publish through the subscription function")
    try:
        append = msgspec.convert(event, AppendEvent)
    except msgspec.ValidationError as exc:
        raise RequestError(ErrorCode.MALFORMED_REQUEST, f"the event is not an append: {exc}") from exc
    texts = (append.stream_seq, append.producer.id if append.producer else None)
    if any(text is not None and not _is_header_text(text) for text in texts):
        raise RequestError(ErrorCode.MALFORMED_HEADER, "producer.id and streamSeq must be Latin-1 without controls")
    key = append.idempotency_key
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise RequestError(
            ErrorCode.MALFORMED_REQUEST, f"idempotencyKey must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters"
        )
    body, content_type = _decode_body(append)
    producer = append.producer
    command = write_command(
        parse_name(append.stream),
        body,
        content_type=content_type,
        closes=append.close,
        stream_seq=append.stream_seq,
        producer=None if producer is None else producer_stamp(producer.id, producer.epoch, producer.seq),
    )
    return command, key


def _decode_body(append: AppendEvent) -> tuple[bytes, str | None]:
    """The body of an append, and its content type."""
    if append.payload_base64 is not None:
        if append.payload is not None:
            raise RequestError(ErrorCode.MALFORMED_REQUEST, "payload and payloadBase64 exclude each other")
        try:
            return b64decode(append.payload_base64, validate=True), append.content_type
        except (binascii.Error, ValueError) as exc:
            raise RequestError(ErrorCode.MALFORMED_REQUEST, "payloadBase64 is not base64") from exc
    if append.payload is None:
        return b"", append.content_type
    if isinstance(append.payload, str):
        return append.payload.encode(errors="surrogatepass"), append.content_type
    return msgspec.json.encode(append.payload), append.content_type or JSON_MEDIA_TYPE


def _is_header_text(text: str) -> bool:
    return all(" " <= char <= "~" or "\xa0" <= char <= "\xff" for char in text)
