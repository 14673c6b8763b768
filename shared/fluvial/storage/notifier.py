"""Who waits for which stream, in one process."""

import asyncio

from fluvial.model.head import Head
from fluvial.model.names import StreamName


def has_changed(head: Head | None, seen: Head) -> bool:
    """Whether a live reader that has seen `seen` has something to learn from `head`.

    Not from one that is older, for answers overtake each other: within a life a tail only grows, a stream only closes,
    and what was deleted stays so; of two lives of a name the later one was born later.
    """
    if head is None:
        return True
    if head.incarnation != seen.incarnation:
        return head.born_us >= seen.born_us
    return head.tail > seen.tail or (head.closed and not seen.closed) or (head.soft_deleted and not seen.soft_deleted)


class HeadNotifier:
    """Futures by stream name; a commit resolves all of its stream's. Bounded by the live reads that are open."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._futures: dict[StreamName, set[asyncio.Future[Head | None]]] = {}

    async def wait(self, name: StreamName, timeout_s: float) -> Head | None:
        """The head that the next `wake` tells. Raises TimeoutError."""
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

    def waits_for(self, name: StreamName) -> bool:
        """Whether anybody waits for the stream."""
        return name in self._futures

    def wake(self, name: StreamName, head: Head | None) -> None:
        """Tell everybody who waits for the stream what its head is now."""
        for future in self._futures.pop(name, ()):
            if not future.done():
                future.set_result(head)

    @property
    def count(self) -> int:
        """How many wait."""
        return sum(map(len, self._futures.values()))
