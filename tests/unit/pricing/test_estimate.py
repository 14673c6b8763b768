"""The estimate of a month's bill: its arithmetic by hand, and the loads that AWS cannot carry."""

from dataclasses import replace

import pytest

from fluvial.aws.websocket_broadcast import BroadcastLimits
from fluvial.pricing import prices
from fluvial.pricing.estimate import Bill, estimate, estimates
from fluvial.pricing.live import POSTS_AT_ONCE, pollers_max
from fluvial.pricing.measured import (
    AppendUnits,
    BroadcastUnits,
    CrowdUnits,
    Measured,
    PollUnits,
    Stack,
    WriterUnits,
    between,
    load_measured,
)
from fluvial.pricing.prices import tiered_dollars
from fluvial.pricing.usage import Usage, lines_of
from fluvial.pricing.workload import MONTH_S, Transport, Workload


def append_units(size: int, write_units: float, rotation_write_units: float, tail_read_units: float) -> AppendUnits:
    """An append with round numbers."""
    return AppendUnits(
        bytes=size,
        write_units=write_units,
        write_requests=1,
        partition_write_units=2,
        transaction_write_units=4,
        append_s3_puts=0,
        rotation_write_units=rotation_write_units,
        rotation_read_units=0,
        rotation_s3_puts=0,
        rotation_s3_gets=0,
        tail_read_units=tail_read_units,
        tail_s3_gets=0,
        hot_mb_read_units=300,
        hot_mb_s3_gets=0,
        cold_mb_read_units=30,
        cold_mb_s3_gets=10,
    )


#: Round numbers, so that a bill can be reckoned by hand.
ROUND = Measured(
    appends=[append_units(100, 1.5, 0.5, 1), append_units(1_100, 3.5, 2.5, 3)],
    polls=[PollUnits(0, 1, 2), PollUnits(1, 5, 10)],
    crowds=[
        CrowdUnits(100, [WriterUnits(1, 5, 1.5), WriterUnits(16, 80, 2.0)]),
        CrowdUnits(400, [WriterUnits(1, 5, 2.5), WriterUnits(16, 80, 5.0)]),
        CrowdUnits(401, [WriterUnits(1, 5, 3.0), WriterUnits(16, 80, 3.25)]),
    ],
    broadcast=BroadcastUnits(2, 3),
    stack=Stack(
        alarms=10,
        dashboards=1,
        secrets=1,
        edge_memory_mb=512,
        live_memory_mb=512,
        changes_memory_mb=512,
        deleted_days=30,
    ),
)
ONE_A_SECOND = Workload(writes_s=1, bytes_per_write=100)


def dollars(bill: Bill, name: str) -> float:
    """One line of a bill, or 0."""
    return sum(line.dollars for line in bill.lines if line.name == name)


def test_bill_of_appends_has_their_whole_life_in_the_table_and_their_requests() -> None:
    """Two units for each append and its rotation; a request of API Gateway and of two functions."""
    bill = estimate(ONE_A_SECOND, ROUND)
    assert dollars(bill, "DynamoDB writes") == pytest.approx(MONTH_S * 2 * 0.625e-6)
    assert dollars(bill, "API Gateway requests") == pytest.approx(MONTH_S * 3.5e-6)
    assert dollars(bill, "Lambda edge requests") == pytest.approx(MONTH_S * 0.2e-6)
    assert dollars(bill, "S3 storage") == pytest.approx(2 * MONTH_S * 100 / 1e9 * 0.023)
    assert dollars(bill, "Data out") == pytest.approx(MONTH_S * 800 * 0.09e-9)
    assert dollars(bill, "CloudWatch alarms") == pytest.approx(1.0)
    assert bill.dollars == pytest.approx(sum(line.dollars for line in bill.lines))


def test_other_requests_are_answered_with_the_newest_batch() -> None:
    """A request of API Gateway, a unit of the table, and 900 bytes that leave AWS, each."""
    alone = estimate(ONE_A_SECOND, ROUND)
    bill = estimate(replace(ONE_A_SECOND, requests_s=2), ROUND)
    assert dollars(bill, "Data out") - dollars(alone, "Data out") == pytest.approx(2 * MONTH_S * 900 * 0.09e-9)
    assert dollars(bill, "DynamoDB reads") - dollars(alone, "DynamoDB reads") == pytest.approx(2 * MONTH_S * 0.125e-6)
    assert dollars(bill, "API Gateway requests") == pytest.approx(3 * MONTH_S * 3.5e-6)


@pytest.mark.parametrize(("size", "months"), [(8_192, 1 + 1), (8_193, 1 + 2)])
def test_deleted_objects_are_billed_until_their_versions_expire(size: int, months: int) -> None:
    """A segment for its month and 30 days more; a large batch's own object, which rotation deletes, as long again."""
    bill = estimate(Workload(writes_s=1, bytes_per_write=size), ROUND)
    assert dollars(bill, "S3 storage") == pytest.approx(months * MONTH_S * size / 1e9 * 0.023)
    assert (dollars(bill, "DynamoDB storage and recovery") > 0) is (size == 8_192)


@pytest.mark.parametrize(
    ("writers", "writes_s", "units"), [(1, 80, 2.0), (16, 80, 2.5), (64, 320, 2.5), (16, 5, 2.0), (16, 42.5, 2.25)]
)
def test_appends_of_many_writers_cost_what_each_adds_to_the_others(writers: int, writes_s: float, units: float) -> None:
    """Half a unit with 16 that append five times a second each, and less with rarer appends."""
    bill = estimate(Workload(writes_s, 100, writers=writers), ROUND)
    assert dollars(bill, "DynamoDB writes") / (writes_s * MONTH_S) / 0.625e-6 == pytest.approx(units)


def test_size_between_two_measured_ones_lies_on_the_line_between_them() -> None:
    """Below the smallest, it costs as much as the smallest; above the largest, the line goes on."""
    assert ROUND.append(600).write_units == pytest.approx(2.5)
    assert ROUND.append(1).write_units == pytest.approx(1.5)
    assert between(ROUND.appends, 2_100).write_units == pytest.approx(5.5)


def test_more_writes_than_were_measured_take_no_more_polls() -> None:
    """A process polls one stream no more often than it may."""
    assert ROUND.poll(1_000) == PollUnits(1, 5, 10)
    assert ROUND.poll(0.5) == PollUnits(0.5, 3, 6)


def test_reader_over_sse_costs_its_function_and_its_polls() -> None:
    """A month of half a gigabyte, five read units a second, and 240 bytes a second that leave AWS."""
    alone = estimate(ONE_A_SECOND, ROUND)
    bill = estimate(replace(ONE_A_SECOND, readers=1), ROUND, Transport.SSE)
    assert dollars(bill, "Lambda live time") == pytest.approx(MONTH_S * 0.5 * 13.3334e-6)
    assert dollars(bill, "DynamoDB reads") == pytest.approx(MONTH_S * 5 * 0.125e-6)
    assert dollars(bill, "Data out") - dollars(alone, "Data out") == pytest.approx(MONTH_S * 240 * 0.09e-9)
    assert bill.dollars > alone.dollars


def test_reader_of_batches_that_are_beside_the_head_reads_each_of_them() -> None:
    """Two more units for each batch of 1,100 bytes."""
    bill = estimate(Workload(writes_s=1, bytes_per_write=1_100, readers=10), ROUND, Transport.SSE)
    assert dollars(bill, "DynamoDB reads") == pytest.approx(10 * MONTH_S * (5 + 2) * 0.125e-6)


@pytest.mark.parametrize("transport", [Transport.SSE, Transport.LONG_POLL])
def test_more_readers_on_lambda_than_a_partition_answers_cannot_exist(transport: Transport) -> None:
    """3,000 units a second, at five for each reader."""
    assert pollers_max(ONE_A_SECOND, ROUND) == 600
    assert estimate(replace(ONE_A_SECOND, readers=600), ROUND, transport).exists
    [obstacle] = estimate(replace(ONE_A_SECOND, readers=601), ROUND, transport).obstacles
    assert "600 readers of one such stream" in obstacle


@pytest.mark.parametrize("transport", [Transport.RELAY, Transport.WEBSOCKET, Transport.LONG_POLL_CDN])
def test_readers_who_share_a_poll_may_be_ten_thousand(transport: Transport) -> None:
    """Containers, broadcasts and caches read the head once for all of theirs."""
    assert estimate(replace(ONE_A_SECOND, readers=10_000), ROUND, transport).exists


def test_readers_of_many_streams_are_bounded_by_each_stream() -> None:
    """6,000 readers of ten streams are 600 of each."""
    spread = Workload(writes_s=10, bytes_per_write=100, streams=10, readers=6_000)
    assert estimate(spread, ROUND, Transport.SSE).exists
    assert not estimate(replace(spread, streams=9), ROUND, Transport.SSE).exists


def test_relay_polls_only_streams_that_have_readers() -> None:
    """Ten readers of a hundred streams are ten pollers, and not two for each stream."""
    spread = Workload(writes_s=100, bytes_per_write=100, streams=100)
    alone, bill = estimate(spread, ROUND), estimate(replace(spread, readers=10), ROUND, Transport.RELAY)
    polls = dollars(bill, "DynamoDB reads") - dollars(alone, "DynamoDB reads")
    assert polls == pytest.approx(10 * MONTH_S * 5 * 0.125e-6)
    crowd = estimate(replace(spread, readers=1_000), ROUND, Transport.RELAY)
    polls = dollars(crowd, "DynamoDB reads") - dollars(alone, "DynamoDB reads")
    assert polls == pytest.approx(2 * 100 * MONTH_S * 5 * 0.125e-6)


def test_broadcasts_are_only_of_streams_that_have_readers() -> None:
    """Ten readers of a hundred streams: ten broadcasts a second, of two write units each."""
    spread = Workload(writes_s=100, bytes_per_write=100, streams=100)
    alone, bill = estimate(spread, ROUND), estimate(replace(spread, readers=10), ROUND, Transport.WEBSOCKET)
    assert dollars(bill, "DynamoDB writes") - dollars(alone, "DynamoDB writes") == pytest.approx(
        10 * MONTH_S * 2 * 0.625e-6
    )
    assert (spread.stream_readers, replace(spread, readers=10).stream_readers) == (0, 1)


def test_more_appends_than_a_partition_takes_cannot_exist_with_any_transport() -> None:
    """1,000 units a second, at two for each append in the head's partition, or two and a half with 16 writers."""
    assert estimate(replace(ONE_A_SECOND, writes_s=500), ROUND).exists
    [obstacle] = estimate(replace(ONE_A_SECOND, writes_s=500, writers=16), ROUND).obstacles
    assert "400 such appends to one stream" in obstacle
    assert not [bill for bill in estimates(replace(ONE_A_SECOND, writes_s=501, readers=1), ROUND) if bill.exists]


def test_cheapest_transport_comes_first_and_one_that_cannot_exist_last() -> None:
    """For a reader or two a function is cheaper than two containers that stand by."""
    few, many = (estimates(replace(ONE_A_SECOND, readers=count), ROUND) for count in (2, 1_000))
    assert (few[0].transport, many[0].transport) == (Transport.WEBSOCKET, Transport.RELAY)
    assert {bill.transport for bill in many[-2:]} == {Transport.SSE, Transport.LONG_POLL}
    assert [bill.dollars for bill in few] == sorted(bill.dollars for bill in few)


def test_traces_are_of_the_first_request_of_each_second_and_of_a_part_of_the_others() -> None:
    """Both API Gateway's and the changes function's: 1 and 5 % of 4, twice."""
    bill = estimate(replace(ONE_A_SECOND, writes_s=5, traces=True), ROUND)
    assert dollars(bill, "X-Ray traces") == pytest.approx(2 * MONTH_S * (1 + 0.05 * 4) * 5e-6)
    assert dollars(estimate(ONE_A_SECOND, ROUND), "X-Ray traces") == 0


def test_detailed_metrics_cost_by_method() -> None:
    """25 more than without."""
    plain, detailed = (estimate(replace(ONE_A_SECOND, detailed_metrics=on), ROUND) for on in (False, True))
    assert detailed.dollars - plain.dollars == pytest.approx(25 * 0.30)


def test_slow_broadcast_sends_fewer_messages_and_says_so() -> None:
    """6,400 connections take two seconds, so each gets two writes in a message."""
    bill = estimate(replace(ONE_A_SECOND, readers=6_400), ROUND, Transport.WEBSOCKET)
    [messages] = [line.quantity for line in bill.lines if line.name == "WebSocket messages"]
    assert messages == pytest.approx(6_400 * MONTH_S / 2)
    assert bill.notes == ("a broadcast takes 2.0 s, so readers get several writes in one message, and late",)


def test_tiers_apply_one_after_the_other() -> None:
    """The first 333 million requests at $3.50 a million, the next at $2.80."""
    assert tiered_dollars(334e6, prices.API_REQUEST_TIERS) == pytest.approx(333 * 3.5 + 2.8)


def test_functions_share_the_tiers_of_their_time() -> None:
    """The second tier is reached by both together, and each line has its share of the sum."""
    lines = lines_of(Usage(edge_gb_s=7.5e9, live_gb_s=7.5e9))
    assert [line.dollars for line in lines] == pytest.approx([(7.5e9 * 13.3334e-6 + 7.5e9 * 12.0001e-6) / 2] * 2)


def test_measured_units_are_there_for_all_that_the_estimate_asks() -> None:
    """The package's own file: sizes, rates and writers rise, and an append costs at least a unit."""
    measured = load_measured()
    for keys in (
        [one.bytes for one in measured.appends],
        [one.writes_s for one in measured.polls],
        [one.bytes for one in measured.crowds],
        *([one.writers for one in crowd.writers] for crowd in measured.crowds),
    ):
        assert len(keys) > 1
        assert keys == sorted(set(keys))
    assert min(one.write_units for one in measured.appends) >= 1
    assert {crowd.writers[0].writers for crowd in measured.crowds} == {1}


def test_surplus_of_many_writers_depends_on_the_size_of_the_batch() -> None:
    """It rises while the head has the bytes, and past that mark it is the same for all sizes."""
    assert ROUND.crowd_write_units(250, 16, 80) == pytest.approx(1.5)
    assert ROUND.crowd_write_units(50, 16, 80) == pytest.approx(0.5)
    assert [ROUND.crowd_write_units(size, 16, 80) for size in (401, 1_000_000)] == pytest.approx([0.25, 0.25])


def test_broadcasts_are_estimated_with_as_many_calls_at_once_as_are_made() -> None:
    """The limit that the function runs with."""
    assert BroadcastLimits().posts_at_once == POSTS_AT_ONCE
