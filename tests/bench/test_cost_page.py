"""docs/operations/cost.md is what the package's measured units and prices give."""

from bench.cost_page import PAGE, page
from bench.stack import count_stack

from fluvial.pricing.measured import load_measured


def test_cost_page_is_current() -> None:
    """Word for word."""
    assert PAGE.read_text() == page(load_measured()), "`make cost-page` renews it"


def test_measured_units_count_the_present_stack() -> None:
    """Alarms, secrets and the functions' memory."""
    assert load_measured().stack == count_stack(), "`make cost-page` counts it anew"


def test_cost_page_says_which_readers_cannot_exist() -> None:
    """A thousand functions that read one head, once a second and more."""
    rows = [line for line in page(load_measured()).splitlines() if line.startswith("| SSE on Lambda")]
    assert [row.split("|")[4:6] for row in rows] == [[" cannot exist ", " cannot exist "]]
