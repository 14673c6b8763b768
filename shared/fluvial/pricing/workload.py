"""The load that a month's bill is for."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MONTH_DAYS: Final = 30
MONTH_S: Final = MONTH_DAYS * 86_400
HOUR_S: Final = 3_600
MONTH_HOURS: Final = MONTH_S / HOUR_S


class Transport(StrEnum):
    """How live readers get what is appended."""

    SSE = "sse"  # a function of its own for each reader, which is API Gateway's default here
    LONG_POLL = "long-poll"
    LONG_POLL_CDN = "long-poll-cdn"  # behind CloudFront, which asks once for all who ask the same
    WEBSOCKET = "websocket"
    RELAY = "relay"  # containers that serve event streams over the table


@dataclass(frozen=True, slots=True)
class Workload:
    """Appends and live readers, spread evenly over the streams and over the month."""

    writes_s: float
    bytes_per_write: int
    #: Processes that append to one stream at the same time, as Lambda environments do.
    writers: int = 1
    streams: int = 1
    #: Live readers that are held open, of all streams together; each gets all that is appended to its stream.
    readers: int = 0
    #: Requests a second that are neither appends nor live: reads of a stream's end, HEAD.
    requests_s: float = 0.0
    traces: bool = False
    detailed_metrics: bool = False

    @property
    def stream_writes_s(self) -> float:
        """Appends a second to one stream."""
        return self.writes_s / self.streams

    @property
    def live_streams(self) -> int:
        """Streams that have live readers: fewer readers than streams leave the others without one."""
        return min(self.streams, self.readers)

    @property
    def stream_readers(self) -> float:
        """Live readers of a stream that has any."""
        return self.readers / self.live_streams if self.readers else 0.0
