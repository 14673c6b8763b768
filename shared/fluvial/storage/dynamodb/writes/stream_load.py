"""The load on a stream, as one process sees it: how fast the buffer grows, and how often the table is too busy.

Every append to a stream is one update of its head, and one partition takes 1,000 write units a second. Past that the
table throttles. An update costs a unit for each kilobyte of the head. So a busy stream needs a small head:

- the buffer is spilled so early that what comes during the spill still fits into the kilobyte (see `spill`)
- batches are stored apart, and the head gets pointers (see `payloads`): long ones when many processes write, and nearly
  all while the stream is pressed, that is, some seconds after a throttled request

What comes beyond is refused before it is sent, by each process for itself. It lets through a little more than what the
table has accepted of it lately, and refuses the rest at random. So the table throttles few requests, and a process
finds out by itself when it takes more again. https://sre.google/sre-book/handling-overload/ (client-side throttling)

All notes fade within seconds, so that a stream is back to normal soon after the load has ended.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from fluvial.concurrency import backoff_s
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table.aws_client import OnBusy
from fluvial.storage.dynamodb.table.items import HeadItem
from fluvial.storage.dynamodb.writes.payloads import INLINE_BYTES_MAX
from fluvial.storage.limits import STORE_LIMITS, StoreLimits

#: Notes fade by the factor e in so many seconds.
RATE_MEMORY_S: Final = 1.0
BUSY_MEMORY_S: Final = 1.5

#: Requests are let through up to so many times what the table has accepted.
OVERREACH: Final = 1.1

#: After the last throttled request, a process goes on to refuse for so long, and its streams are pressed for so long.
REFUSING_S: Final = 1.0
PRESSED_S: Final = 4.0

#: How long a spill takes: two writes, one after the other.
SPILL_S: Final = 0.012

#: What may come into the head during a spill, from all writers. Where more came, most updates would cost two units and
#: more, and batches stored apart cost two; measured with `make cost`.
CROWDED_BYTES: Final = 500

#: A batch of a pressed stream is stored apart if it is longer: its pointer takes about as much of the head as this.
PRESSED_INLINE_BYTES_MAX: Final = 16

#: Tries of an append that the table is too busy for: its client knows better whether to come again.
APPEND_TRIES_MAX: Final = 3

#: Streams whose load is remembered.
STREAMS_MAX: Final = 4_096


@dataclass(slots=True)
class StreamLoad:
    """Notes about one stream. All times are seconds of one clock that never goes back."""

    _elements_s: float = 0.0
    _element_count: float = 0.0
    _seen_at_s: float = math.inf
    _requests: float = 0.0
    _accepted: float = 0.0
    _counted_at_s: float = 0.0
    _throttled_at_s: float = -math.inf

    def note_head(self, stored: HeadItem, added: int, now_s: float) -> None:
        """Note how many elements the buffer has got since the last head; this process added `added` of them."""
        count, passed_s = _elements_so_far(stored), now_s - self._seen_at_s
        if count >= self._element_count and passed_s > 0:
            others, kept = max(0.0, count - self._element_count - added), math.exp(-passed_s / RATE_MEMORY_S)
            self._elements_s = self._elements_s * kept + others / passed_s * (1 - kept)
        self._element_count, self._seen_at_s = count, now_s

    def elements_within(self, seconds: float) -> float:
        """How many elements the other processes add to the buffer in so many seconds."""
        return self._elements_s * seconds

    def note_throttled(self, now_s: float) -> None:
        """Note that the table was too busy for a request."""
        self._fade(now_s)
        self._requests += 1
        self._throttled_at_s = now_s

    def note_accepted(self, now_s: float) -> None:
        """Note that the table has answered a request."""
        self._fade(now_s)
        self._requests += 1
        self._accepted += 1

    def is_pressed(self, now_s: float) -> bool:
        """Whether the table was lately too busy for a request to the stream."""
        return now_s - self._throttled_at_s < PRESSED_S

    def admits(self, now_s: float, luck: float) -> bool:
        """Whether an append should be sent; `luck` is a random number from 0 to 1."""
        if now_s - self._throttled_at_s >= REFUSING_S:
            return True
        self._fade(now_s)
        excess = (self._requests - OVERREACH * self._accepted) / (self._requests + 1)
        if luck >= excess:
            return True
        self._requests += 1
        return False

    def _fade(self, now_s: float) -> None:
        kept = math.exp((self._counted_at_s - now_s) / BUSY_MEMORY_S)
        self._requests, self._accepted, self._counted_at_s = self._requests * kept, self._accepted * kept, now_s


class StreamLoads:
    """The load on each stream that this process writes."""

    def __init__(self, jitter: Callable[[], float], limits: StoreLimits = STORE_LIMITS) -> None:
        """Nothing has been noted. `jitter` gives random numbers from 0 to 1."""
        self._jitter, self._limits = jitter, limits
        self._loads: LRUCache[StreamName, StreamLoad] = LRUCache(STREAMS_MAX)

    def of(self, name: StreamName) -> StreamLoad:
        """The notes about a stream."""
        load = self._loads.get(name)
        if load is None:
            load = self._loads[name] = StreamLoad()
        return load

    def note_accepted(self, name: StreamName) -> None:
        """See StreamLoad.note_accepted."""
        self.of(name).note_accepted(_now_s())

    def note_head(self, name: StreamName, stored: HeadItem, added: int) -> float:
        """Note a head (see StreamLoad.note_head); how many elements others add to its buffer during a spill."""
        load = self.of(name)
        load.note_head(stored, added, _now_s())
        return load.elements_within(SPILL_S)

    def admits(self, name: StreamName) -> bool:
        """Whether an append to the stream should be sent now."""
        return self.of(name).admits(_now_s(), self._jitter())

    def inline_bytes_max(self, name: StreamName) -> int:
        """How long a batch may be for the head to take it now; a longer one is stored apart."""
        load = self.of(name)
        if load.is_pressed(_now_s()):
            return PRESSED_INLINE_BYTES_MAX
        return min(INLINE_BYTES_MAX, round(CROWDED_BYTES / (1 + load.elements_within(SPILL_S))))

    def on_busy(self, name: StreamName, tries_max: int, pause_s: float | None = None) -> OnBusy:
        """What to do when the table is too busy for an update of the stream's head: note it, and try it again.

        With `pause_s` all pauses are about so long; else they double.
        """
        load = self.of(name)

        def note(tries: int) -> float | None:
            load.note_throttled(_now_s())
            if tries >= tries_max:
                return None
            if pause_s is not None:
                return pause_s * (0.5 + self._jitter())
            return backoff_s(self._limits.busy_pause_s, tries, self._jitter())

        return note


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _elements_so_far(stored: HeadItem) -> float:
    """A number that grows by one with each element of the buffer.

    `spilled` counts batches and not elements, so it is divided by how many batches an element of the buffer has.
    """
    if not stored.buffer:
        return float(stored.spilled)
    batches_each = sum(batch.batch_count for batch in stored.buffer) / len(stored.buffer)
    return stored.spilled / batches_each + len(stored.buffer)
