"""The edge function: wiring, once per environment; the application is the local server's."""

import os
from typing import Any

from aws_lambda_powertools import Metrics, Tracer
from aws_lambda_powertools.logging import correlation_paths
from mangum import Mangum
from mangum.types import LambdaContext

from fluvial.bootstrap import build_application
from fluvial.fanout.feed import FeedBacklog
from fluvial.function_logs import function_logger
from fluvial.opening import function_store
from fluvial.settings import settings_from_environment
from fluvial.transports.live import SseDelivery
from fluvial.transports.rest_proxy import RestProxyEvent
from fluvial.world import World

logger, tracer, metrics = function_logger("edge"), Tracer(service="edge"), Metrics(service="edge")
settings, world = settings_from_environment(os.environ), World()
store = function_store(settings, world)
application = build_application(settings, store, world, FeedBacklog(store), SseDelivery.BUFFERED)
gateway = Mangum(application, lifespan="off", custom_handlers=[RestProxyEvent])


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, log_event=False)
@metrics.log_metrics(capture_cold_start_metric=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request."""
    answer = gateway(event, context)
    metrics.add_metric(name=f"Http{answer['statusCode'] // 100}xx", unit="Count", value=1)
    return answer
