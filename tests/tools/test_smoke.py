"""`make smoke`: it passes against a server, finds what it is for, and leaves nothing behind."""

import asyncio
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tools.smoke.__main__ import Options, parse_options, run
from tools.smoke.http_checks import check_unchanged
from tools.smoke.live_checks import check_event_stream, check_long_poll_timeout
from tools.smoke.place import Place, Waits
from tools.smoke.report import CheckFailedError, CheckSkippedError, Report, Verdict, expect

from fluvial.model.permissions import Scope
from tests.access.clients import ServerClient, mint_token, operator, server_client

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
