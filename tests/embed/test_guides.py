"""The programs in docs/embedding.md and docs/lambda-client.md, as they are printed there."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fluvial import lambda_client

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]


def programs(guide: str) -> list[str]:
    """The Python programs of a guide."""
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / guide).read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


def ids(program: str) -> str:
    """A program by what it defines last."""
    names: list[str] = re.findall(r"(?:def|class|with) (\w+)", program)
    return names[-1] if names else "program"


EMBEDDING = programs("embedding.md")
SCRIPTS = [program for program in EMBEDDING if "def test_" not in program]
TESTS = [program for program in EMBEDDING if "def test_" in program]


@pytest.mark.parametrize("program", SCRIPTS, ids=ids)
def test_program_of_the_embedding_guide_runs(program: str) -> None:
    """From its first line to its last."""
    exec(compile(program, "docs/embedding.md", "exec"), {"__name__": "guide"})  # noqa: S102  our own text


@pytest.mark.medium
def test_tests_of_the_embedding_guide_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a module of its own."""
    for number, text in enumerate(TESTS):
        pytester.makepyfile(**{f"test_guide_{number}": text})
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "shared"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the others take most of the time
    pytester.runpytest_subprocess("-p", "fluvial.testing").assert_outcomes(passed=len(TESTS))


class Services:
    """Lambda and SQS: a stream takes appends until it is closed."""

    def __init__(self) -> None:
        """`closed` are the closed streams."""
        self.closed = set[str]()

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803  boto3's own names
        """Append or publish."""
        assert FunctionName == "a function"
        event, answer = json.loads(Payload), dict[str, Any](tailOffset="1", closed=False)
        if event["stream"] in self.closed:
            answer = {"error": {"code": "STREAM_CLOSED", "message": "the stream is closed"}}
        self.closed |= {event["stream"]} if event["close"] else set()
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> dict[str, str]:  # noqa: N803  likewise
        """Take a message."""
        assert json.loads(MessageBody)["idempotencyKey"]
        return {"MessageId": QueueUrl}


@pytest.mark.parametrize("program", programs("lambda-client.md"), ids=ids)
def test_program_of_the_lambda_guide_runs(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against services that answer as the functions do."""
    services = Services()
    monkeypatch.setattr(lambda_client, "boto3_client", lambda _timeout_s: services)
    monkeypatch.setattr(lambda_client, "_service", lambda _name: services)
    for name in ("PUBLISH_FUNCTION", "APPEND_FUNCTION", "QUEUE_URL"):
        monkeypatch.setenv(name, "a function")
    found = dict[str, Any]()
    exec(compile(program, "docs/lambda-client.md", "exec"), found)  # noqa: S102  our own text
    if "handler" in found:
        assert found["handler"]({"id": "1"}, None) == {"offset": "1"}


def test_template_of_the_lambda_guide_is_the_examples() -> None:
    """But for the comments and what the example says more."""
    [shown] = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/lambda-client.md").read_text(), re.MULTILINE | re.DOTALL)
    template = (ROOT / "examples/lambda-publisher/template.yaml").read_text()
    lines = {line.partition(" #")[0].rstrip() for line in template.splitlines()}
    assert set(shown.splitlines()) <= lines
