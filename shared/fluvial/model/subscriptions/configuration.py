"""A subscription's configuration: what its creator has asked for, in one normal form (spec 6.2)."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import (
    DESCRIPTION_BYTES_MAX,
    LEASE_MS_DEFAULT,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    LINKS_PER_SUBSCRIPTION_MAX,
    SUBSCRIPTION_ID_LENGTH_MAX,
    WEBHOOK_URL_BYTES_MAX,
)
from fluvial.model.names import RESERVED_SEGMENT, parse_name
from fluvial.model.subscriptions.pattern import StreamPath, matches, parse_path, parse_pattern


class SubscriptionType(StrEnum):
    """How a subscription's workers are woken."""

    WEBHOOK = "webhook"
    PULL_WAKE = "pull-wake"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a subscription is: its hash decides whether a repeated creation confirms it.

    `streams` are the explicit streams of the creation, sorted; links that were added later are not part of it.
    """

    type: SubscriptionType
    pattern: str | None = None
    streams: tuple[StreamPath, ...] = ()
    webhook_url: str | None = None
    wake_stream: StreamPath | None = None
    lease_ms: int = LEASE_MS_DEFAULT
    description: str | None = None

    @property
    def hash(self) -> str:
        """The hash of the normal form (spec 6.2)."""
        # "The hash includes `type`, `pattern`, normalized `streams[]`, delivery configuration, `lease_ttl_ms`, and
        # `description`." -- spec 6.2
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    def matches(self, path: StreamPath) -> bool:
        """Whether the pattern links a stream. A subscription is never woken by its own wake stream.

        Otherwise each wake event would be pending work, and cause the next wake.
        """
        return self.pattern is not None and path != self.wake_stream and matches(self.pattern, path)


class _Webhook(msgspec.Struct, frozen=True):
    url: str


class ConfigurationFields(msgspec.Struct, frozen=True):
    """The body of a PUT, as it comes."""

    type: SubscriptionType
    pattern: str | None = None
    streams: tuple[str, ...] | None = None
    webhook: _Webhook | None = None
    wake_stream: str | None = None
    lease_ttl_ms: int | None = None
    description: str | None = None


def invalid(message: str) -> RequestError:
    """The error of a request that does not have the protocol's form."""
    return RequestError(ErrorCode.INVALID_SUBSCRIPTION_REQUEST, message)


def parse_subscription_id(segment: str) -> str:
    """Parse the id in a path, which may be percent-encoded, into its canonical spelling. Raises RequestError."""
    try:
        name = parse_name(segment)
    except RequestError as exc:
        raise invalid(f"the subscription's id is invalid: {exc.message}") from exc
    if "/" in name or name == RESERVED_SEGMENT or len(name) > SUBSCRIPTION_ID_LENGTH_MAX:
        raise invalid(f"a subscription's id is one path segment of up to {SUBSCRIPTION_ID_LENGTH_MAX} bytes")
    return name


def require_streams_max(stream_count: int) -> None:
    """Raise RequestError if a request has more streams than a subscription may have, repeats included."""
    if stream_count > LINKS_PER_SUBSCRIPTION_MAX:
        raise invalid(f"a subscription has up to {LINKS_PER_SUBSCRIPTION_MAX} streams")


def normalize(fields: ConfigurationFields) -> Configuration:
    """The normal form of a PUT's body. Raises RequestError."""
    pattern = parse_pattern(fields.pattern) if fields.pattern else None
    require_streams_max(len(fields.streams or ()))  # before they are parsed
    streams = tuple(sorted({parse_path(path) for path in fields.streams or ()}))
    # "At least one of `pattern` or `streams` MUST be present." -- spec 6.2
    if pattern is None and not streams:
        raise invalid("a subscription has a pattern or streams")
    lease_ms = LEASE_MS_DEFAULT if fields.lease_ttl_ms is None else fields.lease_ttl_ms
    if not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
        raise invalid(f"lease_ttl_ms is an integer from {LEASE_MS_MIN} to {LEASE_MS_MAX}")
    if fields.description is not None and len(fields.description.encode()) > DESCRIPTION_BYTES_MAX:
        raise invalid(f"description has up to {DESCRIPTION_BYTES_MAX} bytes")
    webhook_url = _parse_webhook_url(fields) if fields.type is SubscriptionType.WEBHOOK else None
    wake_stream = _parse_wake_stream(fields, streams) if fields.type is SubscriptionType.PULL_WAKE else None
    return Configuration(fields.type, pattern, streams, webhook_url, wake_stream, lease_ms, fields.description)


def _parse_webhook_url(fields: ConfigurationFields) -> str:
    """The URL as it is: the server that sends to it also checks where it leads."""
    if fields.webhook is None or not fields.webhook.url:
        raise invalid("a webhook subscription has a webhook.url")
    if len(fields.webhook.url.encode()) > WEBHOOK_URL_BYTES_MAX:
        raise invalid(f"webhook.url has up to {WEBHOOK_URL_BYTES_MAX} bytes")
    return fields.webhook.url


def _parse_wake_stream(fields: ConfigurationFields, streams: tuple[StreamPath, ...]) -> StreamPath:
    if not fields.wake_stream:
        raise invalid("a pull-wake subscription has a wake_stream")
    wake_stream = parse_path(fields.wake_stream)
    if wake_stream in streams:
        raise invalid("a subscription cannot be woken by its own wake_stream")
    return wake_stream
