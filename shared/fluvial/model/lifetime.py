"""Lifetimes: a stream expires never, some seconds after its last use, or at a given time (spec 5.1)."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import TTL_SECONDS_MAX

_TTL: Final = re.compile(r"0|[1-9][0-9]*")
_RFC3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)

#: Where a timestamp has its seconds.
_SECONDS: Final = slice(17, 19)

#: A sliding deadline is stored a twentieth of its window late, so that it is moved at most once in that time. A stream
#: never expires early, and at most a twentieth of its window late.
_SLACK_DIVISOR: Final = 20


@dataclass(frozen=True, slots=True)
class SlidingTtl:
    """Expires `seconds` after the last read or write; a stream with 0 seconds expires at once."""

    seconds: int

    @property
    def window_ms(self) -> int:
        """The time without use after which the stream may expire."""
        return self.seconds * 1_000

    def deadline_ms(self, now_ms: int) -> int:
        """The deadline to store when the stream is used at `now_ms`."""
        return now_ms + self.window_ms + self.window_ms // _SLACK_DIVISOR

    def is_due(self, live_until_ms: int, now_ms: int) -> bool:
        """Whether a use at `now_ms` must move the stored deadline, because less than the window is left of it."""
        return live_until_ms < now_ms + self.window_ms


@dataclass(frozen=True, slots=True)
class ExpiresAt:
    """Expires at a fixed time; `text` is the creator's spelling of it."""

    at_ms: int
    text: str


#: None: the stream exists until it is deleted.
Lifetime = SlidingTtl | ExpiresAt | None


def same_lifetime(one: Lifetime, other: Lifetime) -> bool:
    """Whether two lifetimes are equal; different spellings of one time are."""
    if isinstance(one, ExpiresAt) and isinstance(other, ExpiresAt):
        return one.at_ms == other.at_ms
    return one == other


def first_deadline_ms(lifetime: Lifetime, now_ms: int) -> int | None:
    """The deadline of a stream that is created at `now_ms`."""
    match lifetime:
        case SlidingTtl():
            return lifetime.deadline_ms(now_ms)
        case ExpiresAt():
            return lifetime.at_ms
        case None:
            return None


def parse_ttl(value: str) -> SlidingTtl:
    """The `Stream-TTL` header: seconds, digits only, no leading zero (spec 5.1)."""
    if _TTL.fullmatch(value) is None:
        raise RequestError(ErrorCode.MALFORMED_HEADER, "Stream-TTL must be a whole number of seconds")
    if len(value) > len(str(TTL_SECONDS_MAX)) or int(value) > TTL_SECONDS_MAX:
        raise RequestError(ErrorCode.MALFORMED_HEADER, f"Stream-TTL is over {TTL_SECONDS_MAX} seconds")
    return SlidingTtl(int(value))


def parse_expires_at(value: str) -> ExpiresAt:
    """The `Stream-Expires-At` header: an RFC 3339 timestamp (spec 5.1)."""
    malformed = RequestError(ErrorCode.MALFORMED_HEADER, "Stream-Expires-At must be an RFC 3339 timestamp")
    if _RFC3339.fullmatch(value) is None:
        raise malformed
    is_leap = value[_SECONDS] == "60"
    text = value[: _SECONDS.start] + "59" + value[_SECONDS.stop :] if is_leap else value
    try:
        at = datetime.fromisoformat(text.upper())
        at_ms = int(at.timestamp() * 1_000)
    except (ValueError, OverflowError) as exc:
        raise malformed from exc
    if is_leap and not _is_leap_second(at_ms + 1_000):
        raise malformed
    return ExpiresAt(at_ms // 1_000 * 1_000 + 1_000 if is_leap else at_ms, value)


def _is_leap_second(after_ms: int) -> bool:
    """Whether a leap second may end at this time: a month must begin then, in UTC (RFC 3339, section 5.7)."""
    after = datetime.fromtimestamp(after_ms // 1_000, UTC)
    return (after.day, after.hour, after.minute, after.second) == (1, 0, 0, 0)


def format_rfc3339(at_ms: int) -> str:
    """The RFC 3339 timestamp of a time in milliseconds since 1970."""
    return datetime.fromtimestamp(at_ms // 1_000, UTC).isoformat()


def format_rfc3339_ms(at_ms: int) -> str:
    """The RFC 3339 timestamp of a time in milliseconds since 1970, with its milliseconds."""
    seconds, milliseconds = divmod(at_ms, 1_000)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1_000)
    return at.isoformat(timespec="milliseconds")
