"""Traces: spans as a collector gets them over OTLP."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fluvial import __version__
from fluvial.tracing import Sender
from tests.support.servers import running_server

TEXT = {"content-type": "text/plain"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """A collector on a free port, which keeps what it gets."""

    def __init__(self) -> None:
        """Listen, but answer nothing yet."""
        requests = self.requests = list[ExportTraceServiceRequest]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Take spans."""
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order in which they have ended."""
        resources = [one for request in self.requests for one in request.resource_spans]
        return [span for one in resources for scope in one.scope_spans for span in scope.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs until the end of the block."""
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


def plain(value: AnyValue) -> str | int:
    """The value of an attribute."""
    return value.int_value if value.HasField("int_value") else value.string_value


def attributes_of(span: Span) -> dict[str, str | int]:
    """A span's attributes."""
    return {one.key: plain(one.value) for one in span.attributes}


@pytest.mark.medium
def test_collector_gets_spans_of_requests_and_commits_when_the_server_stops(tmp_path: Path) -> None:
    """They continue the client's trace, and have no token and no query."""
    environment = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test", "OTEL_SERVICE_NAME": "streams"}
    with collecting() as collector:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        with running_server(tmp_path / "data", "--tracing", **environment) as server:
            http = httpx.Client(base_url=server.url)
            traced = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-1"}
            assert http.put("/v1/stream/a", headers={**TEXT, **traced}, content=b"xyz").status_code == 201
            assert http.get("/v1/stream/b?offset=-1&token=s3cr3t").status_code == 404
            http.close()
            assert server.terminate() == 0
    commit, put, get = collector.spans
    assert (put.name, put.kind) == ("PUT /v1/stream/{stream:path}", Span.SPAN_KIND_SERVER)
    assert (put.trace_id.hex(), put.parent_span_id.hex()) == (TRACE, PARENT)
    assert (commit.name, commit.trace_id, commit.parent_span_id) == ("commit", put.trace_id, put.span_id)
    assert put.start_time_unix_nano <= commit.start_time_unix_nano + 1_000_000
    assert commit.end_time_unix_nano <= put.end_time_unix_nano
    found = attributes_of(put)
    assert found["http.request.method"] == "PUT"
    assert found["http.route"] == "/v1/stream/{stream:path}"
    assert found["http.response.status_code"] == 201
    assert found["http.request.body.size"] == 3
    assert (found["url.path"], found["url.scheme"]) == ("/v1/stream/a", "http")
    assert (found["fluvial.stream"], found["fluvial.request_id"]) == ("a", "r-1")
    assert attributes_of(commit) == {"fluvial.store": "sqlite"}
    assert not get.parent_span_id
    assert attributes_of(get)["error.type"] == "not_found"
    assert b"s3cr3t" not in b"".join(one.SerializeToString() for one in collector.requests)
    resource = {one.key: plain(one.value) for one in collector.requests[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "streams"
    assert resource["service.version"] == __version__
    assert resource["deployment.environment"] == "test"


@dataclass
class FlakyExporter(SpanExporter):
    """Fails when it is told to."""

    result: SpanExportResult = SpanExportResult.FAILURE

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  the base class's
        """As told."""
        return self.result


def test_collector_that_is_away_is_logged_once_and_once_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """However many times the exporter tries."""
    caplog.set_level("INFO")
    exporter = FlakyExporter()
    sender = Sender(exporter)
    for _ in range(3):
        sender.export([ReadableSpan("one"), ReadableSpan("two")])
    exporter.result = SpanExportResult.SUCCESS
    for _ in range(2):
        sender.export([ReadableSpan("three")])
    assert [record.message for record in caplog.records] == ["spans_dropped", "spans_sent_again"]
    assert vars(caplog.records[1])["dropped"] == 6


@pytest.mark.slow
def test_server_serves_and_stops_while_its_collector_is_away(tmp_path: Path) -> None:
    """Spans are dropped."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
    with running_server(tmp_path / "data", "--tracing", **environment) as server:
        for _ in range(5):
            assert httpx.get(server.url + "/health").status_code == 200
        assert server.terminate() == 0


@pytest.mark.medium
def test_missing_opentelemetry_is_reported_in_one_line(tmp_path: Path) -> None:
    """The line says what to install."""
    code = "import sys; sys.modules.update(opentelemetry=None)\nfrom fluvial.cli.main import main\nmain(sys.argv[1:])"
    command = ["serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--tracing"]
    ran = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == ["Error: --tracing needs OpenTelemetry: pip install 'fluvial[tracing]'"]
