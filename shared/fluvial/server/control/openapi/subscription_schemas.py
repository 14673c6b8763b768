"""The bodies of subscriptions' routes, as the OpenAPI document describes them; see `schemas`."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from fluvial.model.limits import LEASE_MS_DEFAULT, LEASE_MS_MAX, LEASE_MS_MIN
from fluvial.server.control.openapi.schemas import Body

_Time = Annotated[str, Meta(description="A time (RFC 3339).", extra_json_schema={"format": "date-time"})]
_Count = Annotated[int, Meta(ge=0)]
_Path = Annotated[str, Meta(description="A stream's path below its stream root, e.g. `events/a`.", min_length=1)]
_Type = Literal["webhook", "pull-wake"]
_LinkType = Annotated[Literal["explicit", "glob"], Meta(description="explicit also when the pattern matches, too.")]
_AckedOffset = Annotated[str, Meta(description="The last offset that was processed; -1 before the first one.")]


class WebhookTarget(Body):
    """Where wakes are sent to."""

    url: str


class SubscriptionRequest(Body):
    """A subscription to create: with a pattern, or streams, or both."""

    type: _Type
    pattern: Annotated[str | UnsetType, Meta(description="`*` is one segment of a path, `**` any number.")] = UNSET
    streams: list[_Path] | UnsetType = UNSET
    webhook: Annotated[WebhookTarget | UnsetType, Meta(description="Of the type webhook.")] = UNSET
    wake_stream: Annotated[str | UnsetType, Meta(description="Of the type pull-wake: where wake events go.")] = UNSET
    lease_ttl_ms: Annotated[int, Meta(ge=LEASE_MS_MIN, le=LEASE_MS_MAX)] | UnsetType = LEASE_MS_DEFAULT
    description: str | UnsetType = UNSET


class WebhookSigning(Body):
    """How to verify a webhook's signature."""

    alg: Literal["ed25519"]
    kid: Annotated[str, Meta(description="The key that signs now; a webhook says which key has signed it.")]
    jwks_url: str


class SignedWebhook(Body):
    """Where wakes are sent to, and how they are signed."""

    url: str
    signing: WebhookSigning


class LinkDescription(Body):
    """A stream of a subscription."""

    path: _Path
    link_type: _LinkType
    acked_offset: _AckedOffset


class SubscriptionDescription(Body):
    """A subscription."""

    id: str
    subscription_id: Annotated[str, Meta(description="The same.")]
    type: _Type
    pattern: str | None
    streams: list[LinkDescription]
    webhook: SignedWebhook | None
    wake_stream: str | None
    lease_ttl_ms: _Count
    created_at: _Time
    status: Annotated[Literal["active", "failed"], Meta(description="failed while a retry is awaited.")]
    description: str | None
    generation: Annotated[_Count, Meta(description="How many wakes there were.")]
    failures: Annotated[_Count, Meta(description="The wakes in a row that no receiver took.")]
    next_attempt_at: _Time | None


class SubscriptionSummary(Body):
    """A subscription in a list."""

    id: str
    type: _Type
    status: Literal["active", "failed"]


class SubscriptionsPage(Body):
    """A page of subscriptions, in the order of their ids."""

    subscriptions: list[SubscriptionSummary]
    next: Annotated[str | UnsetType, Meta(description="The next page's `after`.")] = UNSET


class StreamsRequest(Body):
    """Streams to link explicitly."""

    streams: Annotated[list[_Path], Meta(min_length=1)]


class ClaimRequest(Body):
    """The worker that claims."""

    worker: Annotated[str, Meta(min_length=1)]


class WakeStream(Body):
    """A stream of a wake."""

    path: _Path
    link_type: _LinkType
    acked_offset: _AckedOffset
    tail_offset: str
    has_pending: bool


class WakeClaim(Body):
    """A wake, and the lease on it."""

    wake_id: str
    generation: _Count
    token: Annotated[str, Meta(description="For ack and release.")]
    streams: list[WakeStream]
    lease_ttl_ms: _Count


class AckRequest(Body):
    """What was processed of a stream."""

    stream: _Path
    offset: Annotated[str, Meta(description="The last offset that was processed, inclusive.")]


class WakeProgress(Body):
    """What a worker has processed of its wake, and whether it is done."""

    wake_id: str
    generation: _Count
    acks: list[AckRequest] | UnsetType = UNSET
    done: bool | UnsetType = UNSET


class WakeIdentity(Body):
    """A wake."""

    wake_id: str
    generation: _Count


class ProgressAnswer(Body):
    """That the acks are applied."""

    ok: Literal[True]
    next_wake: Annotated[bool, Meta(description="Whether there was more work, and another wake has begun.")]


class PublicKey(Body):
    """A public key (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: str
    use: Literal["sig"]
    alg: Literal["EdDSA"]
    x: str


class KeySet(Body):
    """The keys that webhooks may be signed with (RFC 7517)."""

    keys: list[PublicKey]


BODIES: tuple[type[Struct], ...] = tuple(
    one for one in list(vars().values()) if isinstance(one, type) and issubclass(one, Body) and one is not Body
)
