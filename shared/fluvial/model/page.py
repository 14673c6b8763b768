"""Pages: what one read gets."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Page:
    """The stored bytes [start, end) of a stream: whole batches, so that JSON messages are whole too.

    `ends` are the positions at which its batches end, ascending.
    """

    start: int
    end: int
    data: bytes
    ends: tuple[int, ...] = field(default=(), compare=False)
