"""`python -m bench.otlp_sink`: takes traces and throws them away, as cheaply as it can; prints its port."""

import asyncio
import re

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def _take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            await reader.readexactly(int(found[1]) if found else 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.start_server(_take, "127.0.0.1", 0)
    print(f"serves http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream/", flush=True)
    await server.serve_forever()


asyncio.run(main())
