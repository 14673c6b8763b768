"""DynamoDB Local: fetched with Maven, run with Java."""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

HERE = Path(__file__).parent
LIBRARIES = HERE / "lib"
MARK = LIBRARIES / ".installed"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class NotInstallableError(Exception):
    """What it takes is not on this machine."""


def install() -> None:
    """Fetch it once. Raises NotInstallableError without Java and Maven."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        raise NotInstallableError(f"DynamoDB Local needs {' and '.join(missing)}")
    if MARK.exists() and MARK.stat().st_mtime >= (HERE / "pom.xml").stat().st_mtime:
        return
    command = ["mvn", "-B", "-q", "-ntp", COPY, "-DincludeScope=runtime", f"-DoutputDirectory={LIBRARIES}"]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=600, check=False)
    if ran.returncode != 0:
        raise NotInstallableError(f"Maven failed: {ran.stdout[-2_000:]}")
    MARK.touch()


def is_required() -> bool:
    """Whether its absence is a failure: in CI, where a skipped test would hide one."""
    return bool(os.environ.get("CI"))


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()  # noqa: S310  http on this machine
    except urllib.error.HTTPError:
        return True  # it wants to see credentials
    except OSError:
        return False
    return True


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """The URL of an empty one that is gone at the end of the block. Raises NotInstallableError."""
    install()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBRARIES}/*"]
    command += ["software.amazon.dynamodb.services.local.main.ServerRunner"]
    command += ["-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends_at = time.monotonic() + START_TIMEOUT_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > ends_at:
                raise NotInstallableError("DynamoDB Local did not start")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
