"""When a request is tried again, and for how long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from fluvial.client.errors import ClientError, ServerRefused, ServerUnreachable
from fluvial.client.retries import DELAY_S_MAX, Retries


@dataclass
class FakeTime:
    """A clock that moves on by sleeping."""

    now_s: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.now_s += seconds
        self.slept.append(seconds)


def retries(clock: FakeTime, for_s: float | None = 60.0) -> Retries:
    """Retries with this clock and no chance."""
    return Retries(for_s, now_s=lambda: clock.now_s, sleep=clock.sleep, jitter=lambda: 1.0)


def failing(error: ClientError, times: int) -> Callable[[], str]:
    """A request that fails so many times."""
    left = [error] * times

    def request() -> str:
        if left:
            raise left.pop()
        return "answer"

    return request


def refused(status: int, code: str = "", fields: Mapping[str, str] | None = None) -> ServerRefused:
    """A refusal."""
    return ServerRefused(status, code, "no", fields or {})


NOT_SENT = ServerUnreachable("http://a", "refused", may_have_arrived=False)
LOST = ServerUnreachable("http://a", "reset", may_have_arrived=True)


@pytest.mark.parametrize(
    ("error", "once", "repeatable"),
    [
        (NOT_SENT, True, True),
        (LOST, False, True),
        (refused(503, "store_uncertain"), False, True),
        (refused(503, "store_unavailable"), True, True),
        (refused(502), False, True),
        (refused(429, "too_many_requests"), True, True),
        (refused(429, "quota_exceeded"), False, False),
        (refused(404, "not_found"), False, False),
        (refused(409, "stream_closed"), False, False),
    ],
    ids=str,
)
def test_request_is_tried_again_if_it_cannot_be_made_twice(error: ClientError, *, once: bool, repeatable: bool) -> None:
    """`once`: a request that may not be made twice. An append without a producer is one."""
    for is_repeatable, expected in ((False, once), (True, repeatable)):
        request = failing(error, 2)
        if expected:
            assert retries(FakeTime()).run(request, is_repeatable=is_repeatable) == "answer"
        else:
            with pytest.raises(type(error)):
                retries(FakeTime()).run(request, is_repeatable=is_repeatable)


def test_delays_grow_up_to_a_bound_and_end() -> None:
    """A server's Retry-After is a lower bound."""
    clock = FakeTime()
    with pytest.raises(ServerUnreachable):
        retries(clock, 30.0).run(failing(NOT_SENT, 1_000), is_repeatable=True)
    assert clock.slept[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert max(clock.slept) <= DELAY_S_MAX
    assert clock.now_s <= 30
    clock = FakeTime()
    retries(clock).run(failing(refused(429, fields={"retry-after": "7"}), 1), is_repeatable=False)
    assert clock.slept == [7.0]


def test_wrong_url_is_reported_at_once() -> None:
    """Without --retry-for, only a server that has answered before is waited for, and the wait is told once."""
    clock, told = FakeTime(), list[str]()
    tried = retries(clock, None)
    tried.tell = told.append
    with pytest.raises(ServerUnreachable):
        tried.run(failing(NOT_SENT, 1), is_repeatable=True)
    assert clock.slept == []
    tried.run(failing(NOT_SENT, 0), is_repeatable=True)
    assert tried.run(failing(NOT_SENT, 3), is_repeatable=True) == "answer"
    assert told == ["no answer from http://a: refused; trying again"]
