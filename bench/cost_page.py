"""`make cost-page`: docs/operations/cost.md, computed from the package's measured.json and its prices."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from click.testing import CliRunner

from bench.measured_file import save
from bench.stack import count_stack
from bench.writers import PACE_S
from fluvial.cli.main import main as command_line
from fluvial.model.limits import PAYLOAD_ITEM_BYTES_DEFAULT
from fluvial.pricing import estimate as standing
from fluvial.pricing import live, prices
from fluvial.pricing.estimate import Bill, estimate
from fluvial.pricing.live import broadcast_s, pollers_max
from fluvial.pricing.measured import Measured, load_measured
from fluvial.pricing.usage import Line, Usage, lines_of
from fluvial.pricing.workload import MONTH_HOURS, MONTH_S, Transport, Workload
from fluvial.storage.dynamodb.writes.payloads import INLINE_BYTES_MAX

PAGE: Final = Path(__file__).parents[1] / "docs" / "operations" / "cost.md"
TEXT: Final = Path(__file__).with_name("cost_page.md")

#: Sizes that people have, and the marks at which a batch is stored elsewhere.
SIZES: Final = {
    100: "100 B",
    INLINE_BYTES_MAX: f"{INLINE_BYTES_MAX} B",
    1_000: "1 KB",
    PAYLOAD_ITEM_BYTES_DEFAULT: f"{PAYLOAD_ITEM_BYTES_DEFAULT:,} B",
    PAYLOAD_ITEM_BYTES_DEFAULT + 1: f"{PAYLOAD_ITEM_BYTES_DEFAULT + 1:,} B",
    10_000: "10 KB",
    100_000: "100 KB",
}
WRITERS: Final = (1, 16, 64)
CROWDS: Final = (1, 4, 16, 64)
#: The lines of a bill that each append adds to.
APPEND_LINES: Final = ("DynamoDB", "S3", "Lambda", "API Gateway", "Data out", "CloudWatch logs")
AUDIENCES: Final = (10, 100, 1_000, 10_000)
RATES: Final = (0, 1, 5, 20)
CANNOT_EXIST: Final = "cannot exist"

#: One stream with one append of 100 bytes a second.
BUSY: Final = Workload(writes_s=1, bytes_per_write=100)

#: The command that the page shows.
EXAMPLE: Final = ("cost", "--writes", "5", "--bytes", "300", "--readers", "200")

NAMES: Final = {
    Transport.LONG_POLL: "long-poll",
    Transport.LONG_POLL_CDN: "long-poll behind CloudFront",
    Transport.SSE: "SSE on Lambda",
    Transport.WEBSOCKET: "WebSocket on API Gateway",
    Transport.RELAY: "SSE from the relay",
}


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, with numbers at the right."""
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def append_table(m: Measured) -> str:
    """What an append takes in its life, of one writer."""
    heading = ("one writer", "append", "requests", "as a transaction", "rotation", "whole life", "S3 PUTs")
    rows = []
    for size, name in SIZES.items():
        one = m.append(size)
        units = (one.write_units, one.write_requests, one.transaction_write_units, one.rotation_write_units)
        rows.append([name, *(f"{value:.2f}" for value in (*units, one.life_write_units, one.life_s3_puts))])
    return table(heading, rows)


def crowd_table(m: Measured) -> str:
    """Write units of appends, by size and number of writers."""
    heading = (f"writers of one stream, {PACE_S:g} appends a second each", *(str(count) for count in CROWDS))
    rows = []
    for crowd in m.crowds:
        units = {one.writers: one.write_units for one in crowd.writers}
        rows.append([f"{crowd.bytes:.0f} B", *(f"{units[count]:.2f}" for count in CROWDS)])
    return table(heading, rows)


def life_table(m: Measured) -> str:
    """Dollars of a million appends in the table and in S3, by writers."""
    rows = []
    for size, name in SIZES.items():
        s3 = _million(paced(size, 1), m, "S3")
        rows.append([name, *_by_writers(m, size, "DynamoDB", "S3"), f"{s3:.2f}"])
    return table(("a million appends in table and bucket, $", *_writer_heading(), "of it S3"), rows)


def request_table(m: Measured) -> str:
    """Dollars of a million requests besides what they take of the table, by writers."""
    parts = {
        "API Gateway": "API Gateway",
        "the edge function": "Lambda edge",
        "the changes function": "Lambda changes",
        "logs": "CloudWatch logs",
        "answers that leave AWS": "Data out",
        "traces, if they are on": "X-Ray",
    }
    rows = [[name, *_by_writers(m, 100, service)] for name, service in parts.items()]
    return table(("a million appends over HTTP, $", *_writer_heading()), rows)


def whole_table(m: Measured) -> str:
    """Dollars of a million appends with all that they cause, without traces."""
    rows = [[name, *_by_writers(m, size, *APPEND_LINES)] for size, name in SIZES.items()]
    return table(("a million appends, all of it, $", *_writer_heading()), rows)


def paced(size: int, writers: int) -> Workload:
    """Writers of one stream at the pace of the measurement."""
    return Workload(writers * PACE_S, size, writers=writers, traces=True)


def _writer_heading() -> list[str]:
    return [f"{count} writer{'s' * (count > 1)}" for count in WRITERS]


def _by_writers(m: Measured, size: int, *services: str) -> list[str]:
    loads = [paced(size, count) for count in WRITERS]
    return [f"{_million(w, m, *services):.2f}" if estimate(w, m).exists else CANNOT_EXIST for w in loads]


def _million(w: Workload, m: Measured, *services: str) -> float:
    return _dollars(estimate(w, m), *services) / (w.writes_s * MONTH_S) * 1e6


def read_table(m: Measured) -> str:
    """Reads of the newest batch, and of a whole stream."""
    heading = (
        "reads",
        "newest batch, units",
        "$ a million",
        "1 MB not in a segment yet, units",
        "$ a million",
        "1 MB from segments, $ a million",
    )
    rows = []
    for size, name in SIZES.items():
        one = m.append(size)
        tail = one.tail_read_units * prices.READ_UNIT_DOLLARS + one.tail_s3_gets * prices.S3_GET_DOLLARS
        hot = one.hot_mb_read_units * prices.READ_UNIT_DOLLARS + one.hot_mb_s3_gets * prices.S3_GET_DOLLARS
        cold = one.cold_mb_read_units * prices.READ_UNIT_DOLLARS + one.cold_mb_s3_gets * prices.S3_GET_DOLLARS
        dollars = (
            f"{one.tail_read_units:.1f}",
            f"{tail * 1e6:.3f}",
            f"{one.hot_mb_read_units:.0f}",
            f"{hot * 1e6:.2f}",
        )
        rows.append([name, *dollars, f"{cold * 1e6:.2f}"])
    return table(heading, rows)


def month_table(m: Measured) -> str:
    """The whole bill of one append a second, as deployed, and with traces and detailed metrics."""
    plain = estimate(BUSY, m)
    watched = estimate(replace(BUSY, traces=True, detailed_metrics=True), m)
    before = {line.name: line for line in plain.lines}
    rows = []
    for line in watched.lines:
        first = before.get(line.name, replace(line, quantity=0, dollars=0))
        rows.append([line.name, _amount(first), f"{first.dollars:.2f}", _amount(line), f"{line.dollars:.2f}"])
    rows.append(["**total**", "", f"**{plain.dollars:.2f}**", "", f"**{watched.dollars:.2f}**"])
    return table(("one append a second", "as deployed", "$", "with traces and detailed metrics", "$"), rows)


def reader_table(m: Measured) -> str:
    """What live readers add to the bill, by transport."""
    heading = ("live readers, $ a month", *(f"{count:,}" for count in AUDIENCES))
    rows = [[NAMES[one], *(reader_cell(m, one, count) for count in AUDIENCES)] for one in NAMES]
    return table(heading, [*rows, ["and all else", *[f"{estimate(BUSY, m).dollars:,.0f}"] * len(AUDIENCES)]])


def reader_cell(m: Measured, transport: Transport, readers: int) -> str:
    """Dollars, or that it cannot exist."""
    bill = estimate(replace(BUSY, readers=readers), m, transport)
    return f"{bill.dollars - estimate(BUSY, m).dollars:,.0f}" if bill.exists else CANNOT_EXIST


def rate_table(m: Measured) -> str:
    """How many readers one stream may have on Lambda."""
    heading = ("appends a second", *(str(rate) for rate in RATES))
    polls = [m.poll(rate) for rate in RATES]
    return table(
        heading,
        [
            ["reads of the head a second", *(f"{one.reads_s:.1f}" for one in polls)],
            ["read units a second", *(f"{one.read_units_s:.2f}" for one in polls)],
            ["readers of one stream at most", *(f"{pollers_max(replace(BUSY, writes_s=one), m):,}" for one in RATES)],
        ],
    )


def _amount(line: Line) -> str:
    count = line.quantity
    number = f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.2g}"
    return f"{number} {line.unit.removesuffix('s') if count == 1 else line.unit}"


def _dollars(bill: Bill, *names: str) -> float:
    return sum(line.dollars for line in bill.lines if line.name.startswith(names))


def _live_dollars(m: Measured, transport: Transport, readers: int) -> float:
    return estimate(replace(BUSY, readers=readers), m, transport).dollars - estimate(BUSY, m).dollars


def _relay_is_cheaper_from(m: Measured, transport: Transport) -> int:
    """The smallest number of readers for which the relay costs less."""
    counts = range(1, live.RELAY_READERS_MAX)
    return next(n for n in counts if _live_dollars(m, Transport.RELAY, n) < _live_dollars(m, transport, n))


def figures(m: Measured) -> dict[str, str]:
    """All that the page's text has besides words."""
    sse_hour = _live_dollars(m, Transport.SSE, 1) / MONTH_HOURS
    idle = Usage(socket_minutes=MONTH_S / 60)
    relay = {one: _live_dollars(m, Transport.RELAY, one) for one in (1, 10_000)}
    many = replace(BUSY, readers=10_000)
    half = replace(m.stack, live_memory_mb=m.stack.live_memory_mb // 2)
    out = many.readers * MONTH_S * (BUSY.bytes_per_write + live.EVENT_BYTES)
    cdn = _live_dollars(m, Transport.LONG_POLL_CDN, 10_000)
    return _estimates() | {
        "example": " ".join(["fluvial", *EXAMPLE]),
        "example_output": CliRunner().invoke(command_line, EXAMPLE).stdout.rstrip(),
        "append_table": append_table(m),
        "life_table": life_table(m),
        "request_table": request_table(m),
        "whole_table": whole_table(m),
        "read_table": read_table(m),
        "month_table": month_table(m),
        "reader_table": reader_table(m),
        "rate_table": rate_table(m),
        "write_dollars": f"{prices.WRITE_UNIT_DOLLARS * 1e6:g}",
        "read_dollars": f"{prices.READ_UNIT_DOLLARS * 1e6:g}",
        "crowd_table": crowd_table(m),
        "get_dollars": f"{prices.S3_GET_DOLLARS * 1e6:.2f}",
        "partition_writes": f"{prices.PARTITION_WRITE_UNITS_S:,}",
        "partition_reads": f"{prices.PARTITION_READ_UNITS_S:,}",
        "pollers_max": f"{pollers_max(BUSY, m):,}",
        "sse_hour": f"{sse_hour:.4f}",
        "sse_half_hour": f"{_live_dollars(replace(m, stack=half), Transport.SSE, 1) / MONTH_HOURS:.4f}",
        "live_memory": f"{m.stack.live_memory_mb}",
        "half_memory": f"{half.live_memory_mb}",
        "idle_socket": f"{lines_of(idle)[0].dollars:.3f}",
        "relay_from_sse": f"{_relay_is_cheaper_from(m, Transport.SSE)}",
        "relay_from_socket": f"{_relay_is_cheaper_from(m, Transport.WEBSOCKET)}",
        "relay_idle": f"{relay[1]:,.0f}",
        "relay_many": f"{relay[10_000]:,.0f}",
        "out_many": f"{prices.tiered_dollars(out, prices.OUT_BYTE_TIERS):,.0f}",
        "out_many_tb": f"{out / 1e12:.1f}",
        "cdn_times": f"{cdn / relay[10_000]:.0f}",
        "broadcast_many": f"{broadcast_s(many):.1f}",
        "broadcast_writes": f"{m.broadcast.write_units:.0f}",
        "broadcast_reads": f"{m.broadcast.read_units:.0f}",
        "project_reads": f"{MONTH_S / 5 * prices.READ_UNIT_DOLLARS:.2f}",
        "secret_requests": f"{prices.SECRET_REQUEST_DOLLARS * 10_000:.2f}",
        "secret": f"{prices.SECRET_MONTH_DOLLARS:.2f}",
        "alarms": f"{m.stack.alarms}",
        "deleted_days": f"{m.stack.deleted_days}",
    }


def _estimates() -> dict[str, str]:
    numbers = {
        "apart_bytes": INLINE_BYTES_MAX + 1,
        "object_bytes": PAYLOAD_ITEM_BYTES_DEFAULT + 1,
        "edge_ms": standing.EDGE_S * 1_000,
        "changes_ms": standing.CHANGES_S * 1_000,
        "event_bytes": live.EVENT_BYTES,
        "answer_bytes": live.ANSWER_BYTES,
        "frame_bytes": live.FRAME_BYTES,
        "event_stream_s": live.EVENT_STREAM_S,
        "post_ms": live.POST_S * 1_000,
        "posts_at_once": live.POSTS_AT_ONCE,
        "edge_log_bytes": standing.EDGE_LOG_BYTES,
        "live_log_bytes": live.LIVE_LOG_BYTES,
        "changes_log_bytes": standing.CHANGES_LOG_BYTES,
        "detailed_metrics": standing.METHODS_IN_USE * standing.METRICS_PER_METHOD,
        "metrics_per_method": standing.METRICS_PER_METHOD,
        "methods": standing.METHODS_IN_USE,
        "own_metrics": standing.OWN_METRICS,
        "pace": PACE_S,
        "trace_percent": prices.TRACE_RATE * 100,
    }
    return {name: f"{number:,.0f}" for name, number in numbers.items()}


def page(m: Measured) -> str:
    """The whole page: the text, with its figures."""
    return TEXT.read_text().format_map(figures(m))


def main() -> None:
    """Count the stack anew, and write the page."""
    measured = replace(load_measured(), stack=count_stack())
    save(measured)
    PAGE.write_text(page(measured))


if __name__ == "__main__":
    main()
