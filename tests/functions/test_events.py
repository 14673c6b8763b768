"""The sample events of the edge, append and sweep functions, through their handlers."""

import gzip
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

import pytest

from fluvial import __version__
from tests.aws_local.environments import Context
from tests.functions.conftest import ImportHandler, events
from tests.functions.samples import CHANGES, CONCURRENCY, FANNED_OUT, PUBLISHED, SOCKETS, SWEPT, event, offset

pytestmark = pytest.mark.medium

STREAM = "demo"
TAIL_4 = "1800000000000000_0000000000000004"


#: The edge function's answers: status, body (None: any), and some of the headers.
EDGE: dict[str, tuple[int, bytes | None, dict[str, str]]] = {
    "put": (201, b"", {"location": "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/live/v1/stream/new"}),
    "put_encoded_path": (201, b"", {"content-type": "text/plain"}),
    "put_without_content_type": (201, b"", {"content-type": "application/octet-stream"}),
    "post_json": (204, b"", {"stream-next-offset": offset(4 + len('{"say":"hello"},'))}),
    "post_binary": (204, b"", {"stream-next-offset": offset(2 + 4)}),
    "post_producer": (200, b"", {"producer-seq": "0"}),
    "post_close_without_body": (204, b"", {"stream-closed": "true", "stream-next-offset": TAIL_4}),
    "post_two_content_types": (400, None, {}),
    "get_catch_up": (200, b"[1,2]", {"content-type": "application/json", "stream-next-offset": TAIL_4}),
    "get_binary": (200, b"\x00\xff", {"content-type": "application/octet-stream"}),
    "get_repeated_query": (400, None, {}),
    "get_encoded_query": (200, b"[1,2]", {"stream-next-offset": TAIL_4}),  # the offset is inside the batch
    "get_long_poll": (204, b"", {"stream-up-to-date": "true"}),
    "get_sse": (200, None, {"content-type": "text/event-stream"}),
    "get_unchanged": (304, b"", {}),
    "head": (200, b"", {"stream-next-offset": TAIL_4}),
    "delete": (204, b"", {}),
    "options": (204, b"", {"access-control-allow-methods": "GET, HEAD, PUT, POST, DELETE, OPTIONS"}),
    "get_missing": (404, None, {}),
    "get_health": (200, f'{{"status":"ok","version":"{__version__}","liveReads":0}}'.encode(), {}),
}

#: The append function's results; of a rejection, its code.
APPEND: dict[str, dict[str, Any] | str] = {
    "json_text": {"tailOffset": offset(4 + len('{"say":"hello"},')), "closed": False},
    "json_value": {"tailOffset": offset(4 + len('{"say":"hello"},')), "closed": False},
    "base64": {"tailOffset": offset(2 + 4), "closed": False},
    "producer": {"tailOffset": offset(4 + 4), "closed": False},
    "producer_gap": "PRODUCER_GAP",
    "close": {"tailOffset": TAIL_4, "closed": True},
    "missing_stream": "STREAM_NOT_FOUND",
    "wrong_content_type": "CONTENT_TYPE_MISMATCH",
    "malformed": "MALFORMED_REQUEST",
}


def test_every_sample_event_has_a_case() -> None:
    """And every case has its event."""
    cases: dict[str, Iterable[str]] = {
        "edge": EDGE,
        "append": APPEND,
        "subscription": PUBLISHED,
        "fanout": FANNED_OUT,
        "changes": CHANGES,
        "sockets": SOCKETS,
        "sweep": SWEPT,
        "concurrency": CONCURRENCY,
    }
    names = {f"{function}_{case}" for function, cases_of_it in cases.items() for case in cases_of_it}
    assert {path.stem for path in events()} == names


@pytest.mark.parametrize(("function", "case"), [("edge", "get_catch_up"), ("sockets", "ping")])
def test_log_lines_of_a_request_have_the_gateways_id_of_it(
    import_handler: ImportHandler, function: str, case: str
) -> None:
    """So that a line of the access log leads to them."""
    module, sample = import_handler(function), event(f"{function}_{case}")
    module.handler(sample, Context(function, "request-1"))
    assert module.logger.get_correlation_id() == sample["requestContext"]["requestId"]


@pytest.mark.parametrize("case", EDGE)
def test_edge_function_answers_sample_event(import_handler: ImportHandler, case: str) -> None:
    """With the status, body and headers for an HTTP client."""
    status, body, headers = EDGE[case]
    answer = import_handler("edge").handler(event(f"edge_{case}"), Context("edge", "request-1"))
    assert answer["statusCode"] == status, answer
    assert answer["isBase64Encoded"] is bool(answer["body"])
    if body is not None:
        assert b64decode(answer["body"]) == body
    for name, value in headers.items():
        assert answer["multiValueHeaders"][name] == [value]
    assert answer["multiValueHeaders"]["x-content-type-options"] == ["nosniff"]


@pytest.mark.parametrize("case", APPEND)
def test_append_function_answers_sample_event(import_handler: ImportHandler, case: str) -> None:
    """With an acceptance or a rejection."""
    answer = import_handler("append").handler(event(f"append_{case}"), Context("append", "request-1"))
    if isinstance(expected := APPEND[case], str):
        assert answer["error"]["code"] == expected
        assert answer["error"]["message"]
    else:
        assert answer == expected


@pytest.mark.parametrize(("case", "dry_run"), SWEPT.items())
def test_sweep_function_reports(import_handler: ImportHandler, case: str, dry_run: bool) -> None:  # noqa: FBT001
    """It returns how many items it looked at; here it finds nothing to delete."""
    report = import_handler("sweep").handler(event(f"sweep_{case}"), Context("sweep", "request-1"))
    assert report.pop("items") > 0
    assert {name: found for name, found in report.items() if found} == {
        "isComplete": True,
        "isWhole": True,
        **({"dryRun": True} if dry_run else {}),
    }


def test_repeated_event_of_a_producer_is_a_duplicate(import_handler: ImportHandler) -> None:
    """Its result has the stream's tail, too."""
    handler = import_handler("append").handler
    first = handler(event("append_producer"), Context("append", "request-1"))
    assert handler(event("append_producer"), Context("append", "request-2")) == {**first, "duplicate": True}


def test_path_with_encoded_slash_is_another_stream(import_handler: ImportHandler) -> None:
    """The path reaches the store as the client sent it."""
    handler, put = import_handler("edge").handler, event("edge_put_encoded_path")
    handler(put, Context("edge", "request-1"))
    for path, status in [(put["path"], 200), ("/v1/stream/a/b%20c/%E2%82%AC;x=1", 404)]:
        got = handler({**event("edge_head"), "path": path}, Context("edge", "request-2"))
        assert got["statusCode"] == status


def event_with_paths(sample: str, path: str, public: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  an event's fields
    """A sample event whose path is `path`, and whose request was for the public path."""
    sent = {**event(f"edge_{sample}"), "path": path, **more}
    return {**sent, "requestContext": {**sent["requestContext"], "path": public}}


@pytest.mark.parametrize("mapping", ["/streams", "/api/v2", "/v1", "/v1/stream", "/a(b)", ""])
def test_base_path_of_a_custom_domain_is_no_part_of_the_streams_path(
    import_handler: ImportHandler, mapping: str
) -> None:
    """Events have the base path in their path; the stream is the same as behind the API's own host name."""
    handler, context = import_handler("edge").handler, Context("edge", "request-1")
    for name, encoded in (("new", "new"), ("v1/stream/x", "v1/stream/x"), ("a/b ü", "a%2Fb%20%C3%BC")):
        path = f"{mapping}/v1/stream/{encoded}"
        put = event_with_paths("put", path, path, pathParameters={"proxy": name})
        created = handler(put, context)
        assert created["statusCode"] == 201, created
        assert created["multiValueHeaders"]["location"] == [
            f"https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com{path}"
        ]
        got = handler({**event("edge_head"), "path": f"/v1/stream/{encoded}"}, context)
        assert got["statusCode"] == 200
        handler({**event("edge_delete"), "path": f"/v1/stream/{encoded}"}, context)


@pytest.mark.parametrize(("mapping", "stage"), [("/streams", ""), ("/v1", ""), ("", "/live"), ("", "/v1")])
def test_control_routes_are_found_below_a_base_path_and_a_stage(
    import_handler: ImportHandler, mapping: str, stage: str
) -> None:
    """Whatever the base path and the stage are called."""
    path = f"{mapping}/v1/streams"
    sent = event_with_paths("get_health", path, stage + path, resource="/v1/streams", pathParameters=None)
    answer = import_handler("edge").handler(sent, Context("edge", "request-1"))
    assert answer["statusCode"] == 200, answer
    assert "demo" in b64decode(answer["body"]).decode()


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("/v1/stream/demo", 201),
        ("/live/v1/stream/demo", 201),
        ("/live/v1/stream/missing", 404),
        ("/other/v1/stream/demo", 400),
        ("/live/live/v1/stream/demo", 400),
        ("live/v1/stream/demo", 400),
    ],
)
def test_forks_source_may_include_the_stage(import_handler: ImportHandler, source: str, status: int) -> None:
    """Behind the API's own host name, the path of the source's URL begins with the stage."""
    put = event_with_paths("put", "/v1/stream/fork", "/live/v1/stream/fork", body=None, isBase64Encoded=False)
    put["multiValueHeaders"] = {"Host": ["h"], "Stream-Forked-From": [source]}
    assert import_handler("edge").handler(put, Context("edge", "request-1"))["statusCode"] == status


def test_forks_source_may_include_the_base_path(import_handler: ImportHandler) -> None:
    """Behind a custom domain, the path of the source's URL begins with the base path."""
    path = "/streams/v1/stream/fork"
    put = event_with_paths("put", path, path, body=None, isBase64Encoded=False, pathParameters={"proxy": "fork"})
    put["multiValueHeaders"] = {"Host": ["h"], "Stream-Forked-From": ["/streams/v1/stream/demo"]}
    assert import_handler("edge").handler(put, Context("edge", "request-1"))["statusCode"] == 201


def test_bodies_over_lambdas_limits_are_errors(import_handler: ImportHandler) -> None:
    """A request body over the limit is a 413. A batch that is too large for a response is a 500 with its own code."""
    handler = import_handler("edge").handler
    post = {**event("edge_post_binary"), "body": "AAAA" * (4_456_449 // 3 + 1)}
    assert handler(post, Context("edge", "request-1"))["statusCode"] == 413
    appended = import_handler("append").handler(
        {"stream": "bytes", "payloadBase64": "AAAA" * 1_600_000, "contentType": "application/octet-stream"},
        Context("append", "request-2"),
    )
    assert appended["closed"] is False
    get = {**event("edge_get_binary"), "multiValueQueryStringParameters": {"offset": [offset(2)]}}
    answer = handler(get, Context("edge", "request-3"))
    assert answer["statusCode"] == 500
    assert json.loads(b64decode(answer["body"]))["error"]["code"] == "answer_too_large"


def test_log_lines_have_no_body_and_no_query(import_handler: ImportHandler, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the payload nor the token in the query is logged."""
    handler = import_handler("edge").handler
    secret = {**event("edge_post_json"), "multiValueQueryStringParameters": {"token": ["hush"]}}
    handler(secret, Context("edge", "request-1"))
    printed = "".join(capfd.readouterr())
    assert "hello" not in printed
    assert "hush" not in printed


def test_edge_function_decodes_and_compresses_bodies(import_handler: ImportHandler) -> None:
    """The rules of content codings are those of the local server."""
    handler, post = import_handler("edge").handler, event("edge_post_json")
    post["multiValueHeaders"]["Content-Encoding"] = ["gzip"]
    body = b"[" + b",".join(b'"%d the same again"' % number for number in range(1_000)) + b"]"
    post |= {"body": b64encode(gzip.compress(body)).decode(), "isBase64Encoded": True}
    assert handler(post, Context("edge", "request-1"))["statusCode"] == 204
    get = event("edge_get_catch_up")
    get["multiValueHeaders"]["Accept-Encoding"] = ["gzip, br"]
    answer = handler(get, Context("edge", "request-2"))
    assert answer["multiValueHeaders"]["content-encoding"] == ["gzip"]
    assert "Accept-Encoding" in answer["multiValueHeaders"]["vary"]
    assert json.loads(gzip.decompress(b64decode(answer["body"])))[-1] == "999 the same again"
    post["multiValueHeaders"]["Content-Encoding"] = ["br"]
    assert handler(post, Context("edge", "request-3"))["statusCode"] == 415


def test_edge_function_answers_head_without_a_body(import_handler: ImportHandler) -> None:
    """Of a control route, and of a stream that does not exist."""
    for path, status in (("/health", 200), ("/v1/stream/nothing/here", 404)):
        answer = import_handler("edge").handler({**event("edge_head"), "path": path}, Context("edge", "request-1"))
        assert (answer["statusCode"], answer["body"]) == (status, "")
