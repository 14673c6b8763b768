"""`make smoke`: it passes against a server, finds what it is for, and leaves nothing behind."""

import asyncio
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from tools.smoke.__main__ import Options, parse_options, run
from tools.smoke.http_checks import check_unchanged
from tools.smoke.live_checks import check_event_stream, check_long_poll_timeout
from tools.smoke.place import Place, Waits
from tools.smoke.report import CheckFailedError, CheckSkippedError, Report, Verdict, expect
from tools.smoke.stack import Stack

from fluvial.model.permissions import Scope
from tests.access.clients import ServerClient, mint_token, operator, server_client
from tests.support.access import OPERATOR_SECRET
from tests.support.servers import server_in_thread

SHORT = Waits(long_poll_s=0.1, first_event_s=30, empty_answer_s=0.05)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ServerClient]:
    """A server with projects."""
    with server_client(tmp_path, "--long-poll-timeout", "2", "--sse-max-age", "30") as client:
        yield client


def smoke(url: str, *options: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m tools.smoke`."""
    command = [sys.executable, "-m", "tools.smoke", "--url", url, "--long-poll", "2", "--first-event", "30", *options]
    environment = {**os.environ, "TOKEN": token or ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def names_and_projects(api: ServerClient) -> tuple[object, object]:
    """All streams and projects of a server."""
    streams = api.http.get("/v1/streams", headers=operator()).json()["streams"]
    projects = api.http.get("/v1/projects", headers=operator()).json()["projects"]
    return streams, [project["name"] for project in projects]


@pytest.mark.medium
def test_smoke_passes_with_an_operators_token_and_leaves_nothing_behind(api: ServerClient) -> None:
    """It makes projects for itself. A line for each check has its verdict and its time."""
    token = operator()["authorization"].removeprefix("Bearer ")
    ran = smoke(f"{api.http.base_url}/v1/stream/", token=token)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    found = re.findall(r"^(\S+) +[\d.]+ s  (.{1,24})", ran.stdout, re.MULTILINE)
    verdicts = {name.strip(): verdict for verdict, name in found}
    skipped = {name for name, verdict in verdicts.items() if verdict == "skip"}
    assert skipped == {
        "append function",
        "publish function",
        "publication by SQS",
        "publication by SNS",
        "by EventBridge",
        "429 of a burst",
    }
    assert {verdicts[name] for name in verdicts.keys() - skipped} == {"ok"}
    assert {"304", "204 of a long-poll", "event stream", "413", "429 of a project", "websocket"} <= verdicts.keys()
    assert re.fullmatch(r"18 passed, 0 failed, 6 skipped in [\d.]+ s", ran.stdout.splitlines()[-1])
    assert names_and_projects(api) == ([], ["demo", "other"])


@pytest.mark.medium
def test_smoke_works_with_a_token_that_writes_one_project(api: ServerClient) -> None:
    """Its streams are below a name of their own in the project."""
    ran = smoke(str(api.http.base_url), token=mint_token(Scope.WRITE))
    assert ran.returncode == 0, ran.stdout
    assert names_and_projects(api) == ([], ["demo", "other"])


@pytest.mark.medium
def test_smoke_leaves_an_open_server_open(tmp_path: Path) -> None:
    """Its first project would close it for ever: an operator's token makes none there, and the other checks go on."""
    secret_file = tmp_path / "operator-secret"
    secret_file.write_text(OPERATOR_SECRET.value)
    token = operator()["authorization"].removeprefix("Bearer ")
    options = ("--operator-secret-file", str(secret_file), "--long-poll-timeout", "2", "--sse-max-age", "30")
    with server_in_thread(tmp_path / "data", *options) as server:
        ran = smoke(server.url, token=token)
        assert ran.returncode == 0, ran.stdout
        assert re.search(r"^skip .* project +the server is open", ran.stdout, re.MULTILINE)
        answer = httpx.get(f"{server.url}/v1/streams")
        assert (answer.status_code, answer.json()["streams"]) == (200, [])


async def test_smoke_makes_no_project_when_it_cannot_tell_whether_the_server_is_open() -> None:
    """A 500 says neither."""
    asked = list[str]()

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return httpx.Response(500)

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http:
        place = Place(http, "http://gateway", operator()["authorization"].removeprefix("Bearer "))
        with pytest.raises(CheckFailedError, match="answered 500 instead of 200 or 401 or 403"):
            await place.use_own_project()
    assert asked == ["GET"]


@pytest.mark.medium
def test_smoke_with_a_token_that_only_reads_fails_in_each_check_that_writes(api: ServerClient) -> None:
    """With what the server says, and exit status 1."""
    ran = smoke(str(api.http.base_url), token=mint_token(Scope.READ))
    assert ran.returncode == 1
    [line] = [line for line in ran.stdout.splitlines() if " create " in line]
    assert line.startswith("FAIL")
    assert "answered 403 instead of 201" in line


def test_smoke_of_no_server_and_with_wrong_options_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed check, and no traceback; wrong options are exit status 2."""
    ran = smoke("http://127.0.0.1:1")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.splitlines()[0].startswith("FAIL")
    assert ran.stdout.splitlines()[-1].startswith("0 passed, 1 failed")
    for options, token in (([], ""), (["--url", "ftp://a"], ""), (["--url", "http://a"], "no token")):
        monkeypatch.setenv("TOKEN", token)
        with pytest.raises(SystemExit, match="2"):
            parse_options(options)


class DenyingSession:
    """A session of AWS's SDK whose every call is denied."""

    def client(self, _service: str, **_: object) -> "DenyingSession":
        """A client of any service."""
        return self

    def get_secret_value(self, **_: object) -> None:
        """What Secrets Manager does."""
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetSecretValue")


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [({"OperatorSecretArn": "arn"}, "AccessDeniedException"), ({}, "no output OperatorSecretArn")],
)
def test_smoke_says_why_it_has_no_operators_token(
    outputs: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, as for other options that do not do; with a token of its own it needs no secret."""
    stack = Stack(DenyingSession(), {"StreamUrl": "http://a/v1/stream/", **outputs})
    monkeypatch.setattr("tools.smoke.__main__.find_stack", lambda *_: stack)
    monkeypatch.setenv("TOKEN", "")
    with pytest.raises(SystemExit, match="2"):
        parse_options(["--stack", "fluvial"])
    said = capsys.readouterr().err
    assert reason in said
    assert "give a TOKEN" in said
    monkeypatch.setenv("TOKEN", mint_token(Scope.WRITE))
    assert parse_options(["--stack", "fluvial"]).token == os.environ["TOKEN"]


def gateway(*, hangs: Callable[[httpx.Request], bool]) -> httpx.MockTransport:
    """Answers as a server with one empty stream does, but some answers never end."""

    async def handle(request: httpx.Request) -> httpx.Response:
        if hangs(request):
            await asyncio.Event().wait()
        fields = {"etag": '"t"', "stream-next-offset": "0"}
        return httpx.Response(201 if request.method == "PUT" else 200, headers=fields, json=[])

    return httpx.MockTransport(handle)


async def test_smoke_finds_an_empty_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streaming function's 304, and the 204 of its long-poll, are what a gateway may hold for ever."""

    def is_empty(request: httpx.Request) -> bool:
        return "if-none-match" in request.headers or request.url.params.get("live") == "long-poll"

    def open_fake(**_: int) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=gateway(hangs=is_empty))

    monkeypatch.setattr("tools.smoke.live_checks.open_client", open_fake)
    async with open_fake() as http:
        place = Place(http, "http://gateway", waits=SHORT)
        for check in (check_unchanged, check_long_poll_timeout):
            with pytest.raises(CheckFailedError, match="no whole answer within"):
                await check(place)


async def test_smoke_finds_a_gateway_that_collects_an_event_stream() -> None:
    """Then the first event comes late, at the end at best: the report says that nothing came."""

    def is_live(request: httpx.Request) -> bool:
        return "live=sse" in str(request.url)

    out = io.StringIO()
    async with httpx.AsyncClient(transport=gateway(hangs=is_live)) as http:
        report = Report(limit_s=0.05, out=out)
        assert not await report.run("event stream", check_event_stream(Place(http, "http://gateway", waits=SHORT)))
    assert "nothing for 0 s" in out.getvalue()


async def test_report_counts_verdicts_and_is_good_only_if_something_passed() -> None:
    """A skipped check is no success. Times come from the clock that it is given."""

    async def passes() -> str:
        return "note"

    async def skips() -> str:
        raise CheckSkippedError("needs more")

    async def fails() -> str:
        answer = httpx.Response(500, text="why", request=httpx.Request("GET", "http://a/b"))
        return expect(answer, 200).text

    out, times = io.StringIO(), iter([0.0, 1.5, 2.0, 2.25, 3.0, 3.25])
    report = Report(out=out, now_s=lambda: next(times))
    assert await report.run("skips", skips())
    assert not report.is_good
    assert await report.run("passes", passes())
    assert report.is_good
    assert not await report.run("fails", fails())
    assert not report.is_good
    assert report.verdicts == {Verdict.PASSED: 1, Verdict.FAILED: 1, Verdict.SKIPPED: 1}
    lines = out.getvalue().splitlines()
    assert lines[0] == "skip    1.50 s  skips                    needs more"
    assert lines[2].endswith("GET /b answered 500 instead of 200: why")
    assert report.summary() == "1 passed, 1 failed, 1 skipped in 2.0 s"


async def test_check_that_raises_anything_is_a_failed_check() -> None:
    """A broken server may answer with JSON of another kind; the checks after it must still run."""

    async def looks_into_a_list() -> str:
        answer: Any = [1]
        return str(answer["next"])

    out = io.StringIO()
    report = Report(out=out)
    assert not await report.run("odd", looks_into_a_list())
    assert "TypeError" in out.getvalue()
    assert report.verdicts == {Verdict.FAILED: 1}


async def test_clean_up_goes_on_after_a_deletion_that_fails_and_names_what_stays() -> None:
    """A connection that breaks leaves one stream, and no other."""
    deleted = list[str]()

    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "DELETE":
            deleted.append(path.rpartition("/")[2])
            if path.endswith("breaks"):
                raise httpx.ReadError("reset", request=request)
            return httpx.Response(403 if path.endswith("stays") else 204, text="not yours")
        return httpx.Response(401 if path == "/v1/streams" else 201)

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http:
        place = Place(http, "http://gateway", operator()["authorization"].removeprefix("Bearer "), run="smoke")
        await place.use_own_project()
        for name in ("breaks", "stays", "goes"):
            await place.create(name)
        with pytest.raises(CheckFailedError) as caught:
            await place.clean_up()
    assert deleted == ["breaks", "stays", "goes", "smoke"]
    assert str(caught.value) == (
        "not deleted: /smoke/streams/breaks (ReadError: reset), /smoke/streams/stays (403 not yours)"
    )


async def test_smoke_that_is_cancelled_deletes_its_streams(api: ServerClient) -> None:
    """As by Ctrl-C, in the middle of a long-poll."""
    report = Report(out=io.StringIO())
    token = mint_token(Scope.WRITE)
    options = Options(str(api.http.base_url), token, None, None, SHORT, burst=0, with_suite=False)
    running = asyncio.create_task(run(options, report))
    while await asyncio.to_thread(names_and_projects, api) == ([], ["demo", "other"]):
        pass
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(names_and_projects, api) == ([], ["demo", "other"])
