"""HeadNotifier: the live reads of one process that wait for a stream, and the rule that says what is news to them."""

import asyncio

from fluvial.model.head import Head
from fluvial.model.names import StreamName


def has_changed(head: Head | None, seen: Head) -> bool:
    """Whether `head` is news to a live reader that has seen `seen`.

    An older head is no news. Answers overtake each other: a reader has seen the tail of the second of two appends when
    the answer to the first one arrives. Within an incarnation a tail only grows, a stream only closes and is only
    deleted; of two incarnations of a name the later one was born later.
    """
    if head is None:
        return True
    if head.incarnation != seen.incarnation:
        return head.born_us >= seen.born_us
    return head.tail > seen.tail or (head.closed and not seen.closed) or (head.soft_deleted and not seen.soft_deleted)


class HeadNotifier:
    """A set of futures for each stream name that has waiters. The number of open live reads bounds them."""

    def __init__(self) -> None:
        """Start without waiters."""
        self._futures: dict[StreamName, set[asyncio.Future[Head | None]]] = {}

    async def wait(self, name: StreamName, timeout_s: float) -> Head | None:
        """The head that the next `notify` for the name passes on. Raises TimeoutError."""
        future: asyncio.Future[Head | None] = asyncio.get_running_loop().create_future()
        waiting = self._futures.setdefault(name, set())
        waiting.add(future)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            waiting.discard(future)
            if not waiting and self._futures.get(name) is waiting:
                del self._futures[name]

    def has_waiters(self, name: StreamName) -> bool:
        """Whether any call waits for the stream."""
        return name in self._futures

    def notify(self, name: StreamName, head: Head | None) -> None:
        """End every `wait` for the stream with its new head, None when the name has no stream any more."""
        for future in self._futures.pop(name, ()):
            if not future.done():
                future.set_result(head)

    @property
    def count(self) -> int:
        """The number of waiting calls."""
        return sum(map(len, self._futures.values()))
