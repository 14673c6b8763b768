"""The contract of every store: what each method promises of atomicity, order, repeats and errors.

The suite in tests/contract holds each store to it. A change is *durable* when a crash cannot undo it; the changes of
the memory store last until its process ends. A *later* call begins after an earlier one has returned, in any process.

StoreUnavailable means that nothing was changed; the call may be repeated. StoreUncertain means that the change may have
been made, or may still be made a little later. After that, only a commit with a producer or an idempotency key may be
repeated; another one might be applied twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fluvial.model.commit import Commit, Outcome, UpdateCommit
from fluvial.model.followers import Follower
from fluvial.model.head import Head, Incarnation, ProducerStamp
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.projects import Projects
from fluvial.storage.signing_keys import SigningKeys


@runtime_checkable
class UndeliveredIndex(Protocol):
    """The capability to list the streams that are not fully delivered. Without it a change feed reports them."""

    async def undelivered(self, after: str, count_max: int) -> list[StreamName]:
        """Names after a name, in order, of followed streams that are delivered less far than their tail.

        At most `count_max`. Raises StoreUnavailable.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """The capability to resume the upkeep of streams that a killed process has left undone."""

    async def resume_upkeep(self, names: Sequence[StreamName]) -> list[Head | None]:
        """What `heads` returns for these names; begin the upkeep of their streams that is due.

        Raises StoreUnavailable.
        """
        ...


class Store(Protocol):
    """A set of streams: their heads, batches and followers. All calls come from one event loop."""

    @property
    def projects(self) -> Projects:
        """The projects that own the streams."""
        ...

    @property
    def signing_keys(self) -> SigningKeys:
        """The keys that sign the server's webhooks."""
        ...

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """Check a commit's requirements in order and make its change, as one atomic step (spec 5.2.1).

        Applied: the change is durable, and every later call sees it. Its head is the head right after this commit,
        though others may have followed. Unmet: nothing changed. It names the first requirement that does not hold, and
        has the head on which it was evaluated, which is durable.

        Commits of one producer take effect in the order in which their calls began. A commit whose call returned takes
        effect before every later one. Other commits that overlap take effect in any order.

        The same commit may be applied twice, unless its requirements prevent that. Cancelling the call leaves open
        whether the commit takes effect. Raises StoreUnavailable, StoreUncertain.
        """
        ...

    async def renew(self, name: StreamName, now_ms: int) -> None:
        """Move the sliding deadline of a stream that is read at `now_ms`; does nothing where no deadline slides.

        The deadline has usually moved when the call returns. A store that cannot write just now goes on after that,
        because a read must not wait for it, and may give up in the end. Several calls may be one move, to the latest
        deadline; it never moves back. Raises nothing.
        """
        ...

    async def head(self, name: StreamName) -> Head | None:
        """The durable head of a name, also when it is expired or soft-deleted; None for a name without a stream.

        `producers` may lack any producer. Raises StoreUnavailable.
        """
        ...

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:
        """The bytes of the head's incarnation from the batch that contains `start` on.

        `start` is before `head.tail`. The page has as many whole batches as fit in `byte_count_max`, and at least one.
        It begins before `start` when that is inside a batch. It ends at or before `head.tail`: bytes appended after
        that head are never in it. A fork's inherited bytes are read like its own, and the batch in which a fork begins
        ends there.

        Raises StreamVanished when the incarnation has ended and its bytes are gone, StorageDamaged when they cannot be
        read back, StoreUnavailable.
        """
        ...

    async def wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """The name's head once it differs from `seen`; after `timeout_s` seconds the head as it is then.

        A head differs by its tail, its closure, its incarnation, or by being deleted or soft-deleted. If it differs
        already, the call returns at once. Commits between the reader's `head` and its `wait` are not missed. The result
        is never older than `seen`, even when answers overtake each other. Cancelling the call frees all that it holds.
        Raises StoreUnavailable.
        """
        ...

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """The names that begin with `prefix` and come after `after`, in the order of their code points.

        At most `count_max`; fewer only at the end of the list. Without deleted and soft-deleted streams; expired ones
        may be listed until garbage collection ends them. A stream that was just created or deleted may take a moment to
        appear or disappear. Raises StoreUnavailable.
        """
        ...

    async def heads(self, names: Sequence[StreamName]) -> list[Head | None]:
        """What `head` returns for each of these names, in their order; each is as durable and as new.

        They need not be of one moment. Raises StoreUnavailable.
        """
        ...

    async def producers(self, head: Head, count_max: int) -> list[ProducerStamp]:
        """The last stamp of each producer of the head's incarnation, in the order of their ids; at most `count_max`.

        None once the incarnation has ended and its data is gone. Raises StoreUnavailable.
        """
        ...

    async def add_follower(self, source: Incarnation, follower: Follower) -> None:
        """Add an estuary to the followers of an incarnation, in place of the estuary's former subscription if any.

        Does nothing once the incarnation has ended; the followers end with it. A repeat changes nothing more.
        Raises StoreUnavailable, StoreUncertain.
        """
        ...

    async def remove_follower(self, source: Incarnation, follower: Follower) -> None:
        """Remove an estuary from the followers, unless it has another subscription by now. A repeat changes nothing.

        Raises StoreUnavailable, StoreUncertain.
        """
        ...

    async def followers(self, source: Incarnation, after: str, count_max: int) -> list[Follower]:
        """The followers of an incarnation whose estuaries' names come after `after`, in order; at most `count_max`.

        Followers that were added before the call are among them. Raises StoreUnavailable.
        """
        ...

    async def follower(self, source: Incarnation, estuary: StreamName) -> Follower | None:
        """One follower of an incarnation; None if the estuary does not follow it. Raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Answer every `apply` that has begun, stop all background work and release every resource.

        A later `apply` raises StoreUnavailable at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class IdempotentOutcome:
    """The outcome of a commit with an idempotency key; `is_repeat` when an earlier call has applied it."""

    outcome: Outcome
    is_repeat: bool


class IdempotentAppender(Store, Protocol):
    """A store for senders that cannot number their appends, and whose queues may deliver a message twice."""

    async def apply_idempotently(self, name: StreamName, commit: UpdateCommit, key: str) -> IdempotentOutcome:
        """Apply a commit that adds a batch, unless a commit with the same key was applied to the name before.

        Otherwise as `apply`. After StoreUnavailable and StoreUncertain the call may be repeated, in any process, until
        it raises neither: the batch is there once.
        """
        ...
