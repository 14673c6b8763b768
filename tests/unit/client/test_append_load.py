"""A load that is interrupted, and one with a rate."""

import asyncio
from types import SimpleNamespace

import pytest

from fluvial.client.load import append_load
from fluvial.client.load.append_load import Load, Outcome, run_load
from fluvial.client.load.http_connection import Origin, origin_of

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


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, in seconds."""
    clock = SimpleNamespace(s=100.0)
    monkeypatch.setattr(append_load, "time", SimpleNamespace(perf_counter=lambda: clock.s))
    return clock


def writers(load: Load, outcome: Outcome) -> list[append_load._Writer]:
    """The writers of a load that begins now."""
    found = [
        append_load._Writer(Origin("localhost", 1), load, number, outcome) for number in range(load.connection_count)
    ]
    for writer in found:
        writer.began_s, writer.ends_at_s = 100.0, 100.0 + load.seconds
    return found


def test_connections_of_a_load_with_a_rate_take_turns(now: SimpleNamespace) -> None:
    """Two of them send ten appends a second within one second, and then none."""
    load = Load(["a"], 1, connection_count=2, reader_count=0, line_bytes=50, rate=10)
    outcome, due_s = Outcome(), list[list[float]]()
    for writer in writers(load, outcome):
        due_s.append([])
        now.s = 100.0
        while True:
            now.s += writer.pause_s()
            if writer.next_request() is None:
                break
            due_s[-1].append(round(now.s - 100, 3))
            writer.take_answer(0.001)
    assert due_s == [[0, 0.2, 0.4, 0.6, 0.8], [0.1, 0.3, 0.5, 0.7, 0.9]]
    assert outcome.sent_count == load.due_count == 10


def test_latency_counts_from_when_an_append_was_due(now: SimpleNamespace) -> None:
    """The server takes half a second for the first one, and nothing for those that should have come meanwhile."""
    load = Load(["a"], 1, connection_count=1, reader_count=0, line_bytes=50, rate=10)
    outcome = Outcome()
    [writer] = writers(load, outcome)
    assert writer.next_request() is not None
    now.s += 0.5
    writer.take_answer(0.5)
    for place in range(1, 6):
        assert writer.pause_s() <= 0
        request = writer.next_request()
        assert request is not None
        assert int(request.split()[-2]) == pytest.approx((100 + place / 10) * 1e9)
        writer.take_answer(0.0)
    assert writer.pause_s() == pytest.approx(0.1)
    assert [round(outcome.latencies.percentile_ms(percent)) for percent in (10, 99)] == [0, 500]
    assert outcome.latencies.percentile_ms(50) == pytest.approx(300, rel=0.02)
