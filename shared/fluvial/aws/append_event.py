"""Direct invocation: an event that asks for one append, and its answer. No HTTP, and no request made up for it.

A refusal is a value, so that whoever invoked asynchronously does not try again what would be refused again; a fault
raises, so that it is tried again.
"""

import binascii
from base64 import b64decode
from typing import Any, Final

import msgspec

from fluvial.access.project_cache import ProjectCache
from fluvial.clock import Clock
from fluvial.model.append_result import Appended, Rejection, append_answer
from fluvial.model.command import Append, Close
from fluvial.model.content_type import JSON_MEDIA_TYPE
from fluvial.model.errors import ErrorCode, FluvialError, RequestError
from fluvial.model.limits import IDEMPOTENCY_KEY_LENGTH_MAX
from fluvial.model.names import StreamName, parse_name
from fluvial.model.offset import offset_token
from fluvial.model.plan import plan_append, plan_close
from fluvial.storage.contract import IdempotentAppender, IdempotentOutcome
from fluvial.wire.request import Write, producer_stamp, write_command


class DirectProducer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An idempotent producer's place (spec 5.2.1)."""

    id: str
    epoch: int
    seq: int


class NoAppendError(FluvialError):
    """An event with nothing of an append in it: of a service that reads no answer, and would take one for success."""


class AppendEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What is asked for.

    `stream` is the path below /v1/stream/, `{project}/{stream}` once there are projects. The body is `payload` or the
    bytes in `payload_base64`; a payload that is text is the body as it is, any other is JSON. Without a body, `close`
    must be true. What has the same `idempotency_key` is appended to a stream once in 15 days, however often it is
    asked for.
    """

    stream: str
    payload: Any = None
    payload_base64: str | None = None
    content_type: str | None = None
    producer: DirectProducer | None = None
    stream_seq: str | None = None
    close: bool = False
    idempotency_key: str | None = None


#: Codes that say by themselves what they speak of; all others are the protocol's error codes in capitals.
_CODES: Final = {ErrorCode.NOT_FOUND: "STREAM_NOT_FOUND", ErrorCode.GONE: "STREAM_GONE"}

_FIELDS: Final = frozenset(AppendEvent.__struct_encode_fields__)

Answer = dict[str, Any]


async def answer_append(store: IdempotentAppender, clock: Clock, project_cache: ProjectCache, event: object) -> Answer:
    """`{"tailOffset", "closed", "duplicate"?}`, or `{"error": {"code", "message", …}}` for a refusal.

    Raises StoreUnavailable: nothing was written. StoreUncertain: it may have been; with a producer, asking again is
    safe all the same. NoAppendError: whoever has sent the event waits for no answer.
    """
    try:
        command, key = _command(event)
        await _check_project(project_cache, command.name)
    except RequestError as exc:
        return _refused(exc.code, exc.message)
    now_ms = clock.now_ms()
    commit = plan_append(command, now_ms) if isinstance(command, Append) else plan_close(command, now_ms)
    if key is None or isinstance(command, Close):
        once = IdempotentOutcome(await store.apply(command.name, commit), is_repeat=False)
    else:
        once = await store.apply_idempotently(command.name, commit, key)
    match append_answer(command, once.outcome):
        case Appended(head, is_duplicate):
            is_duplicate = is_duplicate or once.is_repeat
            answer: Answer = {"tailOffset": offset_token(head, head.tail), "closed": head.closed}
            return {**answer, "duplicate": True} if is_duplicate else answer
        case Rejection(_, code, message, fields):
            return _refused(code, message, {_camel(name): value for name, value in fields})


async def _check_project(project_cache: ProjectCache, name: StreamName) -> None:
    """Whoever may invoke the function may append to every project; one that is not there is still a mistake."""
    if await project_cache.is_open():
        return
    project, _, stream = name.partition("/")
    if not stream or await project_cache.find(project) is None:
        raise RequestError(ErrorCode.PROJECT_NOT_FOUND, "the stream's path does not begin with a project's name")


def _command(event: object) -> tuple[Append | Close, str | None]:
    if not isinstance(event, dict) or (event and not _FIELDS & event.keys()):
        raise NoAppendError("the event is no append; publish through the subscription function")
    try:
        asked = msgspec.convert(event, AppendEvent)
    except msgspec.ValidationError as exc:
        raise RequestError(ErrorCode.MALFORMED_REQUEST, f"the event is not an append: {exc}") from exc
    texts = (asked.stream_seq, asked.producer.id if asked.producer else None)
    if any(text is not None and not _fits_a_header(text) for text in texts):
        raise RequestError(ErrorCode.MALFORMED_HEADER, "producer.id and streamSeq must be Latin-1 without controls")
    key = asked.idempotency_key
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise RequestError(
            ErrorCode.MALFORMED_REQUEST, f"idempotencyKey must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters"
        )
    body, content_type = _body(asked)
    producer = asked.producer
    command = write_command(
        Write(
            name=parse_name(asked.stream),
            body=body,
            content_type=content_type,
            closes=asked.close,
            stream_seq=asked.stream_seq,
            producer=None if producer is None else producer_stamp(producer.id, producer.epoch, producer.seq),
        )
    )
    return command, key


def _body(asked: AppendEvent) -> tuple[bytes, str | None]:
    if asked.payload_base64 is not None:
        if asked.payload is not None:
            raise RequestError(ErrorCode.MALFORMED_REQUEST, "payload and payloadBase64 exclude each other")
        try:
            return b64decode(asked.payload_base64, validate=True), asked.content_type
        except (binascii.Error, ValueError) as exc:
            raise RequestError(ErrorCode.MALFORMED_REQUEST, "payloadBase64 is not base64") from exc
    if asked.payload is None:
        return b"", asked.content_type
    if isinstance(asked.payload, str):
        return asked.payload.encode(errors="surrogatepass"), asked.content_type
    return msgspec.json.encode(asked.payload), asked.content_type or JSON_MEDIA_TYPE


def _fits_a_header(text: str) -> bool:
    return all(" " <= char <= "~" or "\xa0" <= char <= "\xff" for char in text)


def _refused(code: ErrorCode, message: str, fields: dict[str, str] | None = None) -> Answer:
    return {"error": {"code": _CODES.get(code, code.value.upper()), "message": message, **(fields or {})}}


def _camel(header: str) -> str:
    first, *rest = header.split("-")
    return first + "".join(word.capitalize() for word in rest)
