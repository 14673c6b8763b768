"""`fluvial cost`: what a load costs a month on AWS."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isnan
from typing import Any, Final

import click
import msgspec

from fluvial.cli.options import CommandFailed, UsageError, WholeNumber
from fluvial.pricing.estimate import Bill, estimate, estimates
from fluvial.pricing.measured import load_measured
from fluvial.pricing.workload import Transport, Workload

#: The largest body that the edge function takes, as template.yaml sets it: in base64 it is just under Lambda's 6 MB.
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
BYTES_MAX: Final = 4_456_448
COUNT_MAX: Final = 10_000_000


class Rate(click.FloatRange):
    """How many a second, which click would call a "float range" in help texts and errors."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Parse it. Without this, "nan" would be within any bounds."""
        rate = float(super().convert(value, param, ctx))
        if isnan(rate):
            self.fail(f"'{value}' is not a number", param, ctx)
        return rate


@click.command("cost")
@click.option("--writes", "writes_s", type=Rate(0, COUNT_MAX), default=1.0, show_default=True,
              help="Appends a second, to all streams together.")  # fmt: skip
@click.option("--bytes", "bytes_per_write", type=WholeNumber(1, BYTES_MAX), default=100, show_default=True,
              help="Bytes of an append.")  # fmt: skip
@click.option("--writers", type=WholeNumber(1, COUNT_MAX), default=1, show_default=True,
              help="Writers of one stream that append at the same time.")  # fmt: skip
@click.option("--streams", type=WholeNumber(1, COUNT_MAX), default=1, show_default=True,
              help="Streams over which appends and readers are spread.")  # fmt: skip
@click.option("--readers", type=WholeNumber(0, COUNT_MAX), default=0, show_default=True,
              help="Live readers that are held open, of all streams together.")  # fmt: skip
@click.option("--transport", type=click.Choice([str(one) for one in Transport]),
              help="How live readers are served; the cheapest way without it.")  # fmt: skip
@click.option("--requests", "requests_s", type=Rate(0, COUNT_MAX), default=0.0, show_default=True,
              help="Other requests a second, such as reads of a stream's end.")  # fmt: skip
@click.option("--traces", is_flag=True, help="With X-Ray.")
@click.option("--detailed-metrics", is_flag=True, help="With API Gateway's metrics of each method.")
@click.option("-o", "--output", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
def cost_command(*, transport: str | None, kind: str, **load: float) -> None:
    """Estimate what a load costs a month on AWS.

    From units that were measured, and prices of us-east-1 on demand, for 30 days, without free tiers. The exit status
    is 1 if AWS cannot carry the load, as when a stream has more readers than its partition answers.
    """
    workload, measured = msgspec.convert(load, Workload), load_measured()
    if transport is not None and not workload.readers:
        raise UsageError("--transport needs --readers")
    bills = estimates(workload, measured)
    chosen = bills[0] if transport is None else estimate(workload, measured, Transport(transport))
    if kind == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(_as_json(workload, chosen, bills))))
    else:
        for line in _lines(workload, chosen, bills):
            click.echo(line)
    if not chosen.exists:
        raise CommandFailed(f"AWS cannot carry this load: {'; '.join(chosen.obstacles)}")


def _as_json(workload: Workload, chosen: Bill, bills: Sequence[Bill]) -> dict[str, object]:
    live = {
        "transport": chosen.transport,
        "cheapest": bills[0].transport if bills[0].exists else None,
        "transports": {bill.transport: {"dollars": _cents(bill), "cannotExist": bill.obstacles} for bill in bills},
    }
    return {
        "writesPerSecond": workload.writes_s,
        "bytesPerWrite": workload.bytes_per_write,
        "writers": workload.writers,
        "streams": workload.streams,
        "readers": workload.readers,
        "requestsPerSecond": workload.requests_s,
        "traces": workload.traces,
        "detailedMetrics": workload.detailed_metrics,
        **(live if workload.readers else {}),
        "lines": [{**asdict(line), "dollars": round(line.dollars, 4)} for line in chosen.lines if chosen.exists],
        "dollarsPerMonth": _cents(chosen),
        "cannotExist": chosen.obstacles,
        "notes": chosen.notes,
    }


def _cents(bill: Bill) -> float | None:
    return round(bill.dollars, 2) if bill.exists else None


def _lines(workload: Workload, chosen: Bill, bills: Sequence[Bill]) -> Iterator[str]:
    yield from _load(workload, chosen)
    yield ""
    if chosen.exists:
        yield f"{'a month of 30 days':<55}{'$':>14}"
        for line in chosen.lines:
            unit = line.unit.removesuffix("s") if line.quantity == 1 else line.unit
            yield f"{line.name:<30}{_quantity(line.quantity):>12} {unit:<12}{line.dollars:>14,.2f}"
        yield f"{'total':<55}{chosen.dollars:>14,.2f}"
        yield from (f"note: {note}" for note in chosen.notes)
        yield ""
    if workload.readers:
        yield f"{'the same with each transport':<55}{'$':>14}"
        for bill in bills:
            yield f"{bill.transport:<55}{f'{bill.dollars:,.2f}' if bill.exists else 'cannot exist':>14}"
        yield from _transports_obstacles(bills)
        if bills[0].exists:
            yield f"cheapest: {bills[0].transport}"


def _transports_obstacles(bills: Sequence[Bill]) -> Iterator[str]:
    """Why a transport cannot serve the readers, besides what none could; the command's error says that."""
    for bill in bills:
        others = [one for one in bill.obstacles if not all(one in any_bill.obstacles for any_bill in bills)]
        yield from (f"{bill.transport} cannot exist: {reason}" for reason in others)


def _load(w: Workload, chosen: Bill) -> Iterator[str]:
    """What the bill is for, as it was understood."""
    each = ", each" if w.streams > 1 else ""
    writers = f"{each} with {w.writers:,} writers at the same time" if w.writers > 1 else ""
    appends = f"{_count(w.writes_s, 'append')} a second of {_count(w.bytes_per_write, 'byte')}"
    yield f"{appends} to {_count(w.streams, 'stream')}{writers}"
    if w.readers:
        yield f"{_count(w.readers, 'live reader')}, served by {chosen.transport}"
    if w.requests_s:
        yield f"{_count(w.requests_s, 'other request')} a second"


def _count(count: float, noun: str) -> str:
    number = f"{count:,}" if isinstance(count, int) else f"{count:,.10g}"
    return f"{number} {noun}{'' if count == 1 else 's'}"


def _quantity(count: float) -> str:
    """With three digits or so: 12.96 M, 720, 0.0003."""
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:,.2f}{suffix}"
    if count == int(count):
        return f"{count:.0f}"
    return f"{count:.2f}" if count >= 1 else f"{count:.1g}"
