"""Keys of all items in the table; fluvial.storage.dynamodb.table.attributes lists the kinds of items."""

from typing import Any

from fluvial.model.commit import CommitId
from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.model.project import ProjectName
from fluvial.storage.dynamodb.table import attributes as a

#: One of DynamoDB's attribute values, e.g. {"N": "1"}, and an item of them by name.
Value = dict[str, Any]
Item = dict[str, Value]
Key = dict[str, Value]


def _key(partition: str, sort: str) -> Key:
    return {a.PK: {"S": partition}, a.SK: {"S": sort}}


def head_key(name: StreamName) -> Key:
    """The head item's key."""
    return _key(f"S#{name}", a.HEAD_SK)


def name_of(item: Item) -> StreamName:
    """The stream whose head item this is."""
    return StreamName(str(item[a.PK]["S"]).removeprefix("S#"))


def incarnation_partition(incarnation: Incarnation) -> str:
    """The partition of an incarnation's segments."""
    return f"SEG#{incarnation:016x}"


def segment_key(incarnation: Incarnation, end: int) -> Key:
    """The key of the segment that ends there."""
    return _key(incarnation_partition(incarnation), segment_sort(end))


def segment_sort(end: int) -> str:
    """A position as a sort key: the order of the text is the order of the numbers."""
    return f"{end:016d}"


def payload_key(owner: StreamName, commit_id: CommitId) -> Key:
    """The key of a large batch's bytes: each has a partition of its own, so that a stream's payloads spread."""
    return _key(f"{a.PAYLOAD_KIND}#{owner}#{commit_id.hex()}", "-")


def gathered_payload_key(owner: StreamName, commit_id: CommitId) -> Key:
    """The key that a payload has in format 1, where all payloads of a stream are in one partition."""
    return _key(f"{a.GATHERED_PAYLOAD_KIND}#{owner}", commit_id.hex())


def payload_of(key: Key) -> tuple[StreamName, CommitId]:
    """The stream and the commit id in a payload's key, of either form."""
    kind, _, rest = str(key[a.PK]["S"]).partition("#")
    if kind == a.GATHERED_PAYLOAD_KIND:
        return StreamName(rest), CommitId(bytes.fromhex(key[a.SK]["S"]))
    owner, _, commit_id = rest.rpartition("#")
    return StreamName(owner), CommitId(bytes.fromhex(commit_id))


def producers_partition(incarnation: Incarnation) -> str:
    """The partition of an incarnation's evicted producers."""
    return f"PRODUCER#{incarnation:016x}"


def producer_key(incarnation: Incarnation, producer_id: str) -> Key:
    """The key of an evicted producer."""
    return _key(producers_partition(incarnation), producer_id)


def followers_partition(incarnation: Incarnation) -> str:
    """The partition of an incarnation's followers."""
    return f"FOLLOWER#{incarnation:016x}"


def follower_key(incarnation: Incarnation, estuary: StreamName) -> Key:
    """The key of one follower."""
    return _key(followers_partition(incarnation), estuary)


def broadcast_key(name: StreamName) -> Key:
    """The key of the state of a stream's broadcasts."""
    return _key(f"S#{name}", a.BROADCAST_SK)


def connection_key(name: StreamName, connection_id: str) -> Key:
    """The key of a connection that reads a stream: in the head's partition, so that the feed keeps their order."""
    return _key(f"S#{name}", f"{a.CONNECTION_SK_PREFIX}{connection_id}")


def connection_stream_key(connection_id: str) -> Key:
    """The key of the stream that a connection reads."""
    return _key(f"C#{connection_id}", "-")


def project_key(name: ProjectName) -> Key:
    """The key of a project."""
    return _key("PROJECTS", name)


def usage_key(name: ProjectName, day: int) -> Key:
    """The key of a project's appended bytes on a day."""
    return _key(f"USAGE#{name}#{day}", "-")


def signing_keys_key() -> Key:
    """The key of the keys that sign webhooks."""
    return _key("SIGNING", "-")


def sweep_key() -> Key:
    """The key of the position where the next sweep starts."""
    return _key("SWEEP", "-")


def table_key() -> Key:
    """The key of the item with the table's own id."""
    return _key("TABLE", "-")


def idempotency_key(digest: str) -> Key:
    """The key of the intent of a commit with an idempotency key."""
    return _key(f"ONCE#{digest}", "-")
