"""docs/operations/cost.md is what the package's measured units and prices give."""

from dataclasses import replace
from string import Formatter

from bench.cost import SIZES as MEASURED_SIZES
from bench.cost import last_line
from bench.cost_page import CANNOT_EXIST, PAGE, SIZES, TEXT, figures, life_table, page
from bench.stack import count_stack

from fluvial.model.limits import PAYLOAD_ITEM_BYTES_DEFAULT
from fluvial.pricing.measured import CrowdUnits, load_measured
from fluvial.storage.dynamodb.writes.payloads import INLINE_BYTES_MAX


def test_cost_page_is_current() -> None:
    """Word for word."""
    assert PAGE.read_text() == page(load_measured()), "`make cost-page` renews it"


def test_measured_units_count_the_present_stack() -> None:
    """Alarms, secrets and the functions' memory."""
    assert load_measured().stack == count_stack(), "`make cost-page` counts it anew"


def test_each_figure_of_the_page_is_in_its_text() -> None:
    """And the text asks for no other."""
    asked = {name for _, name, _, _ in Formatter().parse(TEXT.read_text()) if name}
    assert figures(load_measured()).keys() == asked


def test_each_size_of_the_page_is_one_that_is_measured() -> None:
    """Also the two sizes at each mark, because there is no straight line over a step."""
    assert SIZES.keys() <= MEASURED_SIZES.keys()
    for mark in (INLINE_BYTES_MAX, PAYLOAD_ITEM_BYTES_DEFAULT):
        assert {mark, mark + 1} <= MEASURED_SIZES.keys()


def test_make_cost_ends_with_keys_and_values() -> None:
    """One line, for a program to read."""
    label, *pairs = last_line(load_measured()).split()
    values = {key: float(value) for key, value in (pair.split("=") for pair in pairs)}
    assert label == "append_100B"
    assert list(values) == [
        "write_units",
        "write_requests",
        "tail_read_units",
        "write_units_16_writers",
        "write_units_64_writers",
        "life_units_10KB",
    ]
    assert min(values.values()) > 0


def test_appends_that_one_partition_does_not_take_are_no_dollars() -> None:
    """Sixty-four writers, when each append takes twenty units more than a lone writer's."""
    measured = load_measured()
    alone, *_ = measured.crowd(100).writers
    crowd = CrowdUnits(100, [alone, replace(alone, writers=64, writes_s=320, write_units=alone.write_units + 20)])
    rows = life_table(replace(measured, crowds=[crowd, replace(crowd, bytes=200)])).splitlines()[2:]
    assert {row.split("|")[4].strip() for row in rows} == {CANNOT_EXIST}
    assert CANNOT_EXIST not in {row.split("|")[2].strip() for row in rows}


def test_cost_page_says_which_readers_cannot_exist() -> None:
    """A thousand functions that read one head, once a second and more."""
    rows = [line for line in page(load_measured()).splitlines() if line.startswith("| SSE on Lambda")]
    assert [row.split("|")[4:6] for row in rows] == [[" cannot exist ", " cannot exist "]]
