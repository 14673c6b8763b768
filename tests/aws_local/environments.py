"""Lambda's execution environments on one machine: processes that each run one function, one event at a time."""

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

from tests.aws_local.template import function_variables, load_properties

log = logging.getLogger(__name__)

#: The slowest imports. The fork server does them once, so that a killed environment is replaced quickly.
PRELOADED = [
    "aws_lambda_powertools",
    "boto3",
    "fastapi",
    "fluvial.app",
    "fluvial.storage.dynamodb.store",
    "mangum",
]


#: A process that is to be killed dies within this time after its event arrives.
DEATH_S_MAX = 0.3


class FunctionFailedError(Exception):
    """The function raised, or its process died; Lambda does not tell its invoker which."""


class ThrottledError(FunctionFailedError):
    """Lambda has refused the invocation, because as many run as may."""


@dataclass
class Context:
    """The context that Lambda gives a function with an event."""

    function_name: str
    aws_request_id: str
    memory_limit_in_mb: int = 512
    function_version: str = "$LATEST"

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:eu-central-1:123456789012:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """The longest timeout of the template's functions."""
        return 900_000


def load(module: str) -> Callable[[Any, Context], Any]:
    """Import a function's handler into this process."""
    functions = str(Path(__file__).parents[2] / "functions")
    if functions not in sys.path:
        sys.path.insert(0, functions)
    handler: Callable[[Any, Context], Any] = import_module(f"{module}.handler").handler
    return handler


def invoke(module: str, event: bytes) -> bytes:
    """Run a handler in this process; event and answer are JSON, as with Lambda."""
    answer = load(module)(json.loads(event), Context(module, str(uuid4())))
    return json.dumps(answer).encode()


def _initialize(module: str) -> None:
    """Load a function before its first event; stdout goes to stderr, which is the log, because nothing reads stdout.

    Its variables are the template's, unless the environment has others.
    """
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ["LAMBDA_TASK_ROOT"] = "/var/task"
    for name, value in function_variables(f"{module}.handler.handler").items():
        os.environ.setdefault(name, value)
    load(module)


def timeout_of(module: str) -> int:
    """A function's timeout in the template, in seconds."""
    functions = load_properties("AWS::Serverless::Function").values()
    [timeout] = [one["Timeout"] for one in functions if one["Handler"] == f"{module}.handler.handler"]
    return int(timeout)


class Environments:
    """One function's processes; more are started on demand, and a share of the events kills its process."""

    def __init__(self, module: str, count_max: int, deaths: float = 0.0, *, throttles: bool = False) -> None:
        """At most `count_max` processes run; `deaths` is the share of events that kill their process.

        One event more waits or, if `throttles`, raises ThrottledError.
        """
        self._module, self._count_max, self._deaths, self._throttles = module, count_max, deaths, throttles
        self._timeout_s = timeout_of(module)
        self._idle: list[ProcessPoolExecutor] = []
        self._all: set[ProcessPoolExecutor] = set()
        self._room = asyncio.Semaphore(count_max)
        self._is_closed = False

    async def provision(self, count: int | None = None) -> None:
        """Start processes, all unless `count` is given, before the first event, as provisioned concurrency does."""
        for _ in range(self._count_max if count is None else count):
            environment = self._start_environment()
            await asyncio.get_running_loop().run_in_executor(environment, os.getpid)
            self._idle.append(environment)

    async def invoke(self, event: bytes) -> bytes:
        """Run an event in a free environment, and return its answer. Raises TimeoutError, FunctionFailedError."""
        if self._throttles and self._room.locked():
            raise ThrottledError
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        environment, call = self._submit(event)
        if random.random() < self._deaths:
            loop.call_later(random.uniform(0, DEATH_S_MAX), _kill, environment)
        call.add_done_callback(lambda done: self._release(environment, done))
        try:
            return await asyncio.wait_for(asyncio.shield(call), self._timeout_s)
        except TimeoutError:
            log.warning("%s timed out", self._module)
            raise
        except Exception as exc:
            log.warning("%s failed: %s: %s", self._module, type(exc).__name__, exc)
            raise FunctionFailedError(type(exc).__name__) from exc

    def _submit(self, event: bytes) -> tuple[ProcessPoolExecutor, asyncio.Future[bytes]]:
        """Give an event to a living environment, idle or new."""
        loop = asyncio.get_running_loop()
        while self._idle:
            environment = self._idle.pop()
            try:
                return environment, loop.run_in_executor(environment, invoke, self._module, event)
            except BrokenProcessPool:  # it was killed after it had finished its last event
                self._all.discard(environment)
        environment = self._start_environment()
        return environment, loop.run_in_executor(environment, invoke, self._module, event)

    def close(self) -> None:
        """Kill all processes; an event that comes later, such as a repetition, fails."""
        self._is_closed = True
        for environment in self._all:
            _kill(environment)
            environment.shutdown(wait=False)

    def _start_environment(self) -> ProcessPoolExecutor:
        if self._is_closed:  # nobody would stop the process, and the program would wait for it at its end
            raise FunctionFailedError("closed")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        environment = ProcessPoolExecutor(1, mp_context=context, initializer=_initialize, initargs=(self._module,))
        self._all.add(environment)
        return environment

    def _release(self, environment: ProcessPoolExecutor, call: asyncio.Future[bytes]) -> None:
        if not call.cancelled() and isinstance(call.exception(), BrokenProcessPool):
            self._all.discard(environment)
            environment.shutdown(wait=False)
        else:
            self._idle.append(environment)
        self._room.release()


def _kill(environment: ProcessPoolExecutor) -> None:
    for process in list((environment._processes or {}).values()):
        process.kill()
