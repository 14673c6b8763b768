"""Lambda's environments on one machine: processes that have a function loaded, each for one event at a time."""

import asyncio
import json
import logging
import multiprocessing
import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.aws_local.template import load_properties

log = logging.getLogger(__name__)

#: What takes a new environment longest is imported once, so that one that has died is soon replaced.
PRELOADED = [
    "aws_lambda_powertools",
    "boto3",
    "fastapi",
    "fluvial.app",
    "fluvial.storage.dynamodb.store",
    "mangum",
]


#: A killed function's process dies somewhere within this time of its event.
DEATH_S_MAX = 0.3


class FunctionFailedError(Exception):
    """The function raised, or its process died; Lambda tells its invoker no more than that."""


@dataclass
class Context:
    """What Lambda tells a function of its invocation."""

    function_name: str
    aws_request_id: str
    memory_limit_in_mb: int = 512
    function_version: str = "$LATEST"

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:eu-central-1:123456789012:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """As much as the longest-running function begins with."""
        return 900_000


def load(module: str) -> Callable[[Any, Context], Any]:
    """A function's handler, loaded into this process."""
    functions = str(Path(__file__).parents[2] / "functions")
    if functions not in sys.path:
        sys.path.insert(0, functions)
    handler: Callable[[Any, Context], Any] = import_module(f"{module}.handler").handler
    return handler


def invoke(module: str, event: bytes) -> bytes:
    """Run a handler in this process; what goes in and out is JSON, as with Lambda."""
    answer = load(module)(json.loads(event), Context(module, str(uuid4())))
    return json.dumps(answer).encode()


def _begin(module: str) -> None:
    """What an environment does before its first event: its output is its log, for nobody reads the other pipe."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    load(module)


def timeout_of(module: str) -> int:
    """A function's timeout in the template, in seconds."""
    functions = load_properties("AWS::Serverless::Function").values()
    [timeout] = [one["Timeout"] for one in functions if one["Handler"] == f"{module}.handler.handler"]
    return int(timeout)


class Environments:
    """One function's processes; more are started as they are needed, and some are killed at their work."""

    def __init__(self, module: str, count_max: int, deaths: float = 0.0) -> None:
        """`deaths` is the share of events that kill their process."""
        self._module, self._count_max, self._deaths = module, count_max, deaths
        self._timeout_s = timeout_of(module)
        self._idle: list[ProcessPoolExecutor] = []
        self._all: set[ProcessPoolExecutor] = set()
        self._room = asyncio.Semaphore(count_max)

    async def provision(self) -> None:
        """Start them all before the first event, one after the other, as provisioned concurrency does."""
        for _ in range(self._count_max):
            environment = self._started()
            await asyncio.get_running_loop().run_in_executor(environment, os.getpid)
            self._idle.append(environment)

    async def invoke(self, event: bytes) -> bytes:
        """The answer to an event, from whichever environment is free. Raises TimeoutError, FunctionFailedError."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        environment, call = self._begun(event)
        if random.random() < self._deaths:
            loop.call_later(random.uniform(0, DEATH_S_MAX), _kill, environment)
        call.add_done_callback(lambda done: self._freed(environment, done))
        try:
            return await asyncio.wait_for(asyncio.shield(call), self._timeout_s)
        except TimeoutError:
            log.warning("%s timed out", self._module)
            raise
        except Exception as exc:
            log.warning("%s failed: %s: %s", self._module, type(exc).__name__, exc)
            raise FunctionFailedError(type(exc).__name__) from exc

    def _begun(self, event: bytes) -> tuple[ProcessPoolExecutor, asyncio.Future[bytes]]:
        """An environment that is alive, at work on an event."""
        loop = asyncio.get_running_loop()
        while self._idle:
            environment = self._idle.pop()
            try:
                return environment, loop.run_in_executor(environment, invoke, self._module, event)
            except BrokenProcessPool:  # it was killed when its work was done already
                self._all.discard(environment)
        environment = self._started()
        return environment, loop.run_in_executor(environment, invoke, self._module, event)

    def close(self) -> None:
        """End them all."""
        for environment in self._all:
            _kill(environment)
            environment.shutdown(wait=False)

    def _started(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        environment = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(self._module,))
        self._all.add(environment)
        return environment

    def _freed(self, environment: ProcessPoolExecutor, call: asyncio.Future[bytes]) -> None:
        if not call.cancelled() and isinstance(call.exception(), BrokenProcessPool):
            self._all.discard(environment)
            environment.shutdown(wait=False)
        else:
            self._idle.append(environment)
        self._room.release()


def _kill(environment: ProcessPoolExecutor) -> None:
    for process in list((environment._processes or {}).values()):
        process.kill()
