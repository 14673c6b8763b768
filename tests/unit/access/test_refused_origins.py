import logging

import pytest

from fluvial.access.refused_origins import LINES_PER_MINUTE_MAX, SILENCE_MS, RejectedOrigins


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What would let each origin in."""
    return [record.to_allow for record in caplog.records if record.msg == "origin_refused"]  # type: ignore[attr-defined]


def test_refused_origin_is_told_with_its_remedy(caplog: pytest.LogCaptureFixture) -> None:
    """The option, or the command, with all that is allowed afterwards; once in ten minutes."""
    origins = RejectedOrigins()
    with caplog.at_level(logging.WARNING):
        for now_ms in (0, 1, SILENCE_MS - 1, SILENCE_MS):
            origins.note(None, ("localhost",), b"https://a.example", now_ms)
        origins.note("shop", ("https://b.example",), b"capacitor://localhost", 0)
    assert lines(caplog) == [
        "--cors-origins localhost,https://a.example",
        "--cors-origins localhost,https://a.example",
        "fluvial project set shop --origin https://b.example --origin capacitor://localhost",
    ]


def test_made_up_origins_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sends requests may name any; what no browser sends is not told at all, for it may be pasted."""
    origins = RejectedOrigins()
    with caplog.at_level(logging.WARNING):
        for number in range(1_000):
            origins.note(None, (), b"https://a%d.example" % number, 0)
        origins.note(None, (), b"https://$(reboot).example", 60_000)
        origins.note(None, (), b"https://a;reboot", 60_000)
        origins.note(None, (), b"\xff\n", 60_000)
    assert len(lines(caplog)) == LINES_PER_MINUTE_MAX
