"""The layer is all that a function has: with nothing else each one starts, makes its clients, and answers an event."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from fluvial.access.tokens import Claims, mint
from fluvial.model.permissions import Scope
from fluvial.model.project import parse_secret
from tests.aws_local.__main__ import CREDENTIALS, local_aws
from tests.aws_local.template import load_template
from tests.deploy.built import BUILT, ROOT
from tests.functions.conftest import events
from tests.support.ports import free_port

# One worker runs them all, because each worker would build a layer of its own.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("layer"), pytest.mark.usefixtures("built")]

OPERATOR_SECRET = "p" * 32
START_TIMEOUT_S = 60

#: The package makes clients by name, except those of Powertools' providers.
CLIENT = re.compile(r"""(?:client|create_client|_client|_service)\(\s*"([a-z0-9]+)"|(SecretsProvider)\(""")

#: Calls a handler with the events of standard input, and prints what it returns.
CALL = """
import importlib, json, sys
from types import SimpleNamespace
context = SimpleNamespace(
    function_name="f", memory_limit_in_mb=512, invoked_function_arn="arn:aws:lambda:eu-central-1:1:function:f",
    aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000,
)
handler = importlib.import_module(sys.argv[1] + ".handler").handler
assert "fastapi" not in sys.modules, "it would be imported at each start"
sys.stdout.write("\\n" + json.dumps([handler(event, context) for event in json.load(sys.stdin)]))
"""


def functions() -> dict[str, str]:
    """The handler's package of each function of the template that Python starts."""
    resources = load_template()["Resources"]
    handlers = {
        name: resource["Properties"]["Handler"].partition(".")[0]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Serverless::Function" and resource["Properties"]["Handler"].endswith(".handler")
    }
    assert len(handlers) >= 7, "the functions of the template"
    return handlers


def clients() -> set[str]:
    """The services of which the package makes clients, read from its code."""
    found = set[str]()
    for path in (ROOT / "shared" / "fluvial").rglob("*.py"):
        found |= {match[1] or "secretsmanager" for match in CLIENT.finditer(path.read_text())}
    assert {"apigatewaymanagementapi", "dynamodb", "lambda", "s3", "secretsmanager", "sqs"} <= found
    assert {"events", "sns"} <= found, "of fluvial.lambda_client, in users' functions"
    return found


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment of functions whose AWS is moto."""
    with local_aws() as settings:
        moto = settings["FLUVIAL_S3_ENDPOINT_URL"]
        secret = boto3.client("secretsmanager", endpoint_url=moto).create_secret(
            Name=settings["FLUVIAL_TABLE"], SecretString=OPERATOR_SECRET
        )
        queue = boto3.client("sqs", endpoint_url=moto).create_queue(QueueName=settings["FLUVIAL_TABLE"])
        yield {
            **settings,
            "AWS_ENDPOINT_URL": moto,
            "PATH": "/usr/bin:/bin",
            "FLUVIAL_ACCESS": "projects",
            "FLUVIAL_APPEND_FUNCTION": "append",
            "FLUVIAL_CONNECTIONS_URL": f"{moto}/live",
            "FLUVIAL_FANOUT_QUEUE_URL": queue["QueueUrl"],
            "FLUVIAL_LIVE_FUNCTION": "live",
            "FLUVIAL_OPERATOR_SECRET_ARN": secret["ARN"],
            "FLUVIAL_RESERVATION": "auto",
            "LAMBDA_TASK_ROOT": "/var/task",
            "POWERTOOLS_METRICS_NAMESPACE": "Fluvial",
        }


def run_python(layer: Path, folder: Path, program: str, *arguments: str, env: dict[str, str], stdin: str = "") -> str:
    """Run a program with nothing on its path but the layer and a function's folder; what it prints."""
    path = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(layer)!r}]\n"
    command = [sys.executable, "-I", "-S", "-c", path + program, *arguments]
    ran = subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


def call(layer: Path, function: str, event: Any, environment: dict[str, str]) -> Any:  # noqa: ANN401  JSON
    """What a built function answers to an event."""
    name = next(name for name, package in functions().items() if package == function)
    printed = run_python(layer, BUILT / name, CALL, function, env=environment, stdin=json.dumps([event]))
    return json.loads(printed.splitlines()[-1])[0]


def is_reported(function: str, event: dict[str, Any]) -> bool:
    """Whether a failure is in the function's answer: there is no append function here that it could invoke."""
    return function != "subscription" or event.get("Records", [{}])[0].get("eventSource") == "aws:sqs"


def test_layer_is_the_package_that_is_deployed(layer: Path) -> None:
    """The layer for this machine has the modules of the built one."""
    deployed = BUILT / "FluvialLayer" / "python" / "fluvial"
    here = {path.relative_to(layer / "fluvial") for path in (layer / "fluvial").rglob("*.py")}
    assert here == {path.relative_to(deployed) for path in deployed.rglob("*.py")}


def test_every_client_can_be_made_from_the_layer(layer: Path) -> None:
    """The layer leaves out botocore's data of other services alone."""
    program = "import botocore.session as b\nfor name in sys.argv[1:]: b.get_session().create_client(name)\n"
    run_python(layer, layer, program, *sorted(clients()), env={**CREDENTIALS, "PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("function", sorted(set(functions().values())))
def test_function_answers_its_events_from_the_layer_alone(
    function: str, layer: Path, environment: dict[str, str]
) -> None:
    """It starts without FastAPI, and answers each of its sample events, though none of their streams exists."""
    own = [json.loads(path.read_text()) for path in events() if path.stem.startswith(f"{function}_")]
    own = [event for event in own if is_reported(function, event)]
    assert own, "a sample event in events/"
    name = next(name for name, package in functions().items() if package == function)
    answers = json.loads(
        run_python(layer, BUILT / name, CALL, function, env=environment, stdin=json.dumps(own)).splitlines()[-1]
    )
    for answer in answers:
        assert answer.get("statusCode", 200) < 500, answer


def test_edge_function_answers_an_operator_from_the_layer_alone(layer: Path, environment: dict[str, str]) -> None:
    """The operators' secret is loaded with a client that the layer has the data for."""
    claims = Claims(sub="*", scope=Scope.MANAGE, exp=time.time() + 600)
    token = mint(parse_secret(OPERATOR_SECRET, 0), claims)
    event = json.loads((ROOT / "events" / "edge_get_health.json").read_text())
    path = "/v1/projects"
    event["path"] = event["requestContext"]["path"] = path
    event["multiValueHeaders"]["Authorization"] = [f"Bearer {token}"]
    answer = call(layer, "edge", event, environment)
    assert answer["statusCode"] == 200, answer


def test_live_function_starts_from_the_layer_alone_and_without_fastapi(
    layer: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Its script keeps the user's PYTHONPATH, and no start is billed for an import that reads never need."""
    python, port = tmp_path / "python3", free_port()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    script = BUILT / "LiveFunction" / load_template()["Resources"]["LiveFunction"]["Properties"]["Handler"]
    env = {**environment, "PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(layer), "AWS_LWA_PORT": str(port)}
    process = subprocess.Popen([script], env=env, start_new_session=True)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=START_TIMEOUT_S) as client:
            answer = client.get(f"http://127.0.0.1:{port}/v1/stream/demo/nothing")
        assert answer.status_code == 401, answer.text
        assert "pydantic_core" not in Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(START_TIMEOUT_S)
