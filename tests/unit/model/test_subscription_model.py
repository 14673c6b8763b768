"""Random histories of a subscription, with time, redelivery and crashes, against a model that shares no code with it.

In the model a cursor is a number, and a wake is a number with a deadline: it has no phases, snapshots or refusals. A
crash is a move whose result is lost: it was computed, and never stored.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fluvial.model.errors import ErrorCode
from fluvial.model.limits import OFFER_MS_MAX, RETRY_MS_MAX
from fluvial.model.subscriptions import moves
from fluvial.model.subscriptions.configuration import SubscriptionType
from fluvial.model.subscriptions.moves import Ack, Moment, Progress, Refusal, WakeProof
from fluvial.model.subscriptions.state import Heads, Phase, Subscription
from tests.support.budget import examples
from tests.support.clocks import START_MS
from tests.support.subscriptions import at, path, pull_wake, stream_head, subscription, webhook

NAMES = ["events/a", "events/b", "events/c"]
LEASE_MS = 5_000

#: The longest time that a pending stream waits until there is a wake, or another wake event, for it.
PATIENCE_MS = max(LEASE_MS, OFFER_MS_MAX, RETRY_MS_MAX * 12 // 10)


class Fate(Enum):
    """Whether the process lives until the result of a move is stored."""

    STORED = auto()
    LOST = auto()


#: Few results are lost, so that histories get far.
FATES = st.sampled_from([Fate.STORED, Fate.STORED, Fate.STORED, Fate.LOST])


class End(Enum):
    """Whether a worker is done with its wake."""

    DONE = auto()
    LATER = auto()


@dataclass
class Model:
    """What must be true: how far each stream was acked, and until when which wake may ack."""

    tails: dict[str, int] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)
    wakes: list[tuple[int, str]] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def pending(self) -> list[str]:
        """The streams with work."""
        return [name for name, tail in self.tails.items() if tail > self.acked[name]]


class SubscriptionHistory(RuleBasedStateMachine):
    """One subscription, webhook or pull-wake, with three streams."""

    kind = SubscriptionType.WEBHOOK

    def __init__(self) -> None:
        """Nothing has happened yet."""
        super().__init__()
        make = webhook if self.kind is SubscriptionType.WEBHOOK else pull_wake
        self.now_ms, self.wake_count, self.model = START_MS, 0, Model()
        self.subscription = subscription(make(lease_ms=LEASE_MS))

    @property
    def heads(self) -> Heads:
        """The heads of the streams."""
        return {path(name): stream_head(tail) for name, tail in self.model.tails.items()}

    def moment(self) -> Moment:
        """Now, with a new wake id."""
        self.wake_count += 1
        return Moment(self.now_ms, f"w_{self.wake_count}")

    def store(self, moved: Subscription, fate: Fate) -> bool:
        """Store the result of a move, unless the process is killed before that."""
        if fate is Fate.LOST:
            return False
        before, self.subscription = self.subscription, moved
        assert moved.generation >= before.generation
        former = None if before.wake is None else before.wake.wake_id
        now = None if moved.wake is None else moved.wake.wake_id
        if former != now and former is not None:
            self.model.ended.add(former)
        if now is not None and now != former:
            assert moved.generation > before.generation, "every wake has a generation of its own"
            assert now not in self.model.ended, "and no wake comes back"
            self.model.wakes.append((moved.generation, now))
        return True

    def proofs(self) -> st.SearchStrategy[tuple[int, str]]:
        """The wakes that a worker may still believe in: most often the last one."""
        return st.one_of(
            st.just(self.model.wakes[-1]), st.just(self.model.wakes[-1]), st.sampled_from(self.model.wakes)
        )

    @rule(name=st.sampled_from(NAMES), byte_count=st.integers(1, 3))
    def append(self, name: str, byte_count: int) -> None:
        """A stream grows, and is linked before that."""
        self.model.tails[name] = self.model.tails.get(name, 0) + byte_count
        self.model.acked.setdefault(name, 0)
        linked = moves.link_matches(self.subscription, [path(name)], self.heads)
        self.store(linked, Fate.STORED)

    @rule(ms=st.sampled_from([1, 400, LEASE_MS - 1, LEASE_MS, 61_000, OFFER_MS_MAX]))
    def let_time_pass(self, ms: int) -> None:
        """Nothing happens for a while, seldom for long."""
        self.now_ms += ms

    @rule(fate=FATES)
    def look(self, fate: Fate) -> None:
        """The driver looks; if it is not killed, work that no retry delays has a wake that has not lapsed."""
        looked = moves.look(self.subscription, self.heads, self.moment())
        if self.store(looked, fate) and self.model.pending() and looked.retry_at_ms is None:
            assert looked.wake is not None
            assert looked.wake.until_ms > self.now_ms
            assert moves.look(looked, self.heads, self.moment()) is looked, "a second look changes nothing"

    @precondition(lambda self: self.model.wakes)
    @rule(data=st.data(), outcome=st.sampled_from(["done", "taken", "failed"]), fate=FATES)
    def end_attempt(self, data: st.DataObject, outcome: str, fate: Fate) -> None:
        """The answer of a receiver arrives, perhaps twice, or long after its wake."""
        _, wake_id = data.draw(self.proofs())
        before, wake = self.subscription, self.subscription.wake
        if outcome == "failed":
            moved = moves.note_failure(before, wake_id, self.now_ms, jitter=0.3)
        else:
            is_done = outcome == "done" and self.kind is SubscriptionType.WEBHOOK
            moved = moves.note_delivered(before, wake_id, self.heads, self.moment(), is_done=is_done)
        if wake is None or wake.wake_id != wake_id:
            assert moved is before, "a stale answer does nothing"
            return
        is_acked = outcome == "done" and self.kind is SubscriptionType.WEBHOOK and wake.until_ms > self.now_ms
        if self.store(moved, fate) and is_acked:
            for name, offset in wake.snapshot.items():
                self.model.acked[name] = max(self.model.acked[name], offset.position)

    @initialize(byte_count=st.integers(1, 3))
    def begin(self, byte_count: int) -> None:
        """There is work from the beginning."""
        self.append(NAMES[0], byte_count)
        self.look(Fate.STORED)
        self.claim(Fate.STORED)

    @rule(fate=FATES)
    def claim(self, fate: Fate) -> None:
        """A worker claims."""
        if self.kind is SubscriptionType.WEBHOOK:
            return
        before = self.subscription
        moved = moves.claim(before, "worker", self.heads, self.moment())
        held = before.wake is not None and before.wake.phase is Phase.HELD and before.wake.until_ms > self.now_ms
        if isinstance(moved, Refusal):
            code = ErrorCode.ALREADY_CLAIMED if held else ErrorCode.NO_PENDING_WORK
            assert moved.code is code
            assert held or not self.model.pending()
        elif self.store(moved, fate):
            assert not held
            assert self.model.pending()
            assert moved.wake is not None
            assert moved.wake.until_ms == self.now_ms + LEASE_MS

    @precondition(lambda self: self.model.wakes)
    @rule(
        data=st.data(),
        name=st.sampled_from(NAMES),
        position=st.integers(0, 12),
        end=st.sampled_from(End),
        fate=FATES,
    )
    def acknowledge(self, data: st.DataObject, name: str, position: int, end: End, fate: Fate) -> None:
        """A worker acks, with the proof of the wake that it had: it may come twice, late, or out of order."""
        generation, wake_id = data.draw(self.proofs())
        token_generation = data.draw(st.sampled_from([generation, generation, generation + 1]))
        if data.draw(st.integers(0, 4)) == 0:
            wake_id = self.model.wakes[0][1]  # of another wake than the generation
        before, wake = self.subscription, self.subscription.wake
        proof = WakeProof(token_generation, generation, wake_id)
        acks = (Ack(path(name), at(position)),)
        moved = moves.acknowledge(before, proof, Progress(acks, end is End.DONE), self.heads, self.moment())
        is_current = (
            wake is not None
            and wake.wake_id == wake_id
            and token_generation == generation == before.generation
            and wake.until_ms > self.now_ms
            and (self.kind is SubscriptionType.WEBHOOK or wake.phase is Phase.HELD)
        )
        if not is_current:
            assert moved == moves.FENCED
            return
        is_valid = name in self.model.tails and self.model.acked[name] <= position <= self.model.tails[name]
        if not is_valid:
            assert isinstance(moved, Refusal)
            assert moved.code is ErrorCode.INVALID_OFFSET
            return
        assert isinstance(moved, Subscription)
        if self.store(moved, fate):
            self.model.acked[name] = position
            if end is End.LATER:
                assert moved.wake is not None
                assert (moved.wake.wake_id, moved.wake.until_ms) == (wake_id, self.now_ms + LEASE_MS)

    @precondition(lambda self: self.model.wakes)
    @rule(data=st.data(), fate=FATES)
    def release(self, data: st.DataObject, fate: Fate) -> None:
        """A worker gives the lease back."""
        if self.kind is SubscriptionType.WEBHOOK:
            return
        generation, wake_id = data.draw(self.proofs())
        before, wake = self.subscription, self.subscription.wake
        moved = moves.release(before, WakeProof(generation, generation, wake_id), self.heads, self.moment())
        is_current = wake is not None and wake.wake_id == wake_id and wake.phase is Phase.HELD
        if not is_current or wake is None or wake.until_ms <= self.now_ms:
            assert moved == moves.FENCED
        else:
            assert isinstance(moved, Subscription)
            if self.store(moved, fate):
                assert (moved.wake is not None) == bool(self.model.pending())

    @invariant()
    def only_valid_acks_move_cursors(self) -> None:
        """Every cursor is where the model has it."""
        acked = {str(name): link.acked.position for name, link in self.subscription.links.items()}
        assert acked == self.model.acked

    @invariant()
    def idle_subscription_waits_for_nothing(self) -> None:
        """Without work and without a wake nothing is due, once it was looked at."""
        looked = moves.look(self.subscription, self.heads, self.moment())
        if not self.model.pending() and looked.wake is None and looked.retry_at_ms is None:
            assert looked.due_ms is None
            assert not looked.is_failed

    @invariant()
    def pending_stream_is_woken_for_again(self) -> None:
        """A pending stream has a next moment, and that is near, unless the driver was told and has yet to look."""
        looked = moves.look(self.subscription, self.heads, self.moment())
        if self.model.pending():
            assert looked.due_ms is not None
            assert looked.due_ms <= self.now_ms + PATIENCE_MS


class WebhookHistory(SubscriptionHistory):
    """A webhook subscription."""


class PullWakeHistory(SubscriptionHistory):
    """A pull-wake subscription."""

    kind = SubscriptionType.PULL_WAKE


@pytest.mark.parametrize("history", [WebhookHistory, PullWakeHistory])
def test_histories_agree_with_the_model(history: type[SubscriptionHistory]) -> None:
    """See the module."""
    run_state_machine_as_test(history, settings=settings(examples(80), stateful_step_count=30))
