"""The access log: one line for each request when it has ended, for a live read when that has ended.

Rules:
1. A line has no token, no query, no body and no path but a stream's name: docs/operations/monitoring.md has its fields.
2. Lines are collected, and a thread writes them: a request never waits for standard error. If that takes none, lines
   are dropped and counted.
3. An ended exchange is a line's struct already, so that lines of JSON cost no more than their encoding in C.
"""

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Final

import msgspec
from msgspec import UNSET

from fluvial.server.exchange import Exchange

log = logging.getLogger(__name__)

#: Lines wait so long for others.
PAUSE_S: Final = 0.2

#: So many lines are written without waiting for more.
LINES_PER_WRITE_MAX: Final = 1_024

#: Writes that wait for standard error; the lines of one more are dropped.
WRITES_WAITING_MAX: Final = 64

#: Encodes lines, each with its line break.
EncodeLines = Callable[[list[Exchange]], bytes]

json_lines: Final[EncodeLines] = msgspec.json.Encoder().encode_lines

#: The fields of a text line after its beginning, which is like that of all other lines.
_FIELDS: Final = tuple(Exchange.__struct_fields__[Exchange.__struct_fields__.index("method") :])


def text_lines(lines: list[Exchange]) -> bytes:
    """Lines as the text log has them."""
    return "".join(map(_text_line, lines)).encode()


def _text_line(line: Exchange) -> str:
    known = [(name, value) for name in _FIELDS if (value := getattr(line, name)) is not UNSET]
    fields = " ".join([f"{name}={value if type(value) is not str else _quote(value)}" for name, value in known])
    assert line.timestamp is not UNSET, "it has ended"
    time = line.timestamp.isoformat().replace("+00:00", "Z")
    return f"{time} [{line.level:9}] {line.event:30} [{line.logger}] {fields}\n"


def _quote(text: str) -> str:
    """A text that stays one word of one line, whatever a stream's name has in it."""
    return text if text.isascii() and text.isprintable() and " " not in text else ascii(text)


class AccessLog:
    """Collects lines, and has a thread write them."""

    def __init__(self, encode: EncodeLines, write: Callable[[bytes], None]) -> None:
        """`write` writes bytes as a whole, and may wait. The thread starts with the first line."""
        self._encode, self._write = encode, write
        self.dropped_count = 0
        self._lines: list[Exchange] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writes: SimpleQueue[list[Exchange] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def add(self, exchange: Exchange) -> None:
        """See AccessLogger.add."""
        self._lines.append(exchange)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self.flush)
        elif len(self._lines) >= LINES_PER_WRITE_MAX:
            self.flush()

    def flush(self) -> None:
        """Pass the lines to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        if self._thread is None:
            self._thread = Thread(target=self._keep_writing, name="fluvial-access-log", daemon=True)
            self._thread.start()
        if self._writes.qsize() >= WRITES_WAITING_MAX:
            self.dropped_count += len(lines)
        else:
            self._writes.put(lines)

    def close(self, patience_s: float = 2.0) -> None:
        """Write what is there; give up on a standard error that takes nothing."""
        self.flush()
        if self._thread is not None:
            self._writes.put(None)
            self._thread.join(patience_s)
            self._thread = None

    def _keep_writing(self) -> None:
        while (lines := self._writes.get()) is not None:
            try:
                self._write(self._encode(lines))
            except OSError as exc:
                log.warning("access_log_failed", extra={"reason": str(exc)})
