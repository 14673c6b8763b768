"""A subscription's state: its links, its wake and its retries, as one value (spec 6.1, 7).

Rules:
1. Pending work is derived: a link is pending when its stream's tail is after its acked offset. So nothing has to be
   noted when a stream grows, and a crash strands nothing.
2. A subscription has at most one wake. `generation` counts its wakes, and never goes back.
3. Whatever must happen at some time is in `due_ms`. A subscription that is idle and has failed nothing has none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

import msgspec

from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.names import StreamName
from fluvial.model.offset import Offset, birth_us_at
from fluvial.model.subscriptions.configuration import Configuration, SubscriptionType
from fluvial.model.subscriptions.pattern import StreamPath

#: A subscription's key in a store: its stream root, `__ds/`, and its id. No stream has such a name.
SubscriptionKey = NewType("SubscriptionKey", str)

#: What a link begins with whose stream has not been read at all.
BEGINNING: Final = Offset(0, 0)


@dataclass(frozen=True, slots=True)
class Link:
    """A stream of a subscription. `acked` is the last offset that was processed, inclusive.

    "If a stream is linked both explicitly and by a glob pattern, `explicit` takes precedence in serialized responses.
    Removing the explicit link does not remove the glob link if the pattern still matches." -- spec 6.1
    """

    acked: Offset
    is_explicit: bool
    is_glob: bool


class Phase(StrEnum):
    """How far a wake has come."""

    ISSUED = "issued"  # the request or the wake event is to be sent
    SENT = "sent"  # the receiver has answered; or the event is in the wake stream, and any worker may claim
    HELD = "held"  # a worker holds the lease


@dataclass(frozen=True, slots=True)
class Wake:
    """One notice that there is work. `snapshot` has the tails of its streams when it was issued.

    The wake lapses at `until_ms`: its lease ends, or no worker has claimed it.
    """

    wake_id: str
    phase: Phase
    until_ms: int
    snapshot: Mapping[StreamPath, Offset]
    holder: str | None = None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription. A struct, because a struct is copied in a tenth of the time.

    `root` is what precedes the paths of its streams in their names: empty, or a project with a slash. `owner` is the
    project's incarnation, 0 on an open server: a later project of the same name does not inherit the subscription.
    `secret` signs the wakes' tokens, and `base_url` is where the protocol's routes are found.
    `version` counts the changes: a store makes a change only on the version that it was computed from.
    `failure_count` counts the wakes in a row that no receiver took; before `retry_at_ms` no other attempt is made.
    """

    root: str
    id: str
    incarnation: int
    owner: int
    secret: str
    base_url: str
    configuration: Configuration
    created_ms: int
    links: Mapping[StreamPath, Link] = msgspec.field(default_factory=dict)
    version: int = 1
    generation: int = 0
    wake: Wake | None = None
    failure_count: int = 0
    retry_at_ms: int | None = None

    @property
    def key(self) -> SubscriptionKey:
        """The key of the subscription in a store."""
        return subscription_key(self.root, self.id)

    @property
    def is_failed(self) -> bool:
        """Whether "webhook retry is scheduled after a failed delivery attempt" (spec 6.3)."""
        return self.retry_at_ms is not None or (
            self.failure_count > 0 and self.configuration.type is SubscriptionType.WEBHOOK
        )

    @property
    def due_ms(self) -> int | None:
        """When the subscription must be looked at again, even if nothing happens until then."""
        until_ms = None if self.wake is None else self.wake.until_ms
        return min((moment for moment in (self.retry_at_ms, until_ms) if moment is not None), default=None)

    def name_of(self, path: StreamPath) -> StreamName:
        """The name of the stream at a path."""
        return StreamName(self.root + path)

    def path_of(self, name: StreamName) -> StreamPath:
        """The path of a stream below the subscription's root."""
        return StreamPath(name.removeprefix(self.root))


def subscription_key(root: str, subscription_id: str) -> SubscriptionKey:
    """The key of a subscription by its stream root and its id."""
    return SubscriptionKey(f"{root}__ds/{subscription_id}")


#: The heads of those of a subscription's streams that exist.
Heads = Mapping[StreamPath, Head]


def existing(heads: Iterable[tuple[StreamPath, Head | None]], now_ms: int) -> Heads:
    """The heads of the streams that a client can see."""
    return {
        path: head for path, head in heads if head is not None and stream_status(head, now_ms) is StreamStatus.EXISTS
    }


def tail_of(head: Head | None) -> Offset:
    """The offset of a stream's tail; of an absent stream, the beginning."""
    return BEGINNING if head is None else Offset(birth_us_at(head, head.tail), head.tail)


def first_offset(head: Head | None) -> Offset:
    """The offset before the first append of a stream: its beginning, or where a fork leaves its source."""
    if head is None or not head.lineage:
        return BEGINNING
    return Offset(birth_us_at(head, head.own_start), head.own_start)


def is_after(later: Offset, earlier: Offset) -> bool:
    """Whether an offset is after another; those of a later incarnation of the name are after all earlier ones."""
    return (later.born_us, later.position) > (earlier.born_us, earlier.position)


def is_pending(link: Link, head: Head | None) -> bool:
    """Whether a link has pending work: "a tail offset greater than its `acked_offset`" (spec 7)."""
    return head is not None and head.tail > 0 and is_after(tail_of(head), link.acked)


def pending_paths(subscription: Subscription, heads: Heads) -> list[StreamPath]:
    """The paths of the links that have pending work, in the order of the links."""
    links = subscription.links
    return [path for path, head in heads.items() if path in links and is_pending(links[path], head)]
