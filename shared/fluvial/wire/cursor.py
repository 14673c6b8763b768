"""`Stream-Cursor`: the interval number that keeps CDN caches from looping (spec 10.1)."""

import re
from typing import Final

from fluvial.model.limits import (
    CURSOR_DIGITS_MAX,
    CURSOR_EPOCH_MS,
    CURSOR_INTERVAL_MS,
    CURSOR_JITTER_S_MAX,
)

#: Only a client that makes up its cursors comes here, and it gets what it may echo.
CURSOR_MAX: Final = 10**CURSOR_DIGITS_MAX - 1

_CURSOR: Final = re.compile(rf"[0-9]{{1,{CURSOR_DIGITS_MAX}}}")


def parse_cursor(value: str) -> int | None:
    """The client's echo of a cursor; None for what is none of ours, e.g. another server's: it is as good as no echo."""
    return None if _CURSOR.fullmatch(value) is None else int(value)


def next_cursor(echoed: int | None, now_ms: int, jitter: float) -> int:
    """The cursor to send: the interval of `now_ms`, or past the client's own; `jitter` is in [0, 1).

    "Servers MUST ensure cursors never go backwards [...] (by adding random jitter of 1-3600 seconds)"
    """
    interval = (now_ms - CURSOR_EPOCH_MS) // CURSOR_INTERVAL_MS
    if echoed is None or echoed < interval:
        return interval
    jitter_s = 1 + int(jitter * CURSOR_JITTER_S_MAX)
    return min(echoed + max(1, jitter_s * 1_000 // CURSOR_INTERVAL_MS), CURSOR_MAX)
