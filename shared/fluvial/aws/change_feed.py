"""The change feed: the steps that follow a commit on DynamoDB, driven by the table's stream.

- The committed head is the outbox: deliveries, broadcasts, rotations and collections that are due can be read from it.
- Each step looks at the stream as it is now, not as it was when the record was written, and may be repeated. So records
  may come twice, late, or from the beginning of the stream's window.
- A stream whose steps fail has its records sent again, and takes its other steps all the same. Other streams of the
  batch are not held up.
"""

import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fluvial.aws.fanout_queue import MESSAGES_PER_REQUEST_MAX, FanOutQueue
from fluvial.aws.partial_batch import partial_batch_response
from fluvial.aws.websocket_broadcast import Broadcaster
from fluvial.concurrency import map_bounded
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError
from fluvial.model.followers import Follower
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_mark_delivered
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.items import HeadItem, decode_head_item
from fluvial.storage.dynamodb.table.keys import Item, Value, name_of
from fluvial.storage.dynamodb.upkeep.rotation import rotation_is_due
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation
from fluvial.storage.notifier import has_changed

log = logging.getLogger(__name__)

#: Streams of one batch that are processed at once.
STREAMS_AT_ONCE: Final = 8

_NO_HEAD: Final = HeadItem(None, 0)


@dataclass(slots=True)
class StreamChange:
    """The changes of one stream in a batch of records.

    `latest` is its head after the last record, `ended` are the incarnations that ended in the batch. `is_redelivered`
    when a sweep has touched the head, because its followers lack something that the feed has given up on.
    """

    name: StreamName
    latest: HeadItem = _NO_HEAD
    ended: list[DroppedIncarnation] = field(default_factory=list)
    has_changed: bool = False
    has_new_reader: bool = False
    is_redelivered: bool = False
    sequence_numbers: list[str] = field(default_factory=list)

    def add_record(self, record: dict[str, Any]) -> None:
        """Add the next record, which is of the stream's head or of a connection that reads the stream."""
        change = record["dynamodb"]
        self.sequence_numbers.append(change["SequenceNumber"])
        if change["Keys"][a.SK] != {"S": a.HEAD_SK}:
            self.has_new_reader = self.has_new_reader or record["eventName"] == "INSERT"
            return
        old_image, new_image = change.get("OldImage") or {}, change.get("NewImage") or {}
        old, new = _decode_head(old_image), _decode_head(new_image)
        if old.head is not None and (new.head is None or new.head.incarnation != old.head.incarnation):
            self.ended.append(DroppedIncarnation(self.name, old.head.incarnation, old.buffer))
        self.is_redelivered = self.is_redelivered or old_image.get(a.TOUCHED_AT) != new_image.get(a.TOUCHED_AT)
        self.has_changed = self.has_changed or (
            new.head is not None and (old.head is None or has_changed(new.head, old.head))
        )
        self.latest = new


def parse_changes(event: dict[str, Any]) -> list[StreamChange]:
    """The changes of each stream in a batch of records; records of other items are skipped."""
    changes: dict[StreamName, StreamChange] = {}
    for record in event["Records"]:
        keys = record["dynamodb"]["Keys"]
        sort = keys[a.SK]["S"]
        is_of_stream = sort == a.HEAD_SK or sort.startswith(a.CONNECTION_SK_PREFIX)
        if is_of_stream and keys[a.PK]["S"].startswith("S#"):
            name = name_of(keys)
            changes.setdefault(name, StreamChange(name)).add_record(record)
    return list(changes.values())


class ChangeFeed:
    """Takes the steps that are due after each stream's changes."""

    def __init__(
        self, store: DynamoDbStore, deliveries: Deliveries, queue: FanOutQueue, broadcaster: Broadcaster
    ) -> None:
        """`queue` takes the followers of a stream that has more than one invocation should deliver to."""
        self._store, self._deliveries, self._queue, self._broadcaster = store, deliveries, queue, broadcaster

    async def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """Process a batch of records; Lambda sends it again from the first failed record on."""
        failed = await self.process(parse_changes(event))
        numbers = (record["dynamodb"]["SequenceNumber"] for record in event["Records"])
        return partial_batch_response(number for number in numbers if number in failed)

    async def process(self, changes: list[StreamChange]) -> set[str]:
        """Take the steps of each stream; the sequence numbers of the records that must come again."""
        results = await map_bounded(changes, self._process_stream, STREAMS_AT_ONCE)
        pairs = zip(changes, results, strict=True)
        return {number for change, is_done in pairs if not is_done for number in change.sequence_numbers}

    async def _process_stream(self, change: StreamChange) -> bool:
        """Take one stream's steps; whether none failed."""
        try:
            await self._take_steps(change)
        except StoreError as exc:
            log.warning("change_failed", extra={"stream": change.name, "reason": str(exc.__cause__ or exc)})
            return False
        except Exception:  # an unforeseen error of one stream does not hold up the batch's other streams
            log.exception("change_failed", extra={"stream": change.name})
            return False
        return True

    async def _take_steps(self, change: StreamChange) -> None:
        """Take every step that is due, also after one that failed; raise the first error at the end."""
        head, due = change.latest.head, list[Callable[[], Awaitable[None]]]()
        due += [partial(self._store.collect, ended) for ended in change.ended]
        if change.has_changed or change.has_new_reader or change.ended:
            due.append(partial(self._broadcaster.broadcast, change.name))
        is_behind = head is not None and head.delivered is not None and head.delivered < head.tail
        if is_behind and (change.has_changed or change.is_redelivered):
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
        """Deliver what no inline publish has delivered; the followers of a stream with many go into the queue."""
        head = await self._store.head(name)
        if head is None or head.delivered is None or head.delivered >= head.tail:
            return
        source = Source(name, head)
        inline_max = self._deliveries.limits.inline_subscribers_max
        if len(await self._store.followers(head.incarnation, "", inline_max + 1)) > inline_max:
            await self._enqueue(source)
        elif undelivered := await self._deliveries.deliver_to_all(source):
            # To fail here would hold up all streams of the shard until this follower can be delivered to.
            await self._queue.send(source, [undelivered])
        else:
            await self._store.apply(name, plan_mark_delivered(head))

    async def _enqueue(self, source: Source) -> None:
        pages = list[list[Follower]]()
        async for page in self._deliveries.pages_of_followers(source):
            pages.append(page)
            if len(pages) == MESSAGES_PER_REQUEST_MAX:
                await self._queue.send(source, pages)
                pages = []
        await self._queue.send(source, pages)


def _decode_head(image: dict[str, Any]) -> HeadItem:
    return decode_head_item(_decode_image(image)) if image else _NO_HEAD


def _decode_image(image: dict[str, Any]) -> Item:
    """A record's item as DynamoDB's own API returns it: bytes are in base64 in a record."""
    return {name: _decode_value(value) for name, value in image.items()}


def _decode_value(value: Value) -> Value:
    match value:
        case {"B": str(text)}:
            return {"B": b64decode(text)}
        case {"L": list(values)}:
            return {"L": [_decode_value(one) for one in values]}
        case {"M": dict(values)}:
            return {"M": _decode_image(values)}
        case _:
            return value
