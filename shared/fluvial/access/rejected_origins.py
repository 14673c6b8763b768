"""Logs rejected origins, with the option or the command that would allow them.

A browser tells a page's developer only "blocked by CORS policy". So the operator gets a line in the log: one for each
origin in a while, and few in a minute, because any client may make up origins.
"""

import logging
from typing import Final

from cachetools import LRUCache

from fluvial.model.project import is_origin

log = logging.getLogger(__name__)

#: An origin that was logged is not logged again for so long; so many are remembered.
SILENCE_MS: Final = 600_000
ORIGINS_KEPT_MAX: Final = 256

LINES_PER_MINUTE_MAX: Final = 10

_MINUTE_MS: Final = 60_000


class RejectedOrigins:
    """The origins that were logged lately."""

    def __init__(self) -> None:
        """The bounds on lines are of this object, so a process has one."""
        self._logged_ms: LRUCache[tuple[str | None, bytes], int] = LRUCache(ORIGINS_KEPT_MAX)
        self._minute, self._line_count = 0, 0

    def log(self, project: str | None, allowed: tuple[str, ...], origin: bytes, now_ms: int) -> None:
        """Log that a project, or an open server if it is None, has rejected pages of an origin."""
        key = (project, origin)
        logged_ms = self._logged_ms.get(key)
        if logged_ms is not None and now_ms - logged_ms < SILENCE_MS:
            return
        if now_ms // _MINUTE_MS != self._minute:
            self._minute, self._line_count = now_ms // _MINUTE_MS, 0
        text = origin.decode("latin-1")
        if self._line_count >= LINES_PER_MINUTE_MAX or not is_origin(text):  # an operator may paste it into a shell
            return
        self._line_count += 1
        self._logged_ms[key] = now_ms
        fields = {"origin": text, "project": project, "to_allow": _remedy(project, (*allowed, text))}
        log.warning("origin_refused", extra=fields)


def _remedy(project: str | None, origins: tuple[str, ...]) -> str:
    """The option or the command that allows exactly these origins."""
    if project is None:
        return "--cors-origins " + ",".join(origins)
    return f"fluvial project set {project} " + " ".join(f"--origin {origin}" for origin in origins)
