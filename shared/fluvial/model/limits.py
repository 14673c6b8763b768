"""Every bound of the protocol's core, with its reason; settings may lower some of them."""

from typing import Final

#: "MUST be a non-negative integer <= 2^53-1 (for JavaScript interoperability)" -- spec 5.2.1.
SAFE_INTEGER_MAX: Final = 2**53 - 1

#: Positions fill the 16 digits of an offset token; a stream may hold just under 10 PB.
POSITION_MAX: Final = 10**16 - 1

#: A name, with a prefix, is a key: DynamoDB takes 1,024 bytes of the sort key that it is in the listing's index.
STREAM_NAME_BYTES_MAX: Final = 1_000

#: Identifiers that are kept with the stream's head, so each must stay small.
PRODUCER_ID_BYTES_MAX: Final = 256
STREAM_SEQ_BYTES_MAX: Final = 256
CONTENT_TYPE_BYTES_MAX: Final = 256

#: A path with each byte of its name percent-encoded, and the query a reader can need, which may carry a token: its
#: claims are few, and the longest is a stream's name.
PATH_BYTES_MAX: Final = 3 * STREAM_NAME_BYTES_MAX + 64
TOKEN_BYTES_MAX: Final = 4_096
QUERY_BYTES_MAX: Final = 1_024 + TOKEN_BYTES_MAX
assert PATH_BYTES_MAX >= 3 * STREAM_NAME_BYTES_MAX, "a legal name must fit, however it is spelt"

#: API Gateway passes 10,240 bytes of headers; here proxies may add theirs.
HEADER_BYTES_MAX: Final = 32_768

#: One append. The largest body that is still sensible to keep in memory for each connection.
BODY_BYTES_MAX_DEFAULT: Final = 16 * 1_048_576
BODY_BYTES_MAX: Final = 256 * 1_048_576

#: Long-polls, SSE connections and sockets that may be open at once, unless an operator says otherwise: each holds a
#: connection and some ten kilobytes. The most is more than one machine has ports for one address.
LIVE_READS_MAX_DEFAULT: Final = 10_000
LIVE_READS_MAX: Final = 1_000_000

#: One append in JSON mode; splitting so many messages takes some ten milliseconds, in which nothing else runs.
MESSAGES_PER_REQUEST_MAX: Final = 100_000

#: What is read and thrown away of a refused body, so that the client gets to see the answer.
REFUSED_BODY_BYTES_MAX: Final = 128 * 1_048_576

#: One answer to a read; longer only when a single batch is longer.
PAGE_BYTES_MAX: Final = 1_048_576

#: One SSE data event; small, so that what is under way to a slow reader stays small.
EVENT_BYTES_MAX: Final = 65_536

#: Producers are kept as long as the stream (spec 5.2.1, Producer State Cleanup), so they are counted.
PRODUCERS_PER_STREAM_MAX: Final = 100_000

#: An estuary's cursors are kept in its head, each with the name of its source, and a head is billed whole.
SOURCES_PER_ESTUARY_MAX: Final = 64

#: Followers that are delivered to before the publisher is answered; more than these wait in a queue.
INLINE_SUBSCRIBERS_MAX: Final = 200

#: An estuary that nobody uses lives for a day unless its creator says otherwise, and for 30 days at most.
ESTUARY_TTL_S_DEFAULT: Final = 86_400
ESTUARY_TTL_S_MAX: Final = 30 * 86_400

#: What a queue's sender knows a message by.
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 256

#: A write names the states of its stream that it is for, each of them a part of one condition in the database.
STREAM_STATES_MAX: Final = 16

#: A fork copies its source's lineage into its head, and its end may end every ancestor in the same step.
FORK_DEPTH_MAX: Final = 64

#: One hundred years: past it a deadline in milliseconds would leave RFC 3339's four-digit years.
TTL_SECONDS_MAX: Final = 100 * 366 * 86_400

#: A cursor counts 20 s intervals since 2024, plus jitter; eighteen digits outlast the sun.
CURSOR_DIGITS_MAX: Final = 18
CURSOR_INTERVAL_MS: Final = 20_000
CURSOR_EPOCH_MS: Final = 1_728_432_000_000
CURSOR_JITTER_S_MAX: Final = 3_600

#: A segment is written when the hot log holds this much, whichever comes first.
SEGMENT_BYTES: Final = 4 * 1_048_576
SEGMENT_BATCHES: Final = 1_000

#: A key of HS256 has at least the hash's 256 bits (RFC 7518, section 3.2); here they are characters of a text.
SECRET_BYTES_MIN: Final = 32
SECRET_BYTES_MAX: Final = 256

#: Every secret of a project is tried on every token.
SECRETS_PER_PROJECT_MAX: Final = 8

#: Origins are compared with each request's, and kept with the project. A host name has up to 253 bytes.
ORIGINS_PER_PROJECT_MAX: Final = 64
ORIGIN_BYTES_MAX: Final = 270

#: How far the clocks of who signs tokens and of who reads them may differ, for the claims that begin a token's time.
TOKEN_LEEWAY_S: Final = 60

#: How far ahead a token's times may be: a hundred years. What is further is in milliseconds, by mistake.
TOKEN_S_AHEAD_MAX: Final = 3_155_760_000

#: What a control route's body may hold.
CONTROL_BODY_BYTES_MAX: Final = 65_536

#: How long a change of a project may take to be seen by another process.
PROJECT_CACHE_S: Final = 5
