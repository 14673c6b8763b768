"""Durations as people write them: `90`, `30s`, `15m`, `24h`, `7d`, `1w`, `1h30m`; short ones also `50ms`, `1.5s`."""

import re
from typing import Final

#: The units in falling order, in which they are written.
UNIT_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}

_DURATION: Final = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit})?" for unit in UNIT_SECONDS), re.ASCII)
_SHORT: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s)", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def parse_duration(text: str) -> int:
    """The seconds that a text names; a number without a unit is in seconds. ValueError for any other text."""
    text = text.strip().lower()
    if _SECONDS.fullmatch(text):
        return int(text)
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        message = f"'{text}' is not a duration such as 30s, 15m, 24h, 7d or 1w"
        raise ValueError(message)
    parts = zip(found.groups(), UNIT_SECONDS.values(), strict=True)
    return sum(int(count) * seconds for count, seconds in parts if count is not None)


def parse_duration_ms(text: str) -> float:
    """The milliseconds that a text names: as `parse_duration`, or with a fraction and `ms` or `s`."""
    found = _SHORT.fullmatch(text.strip().lower())
    if found is not None:
        return float(found[1]) * (1 if found[2] == "ms" else 1_000)
    try:
        return 1_000 * parse_duration(text)
    except ValueError as exc:
        message = f"'{text}' is not a duration such as 50ms, 1.5s or 10s"
        raise ValueError(message) from exc


def format_duration(seconds: int) -> str:
    """A text with the same meaning, e.g. `1h30m` or `366d`; `0s` for none."""
    text = ""
    for unit, size in list(UNIT_SECONDS.items())[1:]:  # weeks would make 366 days 52w2d
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" * bool(count)
    return text or "0s"
