"""Logging: each line is an event with fields, as text or JSON. A metric counts the lines of each event."""

import logging
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import structlog

from fluvial.metrics.log_events import LOG_EVENTS
from fluvial.settings import LogFormat, Settings

#: Loggers whose INFO lines are noise: uvicorn's start and stop, which Fluvial logs itself, botocore's credentials.
_QUIET: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "botocore", "urllib3")


def write_log_bytes(data: bytes) -> None:
    """Write whole lines to where the other lines of the log go. Raises OSError."""
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def configure_logs(settings: Settings, request_ids: Mapping[str, str] = MappingProxyType({})) -> None:
    """Send every log line of the process to standard error in the chosen format, and count them.

    Each line has `request_ids` as they are then: of the request that a process serves which serves one at a time.
    """

    def add_request_ids(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**request_ids, **event} if request_ids else event

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_request_ids,
    ]
    renderers: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    match settings.log_format:
        case LogFormat.JSON | LogFormat.LAMBDA:
            renderers += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        case LogFormat.TEXT:
            # Plain tracebacks, because rich ones show local variables, and with them bodies and tokens.
            tracebacks = structlog.dev.plain_traceback
            renderers += [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=tracebacks)]
    printer = logging.StreamHandler(sys.stderr)
    printer.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=renderers))
    root = logging.getLogger()
    root.handlers[:] = [printer, LOG_EVENTS]
    root.setLevel(settings.log_level.value.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
