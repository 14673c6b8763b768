"""SqliteSubscriptions: subscriptions in the database of the streams, so that one fsync protects both.

1. A change writes the row of the subscription, and the rows of those links that differ.
2. Changes that arrive while a transaction runs become the next one: a thousand wakes do not wait for a thousand fsyncs.
3. The present versions are cached. That is exact, because no other process writes to the data folder.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
from cachetools import LRUCache
from msgspec.structs import replace

from fluvial.model.errors import StorageDamaged, StoreError, StoreUnavailable
from fluvial.model.names import HIGHEST
from fluvial.model.offset import Offset
from fluvial.model.subscriptions.pattern import StreamPath
from fluvial.model.subscriptions.state import Link, Subscription, SubscriptionKey
from fluvial.storage.failures import log_failure
from fluvial.storage.sqlite.checksums import check_row, row_checksum
from fluvial.storage.sqlite.group_commit import GroupCommit
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.rows import Row
from fluvial.storage.subscriptions import DueMoment

log = logging.getLogger(__name__)

#: Subscriptions that are cached; one weighs 1, and 1 more for every four links.
CACHE_WEIGHT: Final = 50_000
LINKS_PER_WEIGHT: Final = 4

_EXPLICIT, _GLOB = 1, 2
_BODY: Final = msgspec.json.Decoder(Subscription)


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """Bounds of the changes that wait, and of a transaction."""

    #: The rows of one transaction, unless one change has more: so few that no group commit waits long.
    rows_per_transaction: int = 1_024
    #: So few rows may be written by the event loop itself: handing them to the writer's thread takes longer.
    inline_rows: int = 32
    #: Changes that wait; beyond it the store is busy.
    waiting_changes: int = 16_384


CHANGE_LIMITS: Final = ChangeLimits()


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of one subscription. `write` runs in the open transaction; whether the change's condition held."""

    key: SubscriptionKey
    row_count: int
    write: Callable[[sqlite3.Connection], bool]


class SqliteSubscriptions:
    """See `storage.subscriptions`."""

    def __init__(
        self, reader: sqlite3.Connection, group_commit: GroupCommit, limits: ChangeLimits = CHANGE_LIMITS
    ) -> None:
        """`reader` sees every durable transaction, and `group_commit` has the one writer."""
        self._reader, self._group_commit, self._limits = reader, group_commit, limits
        self._cache: LRUCache[SubscriptionKey, Subscription] = LRUCache(CACHE_WEIGHT, getsizeof=_weight)
        self._waiting = deque[tuple[_Change, asyncio.Future[bool]]]()
        self._writes: asyncio.Task[None] | None = None

    async def get(self, key: SubscriptionKey) -> Subscription | None:
        """See Subscriptions.get."""
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        rows = self._fetch(SQL.load_subscription, key)
        if not rows:
            return None
        loaded = self._decode(rows[0])
        self._keep(loaded)
        return loaded

    async def add(self, subscription: Subscription) -> bool:
        """See Subscriptions.add."""
        row, links = _row(subscription), [_link_row(subscription.key, *one) for one in subscription.links.items()]

        def write(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL.add_subscription, row).rowcount != 1:
                return False
            connection.executemany(SQL.save_link, links)
            return True

        is_done = await self._write(_Change(subscription.key, 1 + len(links), write))
        if is_done:
            self._keep(subscription)
        return is_done

    async def replace(self, before: Subscription, after: Subscription) -> bool:
        """See Subscriptions.replace."""
        saved, removed = _changed_links(before, after)
        row = (*_row(after), before.version)

        def write(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL.save_subscription, row).rowcount != 1:
                return False
            connection.executemany(SQL.save_link, saved)
            connection.executemany(SQL.remove_link, removed)
            return True

        is_done = await self._write(_Change(after.key, 1 + len(saved) + len(removed), write))
        if is_done:
            self._keep(after)
        return is_done

    async def remove(self, subscription: Subscription) -> bool:
        """See Subscriptions.remove."""
        key = subscription.key

        def write(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL.remove_subscription, (key, subscription.incarnation)).rowcount != 1:
                return False
            connection.execute(SQL.remove_links, (key,))
            return True

        is_done = await self._write(_Change(key, 1 + len(subscription.links), write))
        self._cache.pop(key, None)
        return is_done

    async def list_after(self, root: str, after: str, count_max: int) -> list[Subscription]:
        """See Subscriptions.list_after."""
        found = list[Subscription]()
        while keys := await self.keys_after(root, after, count_max - len(found)):
            for key in keys:
                with suppress(StorageDamaged):  # it is in the log
                    subscription = await self.get(key)
                    if subscription is not None:
                        found.append(subscription)
                await asyncio.sleep(0)  # one may have thousands of links
            after = keys[-1]
        return found

    async def keys_after(self, root: str, after: str, count_max: int) -> list[SubscriptionKey]:
        """See Subscriptions.keys_after."""
        rows = self._fetch(SQL.subscription_keys_after, root, after, root + HIGHEST, count_max)
        return [SubscriptionKey(key) for (key,) in rows]

    async def due_after(self, after: DueMoment, count_max: int) -> Sequence[DueMoment]:
        """See Subscriptions.due_after."""
        return [(due_ms, SubscriptionKey(key)) for due_ms, key in self._fetch(SQL.due_subscriptions, *after, count_max)]

    def _keep(self, subscription: Subscription) -> None:
        """Cache a version, unless a later one of the incarnation is cached already: answers may overtake each other."""
        cached = self._cache.get(subscription.key)
        is_older = (
            cached is not None
            and cached.incarnation == subscription.incarnation
            and cached.version > subscription.version
        )
        if not is_older and _weight(subscription) <= self._cache.maxsize:
            self._cache[subscription.key] = subscription

    async def _write(self, change: _Change) -> bool:
        """Write a change with the next transaction. Raises StoreUnavailable, StoreUncertain."""
        if len(self._waiting) >= self._limits.waiting_changes:
            raise StoreUnavailable
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, answer))
        if self._writes is None or self._writes.done():
            self._writes = asyncio.get_running_loop().create_task(self._write_waiting(), name="subscription writes")
        is_done = False
        try:
            is_done = await answer
        finally:
            if not is_done:  # a later read tells what is stored: the cache may have been wrong
                self._cache.pop(change.key, None)
        return is_done

    async def _write_waiting(self) -> None:
        """Write the changes that wait, one transaction after the other, until none waits. Raises nothing."""
        while self._waiting:
            taken = [self._waiting.popleft()]
            row_count = taken[0][0].row_count
            row_count_max = self._limits.rows_per_transaction
            while self._waiting and row_count + self._waiting[0][0].row_count <= row_count_max:
                taken.append(self._waiting.popleft())
                row_count += taken[-1][0].row_count
            results = list[bool]()

            def write(
                connection: sqlite3.Connection,
                taken: list[tuple[_Change, asyncio.Future[bool]]] = taken,
                results: list[bool] = results,
            ) -> None:
                results.extend(change.write(connection) for change, _ in taken)

            is_small = row_count <= self._limits.inline_rows
            submit = self._group_commit.submit_rows if is_small else self._group_commit.submit_work
            try:
                await submit(write)
            except StoreError as exc:
                for _, answer in taken:
                    if not answer.done():
                        answer.set_exception(type(exc)())
                continue
            for (_, answer), is_done in zip(taken, results, strict=True):
                if not answer.done():
                    answer.set_result(is_done)

    def _decode(self, row: Row) -> Subscription:
        key = row[0]
        try:
            check_row(row, f"the subscription {key}")
            links = dict(_link_of_row(link) for link in self._fetch(SQL.load_links, key))
            return replace(_BODY.decode(row[4]), links=links)
        except (StorageDamaged, msgspec.DecodeError) as exc:
            log_failure(log, "subscription_unreadable", exc, subscription=key)
            raise StorageDamaged from exc

    def _fetch(self, statement: str, *parameters: object) -> list[Row]:
        try:
            return self._reader.execute(statement, parameters).fetchall()
        except sqlite3.Error as exc:
            log_failure(log, "subscriptions_unreadable", exc)
            raise StoreUnavailable from exc


def _weight(subscription: Subscription) -> int:
    return 1 + len(subscription.links) // LINKS_PER_WEIGHT


def _row(subscription: Subscription) -> Row:
    """The parameters of `add_subscription`."""
    body = msgspec.json.encode(replace(subscription, links={}))
    columns = (subscription.key, subscription.incarnation, subscription.version, subscription.due_ms, body)
    return (*columns, row_checksum(*columns))


def _link_row(key: SubscriptionKey, path: StreamPath, link: Link) -> Row:
    """The parameters of `save_link`."""
    kinds = _EXPLICIT * link.is_explicit + _GLOB * link.is_glob
    columns = (key, path, link.acked.born_us, link.acked.position, kinds)
    return (*columns, row_checksum(*columns))


def _link_of_row(row: Row) -> tuple[StreamPath, Link]:
    """The link in a row of `load_links`. Raises StorageDamaged."""
    key, path, born_us, position, kinds, _ = row
    check_row(row, f"a link of the subscription {key}")
    return StreamPath(path), Link(Offset(born_us, position), bool(kinds & _EXPLICIT), bool(kinds & _GLOB))


def _changed_links(before: Subscription, after: Subscription) -> tuple[list[Row], list[Row]]:
    """The rows of the links that a change adds or moves, and the keys of those that it removes."""
    if before.links is after.links:
        return [], []
    former: Mapping[StreamPath, Link] = before.links
    saved = [_link_row(after.key, path, link) for path, link in after.links.items() if former.get(path) != link]
    return saved, [(after.key, path) for path in former.keys() - after.links.keys()]
