"""What a server's public routes tell of it at one time, and the rates between two times.

Only one reading is kept besides the newest, and of the streams only so many, so that memory is bounded.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec

from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.errors import ServerRefused, UnexpectedAnswer

#: The first so many streams, in the order of their names, are looked at.
STREAM_COUNT_MAX: Final = 5_000

#: Routes whose requests are not counted: an overview makes them itself.
_OWN_ROUTES: Final = frozenset({"/health", "/ready", "/metrics", "/v1/streams"})
_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_ROUTE: Final = re.compile(r'(?:^|,)route="([^"]*)"')
_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server has done since its start."""

    requests: float
    appends: float
    append_bytes: float
    commits: float


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """What a listing tells of a stream. Servers that list only names tell nothing."""

    byte_count: int | None
    live_reads: int
    last_append_at: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """One reading. What a server does not tell is None, and `missing` says why."""

    at_s: float
    version: str | None
    live_reads: int | None
    state: str | None
    counters: Counters | None
    streams: Mapping[str, StreamFigures]
    has_more_streams: bool
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamRate:
    """A stream with its growth per second; None for a stream that is new."""

    name: str
    figures: StreamFigures
    bytes_per_s: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """What has happened per second between two readings; None for what is not told, or after a restart."""

    seconds: float
    requests_per_s: float | None
    appends_per_s: float | None
    bytes_per_s: float | None
    commits_per_s: float | None
    busiest: tuple[StreamRate, ...]


@dataclass(slots=True)
class _Reading:
    """The requests of one reading, and what they did not tell."""

    connection: Connection
    missing: list[str] = field(default_factory=list)

    def get(self, path: str) -> bytes | None:
        """An answer's body; None if it is refused."""
        try:
            return self.connection.request("GET", path).body
        except ServerRefused as exc:
            self.missing.append(f"{path}: {exc}")
            return None

    def get_object(self, path: str) -> dict[str, Any]:
        """An answer's JSON object; empty without one."""
        body = self.get(path)
        try:
            found = msgspec.json.decode(body or b"{}")
        except msgspec.DecodeError:
            found = None
        if isinstance(found, dict):
            return found
        self.missing.append(f"{path}: the answer is not Fluvial's")
        return {}

    def state(self) -> str | None:
        """Whether the server can write."""
        try:
            found = msgspec.json.decode(self.connection.request("GET", "/ready").body)
        except ServerRefused as exc:
            return f"not ready ({exc.message})" if exc.status == _UNAVAILABLE else None
        except msgspec.DecodeError:
            return None
        return "read-only" if isinstance(found, dict) and found.get("writes") is False else "ready"

    def counters(self) -> Counters | None:
        """The metrics."""
        body = self.get("/metrics")
        return None if body is None else parse_counters(body.decode(errors="replace"))

    def streams(self, prefix: str, count_max: int) -> tuple[dict[str, StreamFigures], bool]:
        """The first streams, and whether there are more."""
        try:
            listed = list(islice(streams.list_streams(self.connection, prefix), count_max + 1))
        except (ServerRefused, UnexpectedAnswer) as exc:
            self.missing.append(f"streams: {exc}")
            return {}, False
        found = {
            str(one["name"]): StreamFigures(one.get("bytes"), one.get("liveReads") or 0, one.get("lastAppendAt"))
            for one in listed[:count_max]
        }
        return found, len(listed) > count_max


def read_overview(
    connection: Connection,
    prefix: str = "",
    count_max: int = STREAM_COUNT_MAX,
    now_s: Callable[[], float] = time.monotonic,
) -> Overview:
    """Ask a server. Raises ServerUnreachable, and ServerRefused or UnexpectedAnswer if it tells nothing at all."""
    reading = _Reading(connection)
    health, state, counters = reading.get_object("/health"), reading.state(), reading.counters()
    found, has_more = reading.streams(prefix, count_max)
    if not health and counters is None and any(one.startswith("streams: ") for one in reading.missing):
        raise UnexpectedAnswer(f"{connection.url} tells nothing: {'; '.join(reading.missing)}")
    return Overview(
        at_s=now_s(),
        version=health.get("version"),
        live_reads=health.get("liveReads"),
        state=state,
        counters=counters,
        streams=found,
        has_more_streams=has_more,
        missing=tuple(reading.missing),
    )


def parse_counters(text: str) -> Counters | None:
    """The counters in a text of Prometheus's format; None in one of another server."""
    totals, requests = dict[str, float](), 0.0
    for name, labels, value in _SAMPLE.findall(text):
        if name == "fluvial_http_requests_total":
            found = _ROUTE.search(labels)
            requests += 0.0 if found and found[1] in _OWN_ROUTES else float(value)
        elif name.startswith("fluvial_") and not labels:
            totals[name] = float(value)
    if "fluvial_appends_total" not in totals:
        return None
    return Counters(
        requests,
        totals["fluvial_appends_total"],
        totals.get("fluvial_append_bytes_total", 0.0),
        totals.get("fluvial_commit_group_size_sum", 0.0),
    )


def compare(before: Overview, after: Overview) -> Rates:
    """The rates between two readings, and the streams of the second one, the busiest first."""
    seconds = after.at_s - before.at_s
    old, new = before.counters, after.counters
    growth = [_growth(name, figures, before, seconds) for name, figures in after.streams.items()]
    if old is None or new is None:
        known = [one.bytes_per_s for one in growth if one.bytes_per_s is not None]
        total = sum(known) if known else None
        return Rates(seconds, None, None, total, None, _busiest_first(growth))
    return Rates(
        seconds,
        _rate(old.requests, new.requests, seconds),
        _rate(old.appends, new.appends, seconds),
        _rate(old.append_bytes, new.append_bytes, seconds),
        _rate(old.commits, new.commits, seconds),
        _busiest_first(growth),
    )


def _growth(name: str, figures: StreamFigures, before: Overview, seconds: float) -> StreamRate:
    """A stream that is shorter than before was created again, so it is new."""
    old = before.streams.get(name)
    if old is None or old.byte_count is None or figures.byte_count is None:
        return StreamRate(name, figures, None)
    return StreamRate(name, figures, _rate(old.byte_count, figures.byte_count, seconds))


def _rate(old: float, new: float, seconds: float) -> float | None:
    return None if new < old or seconds <= 0 else (new - old) / seconds


def _busiest_first(growth: list[StreamRate]) -> tuple[StreamRate, ...]:
    by_name = sorted(growth, key=lambda one: one.name)
    by_append = sorted(by_name, key=lambda one: one.figures.last_append_at or "", reverse=True)
    return tuple(sorted(by_append, key=lambda one: (-(one.bytes_per_s or 0.0), -one.figures.live_reads)))
