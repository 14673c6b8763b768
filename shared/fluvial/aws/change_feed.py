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
from typing import TYPE_CHECKING, Any, Final

from fluvial.aws.fanout_queue import MESSAGES_PER_REQUEST_MAX, FanOutQueue
from fluvial.aws.feed_observer import UNOBSERVED_FEED, FeedObserver
from fluvial.aws.partial_batch import Groups, RecordFailedError
from fluvial.aws.websocket_broadcast import Broadcaster
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError
from fluvial.model.followers import Follower
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_mark_delivered
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.format import ItemTooNew, require_understood
from fluvial.storage.dynamodb.table.items import HeadItem, decode_head_item
from fluvial.storage.dynamodb.table.keys import Item, Value, name_of
from fluvial.storage.dynamodb.upkeep.rotation import rotation_is_due
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation
from fluvial.storage.notifier import has_changed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord

log = logging.getLogger(__name__)

#: Streams of one batch that are processed at once.
STREAMS_AT_ONCE: Final = 8

_NO_HEAD: Final = HeadItem(None, 0)


@dataclass(slots=True)
class StreamChange:
    """The changes of one stream in a batch of records.

    `latest` is its head after the last record, `ended` are the incarnations that ended in the batch. `is_redelivered`
    when a sweep has touched the head, because its followers lack something that the feed has given up on. `too_new` is
    set when a newer release has written the head: then no step is taken, and the records come again.
    """

    name: StreamName
    latest: HeadItem = _NO_HEAD
    ended: list[DroppedIncarnation] = field(default_factory=list)
    has_changed: bool = False
    has_new_reader: bool = False
    is_redelivered: bool = False
    opened_count: int = 0
    closed_count: int = 0
    spill_count: int = 0
    rotated_bytes: list[int] = field(default_factory=list)
    sequence_numbers: list[str] = field(default_factory=list)
    too_new: ItemTooNew | None = None

    def add_record(self, record: dict[str, Any]) -> None:
        """Add the next record, which is of the stream's head or of a connection that reads the stream."""
        change = record["dynamodb"]
        self.sequence_numbers.append(change["SequenceNumber"])
        if change["Keys"][a.SK] != {"S": a.HEAD_SK}:
            self._add_connection(record["eventName"])
            return
        old_image, new_image = change.get("OldImage") or {}, change.get("NewImage") or {}
        try:
            require_understood(old_image, new_image)
        except ItemTooNew as exc:
            self.too_new = exc
            return
        old, new = _decode_head(old_image), _decode_head(new_image)
        if old.head is not None and (new.head is None or new.head.incarnation != old.head.incarnation):
            self.ended.append(DroppedIncarnation(self.name, old.head.incarnation, old.buffer))
        self.is_redelivered = self.is_redelivered or old_image.get(a.TOUCHED_AT) != new_image.get(a.TOUCHED_AT)
        self.has_changed = self.has_changed or (
            new.head is not None and (old.head is None or has_changed(new.head, old.head))
        )
        self._add_moves(old, new)
        self.latest = new

    def _add_connection(self, event_name: str) -> None:
        """Note a connection that was added or removed, also by its TTL; it is modified when it joins."""
        if event_name == "INSERT":
            self.has_new_reader = True
            self.opened_count += 1
        elif event_name == "REMOVE":
            self.closed_count += 1

    def _add_moves(self, old: HeadItem, new: HeadItem) -> None:
        """Note the bytes that left the head, and those that went into S3: each update of a head moves at most once."""
        if old.head is None or new.head is None or old.head.incarnation != new.head.incarnation:
            return
        self.spill_count += new.base > old.base
        if new.cold_end > old.cold_end:
            self.rotated_bytes.append(new.cold_end - old.cold_end)


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
        self,
        store: DynamoDbStore,
        deliveries: Deliveries,
        queue: FanOutQueue,
        broadcaster: Broadcaster,
        observer: FeedObserver = UNOBSERVED_FEED,
    ) -> None:
        """`queue` takes the followers of a stream that has more than one invocation should deliver to."""
        self._store, self._deliveries, self._queue, self._broadcaster = store, deliveries, queue, broadcaster
        self._observer = observer

    async def follow(self, change: StreamChange) -> bool:
        """Take one stream's steps; whether none failed."""
        for _ in range(change.spill_count):
            self._observer.on_spill()
        for byte_count in change.rotated_bytes:
            self._observer.on_rotation(byte_count)
        self._observer.on_sockets(change.opened_count, change.closed_count)
        try:
            errors = await self._take_steps(change)
        except Exception as exc:  # noqa: BLE001  one stream's unforeseen error does not hold up the batch's other streams
            errors = [exc]
        for error in errors:
            _log_failure(change.name, error)
        return not errors

    async def _take_steps(self, change: StreamChange) -> list[Exception]:
        """Take every step that is due, also after one that failed; the errors of those that failed."""
        if change.too_new is not None:
            return [change.too_new]
        head, due = change.latest.head, list[Callable[[], Awaitable[None]]]()
        due += [partial(self._store.collect, ended) for ended in change.ended]
        may_be_read = change.has_changed and self._broadcaster.is_due(change.latest)
        if may_be_read or change.has_new_reader or change.ended:
            broadcast = partial(self._broadcaster.broadcast, change.name, has_new_reader=change.has_new_reader)
            due.append(broadcast)
        is_behind = head is not None and head.delivered is not None and head.delivered < head.tail
        if is_behind and (change.has_changed or change.is_redelivered):
            due.append(partial(self._deliver, change.name))
        if rotation_is_due(change.latest, self._store.config.limits):
            due.append(partial(self._store.rotate, change.name))
        errors = list[Exception]()
        for step in due:
            try:
                await step()
            except Exception as exc:  # noqa: BLE001  returned once the other steps are taken
                errors.append(exc)
        return errors

    async def _deliver(self, name: StreamName) -> None:
        """Deliver what no inline publish has delivered; the followers of a stream with many go into the queue."""
        head = await self._store.head(name)
        if head is None or head.delivered is None or head.delivered >= head.tail:
            return
        self._observer.on_lag(head.tail - head.delivered)
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


class ChangeBatch:
    """A batch of records: a stream's steps are taken once, for all of its records."""

    def __init__(self, feed: ChangeFeed, event: dict[str, Any]) -> None:
        """Nothing is done before the first record."""
        self._feed = feed
        self._changes = {number: change for change in parse_changes(event) for number in change.sequence_numbers}
        self._streams = Groups[StreamName, bool](STREAMS_AT_ONCE)

    async def process_record(self, record: "DynamoDBRecord") -> None:
        """Wait for the steps of the record's stream. Raises RecordFailedError."""
        change = self._changes.get(record.raw_event["dynamodb"]["SequenceNumber"])
        if change is not None and not await self._streams.result(change.name, partial(self._feed.follow, change)):
            raise RecordFailedError


def _log_failure(name: StreamName, error: Exception) -> None:
    """Log why a stream's records come again. Only an unforeseen error is one of the log, too, with its traceback."""
    if isinstance(error, StoreError):
        log.warning("change_failed", extra={"stream": name, "reason": str(error.__cause__ or error)})
    else:
        log.error("change_failed", extra={"stream": name}, exc_info=error)


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
