"""Watches whether the server is still open: the first project closes it."""

import asyncio
import logging

from fluvial.access.project_cache import OPEN_CACHE_S
from fluvial.model.errors import StoreError
from fluvial.server.application import Application

log = logging.getLogger(__name__)


async def end_anonymous_reads(application: Application, pause_s: float = OPEN_CACHE_S / 2) -> None:
    """End the live reads of anonymous clients as soon as the first project closes the server."""
    project_cache, live = application.streams.authorizer.project_cache, application.live
    while not live.has_closed:
        await asyncio.sleep(pause_s)
        # A store that fails is asked again. Until it answers, new requests are rejected, and open live reads go on.
        try:
            if live.count and not await project_cache.is_open():
                live.end_anonymous()
        except StoreError as exc:
            log.warning("openness_not_known", extra={"reason": str(exc.__cause__ or exc)})
        except Exception:  # the watcher must survive any error: the next check may succeed
            log.exception("openness_not_known")
