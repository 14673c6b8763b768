"""The attributes of the table's items, each in its short spelling: DynamoDB bills names, too.

Every item has the keys `pk` and `sk`. By partition key:

    S#<name>                  `H`: the stream's head item; without `i` it is the tombstone of a life that has ended
    S#<name>                  `C#<id>`: a WebSocket connection that reads the stream; `B`: how far they were sent it
    C#<id>                    `-`: which stream a connection reads
    SEG#<incarnation>         `<end position>`: a segment of the life, hot (with its bytes) or cold (in S3)
    PAYLOAD#<name>            `<commit id>`: the bytes of one batch that was too large for the head
    PRODUCER#<incarnation>    `<producer id>`: a producer that the head has no room for
    FOLLOWER#<incarnation>    `<estuary>`: an estuary that follows this life of a stream
    ONCE#<hash>               `-`: the commit id of an append that its sender gave a key
    PROJECTS                  `<project>`: a project or, without its content, the mark that there was one
    USAGE#<project>#<day>     `-`: how many bytes a project has appended on a day
    SWEEP                     `-`: where the last sweep had no time left
"""

from typing import Final

PK: Final = "pk"
SK: Final = "sk"
#: Epoch seconds after which DynamoDB may delete the item: only of tombstones, and of what ends at a fixed moment.
TTL: Final = "t"

# -- the head item ---------------------------------------------------------------------------------------------------

INCARNATION: Final = "i"
#: What every commit must name, and what is raised when an answer was lost.
FENCE: Final = "f"
#: The fence that the life, or the tombstone, began with; absent in the first life of a name.
BEGAN: Final = "fb"
#: Microseconds since 1970: when the life began, or the one that a tombstone is of (see Head.born_us).
BORN_US: Final = "bu"
TAIL: Final = "n"
#: Where the buffer begins.
BASE: Final = "b"
#: The newest batches, in the form of `batch_bytes`.
BUFFER: Final = "q"
MEDIA_TYPE: Final = "m"
#: The content type as it was given, when that is more than the media type.
CONTENT_TYPE: Final = "c"
CLOSED: Final = "cl"
STREAM_SEQ: Final = "sq"
#: Producer id -> [epoch, seq, 0, when it wrote last, in seconds]; the zero is what `if_not_exists` finds of a producer
#: that is not new.
PRODUCERS: Final = "p"
PRODUCER_COUNT: Final = "pc"
#: How often producers were moved out of the head; absent when none ever was.
EVICTIONS: Final = "pv"
#: Milliseconds from a use to the deadline, of a stream with a sliding lifetime.
WINDOW: Final = "w"
TTL_SECONDS: Final = "ts"
#: Of a stream with a sliding lifetime: the deadline, which only moves on.
USED_UNTIL: Final = "u"
EXPIRES_AT: Final = "x"
EXPIRES_TEXT: Final = "xt"
REFERENCES: Final = "r"
#: Present when the stream was deleted and is kept for its forks.
SOFT_DELETED: Final = "d"
ORIGIN: Final = "o"
LINEAGE: Final = "l"
#: Where the segments in S3 end, and how many batches have been spilled since.
COLD_END: Final = "k"
SPILLED: Final = "h"
#: Which partition of the listing index the stream is in.
LISTING: Final = "ls"
#: Of an estuary: how it keeps what flows into it, and source -> [incarnation, position].
ESTUARY: Final = "es"
CURSORS: Final = "cu"
#: Present once the stream was followed: up to where all its followers have everything.
DELIVERED: Final = "dl"
#: Present when the stream is read without a token; and what caches keep its pages under.
PUBLIC: Final = "pb"
READER_KEY: Final = "rk"
#: When a sweep has last had the change feed look at the head again.
SHOWN_AT: Final = "sh"
#: The commit that deleted the stream; stays with the tombstone.
ENDED_BY: Final = "by"
#: The life that a tombstone is of.
ENDED_LIFE: Final = "ei"

#: All that a head item may have besides its keys: whatever is defined above. What ends a life removes nearly all of it.
OF_HEAD: Final[frozenset[str]] = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and name not in {"PK", "SK"}
)

# -- segments, payloads, producers and followers ---------------------------------------------------------------------

START: Final = "b"
DATA: Final = "d"
#: Hot: 32 bits a batch, its length and in the two highest bits where its bytes are. Cold: the lengths alone.
LENGTHS: Final = "e"
COMMIT_IDS: Final = "i"
#: The stream that a segment or producer is of: by its head a sweep finds out whether their life goes on.
OWNER: Final = "s"
#: Milliseconds: when the segment was written, by its writer's clock.
WRITTEN_AT: Final = "at"
#: The S3 object with a cold segment's bytes.
OBJECT_KEY: Final = "o"
EPOCH: Final = "e"
SEQ: Final = "n"
#: Which subscription a follower is there by; a later one of the same estuary is another.
SUBSCRIPTION: Final = "id"

# -- connections ------------------------------------------------------------------------------------------------------

#: Present once a connection has been sent what it had missed: what the others get is for it, too, from here on.
JOINED: Final = "j"
#: Up to where a broadcast is under way.
SENDING: Final = "sn"
#: How many broadcasts have begun.
BROADCASTS: Final = "bn"
#: Epoch seconds from which a connection must be sent nothing: its token has expired.
UNTIL: Final = "un"

#: It was let in without a token, because the server was open to everybody; absent otherwise.
NEEDS_OPEN: Final = "no"
#: The stream that a connection reads.
STREAM: Final = "s"

#: A project as JSON, and which version of which of its name's lives it is.
PROJECT: Final = "j"
LIFE: Final = "i"
VERSION: Final = "v"
BYTE_COUNT: Final = "n"

#: The place that a sweep goes on from.
PLACE: Final = "p"

BROADCAST_SK: Final = "B"
CONNECTION_SK_PREFIX: Final = "C#"

LISTING_INDEX: Final = "listing"
HEAD_SK: Final = "H"
