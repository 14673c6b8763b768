"""What live readers take, by transport, and which of them cannot exist."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import ceil
from typing import Final

from fluvial.pricing import prices
from fluvial.pricing.measured import Measured
from fluvial.pricing.usage import Usage
from fluvial.pricing.workload import HOUR_S, MONTH_HOURS, MONTH_S, Transport, Workload

#: What a reader is sent of each write besides its bytes: an event's fields, an answer's headers, a frame's JSON.
EVENT_BYTES: Final = 140
ANSWER_BYTES: Final = 800
FRAME_BYTES: Final = 130

#: How long an event stream is held before the reader comes back, and a long-poll without news.
EVENT_STREAM_S: Final = 50.0
LONG_POLL_S: Final = 25.0
#: A reader's way back and forth with the poll of the head: several writes in this time come in one answer.
LONG_POLL_S_MIN: Final = 0.1
#: Where CloudFront asks for itself: its regional caches.
CDN_CACHES: Final = 13

#: A call to a connection, and how many of them are under way at once.
POST_S: Final = 0.01
POSTS_AT_ONCE: Final = 32
#: The changes function is stopped after this.
BROADCAST_S_MAX: Final = 120.0

#: Containers of 1 vCPU and 2 GB: one for 10,000 readers, and one for when another is not there.
RELAYS_MIN: Final = 2
RELAY_READERS_MAX: Final = 10_000
RELAY_MEMORY_GB: Final = 2
#: The balancer's two zones.
BALANCER_ADDRESSES: Final = 2

#: A request's lines in the live function's log: Lambda's own three, and the access log's. An estimate.
LIVE_LOG_BYTES: Final = 700


def sse(w: Workload, m: Measured) -> Usage:
    """Each reader holds a function, which reads the head for it alone."""
    requests = w.readers * MONTH_S / EVENT_STREAM_S
    sent_bytes = w.readers * w.stream_writes_s * MONTH_S * (w.bytes_per_write + EVENT_BYTES)
    return _held(w, m, requests) + Usage(
        api_requests=max(requests, sent_bytes / prices.API_REQUEST_BYTES), out_bytes=sent_bytes
    )


def long_poll(w: Workload, m: Measured) -> Usage:
    """Each reader asks again after each write, and a function waits with it for the next one."""
    requests = w.readers * answers_s(w) * MONTH_S
    sent_bytes = w.readers * w.stream_writes_s * MONTH_S * w.bytes_per_write + requests * ANSWER_BYTES
    return _held(w, m, requests) + Usage(api_requests=requests, out_bytes=sent_bytes)


def long_poll_cdn(w: Workload, m: Measured) -> Usage:
    """CloudFront asks once for all who have the same offset, and bills each of its answers."""
    origin = _held_by_cdn(w)
    requests = origin.readers * answers_s(w) * MONTH_S
    answers = w.readers * answers_s(w) * MONTH_S
    sent_bytes = w.readers * w.stream_writes_s * MONTH_S * w.bytes_per_write + answers * ANSWER_BYTES
    return _held(origin, m, requests) + Usage(api_requests=requests, cdn_requests=answers, cdn_bytes=sent_bytes)


def websocket(w: Workload, m: Measured) -> Usage:
    """API Gateway holds the connections; the changes function posts each write, or several that came meanwhile."""
    each_s = broadcasts_s(w)
    broadcasts = w.live_streams * each_s * MONTH_S
    frame_bytes = (w.stream_writes_s / each_s * w.bytes_per_write if each_s else 0) + FRAME_BYTES
    messages = w.readers * each_s * MONTH_S
    return Usage(
        write_units=broadcasts * m.broadcast.write_units,
        read_units=broadcasts * (m.broadcast.read_units + _apart_units(w, m)),
        s3_gets=broadcasts * m.append(w.bytes_per_write).tail_s3_gets,
        changes_gb_s=broadcasts * broadcast_s(w) * m.stack.changes_memory_mb / 1_024,
        socket_messages=messages * max(1, ceil(frame_bytes / prices.SOCKET_MESSAGE_BYTES)),
        socket_minutes=w.readers * MONTH_S / 60,
        out_bytes=messages * frame_bytes,
    )


def relay(w: Workload, m: Measured) -> Usage:
    """Containers behind a balancer, each with one poller for each stream that it has readers of."""
    count = relay_count(w)
    sent_bytes = w.readers * w.stream_writes_s * MONTH_S * (w.bytes_per_write + EVENT_BYTES)
    pollers = replace(w, readers=min(w.readers, count * w.streams))
    hour_bytes = sent_bytes / MONTH_S * HOUR_S
    units = max(w.readers / prices.BALANCER_UNIT_CONNECTIONS, hour_bytes / prices.BALANCER_UNIT_BYTES_HOUR)
    return _polls(pollers, m) + Usage(
        vcpu_hours=count * MONTH_HOURS,
        memory_gb_hours=count * MONTH_HOURS * RELAY_MEMORY_GB,
        balancer_hours=MONTH_HOURS,
        balancer_unit_hours=units * MONTH_HOURS,
        ipv4_hours=(count + BALANCER_ADDRESSES) * MONTH_HOURS,
        out_bytes=sent_bytes,
    )


USAGES: Final[Mapping[Transport, Callable[[Workload, Measured], Usage]]] = {
    Transport.LONG_POLL: long_poll,
    Transport.LONG_POLL_CDN: long_poll_cdn,
    Transport.SSE: sse,
    Transport.WEBSOCKET: websocket,
    Transport.RELAY: relay,
}


def answers_s(w: Workload) -> float:
    """Answers a second that a long-polling reader gets: with news, or after LONG_POLL_S without."""
    return min(max(w.stream_writes_s, 1 / LONG_POLL_S), 1 / LONG_POLL_S_MIN)


def broadcast_s(w: Workload) -> float:
    """How long a stream's news take to be posted to its connections."""
    return w.stream_readers * POST_S / POSTS_AT_ONCE


def broadcasts_s(w: Workload) -> float:
    """Broadcasts a second of one stream: one for each write, unless the last one still goes on."""
    return min(w.stream_writes_s, 1 / max(broadcast_s(w), POST_S)) if w.readers else 0.0


def relay_count(w: Workload) -> int:
    """Containers of the relay."""
    return max(RELAYS_MIN, 1 + ceil(w.readers / RELAY_READERS_MAX))


def pollers_max(w: Workload, m: Measured) -> int:
    """Processes with live readers that one stream's partition can answer."""
    return int(prices.PARTITION_READ_UNITS_S / m.poll(w.stream_writes_s).read_units_s)


def live_obstacles(w: Workload, m: Measured, transport: Transport) -> Iterator[str]:
    """Why these readers cannot exist, whatever is paid."""
    pollers = {
        Transport.SSE: w.stream_readers,
        Transport.LONG_POLL: w.stream_readers,
        Transport.LONG_POLL_CDN: _held_by_cdn(w).stream_readers,
        Transport.WEBSOCKET: 0.0,
        Transport.RELAY: min(w.stream_readers, relay_count(w)),
    }[transport]
    if pollers > (most := pollers_max(w, m)):
        yield (
            f"a partition answers {prices.PARTITION_READ_UNITS_S:,} read units a second,"
            f" which is {most:,} readers of one such stream"
        )
    event_bytes_s = w.stream_writes_s * (w.bytes_per_write + EVENT_BYTES)
    if transport is Transport.SSE and w.readers and event_bytes_s > prices.STREAMED_BYTES_S:
        yield f"API Gateway streams {prices.STREAMED_BYTES_S / 1e6:g} MB a second to a reader"
    if transport is Transport.WEBSOCKET and broadcast_s(w) > BROADCAST_S_MAX:
        yield f"a broadcast would take {broadcast_s(w):,.0f} s, and the function has {BROADCAST_S_MAX:,.0f} s"


def live_notes(w: Workload, transport: Transport) -> Iterator[str]:
    """What is possible, but not as the reader would expect, or not in a new account."""
    held = w.readers if transport in {Transport.SSE, Transport.LONG_POLL} else 0
    if held > prices.ENVIRONMENTS_AT_ONCE:
        quota = prices.ENVIRONMENTS_AT_ONCE
        yield f"{held:,} functions at once need a higher quota than a new account's {quota:,}"
    if transport is Transport.WEBSOCKET and w.readers and broadcast_s(w) * w.stream_writes_s > 1:
        yield f"a broadcast takes {broadcast_s(w):,.1f} s, so readers get several writes in one message, and late"


def _held_by_cdn(w: Workload) -> Workload:
    readers = min(w.readers, CDN_CACHES * w.streams)
    return replace(w, readers=readers)


def _held(w: Workload, m: Measured, requests: float) -> Usage:
    """Readers that each hold a function all the time."""
    gb_s = w.readers * MONTH_S * m.stack.live_memory_mb / 1_024
    return _polls(w, m) + Usage(live_requests=requests, live_gb_s=gb_s, log_bytes=requests * LIVE_LOG_BYTES)


def _polls(w: Workload, m: Measured) -> Usage:
    """Polls of the head by each of the readers, and what each of them reads of batches that are not in it."""
    apart = w.stream_writes_s * _apart_units(w, m)
    gets = w.readers * w.stream_writes_s * MONTH_S * m.append(w.bytes_per_write).tail_s3_gets
    poll = m.poll(w.stream_writes_s).read_units_s
    return Usage(read_units=w.readers * MONTH_S * (poll + apart), s3_gets=gets)


def _apart_units(w: Workload, m: Measured) -> float:
    """Read units of a batch that is not in its head."""
    return max(0.0, m.append(w.bytes_per_write).tail_read_units - m.appends[0].tail_read_units)
