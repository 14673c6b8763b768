"""Lines of standard input or of a file, in batches: what is there already, without waiting for more.

While a batch is on its way to the server, the writer of a pipe goes on, so the next batch is the larger the longer it
took. A single line of a slow writer is appended at once.
"""

import io
import os
import select
from collections.abc import Iterator
from typing import BinaryIO, Final

from fluvial.cli.options import UsageError

_CHUNK_BYTES: Final = 262_144

#: A longer line than any server takes: a file that has no lines.
LINE_BYTES_MAX: Final = 256 * 1_048_576


class LineInput:
    """An input, line by line or in batches. Lines come without the newline at their end.

    `line_count`: how many have been given out.
    """

    def __init__(self, file: BinaryIO, *, skip_blank: bool) -> None:
        """`skip_blank` leaves out lines of white space."""
        self._file = file
        self._skip_blank = skip_blank
        self._lines = list[tuple[int, bytes]]()
        self._at = 0
        self._rest = list[bytes]()
        self._rest_bytes = 0
        self._number = 0
        self.line_count = 0
        self._is_at_end = False
        try:
            self._descriptor: int | None = file.fileno()
        except (OSError, io.UnsupportedOperation):
            self._descriptor = None

    def batches(self, lines_max: int, bytes_max: int) -> Iterator[list[tuple[int, bytes]]]:
        """Batches of lines with their numbers in the input, from 1. Each has a line, and no more than the bounds."""
        while self._wait_for_line():
            while self._available < lines_max and self._has_more_now():
                self._read()
            batch, size = list[tuple[int, bytes]](), 0
            while self._at < len(self._lines) and len(batch) < lines_max:
                size += len(self._lines[self._at][1]) + 1
                if batch and size > bytes_max:
                    break
                batch.append(self._lines[self._at])
                self._at += 1
            self.line_count += len(batch)
            yield batch

    def next_line(self) -> tuple[int, bytes] | None:
        """The next line with its number; None at the end."""
        if not self._wait_for_line():
            return None
        self._at += 1
        self.line_count += 1
        return self._lines[self._at - 1]

    @property
    def _available(self) -> int:
        return len(self._lines) - self._at

    def _wait_for_line(self) -> bool:
        while not self._available and not self._is_at_end:
            self._read()
        return self._available > 0

    def _has_more_now(self) -> bool:
        if self._is_at_end or self._descriptor is None:
            return not self._is_at_end
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def _read(self) -> None:
        """Read once, and split what has come."""
        if self._descriptor is not None:
            chunk = os.read(self._descriptor, _CHUNK_BYTES)
        else:
            chunk = self._file.read(_CHUNK_BYTES)
        self._is_at_end = not chunk
        self._lines, self._at = self._lines[self._at :], 0
        first, *others = chunk.split(b"\n")
        self._rest.append(first)
        self._rest_bytes += len(first)
        if self._rest_bytes > LINE_BYTES_MAX:
            raise UsageError(f"line {self._number + 1:,} is too long: is the input text? See --bytes and --whole")
        if not others and not (self._is_at_end and self._rest_bytes):
            return
        whole = [b"".join(self._rest), *others]
        last = b"" if self._is_at_end else whole.pop()
        self._rest, self._rest_bytes = [last], len(last)
        for line in whole:
            self._number += 1
            if not (self._skip_blank and not line.strip()):
                self._lines.append((self._number, line))
