"""Metrics: that they count, and that documentation, dashboard and alerts name the ones that exist."""

import json
import re
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from fluvial.metrics.exposition import Exposition, FluvialCollector
from fluvial.metrics.histogram import Histogram
from fluvial.metrics.metrics import METHODS, Metrics
from fluvial.metrics.sampler import FRESH_S, WORK_RATIO, Sampler
from fluvial.metrics.sources import Sources
from fluvial.storage.memory import MemoryStore
from fluvial.storage.observer import StoreSize
from tests.support.servers import server_in_thread

DOCS = Path(__file__).parents[2] / "docs" / "operations"
TEXT = {"content-type": "text/plain"}
STREAM_ROUTE = "/v1/stream/{stream:path}"

#: What Prometheus adds to a family's name.
SUFFIX = re.compile(r"_(bucket|sum|count|total)$")


def scrape(url: str) -> dict[str, Metric]:
    """All families of a server, by name."""
    answer = httpx.get(url + "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value_of(families: dict[str, Metric], sample_name: str, **labels: str) -> float:
    """The value of one sample."""
    samples = [sample for family in families.values() for sample in family.samples]
    [found] = [one.value for one in samples if one.name == sample_name and one.labels == labels]
    return found


def families_of_a_server() -> list[Metric]:
    """This project's metrics, without samples."""
    return list(FluvialCollector(Metrics(), Sources("memory", Sampler(MemoryStore()))).collect())


def declared() -> dict[str, str]:
    """The type of each of this project's metrics, by its name in the exposition."""
    return {one.name + ("_total" if one.type == "counter" else ""): one.type for one in families_of_a_server()}


def test_server_counts_requests_appends_refusals_and_commits(tmp_path: Path) -> None:
    """Each in its own metric, with labels of few values."""
    with server_in_thread(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        assert http.put("/v1/stream/a/b", headers=TEXT, content=b"12345").status_code == 201
        for _ in range(3):
            assert http.post("/v1/stream/a/b", headers=TEXT, content=b"678").status_code == 204
        assert http.get("/v1/stream/absent").status_code == 404
        assert http.get("/secret/path").status_code == 404
        assert http.request("PROPFIND", "/v1/stream/a/b").status_code == 405
        assert http.get("/v1/streams", headers={"origin": "https://evil.example"}).status_code == 200
        families = scrape(server.url)
    requests = {"method": "POST", "route": STREAM_ROUTE}
    assert value_of(families, "fluvial_http_requests_total", **requests, status="204") == 3
    assert value_of(families, "fluvial_http_request_duration_seconds_count", **requests) == 3
    assert value_of(families, "fluvial_http_requests_total", method="other", route=STREAM_ROUTE, status="405") == 1
    assert value_of(families, "fluvial_http_requests_total", method="GET", route="unmatched", status="404") == 1
    assert value_of(families, "fluvial_appends_total") == 4
    assert value_of(families, "fluvial_append_bytes_total") == 14
    assert value_of(families, "fluvial_refused_total", code="not_found") == 2
    assert value_of(families, "fluvial_refused_total", code="method_not_allowed") == 1
    assert value_of(families, "fluvial_rejected_origins_total") == 1
    assert value_of(families, "fluvial_commit_group_size_sum") == 4
    assert value_of(families, "fluvial_fsync_duration_seconds_count") >= 4
    assert value_of(families, "fluvial_streams") == 1
    assert value_of(families, "fluvial_store_bytes", part="wal") > 0
    assert value_of(families, "fluvial_store_free_bytes") > 0
    assert {one.labels["store"] for one in families["fluvial_build_info"].samples} == {"sqlite"}
    assert not [name for name in families if name.endswith("_created")]


def test_live_reads_are_counted_by_transport_while_they_are_open(tmp_path: Path) -> None:
    """And afterwards as requests, without a duration."""
    with server_in_thread(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        http.put("/v1/stream/live", headers=TEXT, content=b"x")
        socket = connect(server.url.replace("http", "ws") + "/v1/stream/live?live=websocket&offset=-1")
        with http.stream("GET", "/v1/stream/live?live=sse&offset=-1") as events, socket:
            chunks = events.iter_bytes()
            next(chunks)
            families = scrape(server.url)
            counts = {one.labels["transport"]: one.value for one in families["fluvial_live_reads"].samples}
            assert counts == {"long-poll": 0, "sse": 1, "websocket": 1}
            http.delete("/v1/stream/live")
            list(chunks)
        families = scrape(server.url)
    assert value_of(families, "fluvial_live_reads", transport="sse") == 0
    assert value_of(families, "fluvial_http_requests_total", method="GET", route=STREAM_ROUTE, status="200") == 1
    timed = {one.labels["method"] for one in families["fluvial_http_request_duration_seconds"].samples}
    assert "GET" not in {one for one in timed if STREAM_ROUTE in one}


def test_refusals_that_reach_no_application_are_counted(tmp_path: Path) -> None:
    """A head that is too large is refused by the protocol."""
    with server_in_thread(tmp_path / "data") as server:
        assert httpx.get(server.url + "/v1/stream/a", headers={"x": "y" * 70_000}).status_code == 431
        assert value_of(scrape(server.url), "fluvial_refused_total", code="headers_too_large") == 1


async def test_applications_of_one_process_count_apart() -> None:
    """Each has a registry of its own."""
    first, second = Metrics(), Metrics()
    first.append_count = 3
    both = [Exposition(one, Sources("memory", Sampler(MemoryStore()))) for one in (first, second)]
    assert [re.findall(rb"^fluvial_appends_total (\S+)$", await one.render(), re.MULTILINE) for one in both] == [
        [b"3.0"],
        [b"0.0"],
    ]


def test_histogram_buckets_are_cumulative_and_inclusive() -> None:
    """As Prometheus's are."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]
    assert (histogram.count, histogram.total) == (4, 12.0)
    assert histogram.merged(histogram).cumulative() == [("1.0", 4), ("2.0", 6), ("+Inf", 8)]


def test_unknown_methods_share_a_label() -> None:
    """A client may send any word, and must not fill the memory."""
    metrics = Metrics()
    for number in range(100):
        metrics.on_request("unmatched", f"M{number}", 405, 0.1)
        metrics.on_live_request("unmatched", f"M{number}", 405)
    assert {method for _, method, _ in metrics.requests} == {"other"}
    assert {method for _, method, _ in metrics.live_requests} == {"other"}
    assert "other" not in METHODS


class SlowStore:
    """A store that takes a while to count itself, on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        """`seconds` is how long it takes."""
        self.seconds, self.now_s, self.count = seconds, 0.0, 0

    async def measure(self) -> StoreSize:
        """Count, and let the time pass."""
        self.count += 1
        self.now_s += self.seconds
        return StoreSize(self.count, {})


async def test_sizes_are_measured_the_less_often_the_longer_it_takes() -> None:
    """So that counting takes a hundredth of a core at most."""
    store = SlowStore(seconds=2)
    sampler = Sampler(store, lambda: store.now_s)
    await sampler.refresh()
    store.now_s += WORK_RATIO * store.seconds - 1
    await sampler.refresh()
    assert store.count == 1
    store.now_s += 1
    await sampler.refresh()
    assert sampler.latest == StoreSize(2, {})


async def test_quick_sizes_are_measured_at_most_every_few_seconds() -> None:
    """However often the server is scraped."""
    store = SlowStore(seconds=0)
    sampler = Sampler(store, lambda: store.now_s)
    for _ in range(5):
        await sampler.refresh()
    assert store.count == 1
    store.now_s += FRESH_S
    await sampler.refresh()
    assert store.count == 2


async def test_store_without_sizes_has_none() -> None:
    """DynamoDB would have to be paid for each item that is counted."""
    sampler = Sampler(object())
    await sampler.refresh()
    assert sampler.latest is None


def test_names_follow_the_conventions_of_prometheus() -> None:
    """Base units, `_total` for counters only, and no unit that is another's."""
    for name, kind in declared().items():
        assert re.fullmatch(r"fluvial_[a-z]+(_[a-z]+)*", name), name
        assert name.endswith("_total") is (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent|created)(_|$)", name), name
        assert kind in {"counter", "gauge", "histogram"}, name


def test_documentation_has_every_metric_with_its_type_and_labels() -> None:
    """In the table of docs/operations/monitoring.md, in the order of /metrics."""
    page = (DOCS / "monitoring.md").read_text()
    documented = re.findall(r"^\| `(fluvial_\w+)` \| (\w+) \| ((?:`\w+`(?:, )?)*) ?\| .*\. \|$", page, re.MULTILINE)
    assert [(name, kind) for name, kind, _ in documented] == list(declared().items())
    labels = [tuple(re.findall(r"\w+", cell)) for *_, cell in documented]
    assert labels == [one._labelnames for one in families_of_a_server()]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all series that a server may have, of histograms' with their suffixes."""
    with server_in_thread(tmp_path_factory.mktemp("exposed") / "data") as server:
        text = httpx.get(server.url + "/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    parts = ("_bucket", "_sum", "_count")
    return {name + part for name, kind in kinds.items() for part in (parts if kind == "histogram" else ("",))}


def names_in(expression: str) -> set[str]:
    """The metrics that a query names."""
    return set(re.findall(r"\b(?:fluvial|process|python)_\w+", expression))


def test_dashboard_shows_metrics_that_exist(exposed: set[str]) -> None:
    """Each panel of the file for Grafana, which all have a place of their own."""
    dashboard = json.loads((DOCS / "monitoring" / "grafana-dashboard.json").read_text())
    panels = [one for one in dashboard["panels"] if one["type"] != "row"]
    named = set[str]()
    for panel in panels:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert names_in(target["expr"]), target
            named |= names_in(target["expr"])
    assert named <= exposed, named - exposed
    shown = {SUFFIX.sub("", name) for name in named}
    missing = {SUFFIX.sub("", name) for name in declared()} - shown
    assert not missing, missing
    assert len({tuple(panel["gridPos"].values()) for panel in panels}) == len(panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_alerts_use_metrics_that_exist_and_are_explained(exposed: set[str]) -> None:
    """Each rule of the file for Prometheus has a row in the documentation."""
    page = (DOCS / "monitoring.md").read_text()
    [group] = yaml.safe_load((DOCS / "monitoring" / "alert-rules.yaml").read_text())["groups"]
    assert len(group["rules"]) == len({rule["alert"] for rule in group["rules"]})
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert names_in(rule["expr"]) <= exposed, rule
        assert rule["expr"].count("(") == rule["expr"].count(")"), rule
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert f"| `{rule['alert']}` |" in page
