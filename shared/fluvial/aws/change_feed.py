"""Changes: what follows a commit on DynamoDB, driven by the table's stream. The committed head is the outbox.

Every step looks at how things are now, not at how they were when the record was written, and may be done again; so
records may come twice, late, or from the beginning of the window.
"""

import asyncio
import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fluvial.aws.fanout_queue import MESSAGES_PER_REQUEST_MAX, FanOutQueue
from fluvial.aws.websocket_broadcast import Broadcaster
from fluvial.fanout.publisher import Publisher
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError
from fluvial.model.followers import Follower
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.items import HeadItem, head_of_item
from fluvial.storage.dynamodb.table.keys import Item, Value, name_of
from fluvial.storage.dynamodb.upkeep.rotation import rotation_is_due
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation
from fluvial.storage.notifier import has_changed

log = logging.getLogger(__name__)

#: Streams of one batch that are worked on at once.
STREAMS_AT_ONCE: Final = 8

_NOTHING: Final = HeadItem(None, 0)


@dataclass(slots=True)
class StreamChange:
    """What a batch of records says of one stream: the lives that have ended in it, and how it stands at the end."""

    name: StreamName
    latest: HeadItem = _NOTHING
    ended: list[DroppedIncarnation] = field(default_factory=list)
    has_changed: bool = False
    has_new_reader: bool = False
    is_shown_again: bool = False
    sequence_numbers: list[str] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Take in the next record of the stream's head, or of a connection that reads it."""
        change = record["dynamodb"]
        self.sequence_numbers.append(change["SequenceNumber"])
        if change["Keys"][a.SK] != {"S": a.HEAD_SK}:
            self.has_new_reader = self.has_new_reader or record["eventName"] == "INSERT"
            return
        old, new = _head_item(change.get("OldImage")), _head_item(change.get("NewImage"))
        if old.head is not None and (new.head is None or new.head.incarnation != old.head.incarnation):
            self.ended.append(DroppedIncarnation(self.name, old.head.incarnation, old.buffer))
        images = change.get("OldImage") or {}, change.get("NewImage") or {}
        self.is_shown_again = self.is_shown_again or images[0].get(a.TOUCHED_AT) != images[1].get(a.TOUCHED_AT)
        self.has_changed = self.has_changed or (
            new.head is not None and (old.head is None or has_changed(new.head, old.head))
        )
        self.latest = new


def changes_of(event: dict[str, Any]) -> list[StreamChange]:
    """The streams that a batch of records speaks of; records of other items say nothing."""
    changes: dict[StreamName, StreamChange] = {}
    for record in event["Records"]:
        keys = record["dynamodb"]["Keys"]
        sort = keys[a.SK]["S"]
        is_of_stream = sort == a.HEAD_SK or sort.startswith(a.CONNECTION_SK_PREFIX)
        if is_of_stream and keys[a.PK]["S"].startswith("S#"):
            name = name_of(keys)
            changes.setdefault(name, StreamChange(name)).add(record)
    return list(changes.values())


class ChangeFeed:
    """Does what is due after each stream's changes."""

    def __init__(
        self, store: DynamoDbStore, publisher: Publisher, queue: FanOutQueue, broadcaster: Broadcaster
    ) -> None:
        """`queue` is for streams with more followers than one invocation should deliver to."""
        self._store, self._publisher, self._queue, self._broadcaster = store, publisher, queue, broadcaster

    async def failed(self, changes: list[StreamChange]) -> set[str]:
        """Do it; the sequence numbers of the records whose streams must be looked at again."""
        slots = asyncio.Semaphore(STREAMS_AT_ONCE)

        async def follow(change: StreamChange) -> bool:
            async with slots:
                try:
                    await self._follow(change)
                except StoreError as exc:
                    log.warning("change_failed", extra={"stream": change.name, "reason": str(exc.__cause__ or exc)})
                    return False
                except Exception:  # whatever is wrong with one stream, the batch's others are done
                    log.exception("change_failed", extra={"stream": change.name})
                    return False
                return True

        done = await asyncio.gather(*map(follow, changes))
        pairs = zip(changes, done, strict=True)
        return {number for change, is_done in pairs if not is_done for number in change.sequence_numbers}

    async def _follow(self, change: StreamChange) -> None:
        """Take every step that is due, whatever becomes of the others; raise the first error at the end."""
        head, due = change.latest.head, list[Callable[[], Awaitable[None]]]()
        due += [partial(self._store.collect, life) for life in change.ended]
        if change.has_changed or change.has_new_reader or change.ended:
            due.append(partial(self._broadcaster.broadcast, change.name))
        may_lack = head is not None and head.delivered is not None and head.delivered < head.tail
        if may_lack and (change.has_changed or change.is_shown_again):
            due.append(partial(self._deliver, change.name))
        if rotation_is_due(change.latest, self._store.config.limits):
            due.append(partial(self._store.rotate, change.name))
        errors = list[Exception]()
        for step in due:
            try:
                await step()
            except Exception as exc:  # noqa: BLE001  raised once the other steps are taken
                errors.append(exc)
        if errors:
            raise errors[0]

    async def _deliver(self, name: StreamName) -> None:
        """Deliver what an inline publish has not; with many followers, nothing is inline."""
        head = await self._store.head(name)
        if head is None or head.delivered is None or head.delivered >= head.tail:
            return
        source = Source(name, head)
        inline_max = self._publisher.limits.inline_subscribers_max
        if len(await self._store.followers(head.incarnation, "", inline_max + 1)) > inline_max:
            await self._enqueue(source)
        elif lacking := await self._publisher.deliver_to_all(source):
            await self._queue.send(source, [lacking])  # so that one that cannot be filled holds up nobody else

    async def _enqueue(self, source: Source) -> None:
        after, pages, page_max = "", list[list[Follower]](), self._publisher.limits.followers_per_page
        while page := await self._store.followers(source.head.incarnation, after, page_max):
            pages.append(page)
            after = page[-1].estuary
            if len(pages) == MESSAGES_PER_REQUEST_MAX:
                await self._queue.send(source, pages)
                pages = []
        await self._queue.send(source, pages)


def _head_item(image: dict[str, Any] | None) -> HeadItem:
    return _NOTHING if image is None else head_of_item(_item(image))


def _item(image: dict[str, Any]) -> Item:
    """An item as DynamoDB's own API has it: a record's bytes are in base64."""
    return {name: _value(value) for name, value in image.items()}


def _value(value: Value) -> Value:
    match value:
        case {"B": str(text)}:
            return {"B": b64decode(text)}
        case {"L": list(values)}:
            return {"L": [_value(one) for one in values]}
        case {"M": dict(values)}:
            return {"M": _item(values)}
        case _:
            return value
