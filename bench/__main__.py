"""`python -m bench`: this server and the reference server under the same load, in one go.

Absolute figures are this machine's, today; the ratios are what to look at. Each figure is the median of the rounds,
and the servers take turns within a round.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import uvloop

from bench.load import Measure, RequestRefused, closed_loops, each_once, fan_out, median_measure, once, request
from bench.servers import Contender, contenders, fluvial_alone
from bench.wakes import wakes

APPEND_BYTES = 100
LENGTHS = (10, 10_000, 1_000_000)
FOUND_TRIES_MAX = 20
numbers = count()


@dataclass(frozen=True)
class Case:
    """One load, and what it is called in the table."""

    name: str
    run: Callable[[str, float], Awaitable[Measure]]
    shows_latency: bool = False


async def fresh_streams(url: str, how_many: int, body: bytes = b"") -> list[str]:
    """Paths of new streams."""
    paths = [f"/v1/stream/bench-{next(numbers)}" for _ in range(how_many)]
    await make_streams(url, paths, body)
    return paths


async def make_streams(url: str, paths: Sequence[str], body: bytes = b"") -> None:
    """Make streams, and wait until each is there: the reference server may take a moment with files."""
    for path in paths:
        await once(url, request("PUT", path, body))
    for path in paths:
        for tried in range(FOUND_TRIES_MAX):
            try:
                await once(url, request("GET", f"{path}?offset=now"))
                break
            except RequestRefused:
                await asyncio.sleep(0.01 * tried)


def appends(connection_count: int, stream_count: int) -> Callable[[str, float], Awaitable[Measure]]:
    """Appends of 100 bytes."""

    async def run(url: str, seconds: float) -> Measure:
        paths = await fresh_streams(url, stream_count)
        payloads = [request("POST", paths[one % stream_count], b"x" * APPEND_BYTES) for one in range(connection_count)]
        return await closed_loops(url, payloads, seconds)

    return run


def reads(connection_count: int, byte_count: int) -> Callable[[str, float], Awaitable[Measure]]:
    """Catch-up reads of a stream from its beginning."""

    async def run(url: str, seconds: float) -> Measure:
        [path] = await fresh_streams(url, 1, b"x" * byte_count)
        return await closed_loops(url, [request("GET", f"{path}?offset=-1")] * connection_count, seconds)

    return run


def follows(reader_count: int) -> Callable[[str, float], Awaitable[Measure]]:
    """SSE fan-out."""

    async def run(url: str, seconds: float) -> Measure:
        [path] = await fresh_streams(url, 1)
        return await fan_out(
            url, [path] * reader_count, lambda payload: once(url, request("POST", path, payload)), seconds
        )

    return run


def publishes(subscriber_count: int) -> Callable[[str, float], Awaitable[Measure]]:
    """A publication to subscribers, each with a stream of its own and a live reader of that.

    To a server without subscriptions the publisher appends to each stream itself, over 16 connections.
    """

    async def run(url: str, seconds: float) -> Measure:
        group = f"bench-{next(numbers)}"
        source, paths = f"{group}/source", [f"/v1/stream/{group}/{one}" for one in range(subscriber_count)]
        await once(url, request("PUT", f"/v1/stream/{source}"))

        async def publish(payload: bytes) -> None:
            await once(url, request("POST", f"/v1/stream/{source}", payload))

        async def append_to_all(payload: bytes) -> None:
            await each_once(url, [request("POST", path, payload) for path in paths], 16)

        subscriptions = [
            request("POST", f"/v1/estuary/subscribe/{source}", b'{"estuaryId":"%d"}' % one, "application/json")
            for one in range(subscriber_count)
        ]
        try:
            await once(url, subscriptions[0])
        except RequestRefused as exc:
            if exc.status != 404:
                raise
            await make_streams(url, paths)
            return await fan_out(url, paths, append_to_all, seconds)
        await each_once(url, subscriptions[1:], 16)
        return await fan_out(url, paths, publish, seconds)

    return run


CASES = [
    Case("append, 1 connection", appends(1, 1)),
    Case("append, 16 connections", appends(16, 1)),
    Case("append, 64 connections", appends(64, 1)),
    Case("append, 64 connections, 64 streams", appends(64, 64)),
    Case("read 1 KB, 16 connections", reads(16, 1_000)),
    Case("read 1 MB, 4 connections", reads(4, 1_000_000)),
    Case("SSE deliveries, 100 readers", follows(100), shows_latency=True),
    Case("SSE deliveries, 1,000 readers", follows(1_000), shows_latency=True),
    Case("deliveries to 1,000 subscribers", publishes(1_000), shows_latency=True),
    Case("wakes of webhooks", wakes, shows_latency=True),
]


async def compare(cases: list[Case], servers: list[Contender], seconds: float, rounds: int) -> None:
    """Print the table, a line as soon as it is known."""
    print(
        f"{'per second':36}" + "".join(f"{server.name:>12}" for server in servers) + f"{'/ file':>10}{'/ memory':>10}"
    )
    for case in cases:
        measures: dict[str, list[Measure]] = {server.name: [] for server in servers}
        for number in range(rounds):
            for server in servers:
                print(f"  {case.name}: round {number + 1}, {server.name} ...", end="\r", file=sys.stderr, flush=True)
                try:
                    measures[server.name].append(await case.run(server.url, seconds))
                except RequestRefused as exc:  # the reference server sometimes does not find what it has just made
                    answer = str(exc).splitlines()[0]
                    print(f"  {case.name}: {server.name} answered {answer}; round left out", file=sys.stderr)
        found = [median_measure(measures[server.name]) for server in servers]
        print(_row(case.name, [None if one is None else one.per_second for one in found], 0))
        if case.shows_latency:
            for percent in (50, 99):
                of_all = [None if one is None else one.latencies.percentile_ms(percent) for one in found]
                print(_row(f"  p{percent}, ms", of_all, 1))


def _row(label: str, figures: list[float | None], digits: int) -> str:
    """A line of the table; a dash where a server has answered no round."""
    first, *others = figures
    row = "".join(f"{'-':>12}" if one is None else f"{one:12,.{digits}f}" for one in figures)
    ratios = "".join(
        f"{'-':>10}" if first is None or other is None else f"{first / other:9.{digits + 1}f}x" for other in others
    )
    return f"{label:36}{row}{ratios}"


async def grow(seconds: float) -> None:
    """Print what an append costs, and what the server has in memory, as one stream grows."""
    print(f"\n{'one stream of':>20}{'appends/s':>12}{'p50 ms':>10}{'resident MiB':>14}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, fluvial_alone(Path(folder) / "data") as server:
        [path] = await fresh_streams(server.url, 1)
        payload, length = request("POST", path, b"x" * APPEND_BYTES), 0
        for target in LENGTHS:
            while length < target:
                print(f"  {length:,} of {target:,} batches ...", end="\r", file=sys.stderr, flush=True)
                share = min(20_000, target - length)
                length += await _append(server.url, payload, share)
            measure = await closed_loops(server.url, [payload] * 16, seconds)
            length += measure.latencies.count
            figures = (
                f"{measure.per_second:12,.0f}{measure.latencies.percentile_ms(50):10.2f}{server.resident_mib:14.0f}"
            )
            print(f"{f'{target:,} batches':>20}{figures}")


async def _append(url: str, payload: bytes, how_many: int) -> int:
    """Append about so many batches; how many it were."""
    if how_many < 100:
        for _ in range(how_many):
            await once(url, payload)
        return how_many
    return (await closed_loops(url, [payload] * 64, how_many / 20_000)).latencies.count


def main() -> None:
    """Parse the options and run."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measure (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="measures of each figure (default: 3)")
    parser.add_argument("--only", default="", help="only the cases whose name has this in it")
    parser.add_argument("--no-growth", action="store_true", help="leave out the million-batch stream")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, contenders(Path(folder)) as servers:
        cases = [case for case in CASES if options.only in case.name]
        uvloop.run(compare(cases, servers, options.seconds, options.rounds))
    if not options.no_growth:
        uvloop.run(grow(options.seconds))


main()
