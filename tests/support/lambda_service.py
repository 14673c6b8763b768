"""Lambda's part in a direct invocation."""

import io
import json
from dataclasses import dataclass, field
from threading import Lock
from types import ModuleType
from typing import Any

from tests.aws_local.environments import Context


@dataclass
class LambdaService:
    """Invokes a function's module: JSON in, JSON out, and an exception becomes a FunctionError."""

    module: ModuleType
    lock: Lock = field(default_factory=Lock)  # an environment has one event at a time

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803  boto3's own names
        """Invoke the function."""
        try:
            with self.lock:
                answer = self.module.handler(json.loads(Payload), Context(FunctionName, "request"))
        except Exception as exc:  # noqa: BLE001  as Lambda does
            error = {"errorMessage": str(exc), "errorType": type(exc).__name__}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(error).encode())}
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode())}
