"""Installs DynamoDB Local with Maven, and runs it with Java."""

import fcntl
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
from tests.support.processes import stop_process

HERE = Path(__file__).parent
LIBRARIES = HERE / "lib"
MARK = LIBRARIES / ".installed"
LAUNCHER = HERE / "Loopback.java"
LAUNCHER_CLASS = LIBRARIES / "Loopback.class"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class NotInstallableError(Exception):
    """DynamoDB Local cannot be installed or started on this machine."""


def install() -> None:
    """Download it, unless an earlier call did. Raises NotInstallableError without a Java development kit and Maven."""
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    if missing:
        raise NotInstallableError(f"DynamoDB Local needs {' and '.join(missing)}")
    LIBRARIES.mkdir(exist_ok=True)
    with Path(LIBRARIES, ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes would copy into the same files
        if not _is_newer(MARK, HERE / "pom.xml"):
            _download()
        if not _is_newer(LAUNCHER_CLASS, LAUNCHER):
            _compile_launcher()


def _is_newer(target: Path, source: Path) -> bool:
    return target.exists() and target.stat().st_mtime >= source.stat().st_mtime


def _compile_launcher() -> None:
    command = ["javac", "-d", str(LIBRARIES), "-cp", f"{LIBRARIES}/*", str(LAUNCHER)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ran.returncode != 0:
        raise NotInstallableError(f"javac failed: {ran.stderr[-2_000:]}")


def _download() -> None:
    command = ["mvn", "-B", "-q", "-ntp", COPY, "-DincludeScope=runtime", f"-DoutputDirectory={LIBRARIES}"]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=600, check=False)
    if ran.returncode != 0:
        raise NotInstallableError(f"Maven failed: {ran.stdout[-2_000:]}")
    MARK.touch()


def is_required() -> bool:
    """Whether a missing tool fails a test instead of skipping it: in CI, where a skipped test would hide a failure."""
    return bool(os.environ.get("CI"))


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()  # noqa: S310  http on this machine
    except urllib.error.HTTPError:
        return True  # it rejects the request for its lack of credentials, so it runs
    except OSError:
        return False
    return True


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """Run an empty DynamoDB Local for the block, and yield its URL. Raises NotInstallableError."""
    install()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBRARIES}/*:{LIBRARIES}"]
    command += [LAUNCHER.stem]
    command += ["-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
    # In a session of its own, so that Ctrl-C reaches the caller alone, which stops DynamoDB Local after its other work.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        ends_at = time.monotonic() + START_TIMEOUT_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > ends_at:
                raise NotInstallableError("DynamoDB Local did not start")
            time.sleep(0.05)
        yield url
    finally:
        stop_process(process, STOP_TIMEOUT_S)
