"""Lines with numbers, from which a reader sees what is lost, doubled, out of order or damaged.

A line has its writer, its number among the writer's, the time at which it was sent, padding, and a checksum.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fluvial.client.load.latencies import Latencies

#: Writer, number, nanoseconds and checksum have 4, 10, 19 and 8 digits; three spaces, and the newline. One to spare.
LINE_BYTES_MIN: Final = 46
LINE_BYTES_MAX: Final = 1_048_576
WRITER_COUNT_MAX: Final = 1_000

_LINE: Final = re.compile(rb"(\d{4}) (\d{10}) (\d{19}) \.*([0-9a-f]{8})")
_CHECKSUM_CHARACTERS: Final = 8
_NS_PER_S: Final = 1e9

#: Numbers that are remembered as missing, in case they come late. Of more it only matters how many they are.
_MISSING_REMEMBERED_MAX: Final = 100_000


def make_line(writer: int, number: int, sent_ns: int, byte_count: int) -> bytes:
    """A line of so many bytes, with its newline."""
    start = b"%04d %010d %019d " % (writer, number, sent_ns)
    start += b"." * (byte_count - len(start) - _CHECKSUM_CHARACTERS - 1)
    return start + b"%08x\n" % zlib.crc32(start)


@dataclass
class Sent:
    """What one writer has sent: numbers from 0, of which some have no answer, or a refusal."""

    count: int = 0
    acknowledged_count: int = 0
    unacknowledged: set[int] = field(default_factory=set)

    def next_number(self) -> int:
        """The number of the next line, which is unacknowledged for now."""
        self.count += 1
        self.unacknowledged.add(self.count - 1)
        return self.count - 1

    def acknowledge(self) -> None:
        """Note that the newest line was acknowledged."""
        self.acknowledged_count += 1
        self.unacknowledged.discard(self.count - 1)


@dataclass(frozen=True)
class Findings:
    """How many lines were read, and how many acknowledged lines are wrong in each way."""

    read: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    damaged: int = 0

    @property
    def is_good(self) -> bool:
        """Whether each acknowledged line was read, once and in order."""
        return not (self.lost or self.doubled or self.out_of_order or self.damaged)

    def __add__(self, other: "Findings") -> "Findings":
        """The findings of two readers."""
        return Findings(
            self.read + other.read,
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.out_of_order + other.out_of_order,
            self.damaged + other.damaged,
        )


class Checker:
    """Compares the text of a stream, as it comes, with what its writers have sent."""

    def __init__(self, sent: Mapping[int, Sent], latencies: Latencies | None = None) -> None:
        """`sent` is of the stream's writers, and may grow meanwhile. `latencies` gets each line's."""
        self._sent, self._latencies = sent, latencies
        self._rest = b""
        self._next = defaultdict[int, int](int)
        self._missing = defaultdict[int, set[int]](set)
        self._remembered = 0
        self.read = 0
        self._forgotten = self._doubled = self._out_of_order = self._damaged = 0

    def take(self, text: bytes, now_ns: int = 0) -> None:
        """Take the next part of the text."""
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            self._take_line(line, now_ns)
        if len(self._rest) > LINE_BYTES_MAX:
            self._damaged += 1
            self._rest = b""

    def has_all(self) -> bool:
        """Whether each line that is acknowledged by now was read, or was passed over."""
        return all(self._next[writer] >= _end_of_acknowledged(sent) for writer, sent in self._sent.items())

    def findings(self) -> Findings:
        """What was found, when no more text comes."""
        lost = self._forgotten
        for writer, sent in self._sent.items():
            unread = self._missing[writer] | set(range(self._next[writer], sent.count))
            lost += len(unread - sent.unacknowledged)
        return Findings(self.read, lost, self._doubled, self._out_of_order, self._damaged + bool(self._rest))

    def _take_line(self, line: bytes, now_ns: int) -> None:
        found = _LINE.fullmatch(line)
        if found is None or zlib.crc32(line[:-_CHECKSUM_CHARACTERS]) != int(found[4], 16):
            self._damaged += 1
            return
        writer, number = int(found[1]), int(found[2])
        if writer not in self._sent:
            self._damaged += 1
            return
        self.read += 1
        if self._latencies is not None:
            self._latencies.add((now_ns - int(found[3])) / _NS_PER_S)
        expected = self._next[writer]
        if number == expected:
            self._next[writer] = number + 1
        elif number > expected:
            self._skip(writer, expected, number)
        elif number in self._missing[writer]:
            self._missing[writer].remove(number)
            self._remembered -= 1
            # An append without an answer may be carried out later than the one after it.
            self._out_of_order += number not in self._sent[writer].unacknowledged
        else:
            self._doubled += 1

    def _skip(self, writer: int, expected: int, number: int) -> None:
        if number - expected + self._remembered <= _MISSING_REMEMBERED_MAX:
            self._missing[writer].update(range(expected, number))
            self._remembered += number - expected
        else:
            unacknowledged = self._sent[writer].unacknowledged
            self._forgotten += number - expected - sum(expected <= one < number for one in unacknowledged)
        self._next[writer] = number + 1


def _end_of_acknowledged(sent: Sent) -> int:
    end = sent.count
    while end and end - 1 in sent.unacknowledged:
        end -= 1
    return end
