"""`Stream-Cursor`: the interval number that keeps CDN caches from looping (spec 10.1).

Without it:

1. A long-poll's answer is cached by a CDN, and its offset is the one that the reader asked for: nothing was appended.
2. The reader asks again with the same URL, and the CDN answers at once, from its cache.
3. The reader asks in a loop, until the cached answer expires.

So the answer has the number of the current interval, which the reader echoes in its next URL. A reader whose echo is
not in the past gets a greater number, or else it would ask for the same URL again.
"""

import re
from typing import Final

from fluvial.model.limits import (
    CURSOR_DIGITS_MAX,
    CURSOR_EPOCH_MS,
    CURSOR_INTERVAL_MS,
    CURSOR_JITTER_S_MAX,
)

#: The largest cursor that a client may echo; only a client that makes up its cursors reaches it.
CURSOR_MAX: Final = 10**CURSOR_DIGITS_MAX - 1

_CURSOR: Final = re.compile(rf"[0-9]{{1,{CURSOR_DIGITS_MAX}}}")


def parse_cursor(value: str) -> int | None:
    """The cursor that a client echoes; None for a value that this server never sends, e.g. another server's cursor."""
    return None if _CURSOR.fullmatch(value) is None else int(value)


def next_cursor(echoed: int | None, now_ms: int, jitter: float) -> int:
    """The cursor to send: the interval of `now_ms`, or one past the client's echo; `jitter` is in [0, 1).

    "Servers MUST ensure cursors never go backwards [...] (by adding random jitter of 1-3600 seconds)"
    """
    interval = (now_ms - CURSOR_EPOCH_MS) // CURSOR_INTERVAL_MS
    if echoed is None or echoed < interval:
        return interval
    jitter_s = 1 + int(jitter * CURSOR_JITTER_S_MAX)
    return min(echoed + max(1, jitter_s * 1_000 // CURSOR_INTERVAL_MS), CURSOR_MAX)
