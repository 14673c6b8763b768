"""What the streams of a load have after it, compared with what was acknowledged."""

from collections.abc import Callable

from fluvial.client.connection import Connection
from fluvial.client.load.append_load import Load, Outcome
from fluvial.client.load.numbered_lines import Checker, Findings
from fluvial.client.reading import read_pages
from fluvial.client.retries import Retries
from fluvial.client.streams import BEGINNING


def read_back(connection: Connection, load: Load, outcome: Outcome, make_retries: Callable[[], Retries]) -> Findings:
    """Read every stream of a load from its beginning to its end."""
    total = Findings()
    for place, name in enumerate(load.streams):
        checker = Checker(outcome.sent_to(place, len(load.streams)))
        for page in read_pages(connection, name, BEGINNING, make_retries(), follow=False):
            checker.take(page.body)
            load.progress("reading back", total.read + checker.read, outcome.acknowledged_count)
        total += checker.findings()
    return total
