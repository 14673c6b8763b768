"""Sending responses over ASGI, their bodies in parts of a bounded size.

A large body goes out in slices, so that a client that does not read makes the application wait at the next slice
instead of filling the connection's buffer with the whole body.
"""

from collections.abc import Sequence
from typing import Final

from starlette.types import Send

from fluvial.wire.response import Header, Response

#: A slice is sent at once; before the next one the application waits while the client does not read.
SLICE_BYTES: Final = 262_144

#: A last slice that is at most this long is sent with the slice before it.
TRAILING_BYTES_MAX: Final = 1_024


async def send_parts(send: Send, parts: Sequence[bytes | memoryview], *, is_last: bool = False) -> None:
    """Send parts of a body, small ones together and large ones in slices; with `is_last` they end it."""
    if sum(map(len, parts)) <= SLICE_BYTES:
        await send({"type": "http.response.body", "body": b"".join(parts), "more_body": not is_last})
        return
    slices = list[bytes | memoryview]()
    for part in parts:
        slices += [memoryview(part)[at : at + SLICE_BYTES] for at in range(0, len(part), SLICE_BYTES)]
    if len(slices[-1]) <= TRAILING_BYTES_MAX:  # e.g. the control event, without which a data event is incomplete
        slices[-2:] = [b"".join(slices[-2:])]
    for number, one in enumerate(slices, 1):
        await send({"type": "http.response.body", "body": one, "more_body": not is_last or number < len(slices)})


async def send_response(send: Send, response: Response, extra: Sequence[Header] = ()) -> None:
    """Send a whole response, with extra header fields."""
    headers = (*response.headers, *extra) if extra else response.headers
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send_parts(send, response.parts, is_last=True)
