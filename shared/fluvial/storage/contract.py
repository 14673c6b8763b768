"""The contract of every store. Its suite is tests/contract; what is promised here is tested there."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fluvial.model.commit import Commit, Outcome, UpdateCommit
from fluvial.model.followers import Follower
from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.projects import Projects


@runtime_checkable
class UndeliveredIndex(Protocol):
    """A store that knows by itself which streams' followers lack something; elsewhere a change feed tells it."""

    async def undelivered(self, after: str, count_max: int) -> list[StreamName]:
        """Names after a name, in order, of streams that have been delivered less far than their tail."""
        ...


class Store(Protocol):
    """Streams that survive what their store says they survive; all calls are from one event loop."""

    @property
    def projects(self) -> Projects:
        """Who owns them."""
        ...

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """Check the requirements in order and make the effects durable, as one step (spec 5.2.1).

        Applied: every effect is durable and every later call sees it. Unmet: nothing changed; it names the
        first requirement that failed and the head it was judged on, and that head is durable. Commits of one
        producer take effect in the order in which their calls began; so do others that do not overlap.
        Raises StoreUnavailable: nothing was written. StoreUncertain: it may have been.
        """
        ...

    async def renew(self, name: StreamName, now_ms: int) -> None:
        """Move a stream's sliding deadline, because it was read at this moment.

        Mostly that is done when the call returns; a store that cannot write just now goes on with it afterwards, for
        no read has to wait for that. Raises nothing.
        """
        ...

    async def head(self, name: StreamName) -> Head | None:
        """The durable head of the name's present life, expired or hidden ones too; None where nothing is.

        Its `producers` may lack any producer. Raises StoreUnavailable.
        """
        ...

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:
        """The bytes from the batch that has `start` on, of the life that `head` is of.

        As many whole batches as fit, and at least one. `start` is before `head.tail`; the page ends at or before the
        tail, and begins before `start` when that is inside a batch. A fork's inherited bytes are read as its own.
        Raises StreamVanished when the life has ended meanwhile, StorageDamaged when its bytes cannot be read back.
        """
        ...

    async def wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """The name's head as soon as it differs from `seen`; after `timeout_s`, as it is.

        At once when it differs already, in its tail, its closure, its life or because it was deleted and is kept for
        its forks. Never older than `seen`, however requests and answers overtake each other. Cancelling the call frees
        all that it holds.
        """
        ...

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """Names that begin with `prefix` and come after `after`, in the order of their code points.

        At most `count_max`, and all of them when there are fewer. Deleted streams are not among them; those that have
        expired may be, until they are collected. A stream that has just begun or ended may take a moment to show.
        """
        ...

    async def add_follower(self, source: Incarnation, follower: Follower) -> None:
        """List an estuary among a life's followers, in the place of its former subscription if it has one.

        It goes with the life. Raises StoreUnavailable, StoreUncertain; it may be sent again.
        """
        ...

    async def remove_follower(self, source: Incarnation, follower: Follower) -> None:
        """Take an estuary off the list, if it is still there by this subscription. Raises as `add_follower`."""
        ...

    async def followers(self, source: Incarnation, after: str, count_max: int) -> list[Follower]:
        """The followers of a life that come after an estuary's name, in order; at most `count_max`.

        Whoever was added before the call is among them. Raises StoreUnavailable.
        """
        ...

    async def follower(self, source: Incarnation, estuary: StreamName) -> Follower | None:
        """One follower of a life. Raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Finish what was begun, stop all background work and let go of every resource.

        Every `apply` of before is answered; a later one raises StoreUnavailable at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class IdempotentOutcome:
    """What became of a commit with a key; `is_repeat` when an earlier attempt had applied it."""

    outcome: Outcome
    is_repeat: bool


class IdempotentAppender(Store, Protocol):
    """A store for senders that cannot number their appends, and whose queues may bring one twice."""

    async def apply_idempotently(self, name: StreamName, commit: UpdateCommit, key: str) -> IdempotentOutcome:
        """Apply a commit that adds a batch, unless one with the same key was applied to the name before.

        Raises StoreUnavailable, StoreUncertain; it may be sent again, by anybody, until it raises nothing.
        """
        ...
