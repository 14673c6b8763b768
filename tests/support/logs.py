"""Log lines of all loggers, whatever their handlers.

A Lambda function's log handlers outlive the test that imports it first, so that pytest's caplog may not see its lines.
"""

import logging

import pytest

_FORMATTER = logging.Formatter()


def record_log_lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that loggers pass to their handlers from now on, with fields and tracebacks; the list grows."""
    lines, handle = list[str](), logging.Logger.handle

    def record_line(logger: logging.Logger, record: logging.LogRecord) -> None:
        lines.append(f"{_FORMATTER.format(record)} {record.__dict__}")
        handle(logger, record)

    monkeypatch.setattr(logging.Logger, "handle", record_line)
    logging.getLogger("fluvial").error("this is seen")
    assert "this is seen" in lines.pop()
    return lines
