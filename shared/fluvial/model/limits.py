"""Limits of streams, requests and projects, each with its reason. Settings may lower some of them."""

from typing import Final

#: "MUST be a non-negative integer <= 2^53-1 (for JavaScript interoperability)" -- spec 5.2.1.
SAFE_INTEGER_MAX: Final = 2**53 - 1

#: Positions fill the 16 digits of an offset token; a stream may hold just under 10 PB.
POSITION_MAX: Final = 10**16 - 1

#: A name with a prefix is the sort key of the index that lists names, and DynamoDB's sort keys have up to 1,024 bytes.
STREAM_NAME_BYTES_MAX: Final = 1_000

#: These are stored in the stream's head, so each must be small.
PRODUCER_ID_BYTES_MAX: Final = 256
STREAM_SEQ_BYTES_MAX: Final = 256
CONTENT_TYPE_BYTES_MAX: Final = 256

#: A path may have each byte of its name percent-encoded. A reader's query may have a token, which has few claims; the
#: longest is a stream's name.
PATH_BYTES_MAX: Final = 3 * STREAM_NAME_BYTES_MAX + 64
TOKEN_BYTES_MAX: Final = 4_096
QUERY_BYTES_MAX: Final = 1_024 + TOKEN_BYTES_MAX
assert PATH_BYTES_MAX >= 3 * STREAM_NAME_BYTES_MAX, "a legal name must fit, however it is spelt"

#: API Gateway passes 10,240 bytes of headers; here proxies may add theirs.
HEADER_BYTES_MAX: Final = 32_768

#: The body of one append. A larger one should not be kept in memory for each connection.
BODY_BYTES_MAX_DEFAULT: Final = 16 * 1_048_576
BODY_BYTES_MAX: Final = 256 * 1_048_576

#: Live reads (long-polls, SSE connections and WebSockets) that may be open at once. Each holds a connection and some
#: ten kilobytes. The largest setting is more than one machine has ports for one address.
LIVE_READS_MAX_DEFAULT: Final = 10_000
LIVE_READS_MAX: Final = 1_000_000

#: The messages of one append in JSON mode. Splitting a body into so many takes some ten milliseconds of the event loop.
MESSAGES_PER_REQUEST_MAX: Final = 100_000

#: The part of a refused body that is read and discarded, so that the client reads the answer.
REFUSED_BODY_BYTES_MAX: Final = 128 * 1_048_576

#: The page of one answer to a read; longer only when a single batch is longer.
PAGE_BYTES_MAX: Final = 1_048_576

#: The page of one SSE data event; small, so that little is buffered for a slow reader.
EVENT_BYTES_MAX: Final = 65_536

#: Producers are kept as long as the stream (spec 5.2.1, Producer State Cleanup), so their number is limited.
PRODUCERS_PER_STREAM_MAX: Final = 100_000

#: An estuary's cursors are stored in its head, each with the name of its source, and DynamoDB bills the whole head.
SOURCES_PER_ESTUARY_MAX: Final = 64

#: Followers that are delivered to before the publisher is answered; a stream with more of them is put into a queue.
INLINE_SUBSCRIBERS_MAX: Final = 200

#: An unused estuary expires after a day unless its creator sets another time, of 30 days at most.
ESTUARY_TTL_S_DEFAULT: Final = 86_400
ESTUARY_TTL_S_MAX: Final = 30 * 86_400

#: The key by which the sender of an append recognizes a repeat.
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 256

#: The entity tags that a write may name: each state is a part of one condition in the database.
STREAM_STATES_MAX: Final = 16

#: A fork copies its source's lineage into its head, and deleting it may remove every ancestor in the same step.
FORK_DEPTH_MAX: Final = 64

#: One hundred years: past it a deadline in milliseconds would leave RFC 3339's four-digit years.
TTL_SECONDS_MAX: Final = 100 * 366 * 86_400

#: A cursor counts 20 s intervals since 2024, plus jitter; eighteen digits outlast the sun.
CURSOR_DIGITS_MAX: Final = 18
CURSOR_INTERVAL_MS: Final = 20_000
CURSOR_EPOCH_MS: Final = 1_728_432_000_000
CURSOR_JITTER_S_MAX: Final = 3_600

#: A segment is written when the hot log has so many bytes or so many batches.
SEGMENT_BYTES: Final = 4 * 1_048_576
SEGMENT_BATCHES: Final = 1_000

#: On DynamoDB a batch that is too large for the head is an item of its own up to this size, and above it an object in
#: S3. Written and deleted, an item costs two write units ($1.25 a million) for each kilobyte, an object $5.40 a million
#: whatever its size: they meet at 4.3 KB. A put to S3 takes some 10 to 35 ms longer, which is worth up to twice that.
PAYLOAD_ITEM_BYTES_DEFAULT: Final = 8_192

#: DynamoDB takes items of 400 KB, names and keys included.
PAYLOAD_ITEM_BYTES_MAX: Final = 300_000

#: A key of HS256 has at least 256 bits (RFC 7518, section 3.2). A secret is text with one byte a character.
SECRET_BYTES_MIN: Final = 32
SECRET_BYTES_MAX: Final = 256

#: Every secret of a project is tried for every token.
SECRETS_PER_PROJECT_MAX: Final = 8

#: Origins are compared with that of each request, and stored in the project. A host name has up to 253 bytes.
ORIGINS_PER_PROJECT_MAX: Final = 64
ORIGIN_BYTES_MAX: Final = 270

#: How far the clocks of a token's issuer and of this server may differ, for the claims `nbf` and `iat`.
TOKEN_LEEWAY_S: Final = 60

#: How far ahead a token's times may be: a hundred years. A later time is in milliseconds, by mistake.
TOKEN_S_AHEAD_MAX: Final = 3_155_760_000

#: The body of a control route.
CONTROL_BODY_BYTES_MAX: Final = 65_536

#: How long another process may take to see a change of a project.
PROJECT_CACHE_S: Final = 5

#: An id is a part of paths, keys and tokens.
SUBSCRIPTION_ID_LENGTH_MAX: Final = 256

#: The index of patterns is in memory, at about a kilobyte each.
SUBSCRIPTIONS_PER_PROJECT_MAX: Final = 20_000

#: All links of a subscription are looked at when it is idle again, at about a microsecond each.
LINKS_PER_SUBSCRIPTION_MAX: Final = 10_000

#: The streams of one wake: its body has up to some hundred kilobytes. Further pending streams are in the next wake.
STREAMS_PER_WAKE_MAX: Final = 1_000

#: A pattern has as many segments as are sensible in a path.
PATTERN_SEGMENTS_MAX: Final = 64

DESCRIPTION_BYTES_MAX: Final = 1_024
WEBHOOK_URL_BYTES_MAX: Final = 2_048
WORKER_NAME_BYTES_MAX: Final = 256

#: The body of a subscription's route lists up to some thousand paths.
SUBSCRIPTION_BODY_BYTES_MAX: Final = 1_310_720
assert SUBSCRIPTION_BODY_BYTES_MAX >= STREAMS_PER_WAKE_MAX * (STREAM_NAME_BYTES_MAX + 200), "a whole wake can be acked"

#: "Lease duration, from 1 second to 10 minutes. Default: 30 seconds" -- spec 6.2
LEASE_MS_DEFAULT: Final = 30_000
LEASE_MS_MIN: Final = 1_000
LEASE_MS_MAX: Final = 600_000

#: "Webhook delivery retries use exponential backoff from 1 second up to 60 seconds with 20% jitter." -- spec 7.1
RETRY_MS_MIN: Final = 1_000
RETRY_MS_MAX: Final = 60_000
RETRY_JITTER_PERCENT: Final = 20

#: A wake event that no worker has claimed is followed by another one: after a lease at first, then more and more
#: seldom, because without workers each of them only makes the wake stream longer.
OFFER_MS_MAX: Final = 3_600_000

#: How long a wake's token is valid. A worker may extend its lease until then.
WAKE_TOKEN_MS_MAX: Final = 86_400_000

#: A new signing key is published for so long before it signs: twice the max-age of the key set (spec 6.5).
WEBHOOK_KEY_AHEAD_S: Final = 600

#: A signing key is published for so long after it has signed last. Receivers accept a signature for five minutes, and
#: those that queue what they receive may verify it a day later.
WEBHOOK_KEY_KEPT_S: Final = 86_400

#: Keys that are published at a time. Receivers read all of them.
WEBHOOK_KEYS_MAX: Final = 8

#: How long another process may take to see a rotation of the signing keys.
WEBHOOK_KEY_CACHE_S: Final = 5

#: "reject timestamps outside a small replay window such as five minutes" -- spec 7.1
WEBHOOK_REPLAY_S: Final = 300
assert WEBHOOK_KEY_KEPT_S > WEBHOOK_REPLAY_S, "a signature that is accepted must be verifiable"
