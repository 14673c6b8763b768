"""MemoryStore: the smallest store that keeps the contract, for tests and for data that may be lost with the process."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from fluvial.model.commit import Commit, Outcome, Unmet
from fluvial.model.errors import StoreUnavailable, StreamVanished
from fluvial.model.followers import Follower
from fluvial.model.head import Head, Incarnation, ProducerStamp, spans_of
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.model.transition import transition
from fluvial.storage.memory_projects import MemoryProjects
from fluvial.storage.memory_signing_keys import MemorySigningKeys
from fluvial.storage.memory_subscriptions import MemorySubscriptions
from fluvial.storage.notifier import HeadNotifier, has_changed
from fluvial.storage.observer import StoreSize
from fluvial.storage.projects import Projects
from fluvial.storage.renewals import Renewals
from fluvial.storage.signing_keys import SigningKeys
from fluvial.storage.subscriptions import ChangeListener, Subscriptions


@dataclass(slots=True)
class _Log:
    """One incarnation's batches; `starts` and `ends` are their positions in the stream, ascending."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)


class MemoryStore:
    """Heads and batches in dictionaries: durable until the process ends."""

    def __init__(self) -> None:
        """Start without streams."""
        self._heads: dict[StreamName, Head] = {}
        self._logs: dict[Incarnation, _Log] = {}
        self._followers: dict[Incarnation, dict[StreamName, Follower]] = {}
        self._newest_born_us = 0
        self._notifier = HeadNotifier()
        self.projects: Projects = MemoryProjects()
        self.subscriptions: Subscriptions = MemorySubscriptions()
        self._listener: ChangeListener | None = None
        self.signing_keys: SigningKeys = MemorySigningKeys()
        self._is_closed = False
        self._renewals = Renewals(self.apply)

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """See Store.apply: this method awaits nothing, so each commit is one step."""
        if self._is_closed:
            raise StoreUnavailable
        result = transition(name, commit, self._heads.get, self._newest_born_us)
        if isinstance(result, Unmet):
            return result
        change, applied = result
        if applied.head is not None:
            self._newest_born_us = max(self._newest_born_us, applied.head.born_us)
        if change.batch is not None:
            log = self._logs.setdefault(change.batch.incarnation, _Log())
            log.starts.append(change.batch.start)
            log.ends.append(change.batch.end)
            log.batches.append(change.batch.data)
        for incarnation in change.dropped:
            self._logs.pop(incarnation, None)
            self._followers.pop(incarnation, None)
        for changed, head in change.heads.items():
            before = self._heads.get(changed)
            if head is None:
                self._heads.pop(changed, None)
            else:
                self._heads[changed] = head
            if before is None or has_changed(head, before):
                self._notifier.notify(changed, head)
            if self._listener is not None:
                self._listener(changed, before, head)
        return applied

    def listen(self, listener: ChangeListener) -> None:
        """See SubscriptionStore.listen."""
        self._listener = listener

    async def renew(self, name: StreamName, now_ms: int) -> None:
        """See Store.renew."""
        await self._renewals.renew(name, now_ms)

    async def head(self, name: StreamName) -> Head | None:
        """See Store.head."""
        return self._heads.get(name)

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:  # noqa: ARG002  the head is enough here
        """See Store.read."""
        position, first, parts, byte_count = start, start, list[bytes](), 0
        ends = list[int]()
        for span in spans_of(head):
            while span.start <= position < span.end:
                log = self._logs.get(span.incarnation)
                if log is None:
                    raise StreamVanished
                index = bisect_right(log.ends, position)
                begins, end = log.starts[index], min(log.ends[index], span.end)
                byte_count += end - begins
                if not parts:
                    first = begins
                elif byte_count > byte_count_max:
                    return Page(first, position, b"".join(parts), tuple(ends))
                parts.append(log.batches[index][: end - begins])
                ends.append(end)
                position = end
        return Page(first, position, b"".join(parts), tuple(ends))

    async def wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """See Store.wait."""
        head = self._heads.get(name)
        if has_changed(head, seen):
            return head
        try:
            return await self._notifier.wait(name, timeout_s)
        except TimeoutError:
            return self._heads.get(name)

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See Store.names."""
        visible = (name for name, head in self._heads.items() if not head.soft_deleted)
        return sorted(name for name in visible if name.startswith(prefix) and name > after)[:count_max]

    async def heads(self, names: Sequence[StreamName]) -> list[Head | None]:
        """See Store.heads."""
        return [self._heads.get(name) for name in names]

    async def producers(self, head: Head, count_max: int) -> list[ProducerStamp]:
        """See Store.producers: the head has all of them."""
        states = sorted(head.producers.items())[:count_max]
        return [ProducerStamp(producer_id, state.epoch, state.seq) for producer_id, state in states]

    async def undelivered(self, after: str, count_max: int) -> list[StreamName]:
        """See UndeliveredIndex.undelivered."""
        heads = self._heads.items()
        behind = (name for name, head in heads if head.delivered is not None and head.delivered < head.tail)
        return sorted(name for name in behind if name > after)[:count_max]

    async def add_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.add_follower."""
        if any(head.incarnation == source for head in self._heads.values()):
            self._followers.setdefault(source, {})[follower.estuary] = follower

    async def remove_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.remove_follower."""
        if await self.follower(source, follower.estuary) == follower:
            del self._followers[source][follower.estuary]

    async def followers(self, source: Incarnation, after: str, count_max: int) -> list[Follower]:
        """See Store.followers."""
        listed = self._followers.get(source, {})
        return [listed[name] for name in sorted(listed) if name > after][:count_max]

    async def follower(self, source: Incarnation, estuary: StreamName) -> Follower | None:
        """See Store.follower."""
        return self._followers.get(source, {}).get(estuary)

    async def measure(self) -> StoreSize:
        """See MeasuredStore.measure."""
        byte_count = sum(log.ends[-1] - log.starts[0] for log in self._logs.values() if log.ends)
        return StoreSize(sum(not head.soft_deleted for head in self._heads.values()), {"memory": byte_count})

    async def probe_write(self) -> None:
        """See WriteProbe.probe_write."""
        if self._is_closed:
            raise StoreUnavailable

    async def close(self) -> None:
        """See Store.close: there are no resources to release."""
        await self._renewals.close()
        self._is_closed = True
