"""What `fluvial top` shows of two readings: lines of text, a table on a terminal, or JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluvial.cli.listing import format_bytes, format_time
from fluvial.client.overview import Overview, Rates, StreamRate

if TYPE_CHECKING:
    from rich.console import RenderableType

_HEADINGS = ("BYTES/S", "SIZE", "LIVE READS", "LAST APPEND", "NAME")
_NUMBER_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class View:
    """The newest reading, the rates since the one before, and how many streams to show."""

    url: str
    overview: Overview
    rates: Rates
    row_count: int
    error: str | None = None

    def heading(self) -> list[str]:
        """Lines about the server."""
        overview, rates = self.overview, self.rates
        count = f"{len(overview.streams):,}"
        figures = {
            "requests/s": _number(rates.requests_per_s),
            "appends/s": _number(rates.appends_per_s),
            "bytes/s": _bytes(rates.bytes_per_s),
            "commits/s": _number(rates.commits_per_s),
            "live reads": _number(overview.live_reads),
            "streams": f"the first {count}" if overview.has_more_streams else count,
        }
        return [
            f"{self.url}  fluvial {overview.version or '?'}  {overview.state or 'state unknown'}",
            "   ".join(f"{name} {value}" for name, value in figures.items()),
        ]

    def notes(self) -> list[str]:
        """What the server does not tell, and its silence."""
        return [*self.overview.missing, *([f"{self.error}; trying again"] if self.error else [])]

    def rows(self, count: int) -> list[tuple[str, ...]]:
        """Cells of the busiest streams."""
        return [_row(stream) for stream in self.rates.busiest[:count]]

    def lines(self) -> Iterator[str]:
        """Plain text."""
        yield from self.heading()
        yield from self.notes()
        table = [_HEADINGS, *self.rows(self.row_count)]
        if len(table) == 1:
            return
        yield ""
        widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
        for row in table:
            cells = [
                cell.rjust(width) if column < _NUMBER_COLUMNS else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            yield "  ".join(cells).rstrip()

    def on_terminal(self, height: int) -> "RenderableType":
        """The same for a terminal of so many lines."""
        from rich.console import Group  # noqa: PLC0415  only a terminal pays for it
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column, heading in enumerate(_HEADINGS):
            table.add_column(heading, justify="right" if column < _NUMBER_COLUMNS else "left", no_wrap=True)
        first, second = self.heading()
        notes = self.notes()
        for row in self.rows(min(self.row_count, max(1, height - len(notes) - 5))):
            table.add_row(*map(Text, row))
        lines = [Text(first, style="bold", no_wrap=True), Text(second, no_wrap=True)]
        lines += [Text(note, style="red", no_wrap=True, overflow="ellipsis") for note in notes]
        return Group(*lines, Text(""), table)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        overview, rates = self.overview, self.rates
        return {
            "url": self.url,
            "version": overview.version,
            "state": overview.state,
            "seconds": round(rates.seconds, 3),
            "requestsPerSecond": _rounded(rates.requests_per_s),
            "appendsPerSecond": _rounded(rates.appends_per_s),
            "bytesPerSecond": _rounded(rates.bytes_per_s),
            "commitsPerSecond": _rounded(rates.commits_per_s),
            "liveReads": overview.live_reads,
            "streamCount": len(overview.streams),
            "hasMoreStreams": overview.has_more_streams,
            "missing": list(overview.missing),
            "streams": [
                {
                    "name": one.name,
                    "bytesPerSecond": _rounded(one.bytes_per_s),
                    "bytes": one.figures.byte_count,
                    "liveReads": one.figures.live_reads,
                    "lastAppendAt": one.figures.last_append_at,
                }
                for one in rates.busiest[: self.row_count]
            ],
        }


def _row(stream: StreamRate) -> tuple[str, ...]:
    figures = stream.figures
    return (
        _bytes(stream.bytes_per_s),
        _bytes(figures.byte_count),
        f"{figures.live_reads:,}",
        format_time(figures.last_append_at, "-"),
        stream.name,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    return "-" if value is None else format_bytes(round(value))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
