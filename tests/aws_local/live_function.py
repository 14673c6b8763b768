"""The live function on one machine: environments that each run its start script and serve one request at a time.

Each is a process of its own, so that nothing in memory is shared between two readers, as on Lambda. A client that
disconnects does not end its request: the environment is busy until the answer is complete.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.aws_local.adapter import forwarded_path, frame
from tests.aws_local.environments import ThrottledError
from tests.aws_local.template import function_variables
from tests.support.ports import free_port
from tests.support.processes import stop_process

RUN = Path(__file__).parents[2] / "functions" / "live" / "run.sh"
READY_TRIES = 1_200
READY_PAUSE_S = 0.05
#: Longer than the server waits for its running requests.
STOP_TIMEOUT_S = 12


class _Environment:
    """One process of the function, behind the adapter."""

    def __init__(self) -> None:
        port = free_port()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = {**function_variables("live/run.sh"), **os.environ, "AWS_LWA_PORT": str(port), "PATH": path}
        self._port, self._base_path = port, variables.get("AWS_LWA_REMOVE_BASE_PATH", "")
        self._process = subprocess.Popen([RUN], env=variables, stdout=sys.stderr)
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90)

    async def wait_until_ready(self) -> None:
        """Wait until the server listens, which is the adapter's check with the protocol tcp."""
        for _ in range(READY_TRIES):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                assert self._process.poll() is None, "the live function's script has ended"
                await asyncio.sleep(READY_PAUSE_S)
            else:
                writer.close()
                return
        raise AssertionError("the live function never became ready")

    async def invoke(self, event: dict[str, Any]) -> AsyncGenerator[bytes]:
        """Forward an event to the server, and stream its answer."""
        query = urlencode(event["multiValueQueryStringParameters"] or {}, doseq=True)
        fields = [(name, value) for name, values in event["multiValueHeaders"].items() for value in values]
        fields.append(("x-amzn-request-context", json.dumps(event["requestContext"])))
        path = forwarded_path(self._base_path, event["path"])
        url = self._client.base_url.copy_with(raw_path=f"{path}?{query}".encode())
        async with self._client.stream(event["httpMethod"], url, headers=fields) as answer:
            async for piece in frame(answer):
                yield piece

    async def close(self) -> None:
        """Stop the server."""
        await self._client.aclose()
        await asyncio.to_thread(stop_process, self._process, STOP_TIMEOUT_S)


class LiveFunction:
    """The function's environments, of which more are started on demand."""

    def __init__(self, count_max: int, *, throttles: bool = False) -> None:
        """At most `count_max` requests run at once. One more waits or, if `throttles`, raises ThrottledError."""
        self._throttles = throttles
        self._room = asyncio.Semaphore(count_max)
        self._idle: list[_Environment] = []
        self._all: list[_Environment] = []

    @property
    def environment_count(self) -> int:
        """How many environments have been started."""
        return len(self._all)

    async def provision(self, count: int) -> None:
        """Start environments before the first event."""
        self._idle += await asyncio.gather(*(self._start() for _ in range(count)))

    async def invoke(self, event: dict[str, Any]) -> AsyncGenerator[bytes]:
        """The answer of a free environment: metadata, a delimiter and the body. Raises ThrottledError."""
        if self._throttles and self._room.locked():
            raise ThrottledError
        async with self._room:
            environment = self._idle.pop() if self._idle else await self._start()
            try:
                async with aclosing(environment.invoke(event)) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                self._idle.append(environment)

    async def _start(self) -> _Environment:
        environment = _Environment()
        self._all.append(environment)
        await environment.wait_until_ready()
        return environment

    async def close(self) -> None:
        """Stop all environments."""
        await asyncio.gather(*(environment.close() for environment in self._all))
