"""Reserved concurrency for readers: writers keep half of the account's, and no account makes a deployment fail."""

import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.aws.reader_concurrency import (
    UNRESERVED_MIN,
    Reservation,
    answer_reservation,
    readers_share,
    reserve,
)
from tests.aws_local.__main__ import CREDENTIALS
from tests.aws_local.environments import Context
from tests.functions.samples import event
from tests.support.lambda_account import LambdaAccount
from tests.support.rigs import REGION

LIVE = "fluvial-live"


@pytest.mark.parametrize(
    ("quota", "readers"), [(10, 0), (50, 0), (100, 0), (198, 0), (199, 99), (200, 100), (1_000, 500), (10_000, 5_000)]
)
def test_readers_get_half_of_the_account_if_it_has_enough(quota: int, readers: int) -> None:
    """A new account has ten or fifty, of which nothing can be reserved."""
    account = LambdaAccount(quota)
    found = reserve(account.client(), LIVE, Reservation.AUTO)
    assert (found.account, found.readers) == (quota, readers)
    assert found.alarm_at == quota * 8 // 10
    assert account.reserved == ({LIVE: readers} if readers else {})


@given(st.integers(0, 5_000), st.integers(0, 5_000))
def test_lambda_never_refuses_what_is_asked_for(unreserved: int, reserved_now: int) -> None:
    """At least as much as Lambda asks for stays unreserved, and writers have no less than readers."""
    share = readers_share(unreserved, reserved_now)
    rest = unreserved + reserved_now - share
    assert share == 0 or rest >= max(share, UNRESERVED_MIN)


def test_a_second_run_changes_nothing() -> None:
    """The function runs once a day: a reservation that is right stays as it is."""
    account = LambdaAccount(1_000, {"other": 300})
    reserve(account.client(), LIVE, Reservation.AUTO)
    account.operations.clear()
    assert reserve(account.client(), LIVE, Reservation.AUTO).readers == 350
    assert account.operations == ["GetAccountSettings", "GetFunctionConcurrency"]


def test_raised_quota_is_used_at_the_next_run() -> None:
    """An account that began with ten is protected a day after its quota was raised."""
    account = LambdaAccount(10)
    assert reserve(account.client(), LIVE, Reservation.AUTO).readers == 0
    account.quota = 1_000
    assert reserve(account.client(), LIVE, Reservation.AUTO).readers == 500


def test_reservation_ends_when_it_is_not_wanted_any_longer() -> None:
    """The parameter ReserveConcurrency was set to false."""
    account = LambdaAccount(1_000, {LIVE: 500})
    assert reserve(account.client(), LIVE, Reservation.NONE).readers == 0
    assert account.reserved == {}


def test_reservation_of_the_template_is_left_alone() -> None:
    """CloudFormation has set it by the parameter LiveConcurrency."""
    account = LambdaAccount(1_000, {LIVE: 30})
    assert reserve(account.client(), LIVE, Reservation.TEMPLATE).readers == 30
    assert account.reserved == {LIVE: 30}


@contextmanager
def response_url() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A URL as CloudFormation gives it to a custom resource, and what was put to it."""
    answers = list[dict[str, Any]]()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            assert self.headers["Content-Type"] == "", "the URL is signed for an empty one"
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/answer?signature=x", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def request(kind: str, url: str) -> dict[str, Any]:
    """CloudFormation's request for a custom resource."""
    return {
        "RequestType": kind,
        "ResponseURL": url,
        "StackId": "stack",
        "RequestId": "request",
        "ResourceType": "AWS::CloudFormation::CustomResource",
        "LogicalResourceId": "ReaderConcurrency",
        "ResourceProperties": {"Reservation": "auto"},
    }


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
def test_cloudformation_is_told_what_was_decided(kind: str) -> None:
    """The alarm's threshold and an output are attributes of the resource; its deletion changes nothing."""
    account = LambdaAccount(1_000)
    with response_url() as (url, answers):
        answer_reservation(account.client(), LIVE, Reservation.AUTO, request(kind, url))
    [answer] = answers
    assert answer["Status"] == "SUCCESS"
    assert (answer["StackId"], answer["RequestId"]) == ("stack", "request")
    assert answer["LogicalResourceId"] == answer["PhysicalResourceId"] == "ReaderConcurrency"
    readers = 0 if kind == "Delete" else 500
    assert answer["Data"] == {"Account": "1000", "AlarmAt": "800", "Readers": str(readers)}
    assert account.reserved == ({LIVE: readers} if readers else {})


def test_deployment_succeeds_though_lambda_denies(caplog: pytest.LogCaptureFixture) -> None:
    """The stack works without a reservation; the log says why there is none."""
    account = LambdaAccount(1_000, is_denied=True)
    with response_url() as (url, answers):
        answer_reservation(account.client(), LIVE, Reservation.AUTO, request("Create", url))
    assert answers[0]["Status"] == "SUCCESS"
    assert answers[0]["Data"] == {"Account": "1000", "AlarmAt": "800", "Readers": "0"}
    assert [record.message for record in caplog.records] == ["concurrency_not_reserved"]


def test_account_with_too_little_concurrency_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """There readers can stop writers until the quota is raised."""
    with caplog.at_level(logging.WARNING):
        answer_reservation(LambdaAccount(10).client(), LIVE, Reservation.AUTO, event("concurrency_scheduled"))
    assert [(record.message, record.account_concurrency) for record in caplog.records] == [("readers_not_limited", 10)]  # type: ignore[attr-defined]


@pytest.fixture
def import_concurrency_handler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Reservation], Any]:
    """Imports the function's handler as a new environment of Lambda does."""

    def import_with(reservation: Reservation) -> Any:  # noqa: ANN401  a module
        for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FLUVIAL_LIVE_FUNCTION", LIVE)
        monkeypatch.setenv("FLUVIAL_RESERVATION", reservation.value)
        sys.modules.pop("concurrency.handler", None)
        return importlib.import_module("concurrency.handler")

    return import_with


def test_function_handles_its_scheduled_event(import_concurrency_handler: Callable[[Reservation], Any]) -> None:
    """It reserves by its environment's variables; it makes no call that the template's policy does not allow."""
    module, account = import_concurrency_handler(Reservation.AUTO), LambdaAccount(1_000)
    account.attach(module.client)
    report = module.handler(event("concurrency_scheduled"), Context("concurrency", "request"))
    assert report == {"Account": 1_000, "AlarmAt": 800, "Readers": 500}
