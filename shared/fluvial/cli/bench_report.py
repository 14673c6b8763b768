"""What `fluvial bench` prints: rates, latencies, and whether each acknowledged append is there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fluvial.cli.listing import format_bytes
from fluvial.client.load.append_load import Load, Outcome
from fluvial.client.load.latencies import Latencies
from fluvial.client.load.numbered_lines import Findings

#: The load generator is one thread: above this share of a processor it measures itself.
_BUSY_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the load must reach; None for any."""

    p99_ms_max: float | None = None
    rate_min: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A load that has ended, and what was read back."""

    url: str
    load: Load
    outcome: Outcome
    found: Findings

    @property
    def rate(self) -> float:
        """Acknowledged appends per second."""
        return self.outcome.acknowledged_count / self.outcome.seconds if self.outcome.seconds else 0.0

    @property
    def _unsent_count(self) -> int:
        """Appends that were due and were not sent before the time was over; 0 without a rate."""
        return max(0, (self.load.due_count or 0) - self.outcome.sent_count)

    def failures(self, thresholds: Thresholds) -> list[str]:
        """What is wrong, and which thresholds are missed."""
        failures = list[str]()
        if not self.outcome.acknowledged_count:
            failures.append("no append was acknowledged")
        if not self.found.is_good:
            failures.append(f"what was read back is wrong: {_wrong(self.found)}")
        if not self.outcome.delivered.is_good:
            failures.append(f"what live reads got is wrong: {_wrong(self.outcome.delivered)}")
        p99_ms = self.outcome.latencies.percentile_ms(99)
        if thresholds.p99_ms_max is not None and p99_ms > thresholds.p99_ms_max:
            failures.append(f"p99 is {p99_ms:,.2f} ms, above {thresholds.p99_ms_max:,g} ms")
        if thresholds.rate_min is not None and self.rate < thresholds.rate_min:
            failures.append(f"the rate is {self.rate:,.0f} appends/s, below {thresholds.rate_min:,}")
        return failures

    def lines(self) -> Iterator[str]:
        """The report for people."""
        load, outcome = self.load, self.outcome
        connections, reader_count = _counted(load.connection_count, "connection"), load.reader_count
        yield f"{self.url}: {connections}, {_counted(len(load.streams), 'stream')}, {_counted(reader_count, 'reader')}"
        yield f"appends     {self.rate:,.0f}/s  ({outcome.acknowledged_count:,} in {outcome.seconds:.1f} s)"
        if load.due_count is not None:
            yield f"offered     {load.rate:,.0f}/s  ({load.due_count:,} due, {self._unsent_count:,} not sent in time)"
        yield f"bytes       {format_bytes(round(self.rate * load.line_bytes))}/s  ({load.line_bytes:,} each)"
        yield f"latency     {_percentiles(outcome.latencies)}"
        if reader_count:
            yield f"delivery    {_percentiles(outcome.delivery_latencies)}"
            yield f"delivered   {_verdict(outcome.delivered)}"
        counts = "; ".join(f"{text}: {count:,}" for text, count in sorted(outcome.error_counts.items()))
        yield f"failed      {_counted(outcome.error_count, 'request')}{f'  ({counts})' if counts else ''}"
        yield f"read back   {_verdict(self.found)}"
        if outcome.processor_share > _BUSY_SHARE:
            yield f"this command used {outcome.processor_share:.0%} of a processor: the server may be faster than this"

    def as_json(self, failures: list[str]) -> dict[str, Any]:
        """The report for programs."""
        load, outcome, has_readers = self.load, self.outcome, self.load.reader_count > 0
        return {
            "url": self.url,
            "connections": load.connection_count,
            "streams": len(load.streams),
            "readers": load.reader_count,
            "appendBytes": load.line_bytes,
            "seconds": round(outcome.seconds, 3),
            "appends": outcome.acknowledged_count,
            "offeredPerSecond": load.rate,
            "unsent": self._unsent_count,
            "appendsPerSecond": round(self.rate, 1),
            "bytesPerSecond": round(self.rate * load.line_bytes),
            "latencyMs": _percentiles_as_json(outcome.latencies),
            "deliveryMs": _percentiles_as_json(outcome.delivery_latencies) if has_readers else None,
            "processorShare": round(outcome.processor_share, 2),
            "failedRequests": outcome.error_counts,
            "readBack": _as_json(self.found),
            "delivered": _as_json(outcome.delivered) if has_readers else None,
            "failures": failures,
        }


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _percentiles(latencies: Latencies) -> str:
    if not latencies.count:
        return "-"
    figures = _percentiles_as_json(latencies)
    return "   ".join(f"{name} {ms:,.2f} ms" for name, ms in figures.items())


def _percentiles_as_json(latencies: Latencies) -> dict[str, float]:
    found = {f"p{percent}": latencies.percentile_ms(percent) for percent in (50, 90, 99)}
    return {name: round(ms, 3) for name, ms in {**found, "max": latencies.longest_ms}.items()}


def _verdict(found: Findings) -> str:
    lines = _counted(found.read, "line")
    return f"{lines}: each acknowledged append once and in order" if found.is_good else f"{lines}: {_wrong(found)}"


def _wrong(found: Findings) -> str:
    counts = {
        "lost": found.lost,
        "doubled": found.doubled,
        "out of order": found.out_of_order,
        "damaged": found.damaged,
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _as_json(found: Findings) -> dict[str, int]:
    return {
        "lines": found.read,
        "lost": found.lost,
        "doubled": found.doubled,
        "outOfOrder": found.out_of_order,
        "damaged": found.damaged,
    }
