"""Pages: the bytes that one read returns."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Page:
    """The stored bytes [start, end) of a stream: complete batches, so that JSON messages are complete, too.

    `ends` are the positions at which the page's batches end, ascending.
    """

    start: int
    end: int
    data: bytes
    ends: tuple[int, ...] = field(default=(), compare=False)
