"""`python -m bench.observability`: what metrics, access log and traces cost, as a ratio of appends per second.

Servers that differ in nothing else take turns in many short rounds, in an order that turns round, too. The ratio is the
median of the rounds' own ratios, in each of which both servers met the same neighbours on this machine; behind it are
the quartiles. The processor time of an append is the server's alone, so it shows the cost where the rate is noisy.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.load import closed_loops, once, request
from bench.servers import Contender, contender

APPEND_BYTES = 100
CONNECTIONS = (1, 16, 64)
PATH = "/v1/stream/bench"
ONE_IN_A_HUNDRED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Series:
    """The rounds of one server."""

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def processor_s(process_id: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def measure(server: Contender, connection_count: int, seconds: float, series: Series) -> None:
    """One round of one server."""
    payload = request("POST", PATH, b"x" * APPEND_BYTES)
    before = processor_s(server.process.pid)
    measured = await closed_loops(server.url, [payload] * connection_count, seconds)
    series.rates.append(measured.per_second)
    series.cpu_us.append((processor_s(server.process.pid) - before) / measured.latencies.count * 1e6)


async def compare(servers: list[Contender], seconds: float, rounds: int) -> None:
    """Print a line for each load and server."""
    for server in servers:
        await once(server.url, request("PUT", PATH))
    print(f"{'connections':>12}  {'':24}{'appends/s':>11}{'of off':>9}  {'quartiles':17}{'CPU us':>8}{'of off':>9}")
    for connection_count in CONNECTIONS:
        found = {server.name: Series() for server in servers}
        for number in range(rounds + 1):
            print(f"  {connection_count} connections, round {number} of {rounds} ...", end="\r", file=sys.stderr)
            for server in servers[:: 1 if number % 2 else -1]:
                # The first round warms up, and is not counted.
                series = found[server.name] if number else Series()
                await measure(server, connection_count, seconds, series)
        off = found[servers[0].name]
        for server in servers:
            _print_line(connection_count, server.name, found[server.name], off)


def _print_line(connection_count: int, name: str, series: Series, off: Series) -> None:
    ratios = [one / other for one, other in zip(series.rates, off.rates, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    cpu, cpu_off = statistics.median(series.cpu_us), statistics.median(off.cpu_us)
    rate = statistics.median(series.rates)
    spread = f"{low:.3f} to {high:.3f}"
    print(f"{connection_count:12}  {name:24}{rate:11,.0f}{middle:9.3f}  {spread:17}{cpu:8.1f}{cpu / cpu_off:9.3f}")


@contextmanager
def observed_servers(folder: Path) -> Iterator[list[Contender]]:
    """A server without observation, and servers with one more kind of it each."""
    serve = ["serve", "--port", "0", "--log-format", "json"]
    with ExitStack() as stack:
        sink = stack.enter_context(contender("sink", [sys.executable, "-m", "bench.otlp_sink"]))
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}

        def start(name: str, module: str, *options: str, **sampler: str) -> Contender:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            command = [sys.executable, "-m", module, *serve, "--data-dir", str(folder / name), *options]
            return stack.enter_context(contender(name, command, log=log, environment={**environment, **sampler}))

        yield [
            start("off", "bench.unobserved"),
            start("metrics", "fluvial"),
            start("metrics, log", "fluvial", "--access-log"),
            start("metrics, log, 1 % traces", "fluvial", "--access-log", "--tracing", **ONE_IN_A_HUNDRED),
            start("metrics, log, all traces", "fluvial", "--access-log", "--tracing"),
        ]


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.observability", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each measure (default: 0.5)")
    parser.add_argument("--rounds", type=int, default=20, help="measures of each figure (default: 20)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, observed_servers(Path(folder)) as servers:
        off, metrics, log, sampled, traced = servers
        # Spans are sent for a while after a round, so a server that makes many takes turns with no other than `off`.
        for compared in ([off, metrics, log], [off, sampled], [off, traced]):
            uvloop.run(compare(compared, options.seconds, options.rounds))


if __name__ == "__main__":
    main()
