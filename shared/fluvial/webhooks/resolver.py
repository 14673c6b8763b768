"""The resolver: looks up the addresses of a name, with the system's own resolver, on threads.

1. A lookup cannot be ended: the C library waits for a name server that does not answer, for half a minute and more.
   So each lookup has a thread of its own, for which nothing waits at the end of the process. The threads on which the
   store works are others.
2. A name that was not found in time is looked up in a lane of its own the next time: names whose servers do not answer
   wait for each other, and no other name waits for them.
3. Lookups of one name at the same time are one lookup. Its answer is for those that wait for it, and is not kept.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import ip_address

from cachetools import LRUCache

from fluvial.webhooks.addresses import Address
from fluvial.webhooks.errors import WebhookError, WebhookErrorKind
from fluvial.webhooks.limits import WebhookLimits

#: Returns all addresses of a name as of now. Raises WebhookError.
Resolve = Callable[[str], Awaitable[tuple[Address, ...]]]

#: Returns what the system knows of a name. Raises OSError, UnicodeError.
Lookup = Callable[[str], tuple[str, ...]]


def look_up(name: str) -> tuple[str, ...]:
    """The addresses of a name, as the system's resolver knows them. Raises OSError, UnicodeError."""
    # Because of the dot at the end, a name that is not found is not looked up again below the server's own domains.
    found = socket.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(slots=True)
class _UnderWay:
    """A lookup that waits for its turn or has a thread."""

    has_thread: bool = False
    task: asyncio.Task[tuple[str, ...]] = field(init=False)


class Resolver:
    """The lookups of one process. All calls come from one event loop."""

    def __init__(self, limits: WebhookLimits, lookup: Lookup = look_up) -> None:
        """`lookup` runs on threads."""
        self._limits, self._lookup = limits, lookup
        self._lane = asyncio.Semaphore(limits.lookups_at_once)
        self._retry_lane = asyncio.Semaphore(limits.retried_lookups_at_once)
        self._lost: LRUCache[str, bool] = LRUCache(limits.lost_names_max)
        self._under_way: dict[str, _UnderWay] = {}

    async def resolve(self, name: str) -> tuple[Address, ...]:
        """See Resolve."""
        lookup = self._under_way.get(name) or self._begin(name)
        try:
            async with asyncio.timeout(self._limits.lookup_s):
                texts = await asyncio.shield(lookup.task)
        except TimeoutError as exc:
            if not lookup.has_thread:
                raise WebhookError(WebhookErrorKind.BUSY, f"too many lookups are under way to look up {name}") from exc
            self._lost[name] = True
            raise WebhookError(WebhookErrorKind.LOOKUP, f"{name} was not found in time") from exc
        except (OSError, UnicodeError) as exc:
            self._lost[name] = True
            reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            raise WebhookError(WebhookErrorKind.LOOKUP, f"{name} was not found: {reason}") from exc
        self._lost.pop(name, None)
        if not 1 <= len(texts) <= self._limits.addresses_max:
            raise WebhookError(WebhookErrorKind.LOOKUP, f"{name} has {len(texts)} addresses")
        return tuple(map(ip_address, texts))

    def _begin(self, name: str) -> _UnderWay:
        self._under_way[name] = lookup = _UnderWay()
        lookup.task = asyncio.get_running_loop().create_task(self._run(name, lookup), name="webhook lookup")
        lookup.task.add_done_callback(lambda task: self._end(name, task))
        return lookup

    def _end(self, name: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        del self._under_way[name]
        if not task.cancelled():
            task.exception()  # all that waited may have given up: asyncio would report the error as one of ours

    async def _run(self, name: str, lookup: _UnderWay) -> tuple[str, ...]:
        """Look a name up once it has its turn, which lasts until the thread has ended."""
        async with self._retry_lane if name in self._lost else self._lane:
            lookup.has_thread = True
            answer = Future[tuple[str, ...]]()
            answer.set_running_or_notify_cancel()
            thread = threading.Thread(target=self._fill, args=(name, answer), name="webhook lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:
                raise OSError(str(exc)) from exc
            return await asyncio.wrap_future(answer)

    def _fill(self, name: str, answer: "Future[tuple[str, ...]]") -> None:
        try:
            answer.set_result(self._lookup(name))
        except Exception as exc:  # noqa: BLE001  it is raised where the answer is awaited
            answer.set_exception(exc)
