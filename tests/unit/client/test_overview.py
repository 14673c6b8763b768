"""The rates between two readings of a server."""

from fluvial.client.overview import Counters, Overview, StreamFigures, compare, parse_counters

METRICS = """# HELP fluvial_http_requests_total Requests that were answered.
# TYPE fluvial_http_requests_total counter
fluvial_http_requests_total{method="POST",route="/v1/stream/{stream:path}",status="204"} 40.0
fluvial_http_requests_total{method="GET",route="/v1/streams",status="200"} 7.0
fluvial_http_requests_total{method="GET",route="/v1/info/{stream:path}",status="200"} 2.0
fluvial_http_requests_total{method="GET",route="/metrics",status="200"} 9.0
fluvial_appends_total 38.0
fluvial_append_bytes_total 3.8e+03
fluvial_commit_group_size_bucket{le="1.0"} 5.0
fluvial_commit_group_size_sum 39.0
"""


def reading(at_s: float, counters: Counters | None, **byte_counts: int | None) -> Overview:
    """A reading of a server with streams of so many bytes."""
    streams = {name: StreamFigures(byte_count, 0, None) for name, byte_count in byte_counts.items()}
    return Overview(at_s, "1", 0, "ready", counters, streams, has_more_streams=False)


def test_counters_leave_out_the_requests_of_an_overview() -> None:
    """Requests of other routes are summed; another server's metrics are none."""
    assert parse_counters(METRICS) == Counters(42, 38, 3_800, 39)
    assert parse_counters("process_cpu_seconds_total 1.0\n") is None


def test_rates_are_per_second() -> None:
    """The busiest stream comes first, streams without bytes come by their names; a new stream has no rate yet."""
    before = reading(10, Counters(0, 0, 0, 0), a=0, b=100, c=5)
    rates = compare(before, reading(12, Counters(20, 10, 1_000, 8), a=0, b=300, c=5, d=9_000))
    assert (rates.requests_per_s, rates.appends_per_s, rates.bytes_per_s, rates.commits_per_s) == (10, 5, 500, 4)
    assert [(one.name, one.bytes_per_s) for one in rates.busiest] == [("b", 100), ("a", 0), ("c", 0), ("d", None)]


def test_restarted_server_and_new_stream_have_no_rates() -> None:
    """Their counts are smaller than before."""
    rates = compare(reading(0, Counters(5, 5, 5, 5), a=9), reading(1, Counters(1, 1, 1, 1), a=3))
    assert (rates.requests_per_s, rates.appends_per_s, rates.bytes_per_s, rates.commits_per_s) == (None,) * 4
    assert rates.busiest[0].bytes_per_s is None


def test_bytes_are_those_of_the_streams_if_metrics_are_refused() -> None:
    """A server that lists only names has no rates at all."""
    assert compare(reading(0, None, a=0, b=0), reading(2, None, a=10, b=20)).bytes_per_s == 15
    assert compare(reading(0, None, a=None), reading(2, None, a=None)).bytes_per_s is None


def test_busiest_stream_without_bytes_is_the_one_with_readers_then_the_newest() -> None:
    """And last by name."""
    streams = {
        "a": StreamFigures(1, 0, None),
        "b": StreamFigures(1, 0, "2026-01-01T00:00:00Z"),
        "c": StreamFigures(1, 0, "2026-02-01T00:00:00Z"),
        "d": StreamFigures(1, 2, None),
    }
    overview = Overview(0, None, None, None, None, streams, has_more_streams=True)
    assert [one.name for one in compare(overview, overview).busiest] == ["d", "c", "b", "a"]
