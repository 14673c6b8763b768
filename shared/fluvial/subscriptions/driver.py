"""The driver: wakes the subscriptions of one process, driven by its commits and by time.

1. A commit tells the driver which stream has changed. The driver looks at the subscriptions of that stream which are
   idle; those that have a wake are looked at when it ends, by what they have acked and not by what was told.
2. A subscription is looked at by one task at a time. What is told meanwhile has it looked at once more.
3. What happens at some time is in the store (`due_ms`), and the driver sleeps until the next such moment. Moments that
   have passed are not looked at again: those that wait for their turn, or that rest, delay no other.
4. What a killed process knew is found again: `recover` looks at every subscription and at every stream's name.
5. A subscription whose owner is away rests: it has no wake and no moment until its owner is back.

Why a subscription is looked at again after each of its changes: an ack reads the tails, finds no more work, and is
about to write that the subscription is idle. An append lands, and the driver is told of it; it sees a wake under way,
and does nothing. Then the ack is written. The look after it finds the append.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from msgspec.structs import replace

from fluvial.model.errors import StorageDamaged, StoreError
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.model.subscriptions import moves
from fluvial.model.subscriptions.configuration import SubscriptionType
from fluvial.model.subscriptions.moves import Moment, Refusal
from fluvial.model.subscriptions.pattern import StreamPath
from fluvial.model.subscriptions.state import Heads, Phase, Subscription, SubscriptionKey, Wake
from fluvial.storage.subscriptions import DueMoment
from fluvial.subscriptions.attempts import Attempt, Attempts
from fluvial.subscriptions.ledger import Ledger
from fluvial.subscriptions.slots import Slots

log = logging.getLogger(__name__)

#: Whether a subscription's owner has its stream root now: None when the owner is gone for ever. Raises StoreError.
IsOwned = Callable[[Subscription], Awaitable[bool | None]]

#: Before every moment.
_START: Final[DueMoment] = (-1, SubscriptionKey(""))

#: What `note_outcome` gets when a look at a subscription has failed.
LOOK_FAILED: Final = "error"

#: 1 s doubled so often is over the longest pause.
_DOUBLINGS_MAX: Final = 10


class WakeDriver:
    """Wakes the subscriptions of a ledger. All calls come from one event loop."""

    def __init__(
        self,
        ledger: Ledger,
        attempts: Attempts,
        is_owned: IsOwned,
        note_outcome: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        """`note_outcome` counts attempts, and looks that fail, by what came of them. No task runs before `start`."""
        self._ledger, self._attempts, self._is_owned, self._note_outcome = ledger, attempts, is_owned, note_outcome
        self._limits, self._clock = ledger.limits, ledger.clock
        self._slots = Slots(ledger.limits)
        self._busy: set[SubscriptionKey] = set()
        self._again: set[SubscriptionKey] = set()
        self._queue: asyncio.Queue[SubscriptionKey] = asyncio.Queue()  # at most one entry for a subscription
        self._lookers, self._attempts_under_way = list[asyncio.Task[None]](), set[asyncio.Task[None]]()
        self._is_settled = asyncio.Event()
        self._has_sooner = asyncio.Event()
        self._sleeps_until_ms: int | None = None
        self._passed = _START  # what is due until then was looked at
        self._failure_counts = Counter[SubscriptionKey]()  # of those alone whose last look has failed
        self._tasks = list[asyncio.Task[None]]()
        self._is_stopping = False
        ledger.on_change, ledger.on_doubt = self.note_version, self._check_later
        ledger.store.listen(self.note_head)

    def start(self) -> None:
        """Start the tasks; they begin with what the last process left."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._recover(), name="subscription recovery"),
            loop.create_task(self._keep_time(), name="subscription times"),
        ]

    async def stop(self) -> None:
        """End all tasks. Webhooks that are under way are sent again by the next process."""
        self._is_stopping = True
        tasks = [*self._tasks, *self._lookers, *self._attempts_under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def busy_count(self) -> int:
        """Subscriptions that are being looked at, or whose workers are being woken."""
        return len(self._busy)

    def note_head(self, name: StreamName, before: Head | None, after: Head | None) -> None:
        """See ChangeListener. Most streams have no subscription, and cost one lookup."""
        catalog = self._ledger.catalog
        if not catalog or after is None:
            return
        keys = catalog.find(name)
        if not keys:
            return
        is_new = before is None or before.incarnation != after.incarnation
        if not is_new and before is not None and before.tail == after.tail:
            return
        for key in keys:
            known = catalog.entries.get(key)
            path = StreamPath(name) if known is None else known.path_of(name)
            if known is None or is_new or path not in known.links:
                if known is None:  # it is being created
                    path = StreamPath(name.removeprefix(catalog.root_of(key)))
                self._ledger.note_new(key, path)
                self.check(key)
            elif known.wake is None and known.retry_at_ms is None:
                self.check(key)

    def note_version(self, subscription: Subscription) -> None:
        """Take note of a subscription's new version: look at it again, and when it is due."""
        wake, due_ms = subscription.wake, subscription.due_ms
        if wake is None or (wake.phase is Phase.ISSUED and subscription.retry_at_ms is None):
            self.check(subscription.key)
        if due_ms is None:
            return
        if (due_ms, subscription.key) <= self._passed:  # the clock was set back meanwhile
            self.check(subscription.key)
        elif self._sleeps_until_ms is None or due_ms < self._sleeps_until_ms:
            self._has_sooner.set()

    def check(self, key: SubscriptionKey) -> None:
        """Look at a subscription soon. This is on the way of each append that it matches, so it is quick."""
        if key in self._busy:
            self._again.add(key)
        elif not self._is_stopping:
            self._busy.add(key)
            self._is_settled.clear()
            self._queue.put_nowait(key)
            if not self._lookers:
                loop, count = asyncio.get_running_loop(), self._limits.looks_at_once
                self._lookers = [loop.create_task(self._keep_looking(), name="subscriptions") for _ in range(count)]

    def _check_later(self, key: SubscriptionKey) -> None:
        asyncio.get_running_loop().call_later(self._limits.retry_s, self.check, key)

    async def settle(self) -> None:
        """Wait until no subscription is being looked at, and no webhook is under way."""
        while self._busy:
            await self._is_settled.wait()

    async def check_due(self) -> int:
        """Look at the subscriptions that have become due since the last call; how many. Raises StoreError."""
        now_ms = self._clock.now_ms()
        if now_ms < self._passed[0]:  # the clock was set back
            self._passed = _START
        count_max = self._limits.due_per_look
        moments = await self._ledger.store.subscriptions.due_after(self._passed, count_max)
        due = [moment for moment in moments if moment[0] <= now_ms]
        for _, key in due:
            self.check(key)
        if due:
            self._passed = due[-1]
        if len(due) < len(moments):
            self._sleeps_until_ms = moments[len(due)][0]
        else:
            self._sleeps_until_ms = now_ms if len(due) == count_max else None
        return len(due)

    async def recover(self) -> None:
        """Look at every subscription, and link streams whose first append was told to a killed process only.

        Raises StoreError.
        """
        await self.sweep()
        if not self._ledger.catalog:
            return
        async for name in self._ledger.names(""):
            self._note_unlinked(name)

    async def sweep(self) -> None:
        """Look at every subscription; one that cannot be read keeps no other waiting. Raises StoreError."""
        after = ""
        while keys := await self._ledger.store.subscriptions.keys_after("", after, self._limits.names_per_page):
            for key in keys:
                try:
                    if await self._ledger.load(key) is not None:
                        self.check(key)
                except StorageDamaged:
                    log.warning("subscription_skipped", extra={"subscription": key})
                    self._note_outcome(LOOK_FAILED)
                await asyncio.sleep(0)  # one may have thousands of links
            after = keys[-1]
        self._ledger.forget_unknown()

    def _note_unlinked(self, name: StreamName) -> None:
        for key in self._ledger.catalog.find(name):
            known = self._ledger.catalog.entries.get(key)
            if known is not None and known.path_of(name) not in known.links:
                self._ledger.note_new(key, known.path_of(name))
                self.check(key)

    async def _recover(self) -> None:
        look_at_all = self.recover
        while not self._is_stopping:
            pause_s = self._limits.retry_s
            try:
                await look_at_all()
            except StoreError as exc:
                log.warning("subscriptions_not_recovered", extra={"reason": str(exc.__cause__ or exc)})
            except Exception:
                log.exception("subscriptions_not_recovered")
            else:
                look_at_all, pause_s = self.sweep, self._limits.sweep_interval_s
            await asyncio.sleep(pause_s)

    async def _keep_time(self) -> None:
        """Look at what is due, again and again; from time to time at what has been due and is still, too."""
        now_s = asyncio.get_running_loop().time
        begins_anew_s = now_s() + self._limits.look_interval_s
        while not self._is_stopping:
            self._has_sooner.clear()
            pause_s = self._limits.look_interval_s
            if now_s() >= begins_anew_s:
                self._passed, begins_anew_s = _START, now_s() + self._limits.look_interval_s
            try:
                await self.check_due()
                if self._sleeps_until_ms is not None:
                    pause_s = min(pause_s, (self._sleeps_until_ms - self._clock.now_ms()) / 1_000)
            except StoreError as exc:
                log.warning("subscriptions_not_looked_at", extra={"reason": str(exc.__cause__ or exc)})
                pause_s = self._limits.retry_s
            except Exception:  # an unforeseen error ends this look; the next one may do better
                log.exception("subscriptions_not_looked_at")
                pause_s = self._limits.retry_s
            # Without a shortest pause a thousand moments that follow each other would be a thousand looks.
            # Not `wait_for`, which in Python 3.11 may swallow a cancellation: the process would never stop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(pause_s, self._limits.look_pause_s)):
                    await self._has_sooner.wait()

    async def _keep_looking(self) -> None:
        """Look at one subscription after the other."""
        while not self._is_stopping:
            key = await self._queue.get()
            await self._guard(key, partial(self._look, key))

    async def _guard(self, key: SubscriptionKey, work: Callable[[], Awaitable[bool]]) -> None:
        """Do a piece of work for a subscription, after which it is free unless more is under way. Raises nothing."""
        pause_s = 0.0
        try:
            if await work():
                return
        except StoreError as exc:
            fields = {"subscription": key, "reason": str(exc.__cause__ or exc)}
            log.warning("subscription_not_looked_at", extra=fields)
            pause_s = self._note_failure(key)
        except Exception:  # an unforeseen error of one subscription keeps no other waiting
            log.exception("subscription_not_looked_at", extra={"subscription": key})
            pause_s = self._note_failure(key)
        else:
            self._failure_counts.pop(key, None)
        asyncio.get_running_loop().call_later(pause_s, self._free, key)

    def _note_failure(self, key: SubscriptionKey) -> float:
        """Have a subscription looked at again; after how many seconds."""
        self._note_outcome(LOOK_FAILED)
        self._again.add(key)
        doublings = min(self._failure_counts[key], _DOUBLINGS_MAX)
        self._failure_counts[key] += 1
        return min(self._limits.retry_s * (1 << doublings), self._limits.retry_s_max)

    def _free(self, key: SubscriptionKey) -> None:
        """Look again if that was asked for meanwhile."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.check(key)
        if not self._busy:
            self._is_settled.set()

    async def _look(self, key: SubscriptionKey) -> bool:
        """Do what is to be done for a subscription; whether an attempt is under way. Raises StoreError."""
        known = await self._ledger.load(key)
        if known is None:
            self._ledger.forget(key)
            return False
        is_owned = await self._is_owned(known)
        if not is_owned:
            await self._end_ownership(known, is_gone=is_owned is None)
            return False
        computed = await self._ledger.compute(key, known.owner, moves.look)
        if computed is None or isinstance(computed.moved, Refusal):
            return False
        if not _is_to_be_sent(computed.moved):
            if await self._ledger.make(computed.before, computed.moved, computed.noted) is None:
                await self._ledger.change(key, known.owner, moves.look)
            return False
        attempt = self._guard(key, partial(self._attempt_in_turn, known))
        task = asyncio.get_running_loop().create_task(attempt, name="wake")
        self._attempts_under_way.add(task)
        task.add_done_callback(self._attempts_under_way.discard)
        return True

    async def _attempt_in_turn(self, known: Subscription) -> bool:
        """Wake a worker once there is a slot. A wake is issued only then, because its lease begins then."""
        url = known.configuration.webhook_url
        if url is None:
            await self._look_and_attempt(known.key, known.owner)
        else:
            async with self._slots.hold(known.owner, url, is_retry=known.failure_count > 0):
                await self._look_and_attempt(known.key, known.owner)
        return False

    async def _look_and_attempt(self, key: SubscriptionKey, owner: int) -> None:
        """Issue the wake that is due, wake a worker, and note what came of it."""
        subscription = await self._ledger.change(key, owner, moves.look)
        if subscription is None or isinstance(subscription, Refusal) or not _is_to_be_sent(subscription):
            return
        wake = subscription.wake
        assert wake is not None, "it is to be sent"
        if subscription.configuration.type is SubscriptionType.WEBHOOK:
            attempt = await self._attempts.send_webhook(subscription, wake)
        else:
            attempt = await self._attempts.append_event(subscription, wake)
        self._note_outcome(attempt.value)
        await self._ledger.change(key, owner, partial(self._note_attempt, wake, attempt))

    def _note_attempt(
        self, wake: Wake, attempt: Attempt, subscription: Subscription, heads: Heads, moment: Moment
    ) -> Subscription:
        if attempt is Attempt.FAILED:
            return moves.note_failure(subscription, wake.wake_id, moment.now_ms, self._clock.jitter())
        is_done = attempt is Attempt.DONE
        return moves.note_delivered(subscription, wake.wake_id, heads, moment, is_done=is_done)

    async def _end_ownership(self, known: Subscription, *, is_gone: bool) -> None:
        """Remove a subscription whose owner is gone, or let it rest. Raises StoreError."""
        if is_gone:
            log.info("subscription_removed", extra={"subscription": known.key})
            await self._ledger.remove(known)
            return
        if not known.root:  # its patterns match the projects' streams now, whose appends shall not pay for it
            self._ledger.new_paths.pop(known.key, None)
        await self._ledger.change(known.key, known.owner, _rest)
        if not known.root:
            self._ledger.forget(known.key)


def _rest(subscription: Subscription, _heads: Heads, _moment: Moment) -> Subscription:
    """Without a wake and a retry nothing is due; the work is pending still, and gets a wake when the owner is back."""
    if subscription.due_ms is None:
        return subscription
    return replace(subscription, wake=None, retry_at_ms=None, failure_count=0)


def _is_to_be_sent(subscription: Subscription) -> bool:
    wake = subscription.wake
    return wake is not None and wake.phase is Phase.ISSUED and subscription.retry_at_ms is None
