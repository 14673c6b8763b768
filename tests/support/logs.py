"""Logs, whoever writes them and wherever they go: a function's handlers outlive the test that first imported it."""

import logging

import pytest

_FORMATTER = logging.Formatter()


def everything_logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that any logger lets through from now on, with their fields and tracebacks."""
    lines, handle = list[str](), logging.Logger.handle

    def recorded(logger: logging.Logger, record: logging.LogRecord) -> None:
        lines.append(f"{_FORMATTER.format(record)} {record.__dict__}")
        handle(logger, record)

    monkeypatch.setattr(logging.Logger, "handle", recorded)
    logging.getLogger("fluvial").error("this is seen")
    assert "this is seen" in lines.pop()
    return lines
