"""What API Gateway answers by itself: in the form of all other errors, and readable by pages of any origin."""

import json

import pytest

from fluvial.model.errors import ErrorCode
from tests.aws_local.gateway_responses import STATUS, gateway_answer
from tests.aws_local.template import load_properties, load_template

#: The types that clients meet, with the status and the code that they are answered with.
ANSWERS = {
    "THROTTLED": (429, ErrorCode.RATE_LIMITED),
    "QUOTA_EXCEEDED": (429, ErrorCode.RATE_LIMITED),
    "REQUEST_TOO_LARGE": (413, ErrorCode.BODY_TOO_LARGE),
    "MISSING_AUTHENTICATION_TOKEN": (404, ErrorCode.NOT_FOUND),
    "INVALID_SIGNATURE": (404, ErrorCode.NOT_FOUND),
    "ACCESS_DENIED": (403, ErrorCode.FORBIDDEN),
    "WAF_FILTERED": (403, ErrorCode.FORBIDDEN),
    "DEFAULT_5XX": (502, ErrorCode.STORE_UNCERTAIN),
    "INTEGRATION_TIMEOUT": (504, ErrorCode.STORE_UNCERTAIN),
    "API_CONFIGURATION_ERROR": (500, ErrorCode.STORE_UNCERTAIN),
}


@pytest.mark.parametrize("kind", STATUS)
def test_page_of_any_origin_may_read_the_gateways_answer(kind: str) -> None:
    """Without CORS fields a browser tells a page no more than that the network failed."""
    _, fields, body = gateway_answer(kind, 'with a "quote"')
    headers = dict(fields)
    assert headers[b"access-control-allow-origin"] == b"*"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"cache-control"] == b"no-store"
    error = json.loads(body)["error"]
    assert error["code"] in set(ErrorCode)
    assert error["message"]


@pytest.mark.parametrize(("kind", "answer"), ANSWERS.items())
def test_gateways_answer_has_the_code_of_the_servers(kind: str, answer: tuple[int, ErrorCode]) -> None:
    """A client handles it as it handles the same answer of a server of its own."""
    status, _, body = gateway_answer(kind, "")
    assert (status, json.loads(body)["error"]["code"]) == answer


@pytest.mark.parametrize("kind", [kind for kind, (status, _) in ANSWERS.items() if status == 429 or status >= 500])
def test_answer_that_is_worth_another_try_says_when(kind: str) -> None:
    """As the server's own answers do."""
    assert (b"retry-after", b"1") in gateway_answer(kind, "")[1]


def test_web_socket_api_has_the_throttle_of_the_rest_api() -> None:
    """Each connection, also of a stranger, invokes a function."""
    settings = load_properties("AWS::Serverless::WebSocketApi")["SocketApi"]["DefaultRouteSettings"]
    [of_rest] = load_properties("AWS::Serverless::Api")["Api"]["MethodSettings"]
    for name in ("ThrottlingRateLimit", "ThrottlingBurstLimit"):
        assert settings[name] == of_rest[name]
        assert "Ref" in settings[name]


def test_traces_and_detailed_metrics_cost_nothing_by_default() -> None:
    """Both cost more than the functions of a small stack, so they are for those who ask for them."""
    template = load_template()
    parameters, conditions = template["Parameters"], template["Conditions"]
    assert template["Globals"]["Function"]["Tracing"] == {"Ref": "Tracing"}
    assert parameters["Tracing"]["Default"] == "Disabled"
    assert parameters["DetailedMetrics"]["Default"] == "false"
    assert conditions["Traces"] == {"Fn::Equals": [{"Ref": "Tracing"}, "Active"]}
    assert conditions["HasDetailedMetrics"] == {"Fn::Equals": [{"Ref": "DetailedMetrics"}, "true"]}
    api, sockets = load_properties("AWS::Serverless::Api")["Api"], load_properties("AWS::Serverless::WebSocketApi")
    assert api["TracingEnabled"] == {"Fn::If": ["Traces", True, False]}
    wanted = {"Fn::If": ["HasDetailedMetrics", True, False]}
    assert api["MethodSettings"][0]["MetricsEnabled"] == wanted
    assert sockets["SocketApi"]["DefaultRouteSettings"]["DetailedMetricsEnabled"] == wanted
