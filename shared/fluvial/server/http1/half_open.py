"""Half-open connections: the client has shut down its sending side, and either waits for its answers or is gone.

A FIN says only that nothing more will be sent, so both kinds of client look the same.

Rules:
1. Answers that are due are sent, and the connection ends after the last one.
2. A client that may be gone is not waited for: a long-poll is answered after HALF_OPEN_WAIT_S.
3. An event stream goes on as long as its client exists. A comment is sent on it, and the system of a client that is
   gone answers with a reset.
4. The reset is looked for. Without that:

   1. The client shuts down its sending side; the transport has seen the end of its input, and reads no more.
   2. The comment is sent, and the reset arrives.
   3. A transport learns of a reset when it reads or writes. It does not read, and a quiet stream writes nothing.
   4. The live read keeps its place until the next append, or until its greatest age.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from fluvial.server.http1.cycle import HttpCycle

#: How long a request without an answer may wait for news; its client can send no other request on this connection.
HALF_OPEN_WAIT_S: Final = 5.0

#: How often the kernel is asked whether the connection was reset.
RESET_CHECK_S: Final = 0.5

#: TCP_CLOSE of Linux, the first byte of TCP_INFO: the connection was reset.
_CLOSED: Final = 7


class HalfOpen:
    """Watches a half-open connection until it ends."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, cycles: Sequence[HttpCycle]
    ) -> None:
        """Probe the event streams among `cycles`, the requests without a complete answer, and begin to watch."""
        self._loop, self._transport, self._cycles = loop, transport, cycles
        self._ends_at = loop.time() + HALF_OPEN_WAIT_S
        for cycle in cycles:
            cycle.probe()
        self._timer = loop.call_later(RESET_CHECK_S, self._check)

    def end(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    def _check(self) -> None:
        if _is_reset(self._transport):
            self._transport.abort()
            return
        if self._loop.time() >= self._ends_at:
            for cycle in self._cycles:
                cycle.hurry()
        self._timer = self._loop.call_later(RESET_CHECK_S, self._check)


def _is_reset(transport: asyncio.Transport) -> bool:
    """Whether the kernel knows that the connection was reset; where it cannot be asked, a later write finds it out."""
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        state: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:  # e.g. a Unix socket
        return False
    return state[0] == _CLOSED
