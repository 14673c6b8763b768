"""Traces: a span for each request, and one for its commit, sent over OTLP by OpenTelemetry's SDK.

Rules:
1. Names and attributes are those of OpenTelemetry's conventions for HTTP servers. No attribute has a query or a token.
2. A request's spans are made when it has ended, with the times that it has noted. So tracing adds nothing to a request
   before its answer is sent, and a live read is a span when it has ended.
3. The caller's `traceparent` is the parent. Whether it was sampled decides, unless OTEL_TRACES_SAMPLER says otherwise.
4. Spans wait in a queue of a bounded size (OTEL_BSP_MAX_QUEUE_SIZE). While the collector is away, they are dropped.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import UNSET
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from fluvial import __version__
from fluvial.server.exchange import Exchange

log = logging.getLogger(__name__)

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NO_PARENT: Final = Context()
_PROPAGATED: Final = (b"traceparent", b"tracestate")

_FIRST_SERVER_ERROR: Final = 500


class Sender(SpanExporter):
    """Sends spans, and logs once when a collector is gone and once when it is back.

    OpenTelemetry's own exporter logs each of its tries, for as long as the collector is away.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        """`exporter` is OpenTelemetry's."""
        self._exporter = exporter
        self._dropped_count = 0
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; those that cannot be sent are dropped."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._dropped_count:
                log.warning("spans_dropped", extra={"reason": "the collector does not take them"})
            self._dropped_count += len(spans)
        elif self._dropped_count:
            log.info("spans_sent_again", extra={"dropped": self._dropped_count})
            self._dropped_count = 0
        return result

    def shutdown(self) -> None:
        """Give up on what is on its way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits."""
        return self._exporter.force_flush(timeout_millis)


class Spans:
    """Makes the spans of exchanges that have ended."""

    def __init__(self, provider: TracerProvider, store: str) -> None:
        """`store` is the kind of store that commits go to."""
        self._tracer = provider.get_tracer("fluvial", __version__)
        self._store = store

    def on_exchange(self, exchange: Exchange, seconds: float) -> None:
        """See SpanMaker.on_exchange."""
        ended_ns = time.time_ns()
        began_ns = ended_ns - int(seconds * 1e9)
        headers = exchange.scope["headers"]
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _PROPAGATED}
        span = self._tracer.start_span(
            f"{exchange.method} {exchange.route}",
            _PROPAGATOR.extract(carrier) if carrier else _NO_PARENT,
            SpanKind.SERVER,
            start_time=began_ns,
        )
        if not span.is_recording():
            return
        span.set_attributes(_attributes(exchange))
        if exchange.commit_ns is not UNSET:
            commit_began_ns, commit_ended_ns = exchange.commit_ns
            commit = self._tracer.start_span(
                "commit",
                trace.set_span_in_context(span),
                attributes={"fluvial.store": self._store},
                start_time=commit_began_ns,
            )
            commit.end(commit_ended_ns)
        if exchange.status >= _FIRST_SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
        span.end(ended_ns)


def _attributes(exchange: Exchange) -> dict[str, AttributeValue]:
    """What the span says of the request and its answer."""
    scope = exchange.scope
    attributes: dict[str, AttributeValue] = {
        "http.request.method": exchange.method,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "http.request.body.size": exchange.request_bytes,
        "http.response.body.size": exchange.response_bytes,
        "network.protocol.version": scope.get("http_version", "1.1"),
        "url.scheme": scope.get("scheme", "http"),
        "url.path": scope["path"],
    }
    optional = {
        "error.type": exchange.code,
        "fluvial.stream": exchange.stream,
        "fluvial.project": exchange.project,
        "fluvial.live": exchange.live,
        "fluvial.request_id": exchange.request_id,
    }
    return attributes | {name: value for name, value in optional.items() if value is not UNSET}


@contextlib.contextmanager
def open_spans(store: str) -> Iterator[Spans]:
    """Send spans while the block runs, and the rest at its end. OTEL_ variables say where to, and how."""
    chosen = OTELResourceDetector().detect().attributes
    resource = Resource.create({SERVICE_NAME: "fluvial", SERVICE_VERSION: __version__, **chosen})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Sender(OTLPSpanExporter())))
    try:
        yield Spans(provider, store)
    finally:
        provider.shutdown()
