"""Errors of background work in the log: one line for an error of the disk or database, a traceback for any other."""

import logging
import sqlite3

from fluvial.model.errors import StoreError


def log_failure(log: logging.Logger, event: str, error: Exception, **fields: str) -> None:
    """Log an error. `No space left on device` is enough as a reason; an unexpected error needs its traceback."""
    cause = error.__cause__ or error
    if isinstance(error, StoreError | OSError | sqlite3.Error):
        log.error(event, extra={**fields, "reason": str(cause) or type(cause).__name__})
    else:
        log.error(event, extra=fields, exc_info=error)
