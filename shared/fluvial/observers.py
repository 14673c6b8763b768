"""What observes an application's requests, by the settings: metrics, an access log, traces, a Lambda function's log.

Imports stand inside the functions that need them, so that each process loads only its own.
"""

import contextlib
from collections.abc import Iterator

from fluvial.clock import Clock
from fluvial.metrics.metrics import Metrics
from fluvial.model.errors import StartupError
from fluvial.server.exchange import Observers, SpanMaker
from fluvial.settings import LogFormat, Settings


@contextlib.contextmanager
def open_observers(settings: Settings, clock: Clock) -> Iterator[Observers]:
    """What observes requests by the settings; the end of the block writes and sends the rest. Raises StartupError."""
    from fluvial.logs import write_log_bytes  # noqa: PLC0415
    from fluvial.server.access_log import AccessLog, json_lines, text_lines  # noqa: PLC0415

    with contextlib.ExitStack() as opened:
        metrics, spans, access_log, requests = Metrics(), None, None, None
        if settings.tracing:
            spans = opened.enter_context(_open_spans(settings))
        if settings.access_log:
            encode = json_lines if settings.log_format.is_json else text_lines
            access_log = AccessLog(encode, write_log_bytes)
            opened.callback(access_log.close)
        if settings.log_format is LogFormat.LAMBDA:
            from fluvial.aws.function_metrics import FunctionMetrics  # noqa: PLC0415
            from fluvial.aws.web_adapter import WebAdapterRequests  # noqa: PLC0415

            requests = WebAdapterRequests(FunctionMetrics("live", metrics))
        yield Observers(metrics, clock, access_log, spans, requests)


def _open_spans(settings: Settings) -> contextlib.AbstractContextManager[SpanMaker]:
    try:
        from fluvial.tracing import open_spans  # noqa: PLC0415  it imports OpenTelemetry
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "opentelemetry":
            raise  # a bug of ours, not a missing package
        raise StartupError("--tracing needs OpenTelemetry: pip install 'fluvial[tracing]'") from exc
    return open_spans(settings.store.value)
