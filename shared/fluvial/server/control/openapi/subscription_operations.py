"""The protocol's own routes, below `__ds`: bodies and answers of each method (spec 6 and 7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fluvial.model.errors import ErrorCode
from fluvial.model.names import STREAM_ROOT
from fluvial.server.control.openapi import stream_fields as f
from fluvial.server.control.openapi import subscription_schemas as s
from fluvial.server.control.openapi.answers import Answer, Field, Operation
from fluvial.wire.subscription_paths import Route


@dataclass(frozen=True, slots=True)
class SubscriptionOperation:
    """A method of a route. `body` is the type of the request's body."""

    id: str
    summary: str
    answers: Operation
    body: type | None = None
    query: tuple[Field, ...] = ()
    description: str = ""


_INVALID: Final = ErrorCode.INVALID_SUBSCRIPTION_REQUEST
_MISSING: Final = ErrorCode.SUBSCRIPTION_NOT_FOUND
_TOKEN: Final = (ErrorCode.WAKE_TOKEN_INVALID, ErrorCode.WAKE_TOKEN_EXPIRED)
_DONE: Final = Answer(204, "It is done, or was done before.")
_AFTER: Final = Field("after", "The id after which the page begins.")

_PROGRESS: Final = Operation(
    (Answer(200, "The acks are applied.", (s.ProgressAnswer,)),),
    (_INVALID, _MISSING, *_TOKEN, ErrorCode.FENCED, ErrorCode.INVALID_OFFSET),
)

#: By route and method.
SUBSCRIPTION_OPERATIONS: Final[Mapping[Route, Mapping[str, SubscriptionOperation]]] = {
    Route.KEYS: {
        "GET": SubscriptionOperation(
            "listWebhookKeys",
            "Get the public keys of webhooks",
            Operation(
                (
                    Answer(
                        200,
                        "The keys that webhooks on their way may be signed with.",
                        content={"application/jwk-set+json": {"$ref": "#/components/schemas/KeySet"}},
                        always=(f.CACHE_CONTROL,),
                    ),
                )
            ),
            description="It needs no token.",
        )
    },
    Route.SUBSCRIPTIONS: {
        "GET": SubscriptionOperation(
            "listSubscriptions",
            "List subscriptions",
            Operation((Answer(200, "A page of subscriptions.", (s.SubscriptionsPage,)),)),
            query=(_AFTER,),
        )
    },
    Route.SUBSCRIPTION: {
        "PUT": SubscriptionOperation(
            "createSubscription",
            "Create a subscription, or confirm it",
            Operation(
                (
                    Answer(201, "The subscription is created.", (s.SubscriptionDescription,)),
                    Answer(200, "It exists already, with this configuration.", (s.SubscriptionDescription,)),
                ),
                (
                    _INVALID,
                    ErrorCode.WEBHOOK_URL_REJECTED,
                    ErrorCode.SUBSCRIPTION_ALREADY_EXISTS,
                    ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                    ErrorCode.TOO_MANY_LINKS,
                ),
            ),
            s.SubscriptionRequest,
            description="Existing streams are linked at their tails; streams that are created later, before their "
            "first append.",
        ),
        "GET": SubscriptionOperation(
            "getSubscription",
            "Get a subscription with its cursors",
            Operation((Answer(200, "The subscription.", (s.SubscriptionDescription,)),), (_INVALID, _MISSING)),
        ),
        "DELETE": SubscriptionOperation(
            "deleteSubscription", "Delete a subscription", Operation((_DONE,), (_INVALID,))
        ),
    },
    Route.STREAMS: {
        "POST": SubscriptionOperation(
            "addSubscriptionStreams",
            "Link streams explicitly",
            Operation((_DONE,), (_INVALID, _MISSING, ErrorCode.TOO_MANY_LINKS)),
            s.StreamsRequest,
        )
    },
    Route.STREAM: {
        "DELETE": SubscriptionOperation(
            "removeSubscriptionStream",
            "Remove an explicit link",
            Operation((_DONE,), (_INVALID, _MISSING)),
            description="A link that the pattern makes stays.",
        )
    },
    Route.CALLBACK: {
        "POST": SubscriptionOperation(
            "callBack", "Ack a webhook's wake", _PROGRESS, s.WakeProgress, description="With the wake's own token."
        )
    },
    Route.CLAIM: {
        "POST": SubscriptionOperation(
            "claimSubscription",
            "Claim the lease of a pull-wake subscription",
            Operation(
                (Answer(200, "The worker holds the lease.", (s.WakeClaim,)),),
                (_INVALID, _MISSING, ErrorCode.ALREADY_CLAIMED, ErrorCode.NO_PENDING_WORK),
            ),
            s.ClaimRequest,
        )
    },
    Route.ACK: {
        "POST": SubscriptionOperation(
            "ackWake",
            "Ack a pull-wake, and extend the lease or end it",
            _PROGRESS,
            s.WakeProgress,
            description="With the claim's own token.",
        )
    },
    Route.RELEASE: {
        "POST": SubscriptionOperation(
            "releaseWake",
            "Give a lease back without an ack",
            Operation((_DONE,), (_INVALID, _MISSING, *_TOKEN, ErrorCode.FENCED)),
            s.WakeIdentity,
            description="With the claim's own token.",
        )
    },
}


def documented_path(route: Route) -> str:
    """The path of a route on a server without projects."""
    return STREAM_ROOT + route.value
