"""The protocol's spelling of subscriptions: bodies of requests, answers, webhooks and wake events (spec 6 and 7)."""

from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import msgspec

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import SAFE_INTEGER_MAX, WORKER_NAME_BYTES_MAX
from fluvial.model.names import STREAM_ROOT
from fluvial.model.offset import Offset, ReservedOffset, encode_offset, parse_offset
from fluvial.model.subscriptions.configuration import (
    Configuration,
    ConfigurationFields,
    invalid,
    normalize,
    require_streams_max,
)
from fluvial.model.subscriptions.moves import Ack, Progress, Refusal
from fluvial.model.subscriptions.pattern import StreamPath, parse_path
from fluvial.model.subscriptions.state import BEGINNING, Link, Subscription, Wake, is_after

T = TypeVar("T")


class _Claim(msgspec.Struct, frozen=True):
    worker: str


class _Streams(msgspec.Struct, frozen=True):
    streams: tuple[str, ...]


class AckFields(msgspec.Struct, frozen=True):
    """An ack as it comes; `path` is another spelling of `stream`."""

    offset: str
    stream: str | None = None
    path: str | None = None


class WakeRequest(msgspec.Struct, frozen=True):
    """The body of a callback, an ack or a release."""

    wake_id: str
    generation: int
    acks: tuple[AckFields, ...] = ()
    done: bool = False

    def progress(self) -> Progress:
        """What was processed. Raises RequestError."""
        return Progress(tuple(_parse_ack(ack) for ack in self.acks), self.done)


class _Done(msgspec.Struct, frozen=True):
    done: bool = False


_DONE: Final = msgspec.json.Decoder(_Done)


def parse_configuration(body: bytes) -> Configuration:
    """Parse the body of a PUT. Raises RequestError."""
    return normalize(_decode(body, ConfigurationFields))


def parse_worker(body: bytes) -> str:
    """Parse the body of a claim. Raises RequestError."""
    worker = _decode(body, _Claim).worker
    if not worker or len(worker.encode()) > WORKER_NAME_BYTES_MAX:
        raise invalid(f"worker is a text of up to {WORKER_NAME_BYTES_MAX} bytes")
    return worker


def parse_streams(body: bytes) -> tuple[StreamPath, ...]:
    """Parse the paths of explicit streams to add. Raises RequestError."""
    streams = _decode(body, _Streams).streams
    if not streams:
        raise invalid("streams is a list of stream paths that is not empty")
    require_streams_max(len(streams))  # before they are parsed
    return tuple(dict.fromkeys(map(parse_path, streams)))


def parse_wake_request(body: bytes) -> WakeRequest:
    """Parse the body of a callback, an ack or a release. Raises RequestError."""
    request = _decode(body, WakeRequest)
    if not 0 <= request.generation <= SAFE_INTEGER_MAX:
        raise invalid("generation is not one of a wake")
    return request


def _parse_ack(ack: AckFields) -> Ack:
    path = ack.stream if ack.stream is not None else ack.path
    if path is None:
        raise invalid("an ack has a stream and an offset")
    if ack.offset == ReservedOffset.BEGINNING.value:  # as `acked_offset` has it: nothing is processed yet
        return Ack(parse_path(path), BEGINNING)
    try:
        offset = parse_offset(ack.offset)
    except RequestError as exc:
        message = "the offset of an ack is not one that this server issues"
        raise RequestError(ErrorCode.INVALID_OFFSET, message, 409) from exc
    return Ack(parse_path(path), BEGINNING if offset is ReservedOffset.BEGINNING else offset)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise invalid(f"the body does not have the protocol's form: {exc}") from exc


def is_done_answer(body: bytes) -> bool:
    """Whether a receiver has answered `{"done": true}` (spec 7.1)."""
    try:
        return _DONE.decode(body).done
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def offset_text(offset: Offset) -> str:
    """The spelling of an acked offset, which a worker may read from."""
    return ReservedOffset.BEGINNING.value if offset == BEGINNING else encode_offset(offset.born_us, offset.position)


def timestamp(moment_ms: int) -> str:
    """A time in RFC 3339, in UTC and with milliseconds."""
    return datetime.fromtimestamp(moment_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _link_type(link: Link) -> str:
    return "explicit" if link.is_explicit else "glob"


def id_text(subscription_id: str) -> str:
    """An id as bodies have it: the client's own text. URLs and keys have the canonical percent-encoded one."""
    return unquote(subscription_id)


def control_url(subscription: Subscription, path: str) -> str:
    """The URL of one of the protocol's routes for the subscription's stream root."""
    return f"{subscription.base_url}{STREAM_ROOT}{subscription.root}__ds/{path}"


def callback_url(subscription: Subscription) -> str:
    """Where a webhook's receiver acks."""
    return control_url(subscription, f"subscriptions/{subscription.id}/callback")


def subscription_fields(subscription: Subscription, kid: str) -> dict[str, Any]:
    """The body of a GET (spec 6.3); `kid` is the active key that signs webhooks.

    `generation`, `failures` and `next_attempt_at` are this server's own.
    """
    configuration = subscription.configuration
    webhook: dict[str, Any] | None = None
    if configuration.webhook_url is not None:
        signing = {"alg": "ed25519", "kid": kid, "jwks_url": control_url(subscription, "jwks.json")}
        webhook = {"url": configuration.webhook_url, "signing": signing}
    retry_at_ms = subscription.retry_at_ms
    return {
        "id": id_text(subscription.id),
        "subscription_id": id_text(subscription.id),
        "type": configuration.type.value,
        "pattern": configuration.pattern,
        "streams": [
            {"path": path, "link_type": _link_type(link), "acked_offset": offset_text(link.acked)}
            for path, link in subscription.links.items()
        ],
        "webhook": webhook,
        "wake_stream": configuration.wake_stream,
        "lease_ttl_ms": configuration.lease_ms,
        "created_at": timestamp(subscription.created_ms),
        "status": "failed" if subscription.is_failed else "active",
        "description": configuration.description,
        "generation": subscription.generation,
        "failures": subscription.failure_count,
        "next_attempt_at": None if retry_at_ms is None else timestamp(retry_at_ms),
    }


def wake_streams(subscription: Subscription, wake: Wake) -> list[dict[str, Any]]:
    """The streams of a wake's snapshot: those that had pending work. The automatic ack is of exactly these tails."""
    links = subscription.links
    return [
        {
            "path": path,
            "link_type": _link_type(links[path]),
            "acked_offset": offset_text(links[path].acked),
            "tail_offset": encode_offset(tail.born_us, tail.position),
            "has_pending": is_after(tail, links[path].acked),
        }
        for path, tail in wake.snapshot.items()
        if path in links
    ]


def webhook_body(subscription: Subscription, wake: Wake, token: str) -> bytes:
    """The body of a webhook (spec 7.1)."""
    return msgspec.json.encode(
        {
            "subscription_id": id_text(subscription.id),
            "wake_id": wake.wake_id,
            "generation": subscription.generation,
            "streams": wake_streams(subscription, wake),
            "callback_url": callback_url(subscription),
            "callback_token": token,
        }
    )


def claim_fields(subscription: Subscription, wake: Wake, token: str) -> dict[str, Any]:
    """The body of the answer to a claim (spec 7.2)."""
    return {
        "wake_id": wake.wake_id,
        "generation": subscription.generation,
        "token": token,
        "streams": wake_streams(subscription, wake),
        "lease_ttl_ms": subscription.configuration.lease_ms,
    }


def wake_event(subscription: Subscription, wake: Wake, now_ms: int) -> bytes:
    """The event that a wake stream gets (spec 7.2)."""
    return msgspec.json.encode(
        {
            "type": "wake",
            "subscription_id": id_text(subscription.id),
            "stream": next(iter(wake.snapshot), ""),
            "generation": subscription.generation,
            "ts": now_ms,
        }
    )


def refusal_fields(refusal: Refusal) -> dict[str, Any]:
    """The body of a refusal; "error.current_holder" and "error.generation" are those of the lease (spec 7.2)."""
    error: dict[str, Any] = {"code": refusal.code.value, "message": refusal.message}
    if refusal.holder is not None:
        error |= {"current_holder": refusal.holder, "generation": refusal.generation}
    return {"error": error}
