"""A load that is interrupted."""

import asyncio

import pytest

from fluvial.client.load.append_load import Load, run_load
from fluvial.client.load.http_connection import origin_of

HOUR_S = 3_600


@pytest.mark.parametrize("turns", range(8))
async def test_load_ends_when_it_is_cancelled_as_its_connection_breaks(turns: int) -> None:
    """So many turns of the event loop after the server has hung up. Otherwise it would go on for its hour."""
    loading: asyncio.Task[object] | None = None

    def cancel(turns_left: int) -> None:
        assert loading is not None
        if turns_left:
            asyncio.get_running_loop().call_soon(cancel, turns_left - 1)
        else:
            loading.cancel()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\n")
        writer.transport.abort()
        cancel(turns)

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        load = Load(["a"], HOUR_S, connection_count=1, reader_count=0, line_bytes=50)
        loading = asyncio.ensure_future(run_load(origin_of(f"http://127.0.0.1:{port}"), load))
        done, _ = await asyncio.wait((loading,), timeout=10)
        assert done
        assert loading.cancelled()
