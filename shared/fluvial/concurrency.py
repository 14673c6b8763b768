"""Concurrency: bounded parallel work, and pauses between retries."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def map_bounded(items: Iterable[T], do: Callable[[T], Awaitable[R]], at_once: int) -> list[R]:
    """The results of `do` for each item, in order; at most `at_once` calls run at the same time.

    When calls fail, the others still finish; then the first error is raised, in the order of the items.
    """
    slots = asyncio.Semaphore(at_once)

    async def run(item: T) -> R:
        async with slots:
            return await do(item)

    results = await asyncio.gather(*map(run, items), return_exceptions=True)
    done = list[R]()
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


def backoff_s(first_s: float, tries: int, jitter: float) -> float:
    """The pause in seconds after a number of failed tries: doubled each time, and spread by up to a half.

    `first_s` is the pause before the first retry, `jitter` a random number from 0 to 1. The spread keeps clients that
    failed together from coming back together.
    """
    return float(first_s * 2**tries * (0.5 + jitter / 2))
