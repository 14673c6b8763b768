"""The public conformance suite for servers (npm), against any server: below a prefix, and with a token."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.smoke.report import CheckFailedError, CheckSkippedError

FOLDER: Final = Path(__file__).parents[2] / "tests" / "conformance"
SUITE_TIMEOUT_S: Final = 1_800.0
#: For the tests that set no limit of their own: vitest's 5 s are short for a hundred requests to another continent.
TEST_TIMEOUT_MS: Final = 60_000
_NAMES_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """How many tests passed, the names of those that did not, and what the runner printed."""

    passed_count: int
    failed: Sequence[str]
    output: str


async def run_suite(
    url: str, long_poll_s: float, prefix: str = "", token: str | None = None, *, has_subscriptions: bool = False
) -> SuiteResult:
    """Run the suite, whose streams get a prefix and whose requests a token. Raises CheckSkippedError without Node.

    With `has_subscriptions` the server may send webhooks to this machine.
    """
    if not (FOLDER / "node_modules" / ".bin" / "vitest").exists():
        raise CheckSkippedError("needs Node: make tests/conformance/node_modules/.installed")
    environment = {
        **os.environ,
        "FLUVIAL_URL": url,
        "FLUVIAL_PREFIX": prefix,
        "FLUVIAL_TOKEN": token or "",
        "FLUVIAL_LONG_POLL_TIMEOUT": str(long_poll_s),
        "FLUVIAL_SUBSCRIPTIONS": "true" if has_subscriptions else "false",
        "NO_COLOR": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        process = await asyncio.create_subprocess_exec(
            *("npx", "vitest", "run", "--reporter=default", "--reporter=json", f"--outputFile.json={result}"),
            f"--testTimeout={TEST_TIMEOUT_MS}",
            cwd=FOLDER,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        text = output.decode(errors="replace")
        if not result.exists():
            raise CheckFailedError(f"the suite did not run: {text[-2_000:]}")
        found = json.loads(result.read_bytes())
    tests = [test for file in found["testResults"] for test in file["assertionResults"]]
    failed = [test["fullName"] for test in tests if test["status"] == "failed"]
    return SuiteResult(found["numPassedTests"], failed, text)


async def check_suite(url: str, long_poll_s: float, prefix: str, token: str | None) -> str:
    """The whole suite passes."""
    result = await run_suite(url, long_poll_s, prefix, token)
    if result.failed or not result.passed_count:
        shown = "; ".join(result.failed[:_NAMES_SHOWN_MAX])
        raise CheckFailedError(f"{len(result.failed)} of its tests failed, {result.passed_count} passed: {shown}")
    return f"{result.passed_count} tests"
