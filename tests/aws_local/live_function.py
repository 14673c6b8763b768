"""The live function on one machine: its start script behind an emulation of the Lambda Web Adapter.

The adapter waits until the server is ready, forwards each REST event as an HTTP request, and streams the answer.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from starlette.types import Send

from tests.support.ports import free_port

RUN = Path(__file__).parents[2] / "functions" / "live" / "run.sh"
READY_TRIES = 1_200
READY_PAUSE_S = 0.05

#: Header fields that belong to one connection; API Gateway streams answers without a length.
NOT_FORWARDED = {"connection", "content-length", "date", "server", "transfer-encoding"}


def strip_base_path(base_path: str, path: str) -> str:
    """The path that the adapter forwards: it removes the base path repeatedly."""
    while base_path and path.startswith(base_path):
        path = path.removeprefix(base_path)
    return path


class LiveFunction:
    """One environment of the function, which is a server. Unlike Lambda's, it serves any number of requests at once."""

    def __init__(self) -> None:
        """Start the script, as the adapter does; `wait_until_ready` comes before the first event."""
        port = free_port()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            [RUN], env={**os.environ, "AWS_LWA_PORT": str(port), "PATH": path}, stdout=sys.stderr
        )
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90, limits=httpx.Limits())

    async def wait_until_ready(self) -> None:
        """Wait until the readiness check succeeds."""
        for _ in range(READY_TRIES):
            try:
                if (await self._client.get("/health")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(READY_PAUSE_S)
        raise AssertionError("the live function never became ready")

    async def stream(self, event: dict[str, Any], send: Send) -> None:
        """Send the answer to an event, chunk by chunk."""
        query = urlencode(event["multiValueQueryStringParameters"] or {}, doseq=True)
        fields = [(name, value) for name, values in event["multiValueHeaders"].items() for value in values]
        fields.append(("x-amzn-request-context", json.dumps(event["requestContext"])))
        path = strip_base_path(os.environ.get("AWS_LWA_REMOVE_BASE_PATH", ""), event["path"])
        url = self._client.base_url.copy_with(raw_path=f"{path}?{query}".encode())
        async with self._client.stream(event["httpMethod"], url, headers=fields) as answer:
            kept = [(name.lower(), value) for name, value in answer.headers.raw]
            kept = [(name, value) for name, value in kept if name.decode() not in NOT_FORWARDED]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def close(self) -> None:
        """Stop the server."""
        await self._client.aclose()
        self._process.terminate()
        self._process.wait(15)
