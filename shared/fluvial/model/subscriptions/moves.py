"""What happens to a subscription: each move takes a value and returns the next one, or the refusal (spec 7).

The moves of a wake, by its phase. What is not here is refused, and changes nothing.

    webhook     none -> issued          pending work, and no retry is awaited            `look`
                issued -> sent          the receiver has answered with 2xx               `note_delivered`
                issued -> none          it has answered `{"done": true}`                 `note_delivered`
                issued -> issued        the attempt failed; the next is at `retry_at_ms` `note_failure`
                issued, sent -> sent    a callback extends the lease                     `acknowledge`
                issued, sent -> none    a callback that is done; or the lease has ended  `acknowledge`, `look`
    pull-wake   none -> issued          pending work                                     `look`
                none, issued, sent -> held   a worker claims                             `claim`
                issued -> sent          the wake event is in the wake stream             `note_delivered`
                issued -> issued        it could not be appended                         `note_failure`
                issued, sent -> none    no worker has claimed it for a while             `look`
                issued, sent -> none    there is no work any more           `end_without_work`
                held -> held            an ack extends the lease                         `acknowledge`
                held -> none            done, released, or the lease has ended  `acknowledge`, `release`, `look`

A move to `none` issues the next wake of a pull-wake subscription at once if there is pending work. The next wake of a
webhook is issued by a `look`, when the request can be sent: its lease begins then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from fluvial.model.errors import ErrorCode
from fluvial.model.limits import (
    LINKS_PER_SUBSCRIPTION_MAX,
    OFFER_MS_MAX,
    RETRY_JITTER_PERCENT,
    RETRY_MS_MAX,
    RETRY_MS_MIN,
    STREAMS_PER_WAKE_MAX,
)
from fluvial.model.offset import Offset, birth_us_at
from fluvial.model.subscriptions.configuration import SubscriptionType
from fluvial.model.subscriptions.pattern import StreamPath
from fluvial.model.subscriptions.state import (
    BEGINNING,
    Heads,
    Link,
    Phase,
    Subscription,
    Wake,
    first_offset,
    is_after,
    pending_paths,
    tail_of,
)

#: The phases in which a wake's token is worth something, by the subscription's type.
ANSWERABLE: Final[Mapping[SubscriptionType, frozenset[Phase]]] = {
    SubscriptionType.WEBHOOK: frozenset({Phase.ISSUED, Phase.SENT}),
    SubscriptionType.PULL_WAKE: frozenset({Phase.HELD}),
}

#: 1 s doubled so often is over the longest delay.
_DOUBLINGS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a move is not made: nothing changes. `holder` and `generation` are of the lease that another worker holds."""

    code: ErrorCode
    message: str
    holder: str | None = None
    generation: int | None = None


FENCED: Final = Refusal(ErrorCode.FENCED, "the wake is stale: another one has begun, or its lease has ended")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a move is made, and the id of the wake that it may issue."""

    now_ms: int
    new_wake_id: str


@dataclass(frozen=True, slots=True)
class WakeProof:
    """What a worker proves its wake with: the generation in its token, and what its request says."""

    token_generation: int
    generation: int
    wake_id: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The last offset of a stream that a worker has processed, inclusive."""

    path: StreamPath
    offset: Offset


@dataclass(frozen=True, slots=True)
class Progress:
    """An ack or a callback: what was processed, and whether the worker gives the lease back."""

    acks: tuple[Ack, ...] = ()
    is_done: bool = False


def link(subscription: Subscription, added: Mapping[StreamPath, Link]) -> Subscription:
    """Add links. A stream that is linked already keeps its acked offset, and becomes explicit or a match, too."""
    links = dict(subscription.links)
    for path, new in added.items():
        former = links.get(path)
        if former is not None:
            is_explicit, is_glob = former.is_explicit or new.is_explicit, former.is_glob or new.is_glob
            new = Link(former.acked, is_explicit, is_glob)  # noqa: PLW2901  the merged link
        links[path] = new
    return subscription if links == subscription.links else replace(subscription, links=links)


def unlink(subscription: Subscription, path: StreamPath) -> Subscription:
    """Remove an explicit link; "a matching glob link remains active" (spec 6.4)."""
    former = subscription.links.get(path)
    if former is None or not former.is_explicit:
        return subscription
    links = dict(subscription.links)
    if former.is_glob:
        links[path] = Link(former.acked, is_explicit=False, is_glob=True)
    else:
        del links[path]
    return replace(subscription, links=links)


def link_matches(subscription: Subscription, paths: Sequence[StreamPath], heads: Heads) -> Subscription:
    """Link streams that the pattern matches before their first append, as far as there is room.

    "Streams discovered later because of a matching append are linked before that append for wake purposes." -- spec 6.2
    Links of streams that are gone make room.
    """
    configuration, links = subscription.configuration, subscription.links
    new = [
        path
        for path in paths
        if path in heads and not (path in links and links[path].is_glob) and configuration.matches(path)
    ]
    if not new:
        return subscription
    room = LINKS_PER_SUBSCRIPTION_MAX - len(links) + sum(path in links for path in new)
    added = {path: Link(first_offset(heads[path]), is_explicit=False, is_glob=True) for path in new[: max(0, room)]}
    return link(subscription, added)


def forget_gone(subscription: Subscription, heads: Heads) -> Subscription:
    """Drop the matches whose streams are gone; a stream that is created again at the path matches anew."""
    kept = {path: link for path, link in subscription.links.items() if link.is_explicit or path in heads}
    return subscription if len(kept) == len(subscription.links) else replace(subscription, links=kept)


def look(subscription: Subscription, heads: Heads, moment: Moment) -> Subscription:
    """Do what is due: end a wake that has lapsed, begin a retry, issue a wake for pending work."""
    looked, now_ms = subscription, moment.now_ms
    if looked.wake is not None and looked.wake.until_ms <= now_ms:
        looked = _lapse(looked, now_ms)
    if looked.retry_at_ms is not None and looked.retry_at_ms <= now_ms:
        looked = replace(looked, retry_at_ms=None)
    looked = _issue_if_pending(looked, heads, moment)
    if looked.wake is None and looked.retry_at_ms is None and looked.failure_count:
        looked = replace(looked, failure_count=0)  # the work went away: its stream was deleted
    return looked


def _lapse(subscription: Subscription, now_ms: int) -> Subscription:
    """End a wake at its time. "the server MUST clear the holder and wake token" -- spec 7.3."""
    wake = subscription.wake
    assert wake is not None, "only a wake lapses"
    ended = replace(subscription, wake=None)
    if subscription.configuration.type is SubscriptionType.PULL_WAKE:
        # Without a claim the next wake event waits longer; `failure_count` is what it is computed from.
        return ended if wake.phase is Phase.HELD else replace(ended, failure_count=subscription.failure_count + 1)
    if wake.phase is Phase.ISSUED and subscription.retry_at_ms is None:
        # The receiver has not answered for a whole lease: the attempt that was under way has failed. Without the delay
        # a receiver that hangs would get a new wake at the end of each lease, for ever.
        return replace(ended, **_delayed(subscription.failure_count, now_ms, jitter=0.5))
    return ended


def _issue_if_pending(subscription: Subscription, heads: Heads, moment: Moment) -> Subscription:
    """Issue a wake if the subscription is idle, has pending work and waits for no retry."""
    if subscription.wake is not None or subscription.retry_at_ms is not None:
        return subscription
    paths = pending_paths(subscription, heads)
    if not paths:
        return subscription
    snapshot = {path: tail_of(heads[path]) for path in paths[:STREAMS_PER_WAKE_MAX]}
    until_ms = moment.now_ms + _patience_ms(subscription)
    wake = Wake(moment.new_wake_id, Phase.ISSUED, until_ms, snapshot)
    return replace(subscription, generation=subscription.generation + 1, wake=wake)


def _patience_ms(subscription: Subscription) -> int:
    """How long a new wake lasts: a lease for a webhook; without a worker, more from time to time."""
    lease_ms = subscription.configuration.lease_ms
    if subscription.configuration.type is SubscriptionType.WEBHOOK:
        return lease_ms
    doubled: int = lease_ms << min(subscription.failure_count, _DOUBLINGS_MAX)
    return min(doubled, OFFER_MS_MAX)


def _delayed(failure_count: int, now_ms: int, jitter: float) -> dict[str, int]:
    """The fields after one more failure: "from 1 second up to 60 seconds with 20% jitter" (spec 7.1)."""
    delay_ms = min(RETRY_MS_MIN << min(failure_count, _DOUBLINGS_MAX), RETRY_MS_MAX)
    spread_ms = delay_ms * RETRY_JITTER_PERCENT / 100 * (2 * jitter - 1)
    return {"failure_count": failure_count + 1, "retry_at_ms": now_ms + round(delay_ms + spread_ms)}


def note_delivered(
    subscription: Subscription, wake_id: str, heads: Heads, moment: Moment, *, is_done: bool = False
) -> Subscription:
    """Note that the receiver has answered, or that the wake event is in the wake stream. A stale wake changes nothing.

    "the server MUST automatically ack the tail offsets included in that wake snapshot and release the lease" -- 7.1
    """
    wake = subscription.wake
    if wake is None or wake.wake_id != wake_id or wake.phase is Phase.HELD:
        return subscription
    if is_done and wake.until_ms > moment.now_ms:
        acked = _move_cursors(subscription, wake.snapshot)
        return _end(acked, heads, moment)
    if wake.phase is not Phase.ISSUED:
        return subscription
    failure_count = 0 if subscription.configuration.type is SubscriptionType.WEBHOOK else subscription.failure_count
    sent = Wake(wake.wake_id, Phase.SENT, wake.until_ms, wake.snapshot)
    return replace(subscription, wake=sent, failure_count=failure_count, retry_at_ms=None)


def note_failure(subscription: Subscription, wake_id: str, now_ms: int, jitter: float) -> Subscription:
    """Note that an attempt has failed, and when the next one is. A stale wake changes nothing.

    The wake stays until its lease ends, because the receiver may have got it all the same.
    """
    wake = subscription.wake
    if wake is None or wake.wake_id != wake_id or wake.phase is not Phase.ISSUED:
        return subscription
    return replace(subscription, **_delayed(subscription.failure_count, now_ms, jitter))


def claim(subscription: Subscription, worker: str, heads: Heads, moment: Moment) -> Subscription | Refusal:
    """Give the lease to a worker, of a new wake if there is none (spec 7.2)."""
    wake, now_ms = subscription.wake, moment.now_ms
    if wake is not None and wake.phase is Phase.HELD and wake.until_ms > now_ms:
        message = "another worker holds the lease"
        return Refusal(ErrorCode.ALREADY_CLAIMED, message, wake.holder, subscription.generation)
    looked = look(replace(subscription, retry_at_ms=None), heads, moment)
    paths = pending_paths(looked, heads)
    if not paths or looked.wake is None:
        return Refusal(ErrorCode.NO_PENDING_WORK, "the subscription has no pending work")
    snapshot = {path: tail_of(heads[path]) for path in paths[:STREAMS_PER_WAKE_MAX]}
    held = Wake(looked.wake.wake_id, Phase.HELD, now_ms + looked.configuration.lease_ms, snapshot, worker)
    return replace(looked, wake=held, failure_count=0)


def end_without_work(subscription: Subscription, heads: Heads) -> Subscription:
    """End a wake that no worker has claimed if its work is gone: it was unlinked or deleted, or has expired.

    Otherwise the subscription would have a wake in flight that no worker can claim, and new work no wake event.
    """
    wake = subscription.wake
    is_unclaimed = subscription.configuration.type is SubscriptionType.PULL_WAKE and wake is not None
    if not is_unclaimed or (wake is not None and wake.phase is Phase.HELD) or pending_paths(subscription, heads):
        return subscription
    return replace(subscription, wake=None, failure_count=0, retry_at_ms=None)


def acknowledge(
    subscription: Subscription, proof: WakeProof, progress: Progress, heads: Heads, moment: Moment
) -> Subscription | Refusal:
    """Apply the acks of a worker, all or none; then extend its lease, or end it (spec 7.1, 7.2).

    After the end of the lease there is a next wake if there is more work.
    """
    if not is_current(subscription, proof, moment.now_ms):
        return FENCED
    refusal = _check_acks(subscription, progress.acks, heads)
    if refusal is not None:
        return refusal
    acked = _move_cursors(subscription, _furthest(progress.acks))
    if progress.is_done:
        return _end(acked, heads, moment)
    wake = acked.wake
    assert wake is not None, "a current proof is of a wake"
    phase = Phase.HELD if wake.phase is Phase.HELD else Phase.SENT
    until_ms = moment.now_ms + acked.configuration.lease_ms
    extended = Wake(wake.wake_id, phase, until_ms, wake.snapshot, wake.holder)
    return replace(acked, wake=extended, failure_count=0, retry_at_ms=None)


def release(subscription: Subscription, proof: WakeProof, heads: Heads, moment: Moment) -> Subscription | Refusal:
    """Give the lease back: "If pending work remains after release, the server MUST write another wake event" (7.2)."""
    if not is_current(subscription, proof, moment.now_ms):
        return FENCED
    return _end(subscription, heads, moment)


def is_current(subscription: Subscription, proof: WakeProof, now_ms: int) -> bool:
    """Whether a proof is of the wake of now: all of spec 7.3 but the token's signature."""
    wake = subscription.wake
    return (
        wake is not None
        and wake.phase in ANSWERABLE[subscription.configuration.type]
        and wake.until_ms > now_ms
        and proof.token_generation == proof.generation == subscription.generation
        and proof.wake_id == wake.wake_id
    )


def _end(subscription: Subscription, heads: Heads, moment: Moment) -> Subscription:
    """End the wake, and issue the next one of a pull-wake subscription if there is pending work."""
    idle = forget_gone(replace(subscription, wake=None, failure_count=0, retry_at_ms=None), heads)
    if subscription.configuration.type is SubscriptionType.WEBHOOK:
        return idle  # its next wake may have to wait for its turn, and its lease must not begin before that
    return _issue_if_pending(idle, heads, moment)


def _check_acks(subscription: Subscription, acks: Sequence[Ack], heads: Heads) -> Refusal | None:
    for ack in acks:
        known, head = subscription.links.get(ack.path), heads.get(ack.path)
        if known is None:
            return _invalid_offset("the stream of an ack is not linked")
        if head is None:
            return _invalid_offset("the stream of an ack does not exist")
        # A position of a fork has one spelling, the one that this server issues: by another one, a cursor in the part
        # that the fork has inherited would be after the fork's next offsets, or could not be moved on.
        if ack.offset not in {BEGINNING, Offset(birth_us_at(head, ack.offset.position), ack.offset.position)}:
            return _invalid_offset("the offset of an ack is not one of the stream")
        if is_after(known.acked, ack.offset):
            return _invalid_offset("the offset of an ack is before the acked offset")
        if ack.offset.position > head.tail:
            return _invalid_offset("the offset of an ack is after the stream's tail")
    return None


def _furthest(acks: Sequence[Ack]) -> Mapping[StreamPath, Offset]:
    """The furthest of the acks of each stream."""
    offsets = dict[StreamPath, Offset]()
    for ack in acks:
        if ack.path not in offsets or is_after(ack.offset, offsets[ack.path]):
            offsets[ack.path] = ack.offset
    return offsets


def _invalid_offset(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_OFFSET, message)


def _move_cursors(subscription: Subscription, offsets: Mapping[StreamPath, Offset]) -> Subscription:
    """Move acked offsets forward, of those streams that are linked; never back."""
    links = dict(subscription.links)
    for path, offset in offsets.items():
        former = links.get(path)
        if former is not None and is_after(offset, former.acked):
            links[path] = Link(offset, former.is_explicit, former.is_glob)
    return replace(subscription, links=links)
