"""DynamoDB Local: fetched with Maven, run with Java."""

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

HERE = Path(__file__).parent
LIBRARIES = HERE / "lib"
MARK = LIBRARIES / ".installed"
LAUNCHER = HERE / "Loopback.java"
LAUNCHER_CLASS = LIBRARIES / "Loopback.class"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class NotInstallableError(Exception):
    """What it takes is not on this machine."""


def install() -> None:
    """Fetch it once. Raises NotInstallableError without a Java development kit and Maven."""
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    if missing:
        raise NotInstallableError(f"DynamoDB Local needs {' and '.join(missing)}")
    LIBRARIES.mkdir(exist_ok=True)
    with Path(LIBRARIES, ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that test side by side would copy into the same files
        if not _is_newer(MARK, HERE / "pom.xml"):
            _fetch()
        if not _is_newer(LAUNCHER_CLASS, LAUNCHER):
            _compile_launcher()


def _is_newer(made: Path, source: Path) -> bool:
    return made.exists() and made.stat().st_mtime >= source.stat().st_mtime


def _compile_launcher() -> None:
    command = ["javac", "-d", str(LIBRARIES), "-cp", f"{LIBRARIES}/*", str(LAUNCHER)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ran.returncode != 0:
        raise NotInstallableError(f"javac failed: {ran.stderr[-2_000:]}")


def _fetch() -> None:
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
    command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBRARIES}/*:{LIBRARIES}"]
    command += [LAUNCHER.stem]
    command += ["-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
    # In a session of its own: Ctrl-C is for who uses it, and ends it when they have ended.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
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
