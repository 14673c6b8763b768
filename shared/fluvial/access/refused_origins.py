"""Origins that were refused: a line in the log for each, once in a while, with what would let their pages in.

A browser tells its page's developer no more than "blocked by CORS policy", and nobody else at all.
"""

import logging
from typing import Final

from cachetools import LRUCache

from fluvial.model.project import is_origin

log = logging.getLogger(__name__)

#: How long an origin that was told is not told again, and how many are remembered.
SILENCE_MS: Final = 600_000
ORIGINS_KEPT_MAX: Final = 256

#: How many lines there may be in a minute: whoever sends requests may make up origins.
LINES_PER_MINUTE_MAX: Final = 10

_MINUTE_MS: Final = 60_000


class RejectedOrigins:
    """What was told lately."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._told_ms: LRUCache[tuple[str | None, bytes], int] = LRUCache(ORIGINS_KEPT_MAX)
        self._minute, self._lines = 0, 0

    def note(self, project: str | None, allowed: tuple[str, ...], origin: bytes, now_ms: int) -> None:
        """Tell that pages of an origin were refused, by a project or, without one, by an open server."""
        key = (project, origin)
        told_ms = self._told_ms.get(key)
        if told_ms is not None and now_ms - told_ms < SILENCE_MS:
            return
        if now_ms // _MINUTE_MS != self._minute:
            self._minute, self._lines = now_ms // _MINUTE_MS, 0
        text = origin.decode("latin-1")
        if self._lines >= LINES_PER_MINUTE_MAX or not is_origin(text):  # what is told may be pasted into a shell
            return
        self._lines += 1
        self._told_ms[key] = now_ms
        fields = {"origin": text, "project": project, "to_allow": _remedy(project, (*allowed, text))}
        log.warning("origin_refused", extra=fields)


def _remedy(project: str | None, origins: tuple[str, ...]) -> str:
    """The option or command that allows these origins; it replaces those that are allowed now."""
    if project is None:
        return "--cors-origins " + ",".join(origins)
    return f"fluvial project set {project} " + " ".join(f"--origin {origin}" for origin in origins)
