"""The edge function: wiring, once per environment. The application is the local server's."""

import os
from typing import Any

from aws_lambda_powertools.logging import correlation_paths
from mangum import Mangum
from mangum.types import LambdaContext

from fluvial.app import build_application, build_function_store
from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.rest_proxy import RestProxyEvent
from fluvial.aws.snapshot import reseed_after_restore
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.server.exchange import Observers
from fluvial.server.live_reads import SseDelivery
from fluvial.settings import settings_from_environment

reseed_after_restore()
logger, metrics = function_logger("edge"), FunctionMetrics("edge")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock, metrics.counters)
observers = Observers(metrics.counters, clock)
application = build_application(
    settings, store, clock, ChangeFeedBacklog(store), SseDelivery.BUFFERED, observers=observers
)
gateway = Mangum(application, lifespan="off", custom_handlers=[RestProxyEvent])


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, log_event=False)
@metrics.measure
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request."""
    return gateway(event, context)
