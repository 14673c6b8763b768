"""Slots: how many webhooks are under way, in all and to each target, so that a dead receiver delays no other.

1. A target has a few slots for each owner. Its subscriptions wait for each other, and for no other target's or owner's:
   one project whose receivers hang on a host that many use delays no other project there.
2. A receiver that has failed takes a slot of the retries; one that has answered last time takes one of the others, of
   the target's slots, too. So however many receivers are dead, a healthy one does not wait for them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fluvial.subscriptions.limits import WakeLimits

#: An owner, a target, and whether the slots are those of retries.
_Place = tuple[int, str, bool]


@dataclass(slots=True)
class _Target:
    semaphore: asyncio.Semaphore
    user_count: int = 0


@dataclass(slots=True)
class Slots:
    """The slots of one process."""

    limits: WakeLimits
    _targets: dict[_Place, _Target] = field(default_factory=dict)
    _healthy: asyncio.Semaphore = field(init=False)
    _retries: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """All slots are free."""
        self._healthy = asyncio.Semaphore(self.limits.deliveries_at_once)
        self._retries = asyncio.Semaphore(self.limits.retries_at_once)

    @asynccontextmanager
    async def hold(self, owner: int, url: str, *, is_retry: bool) -> AsyncIterator[None]:
        """Hold a slot while the block runs, once one is free."""
        name = (owner, target_of(url), is_retry)
        target = self._targets.get(name)
        if target is None:
            target = self._targets[name] = _Target(asyncio.Semaphore(self.limits.deliveries_per_target))
        target.user_count += 1
        try:
            async with target.semaphore, self._retries if is_retry else self._healthy:
                yield
        finally:
            target.user_count -= 1
            if not target.user_count:
                del self._targets[name]


def target_of(url: str) -> str:
    """The scheme, host and port of a URL; the URL itself if it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    return f"{parts.scheme}://{parts.hostname}:{port}"
