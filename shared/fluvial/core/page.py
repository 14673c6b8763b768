"""Pages: what one read gets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """The stored bytes [start, end) of a stream: whole batches, so that JSON messages are whole too."""

    start: int
    end: int
    data: bytes
