"""Limits of the webhook client that are passed in, so that tests reach them at once."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class WebhookLimits:
    """The defaults are the values that a server runs with."""

    #: How long a lookup of a name may take.
    lookup_s: float = 10.0

    #: How long connecting may take, over all addresses that are tried, with TLS.
    connect_s: float = 10.0

    #: How long a receiver may take to accept the request.
    write_s: float = 10.0

    #: How long a receiver may take before it answers; it may do its work in that time.
    first_byte_s: float = 60.0

    #: How long one request may take in all, so that an answer that trickles has an end.
    whole_s: float = 75.0

    #: The status line and header fields of an answer, together with those of interim answers.
    head_bytes: int = 16_384

    #: So much of an answer's body is read, which is at most `{"done": true}`; then the connection is closed.
    body_bytes: int = 4_096

    #: Interim answers and chunks that are parsed, because each of them takes some twenty microseconds.
    events_max: int = 256

    #: Addresses of a name that are tried, one after the other.
    addresses_tried: int = 4

    #: Addresses of a name that are looked at; a name with more of them is refused.
    addresses_max: int = 64

    #: Requests at the same time. Who delivers has a lower limit, and waits; this one is refused at once.
    requests_at_once: int = 1_024

    #: Lookups at the same time of names that were found last time, or are new, and of those that were not found.
    lookups_at_once: int = 32
    retried_lookups_at_once: int = 16

    #: Names that were not found, which are remembered.
    lost_names_max: int = 10_000


WEBHOOK_LIMITS: Final = WebhookLimits()
