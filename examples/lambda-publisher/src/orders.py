"""Publishes an order's new state to the order's stream, which browsers and estuaries follow."""

import os
from typing import Any

from fluvial.lambda_client import AppendRejected, PublishClient

streams = PublishClient(os.environ["PUBLISH_FUNCTION"])  # once in each environment


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Publish once, however often Lambda delivers the event: its id is the idempotency key."""
    stream = f"shop/orders/{event['order']}"
    result = streams.publish_json(stream, {"state": event["state"]}, idempotency_key=event["id"])
    if isinstance(result, AppendRejected):  # the same call would be rejected again
        return {"published": False, "why": result.code}
    return {"published": True, "offset": result.tail_offset, "again": result.is_duplicate}
