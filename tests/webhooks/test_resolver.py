"""The lookups of names for webhooks."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from fluvial.webhooks.errors import WebhookError, WebhookErrorKind
from fluvial.webhooks.limits import WEBHOOK_LIMITS
from fluvial.webhooks.resolver import Resolver, look_up

LIMITS = replace(WEBHOOK_LIMITS, lookups_at_once=2, retried_lookups_at_once=1, addresses_max=3)

#: Lookups that take longer than the limit are those of names that hang.
IMPATIENT = replace(LIMITS, lookup_s=0.05)


@dataclass
class Names:
    """What the system knows, and names whose servers do not answer until the end of the test."""

    hanging: frozenset[str] = frozenset({"dead.example", "dead-too.example"})
    asked: list[str] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)

    def look_up(self, name: str) -> tuple[str, ...]:
        """Count up the last number of the answer."""
        self.asked.append(name)
        if name in self.hanging:
            self.end.wait()
        match name:
            case "unknown.example":
                raise OSError(-2, "Name or service not known")
            case "malformed.example":
                raise UnicodeError("label too long")
            case "empty.example":
                return ()
            case "large.example":
                return tuple(f"8.8.8.{number}" for number in range(4))
            case _:
                return (f"8.8.8.{len(self.asked)}",)


@pytest.fixture
def names() -> Iterator[Names]:
    """Names of which some hang."""
    known = Names()
    yield known
    known.end.set()


async def failure(resolver: Resolver, name: str) -> WebhookErrorKind:
    """Why a name is not found."""
    with pytest.raises(WebhookError) as failed:
        await resolver.resolve(name)
    return failed.value.kind


async def test_each_delivery_asks_again(names: Names) -> None:
    """No answer is kept."""
    resolver = Resolver(LIMITS, names.look_up)
    assert await resolver.resolve("worker.example") == (ip_address("8.8.8.1"),)
    assert await resolver.resolve("worker.example") == (ip_address("8.8.8.2"),)


async def test_lookups_of_one_name_at_the_same_time_are_one(names: Names) -> None:
    """All get its answer."""
    resolver = Resolver(LIMITS, names.look_up)
    answers = await asyncio.gather(*(resolver.resolve("worker.example") for _ in range(10)))
    assert set(answers) == {(ip_address("8.8.8.1"),)}
    assert names.asked == ["worker.example"]


@pytest.mark.parametrize("name", ["unknown.example", "malformed.example", "empty.example", "large.example"])
async def test_name_without_a_usable_answer_is_not_found(name: str, names: Names) -> None:
    """Very many addresses are no receiver's."""
    assert await failure(Resolver(LIMITS, names.look_up), name) is WebhookErrorKind.LOOKUP


async def test_name_that_hangs_is_given_up(names: Names) -> None:
    """The thread goes on; the caller does not wait for it."""
    assert await failure(Resolver(IMPATIENT, names.look_up), "dead.example") is WebhookErrorKind.LOOKUP


async def test_names_that_hang_again_and_again_delay_no_other(names: Names) -> None:
    """They have a lane of their own from the second time on, in which they wait for each other."""
    resolver, dead = Resolver(IMPATIENT, names.look_up), ("dead.example", "dead-too.example")
    assert await asyncio.gather(*(failure(resolver, name) for name in dead)) == [WebhookErrorKind.LOOKUP] * 2
    names.end.set()
    await asyncio.gather(*(lookup.task for lookup in resolver._under_way.values()))
    names.end.clear()
    retried = [asyncio.create_task(failure(resolver, name)) for name in dead]
    await asyncio.sleep(0)
    assert await resolver.resolve("worker.example")
    assert not [task for task in retried if task.done()]
    assert await asyncio.gather(*retried) == [WebhookErrorKind.LOOKUP, WebhookErrorKind.BUSY]


async def test_name_that_finds_no_thread_is_not_taken_for_lost(names: Names) -> None:
    """It is tried again like any other, once there is one."""
    resolver = Resolver(IMPATIENT, names.look_up)
    hanging = [asyncio.create_task(failure(resolver, name)) for name in ("dead.example", "dead-too.example")]
    await asyncio.sleep(0)
    assert await failure(resolver, "worker.example") is WebhookErrorKind.BUSY
    assert await asyncio.gather(*hanging) == [WebhookErrorKind.LOOKUP] * 2
    names.end.set()
    assert await resolver.resolve("worker.example")


def test_process_does_not_wait_for_a_lookup_that_hangs(names: Names) -> None:
    """Neither the event loop's end nor the process's."""

    async def give_up() -> None:
        assert await failure(Resolver(IMPATIENT, names.look_up), "dead.example") is WebhookErrorKind.LOOKUP

    asyncio.run(give_up())
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "webhook lookup"] == [True]


def test_system_looks_up_the_name_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is absolute: it is not looked up below the server's own domains. An address counts once."""
    asked = list[object]()

    def answer(name: str, port: object, **_: object) -> list[tuple[object, ...]]:
        asked.append((name, port))
        found = [("8.8.8.8", 0), ("8.8.8.8", 0), ("2606:4700::1111", 0, 0, 0)]
        return [(None, None, None, "", sockaddr) for sockaddr in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert look_up("worker.example") == ("8.8.8.8", "2606:4700::1111")
    assert asked == [("worker.example.", None)]


async def test_machine_without_a_free_thread_finds_nothing(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delivery fails, and is tried again like any other."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert await failure(Resolver(LIMITS, names.look_up), "worker.example") is WebhookErrorKind.LOOKUP
