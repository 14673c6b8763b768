"""Half-open connections: the client has shut down its sending side, and waits for its answers; or it has gone.

A FIN says no more than that nothing will be sent. So answers that are due are sent, and the connection ends after the
last one. Whoever has gone must not be waited for: a long-poll is answered early, an event stream is sent a comment,
and a client that has gone resets the connection as soon as something is sent to it.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from fluvial.server.http1.cycle import HttpCycle

#: How long a request without an answer may wait for news; its client can send no other request on this connection.
HALF_OPEN_WAIT_S: Final = 5.0

#: How often the kernel is asked whether the connection was reset: a transport that does not read is not told.
LOOK_S: Final = 0.5

#: TCP_CLOSE of Linux, the first byte of TCP_INFO: the connection was reset.
_CLOSED: Final = 7


class HalfOpen:
    """Looks after a half-open connection until it ends."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, cycles: Sequence[HttpCycle]
    ) -> None:
        """`cycles` are the requests without a whole answer."""
        self._loop, self._transport, self._cycles = loop, transport, cycles
        self._ends_at = loop.time() + HALF_OPEN_WAIT_S
        for cycle in cycles:
            cycle.probe()
        self._timer = loop.call_later(LOOK_S, self._look)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        if _is_reset(self._transport):
            self._transport.abort()
            return
        if self._loop.time() >= self._ends_at:
            for cycle in self._cycles:
                cycle.hurry()
        self._timer = self._loop.call_later(LOOK_S, self._look)


def _is_reset(transport: asyncio.Transport) -> bool:
    """Whether the kernel knows that the connection is no more; where it cannot be asked, writing will tell."""
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        state: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:  # e.g. a Unix socket
        return False
    return state[0] == _CLOSED
