"""The live function's requests: their ids in each log line, and their metrics when each has ended.

The Lambda Web Adapter forwards one request at a time, with two header fields that no client can set:
`x-amzn-request-context` is API Gateway's context of the request, `x-amzn-lambda-context` is Lambda's.
https://github.com/aws/aws-lambda-web-adapter

A request has ended when its last byte is on its way. Lambda may freeze the environment then, so that these metrics are
logged when it gets its next request, or are lost with it (docs/operations/monitoring.md).
"""

from typing import Final

import msgspec
from starlette.types import Scope

from fluvial.aws.function_metrics import FunctionMetrics

#: The ids of the request that this process serves, under the names that they have in the other functions' logs.
REQUEST_IDS: Final[dict[str, str]] = {}


class _RequestContext(msgspec.Struct, rename="camel"):
    request_id: str


class _LambdaContext(msgspec.Struct):
    request_id: str


_CONTEXTS: Final[dict[bytes, tuple[str, type[_RequestContext | _LambdaContext]]]] = {
    b"x-amzn-request-context": ("correlation_id", _RequestContext),
    b"x-amzn-lambda-context": ("function_request_id", _LambdaContext),
}


class WebAdapterRequests:
    """Takes note of each request."""

    def __init__(self, metrics: FunctionMetrics) -> None:
        """`metrics` are logged after each request."""
        self._metrics = metrics

    def begin(self, scope: Scope) -> None:
        """Note the ids of a request. A field that is no such JSON is ignored."""
        REQUEST_IDS.clear()
        for name, value in scope["headers"]:
            if name in _CONTEXTS:
                key, kind = _CONTEXTS[name]
                try:
                    REQUEST_IDS[key] = msgspec.json.decode(value, type=kind).request_id
                except msgspec.DecodeError:
                    continue

    def end(self) -> None:
        """Log what the request has counted."""
        self._metrics.log()
