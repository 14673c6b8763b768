"""Counts Fluvial's own log events, so that failures in the background show in the metrics."""

import logging
from collections import Counter
from typing import Final


class LogEvents(logging.Handler):
    """A log handler that counts; the log is the process's, and so are the counts."""

    def __init__(self) -> None:
        """Nothing was logged yet."""
        super().__init__()
        self.counts: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count an event. Its name is a constant in the code, so the number of label values is bounded."""
        if record.name.startswith("fluvial."):
            self.counts[record.msg, record.levelname.lower()] += 1


#: The counts of this process.
LOG_EVENTS: Final = LogEvents()
