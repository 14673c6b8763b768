"""Lines with numbers: each way in which an acknowledged append can be missing or wrong."""

import pytest

from fluvial.client.load.latencies import Latencies
from fluvial.client.load.numbered_lines import LINE_BYTES_MIN, Checker, Findings, Sent, make_line

LINES = [make_line(0, number, 1_000, LINE_BYTES_MIN + number) for number in range(4)]


def acknowledged(count: int = 4) -> Sent:
    """Lines that all have an answer."""
    sent = Sent()
    for _ in range(count):
        sent.next_number()
        sent.acknowledge()
    return sent


def findings(text: bytes, sent: Sent | None = None) -> Findings:
    """What a checker finds in a text of one writer."""
    checker = Checker({0: sent or acknowledged()})
    checker.take(text)
    return checker.findings()


@pytest.mark.parametrize("size", [1, 7, 1_000], ids=lambda size: f"{size} bytes")
def test_whole_text_is_good_however_it_is_cut(size: int) -> None:
    """Lines have the size that was wanted."""
    text, checker = b"".join(LINES), Checker({0: acknowledged()}, latencies := Latencies())
    for start in range(0, len(text), size):
        checker.take(text[start : start + size], 2_001_000)
    assert checker.findings() == Findings(read=4)
    assert checker.has_all()
    assert latencies.percentile_ms(50) == pytest.approx(2, rel=0.01)
    assert [len(line) for line in LINES] == [LINE_BYTES_MIN + number for number in range(4)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"".join(LINES[:3]), Findings(read=3, lost=1)),
        (LINES[0] + LINES[2] + LINES[3], Findings(read=3, lost=1)),
        (b"", Findings(lost=4)),
        (b"".join(LINES) + LINES[1], Findings(read=5, doubled=1)),
        (LINES[0] + LINES[2] + LINES[1] + LINES[3], Findings(read=4, out_of_order=1)),
        (b"".join(LINES).replace(b"0000000002", b"0000000003"), Findings(read=3, lost=1, damaged=1)),
        (b"".join(LINES) + b"half", Findings(read=4, damaged=1)),
        (b"".join(LINES) + make_line(1, 0, 0, 50), Findings(read=4, damaged=1)),
    ],
    ids=["end lost", "middle lost", "all lost", "doubled", "out of order", "changed", "rest", "another writer's"],
)
def test_wrong_text_is_found(text: bytes, expected: Findings) -> None:
    """Each kind is counted by itself."""
    assert findings(text) == expected
    assert not expected.is_good


def test_append_without_an_answer_may_be_there_or_not() -> None:
    """And it may come later than the one after it."""
    sent = acknowledged(1)
    sent.next_number()  # has no answer
    for _ in range(2):
        sent.next_number()
        sent.acknowledge()
    for text in (b"".join(LINES), LINES[0] + LINES[2] + LINES[3], LINES[0] + LINES[2] + LINES[1] + LINES[3]):
        assert findings(text, sent).is_good
    assert findings(LINES[0] + LINES[3], sent).lost == 1


def test_percentiles_are_exact_to_half_a_percent() -> None:
    """However many latencies there are; the longest is exact."""
    latencies = Latencies()
    for ms in range(1, 1_001):
        latencies.add(ms / 1_000)
    for percent in (50, 90, 99):
        assert latencies.percentile_ms(percent) == pytest.approx(10 * percent, rel=0.006)
    assert latencies.longest_ms == 1_000
    assert Latencies().percentile_ms(99) == 0
    both = Latencies.of_all([latencies, latencies])
    assert (both.count, both.percentile_ms(50)) == (2_000, latencies.percentile_ms(50))
