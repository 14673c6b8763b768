"""The attributes of the table's items. Their names are short, because DynamoDB bills names, too.

Every item has the keys `pk` and `sk`, and its format. By partition key:

    S#<name>                  `H`: the stream's head item; without `i` it is the tombstone of an ended incarnation
    S#<name>                  `C#<id>`: a WebSocket connection that reads the stream; `B`: how far they were sent it
    C#<id>                    `-`: which stream a connection reads
    SEG#<incarnation>         `<end position>`: a segment, hot (with its bytes) or cold (in S3)
    PL#<name>#<commit id>     `-`: one batch, or a group of batches, that was too large for the head
    PAYLOAD#<name>            `<commit id>`: a batch in format 1 (fluvial.storage.dynamodb.table.format)
    PRODUCER#<incarnation>    `<producer id>`: an evicted producer, for which the head has no room
    FOLLOWER#<incarnation>    `<estuary>`: an estuary that follows this incarnation
    ONCE#<hash>               `-`: the intent of an append with an idempotency key
    PROJECTS                  `<project>`: a project or, without its content, the mark that there was one
    USAGE#<project>#<day>     `-`: how many bytes a project has appended on a day
    SIGNING                   `-`: the keys that sign webhooks
    SWEEP                     `-`: where the next sweep starts
    TABLE                     `-`: the table's own id, which its bucket's object `owner` has, too
"""

from typing import Final

PK: Final = "pk"
SK: Final = "sk"
#: Epoch seconds after which DynamoDB may delete the item: of tombstones, and of streams with a fixed expiry.
TTL: Final = "t"

#: The format of the item (fluvial.storage.dynamodb.table.format); absent in items of format 1.
FORMAT: Final = "z"

# -- the head item ---------------------------------------------------------------------------------------------------

INCARNATION: Final = "i"
#: Every commit names the fence in its condition; a lost answer raises it.
FENCE: Final = "f"
#: The fence that the incarnation, or the tombstone, began with; absent in the first incarnation of a name.
BEGAN: Final = "fb"
#: Microseconds since 1970: the birth of the incarnation, or of the one that a tombstone is of (see Head.born_us).
BORN_US: Final = "bu"
TAIL: Final = "n"
#: Milliseconds since 1970: when the last batch was added, by its writer's clock.
APPENDED_MS: Final = "ap"
#: The position where the buffer begins.
BASE: Final = "b"
#: The newest batches, in the form of `encode_batch`.
BUFFER: Final = "q"
MEDIA_TYPE: Final = "m"
#: The content type as the client gave it, when that is more than the media type.
CONTENT_TYPE: Final = "c"
CLOSED: Final = "cl"
STREAM_SEQ: Final = "sq"
#: Producer id -> [epoch, seq, 0, second of its last write]; `if_not_exists` finds the zero of a producer that is known.
PRODUCERS: Final = "p"
PRODUCER_COUNT: Final = "pc"
#: The number of evictions of producers; absent when there was none.
EVICTIONS: Final = "pv"
#: Milliseconds from a use to the deadline, of a stream with a sliding lifetime.
WINDOW: Final = "w"
TTL_SECONDS: Final = "ts"
#: Of a stream with a sliding lifetime: the deadline, which only moves forward.
USED_UNTIL: Final = "u"
EXPIRES_AT: Final = "x"
EXPIRES_TEXT: Final = "xt"
REFERENCES: Final = "r"
#: Present when the stream is soft-deleted: deleted, but kept for its forks.
SOFT_DELETED: Final = "d"
ORIGIN: Final = "o"
LINEAGE: Final = "l"
#: The position where the segments in S3 end, and the number of batches spilled after it.
COLD_END: Final = "k"
SPILLED: Final = "h"
#: The partition of the listing index that the stream is in.
LISTING: Final = "ls"
#: Of an estuary: its mode, and its cursors: source -> [incarnation, position].
ESTUARY: Final = "es"
CURSORS: Final = "cu"
#: Present once the stream was followed: the position up to which all its followers have everything.
DELIVERED: Final = "dl"
#: Present when the stream is read without a token; and the reader key of its pages in caches.
PUBLIC: Final = "pb"
READER_KEY: Final = "rk"
#: Epoch seconds until which a WebSocket connection may read the stream; 0 before the first one, absent when unknown.
CONNECTED_UNTIL: Final = "cc"
#: The time when a sweep last touched the head, so that the change feed delivers it again.
TOUCHED_AT: Final = "sh"
#: The commit that deleted the stream; stays with the tombstone.
ENDED_BY: Final = "by"
#: The incarnation that a tombstone is of.
ENDED_LIFE: Final = "ei"

#: All attributes of a head item besides its keys: those defined above. A deletion removes nearly all of them.
OF_HEAD: Final[frozenset[str]] = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and name not in {"PK", "SK"}
)

# -- segments, payloads, producers and followers ---------------------------------------------------------------------

START: Final = "b"
DATA: Final = "d"
#: Hot: 32 bits per batch, its length and in the two highest bits its placement. Cold: the lengths alone.
LENGTHS: Final = "e"
COMMIT_IDS: Final = "i"
#: The stream that a segment or producer belongs to: by its head a sweep finds out whether it is still needed.
OWNER: Final = "s"
#: Milliseconds since 1970: when the segment was written, by its writer's clock.
WRITTEN_AT: Final = "at"
#: The S3 object with a cold segment's bytes.
OBJECT_KEY: Final = "o"
EPOCH: Final = "e"
SEQ: Final = "n"
#: The id of a follower's subscription; a later subscription of the same estuary has another.
SUBSCRIPTION: Final = "id"

# -- connections ------------------------------------------------------------------------------------------------------

#: Present once a connection has caught up: from then on it gets the stream's broadcasts.
JOINED: Final = "j"
#: The position up to which a broadcast is under way.
SENDING: Final = "sn"
#: The number of broadcasts that have begun.
BROADCASTS: Final = "bn"
#: Epoch seconds when the connection's token expires: from then on it is sent nothing.
UNTIL: Final = "un"

#: Present when the connection has no token, because the server was open when it was made.
NEEDS_OPEN: Final = "no"
#: The stream that a connection reads.
STREAM: Final = "s"

#: A project as JSON; its incarnation and version.
PROJECT: Final = "j"
LIFE: Final = "i"
VERSION: Final = "v"
BYTE_COUNT: Final = "n"

#: The keys that sign webhooks, as JSON.
KEY_RING: Final = "j"

#: The id by which a table and its bucket know each other.
TABLE_ID: Final = "id"

#: The position that a sweep continues from.
PLACE: Final = "p"

#: How the partition keys of payloads begin. The second is read and deleted, but no longer written; the first has a word
#: of its own, because a sweep of the release before would not understand a key of a known kind.
PAYLOAD_KIND: Final = "PL"
GATHERED_PAYLOAD_KIND: Final = "PAYLOAD"

BROADCAST_SK: Final = "B"
CONNECTION_SK_PREFIX: Final = "C#"

LISTING_INDEX: Final = "listing"
HEAD_SK: Final = "H"
