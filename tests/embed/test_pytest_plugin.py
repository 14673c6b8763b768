"""The pytest plugin, in a project of its own."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]

TESTS = """
import urllib.request

import pytest

async def test_async(fluvial):
    stream = fluvial.stream("a")
    await stream.create(content_type="application/json")
    await stream.append_json({"n": 1}, close=True)
    assert [message.json() async for message in stream.follow()] == [{"n": 1}]

def test_plain(fluvial):
    stream = fluvial.stream("a")
    fluvial.run(stream.create(content_type="text/plain", data="hello"))
    with urllib.request.urlopen(fluvial.url + "/v1/stream/a") as answer:
        assert answer.read() == b"hello"
        assert answer.url == fluvial.stream_url + "a"

class TestSettings:
    @pytest.fixture
    def fluvial_settings(self):
        return {"max_body": 1000}

    def test_settings(self, fluvial):
        assert fluvial.settings.max_body == 1000
        assert fluvial.run(fluvial.names()) == []
"""


@pytest.fixture
def installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project in whose environment the package is installed: its entry points are found."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    [(name, module)] = entry_points.items()
    info = pytester.mkdir("site") / "fluvial_installed-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fluvial-installed\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    monkeypatch.setenv("PYTHONPATH", f"{info.parent}:{ROOT / 'shared'}")
    pytester.makepyfile(TESTS)
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    return pytester


def test_fixture_is_an_empty_server_for_each_test(installed: pytest.Pytester) -> None:
    """In plain and in async tests, with the settings of the project's own fixture."""
    others = ("-p", "no:schemathesis", "-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:pytest_cov")
    installed.runpytest_subprocess(*others).assert_outcomes(passed=3)


def test_plugin_imports_the_server_only_for_tests_that_use_it() -> None:
    """Pytest loads it in every run where the package is installed."""
    code = "import sys, pytest; before = set(sys.modules); import fluvial.testing; print(*set(sys.modules) - before)"
    environment = {"PYTHONPATH": str(ROOT / "shared")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert sorted(done.stdout.split()) == ["fluvial", "fluvial.testing"]
