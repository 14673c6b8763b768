"""The answers of API Gateway itself, to requests that reach no function or get no answer of one, from the template."""

import json
from typing import Any

from tests.aws_local.template import load_properties

#: The status of a type unless the template gives another.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
STATUS = {
    "ACCESS_DENIED": 403,
    "API_CONFIGURATION_ERROR": 500,
    "DEFAULT_4XX": 400,
    "DEFAULT_5XX": 502,
    "INTEGRATION_FAILURE": 504,
    "INTEGRATION_TIMEOUT": 504,
    "INVALID_SIGNATURE": 403,
    "MISSING_AUTHENTICATION_TOKEN": 403,
    "QUOTA_EXCEEDED": 429,
    "REQUEST_TOO_LARGE": 413,
    "THROTTLED": 429,
    "WAF_FILTERED": 403,
}


def gateway_answer(kind: str, message: str, status: int | None = None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The status, header fields and body of one type of answer; `message` is what API Gateway says by itself.

    `status` is for a case in which API Gateway has another one than the type's.
    """
    responses: dict[str, Any] = load_properties("AWS::Serverless::Api")["Api"]["GatewayResponses"]
    status = status or STATUS[kind]
    response = responses.get(kind) or responses["DEFAULT_5XX" if status >= 500 else "DEFAULT_4XX"]
    status = int(response.get("StatusCode", status))
    template: str = response["ResponseTemplates"]["application/json"]
    body = template.replace("$context.error.messageString", json.dumps(message)).encode()
    named = response["ResponseParameters"]["Headers"].items()
    fields = [(name.lower().encode(), value.strip("'").encode()) for name, value in named]
    return status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *fields], body
