"""`make smoke`: check a deployed server from outside; the exit status is 1 when a check fails, 2 for wrong options."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fluvial.access.tokens import Claims, mint, unverified_project
from fluvial.client.connection import parse_server_url
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.model.project import Secret
from tools.smoke import http_checks, live_checks
from tools.smoke.place import LIFETIME_S, Place, Waits, open_client
from tools.smoke.report import CheckSkippedError, Report
from tools.smoke.stack import DELIVERY_S, Stack, find_stack
from tools.smoke.suite import SUITE_TIMEOUT_S, check_suite

Check = Callable[[Place], Coroutine[Any, Any, str]]

#: In this order: the first three make what the next ones read.
HTTP_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("create", http_checks.check_create),
    ("append", http_checks.check_append),
    ("read", http_checks.check_read),
    ("head", http_checks.check_head),
    ("browsers (CORS)", http_checks.check_browsers),
    ("304", http_checks.check_unchanged),
    ("long-poll, hit", live_checks.check_long_poll_hit),
    ("event stream", live_checks.check_event_stream),
    ("name with %2F", http_checks.check_encoded_name),
    ("binary", http_checks.check_binary),
    ("413", http_checks.check_too_large),
    ("429 of a project", http_checks.check_project_rate),
    ("websocket", live_checks.check_web_socket),
)
STACK_CHECKS: Final[tuple[tuple[str, Callable[[Stack, Place], Coroutine[Any, Any, str]]], ...]] = (
    ("append function", Stack.check_append),
    ("publish function", Stack.check_publish),
    ("publication by SQS", Stack.check_queue),
    ("publication by SNS", Stack.check_topic),
    ("by EventBridge", Stack.check_bus),
)


@dataclass(frozen=True)
class Options:
    """What to check."""

    url: str
    token: str | None
    socket_url: str | None
    stack: Stack | None
    waits: Waits
    burst: int
    with_suite: bool


async def run(options: Options, report: Report) -> None:
    """Run all checks, and delete what they have made, also when this is cancelled."""
    async with open_client() as http:
        place = Place(http, options.url, options.token, options.socket_url, options.waits)
        if not await report.run("health", http_checks.check_health(place)):
            return
        try:
            if place.is_operator and not await report.run("project", place.use_own_project()):
                return
            await _run_checks(place, options, report)
        finally:
            await report.run("clean up", place.clean_up())


async def _run_checks(place: Place, options: Options, report: Report) -> None:
    for name, check in HTTP_CHECKS:
        await report.run(name, check(place))
    limit_s = options.waits.long_poll_s + options.waits.empty_answer_s + report.limit_s
    await report.run("204 of a long-poll", live_checks.check_long_poll_timeout(place), limit_s)
    for name, check_stack in STACK_CHECKS:
        checked = _need_stack() if options.stack is None else check_stack(options.stack, place)
        await report.run(name, checked, 2 * DELIVERY_S)
    await report.run("429 of a burst", http_checks.check_burst(place, options.burst))
    if options.with_suite:
        suite = check_suite(place.url, options.waits.long_poll_s, place.prefix, place.token)
        await report.run("public suite", suite, SUITE_TIMEOUT_S)
        await report.run("streams of the suite", place.note_all_streams())
    await report.run("delete", http_checks.check_delete(place))


async def _need_stack() -> str:
    raise CheckSkippedError("needs STACK")


def parse_options(arguments: list[str] | None = None) -> Options:
    """The options, of which a stack's outputs give those that are left out. Exits with 2 when they do not do."""
    epilog = "The environment variable TOKEN is an operator's token, or one that writes a project."
    parser = argparse.ArgumentParser(prog="smoke", description=__doc__, epilog=epilog)
    parser.add_argument("--url", help="the server's URL, with or without /v1/stream/")
    parser.add_argument("--socket-url", help="the URL of WebSockets, if it is not the stream's")
    parser.add_argument("--stack", help="the CloudFormation stack")
    parser.add_argument("--region", help="the stack's region, if the environment names another")
    parser.add_argument("--long-poll", type=float, default=25.0, help="seconds that a long-poll waits")
    parser.add_argument("--first-event", type=float, default=1.0, help="seconds within which the first event must come")
    parser.add_argument("--burst", type=int, default=0, help="so many requests at once, to see a 429")
    parser.add_argument("--suite", action="store_true", help="run the public conformance suite, too (needs Node)")
    try:
        return _options_of(parser.parse_args(arguments))
    except ValueError as exc:
        parser.error(str(exc))


def _options_of(given: argparse.Namespace) -> Options:
    """Raises ValueError for options that do not do."""
    stack = find_stack(given.stack, given.region) if given.stack else None
    outputs = stack.outputs if stack else {}
    url = given.url or outputs.get("StreamUrl")
    if url is None:
        raise ValueError("give --url or --stack")
    parse_server_url(url)
    token = os.environ.get("TOKEN") or (_operator_token(stack) if stack else None)
    if token is not None and unverified_project(token) is None:
        raise ValueError("TOKEN is not a JSON Web Token")
    socket_url = given.socket_url or outputs.get("SocketUrl")
    waits = Waits(given.long_poll, given.first_event)
    return Options(url, token, socket_url, stack, waits, given.burst, given.suite)


def _operator_token(stack: Stack) -> str:
    """An operator's token, signed with the stack's own secret. Raises ValueError when that cannot be read."""
    now_s = time.time()
    secret = Secret(stack.operator_secret(), int(1_000 * now_s))
    return mint(secret, Claims(sub=OPERATOR, scope=Scope.MANAGE, exp=now_s + LIFETIME_S))


def main() -> int:
    """Run the checks; the exit status."""
    options, report = parse_options(), Report()
    try:
        asyncio.run(run(options, report))
    except KeyboardInterrupt:
        return 130
    finally:
        sys.stdout.write(report.summary() + "\n")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
