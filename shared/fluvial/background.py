"""What a server process does besides answering requests: deliveries, follow-up of a table, wakes of subscriptions.

Imports stand inside the functions that need them, so that each process loads only its own.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fluvial.clock import Clock
from fluvial.settings import Settings
from fluvial.storage.contract import Resumable, Store, UndeliveredIndex

if TYPE_CHECKING:
    from fluvial.fanout.delivery_worker import DeliveryWorker
    from fluvial.fanout.follow_up import ResumableStore
    from fluvial.fanout.publisher import Backlog
    from fluvial.server.application import Application
    from fluvial.subscriptions.receivers import WebhookSender, WebhookSigner

log = logging.getLogger(__name__)


@asynccontextmanager
async def leave_backlog(settings: Settings, store: Store) -> "AsyncIterator[Backlog]":
    """The backlog of a server whose commits are followed up by functions, or by the processes that write."""
    from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog  # noqa: PLC0415

    by = "the functions of the change feed" if settings.change_feed else "the processes that write"
    log.info("follow_up", extra={"by": by})
    yield ChangeFeedBacklog(store)


@asynccontextmanager
async def run_backlog(store: Store, clock: Clock) -> "AsyncIterator[Backlog]":
    """The backlog of a server process, which is worked off while the block runs."""
    from fluvial.fanout.deliveries import Deliveries  # noqa: PLC0415
    from fluvial.fanout.delivery_worker import DeliveryWorker  # noqa: PLC0415

    list_undelivered = store.undelivered if isinstance(store, UndeliveredIndex) else None
    worker = DeliveryWorker(store, Deliveries(store, clock), list_undelivered)
    worker.start()
    try:
        async with _follow_up_table(store, worker) if isinstance(store, Resumable) else contextlib.nullcontext():
            yield worker
    finally:
        await worker.stop()


@asynccontextmanager
async def _follow_up_table(store: "ResumableStore", worker: "DeliveryWorker") -> AsyncIterator[None]:
    from fluvial.fanout.follow_up import FollowUp  # noqa: PLC0415

    hint = "run fluvial sweep once a day; give --change-feed if functions follow up the same table"
    log.info("follow_up", extra={"by": "this server", "hint": hint})
    task = asyncio.create_task(FollowUp(store, worker).run(), name="follow-up")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def build_webhooks(settings: Settings, store: Store, clock: Clock) -> "tuple[WebhookSender, WebhookSigner]":
    """Build what sends webhooks, and what signs them with the store's keys."""
    from fluvial.subscriptions.sending import ClientSender  # noqa: PLC0415
    from fluvial.webhooks.client import WebhookClient  # noqa: PLC0415
    from fluvial.webhooks.keys import WebhookKeys  # noqa: PLC0415

    client = WebhookClient(allow_localhost=settings.webhooks_to_localhost)
    return ClientSender(client), WebhookKeys(store.signing_keys, clock)


@asynccontextmanager
async def run_subscriptions(settings: Settings, application: "Application", clock: Clock) -> AsyncIterator[None]:
    """Serve the store's subscriptions, and wake their workers, while the block runs."""
    from fluvial.storage.subscriptions import SubscriptionStore  # noqa: PLC0415

    store, projects = application.streams.store, application.streams.authorizer.project_cache
    if not isinstance(store, SubscriptionStore):
        yield
        return
    from fluvial.server.subscriptions import ServedSubscriptions  # noqa: PLC0415
    from fluvial.subscriptions.attempts import Attempts  # noqa: PLC0415
    from fluvial.subscriptions.driver import WakeDriver  # noqa: PLC0415
    from fluvial.subscriptions.ledger import Ledger  # noqa: PLC0415
    from fluvial.subscriptions.ownership import Ownership  # noqa: PLC0415
    from fluvial.subscriptions.service import SubscriptionService  # noqa: PLC0415

    sender, signer = build_webhooks(settings, store, clock)
    ledger = Ledger(store, clock)
    public_url = settings.public_url.rstrip("/")
    attempts = Attempts(store, clock, sender, signer, ledger.limits, public_url)
    driver = WakeDriver(ledger, attempts, Ownership(projects).is_owned, application.observers.metrics.on_wake)
    application.monitoring.sources.wakes_under_way = lambda: driver.busy_count
    service = SubscriptionService(ledger, sender.check_url)
    application.serve_subscriptions(ServedSubscriptions(service, signer, public_url))
    driver.start()
    try:
        yield
    finally:
        await driver.stop()
