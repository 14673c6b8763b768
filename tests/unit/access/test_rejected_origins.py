"""The log of rejected origins: once in a while for each origin, and few lines a minute."""

import logging

import pytest

from fluvial.access.rejected_origins import LINES_PER_MINUTE_MAX, SILENCE_MS, RejectedOrigins


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The remedies that were logged."""
    return [record.to_allow for record in caplog.records if record.msg == "origin_refused"]  # type: ignore[attr-defined]


def test_rejected_origin_is_logged_with_its_remedy(caplog: pytest.LogCaptureFixture) -> None:
    """The option or the command with all origins that it allows; once in ten minutes."""
    origins = RejectedOrigins()
    with caplog.at_level(logging.WARNING):
        for now_ms in (0, 1, SILENCE_MS - 1, SILENCE_MS):
            origins.log(None, ("localhost",), b"https://a.example", now_ms)
        origins.log("shop", ("https://b.example",), b"capacitor://localhost", 0)
    assert lines(caplog) == [
        "--cors-origins localhost,https://a.example",
        "--cors-origins localhost,https://a.example",
        "fluvial project set shop --origin https://b.example --origin capacitor://localhost",
    ]


def test_made_up_origins_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Lines are limited. Values that are not origins are not logged, because a remedy may be pasted into a shell."""
    origins = RejectedOrigins()
    with caplog.at_level(logging.WARNING):
        for number in range(1_000):
            origins.log(None, (), b"https://a%d.example" % number, 0)
        origins.log(None, (), b"https://$(reboot).example", 60_000)
        origins.log(None, (), b"https://a;reboot", 60_000)
        origins.log(None, (), b"\xff\n", 60_000)
    assert len(lines(caplog)) == LINES_PER_MINUTE_MAX
