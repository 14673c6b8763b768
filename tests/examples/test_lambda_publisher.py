"""The example application whose function publishes: its own test, its template, and its parameters."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.aws_local.template import load_template

EXAMPLE = Path(__file__).parents[2] / "examples" / "lambda-publisher"


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short functions, e.g. `!Ref Name`, as a pair."""


_Loader.add_multi_constructor("!", lambda _loader, name, node: (name, node.value))


@pytest.fixture
def template() -> dict[str, Any]:
    """The application's template."""
    found: dict[str, Any] = yaml.load((EXAMPLE / "template.yaml").read_text(), _Loader)  # noqa: S506  a safe loader
    return found


def test_parameters_are_outputs_of_the_stack(template: dict[str, Any]) -> None:
    """By the same names, so that one command hands them over."""
    assert template["Parameters"].keys() <= load_template()["Outputs"].keys()


def test_function_fits_the_layer_and_may_only_publish(template: dict[str, Any]) -> None:
    """The layer is of one Python and one processor."""
    function, ours = template["Resources"]["OrdersFunction"]["Properties"], load_template()
    assert function["Runtime"] in ours["Resources"]["FluvialLayer"]["Properties"]["CompatibleRuntimes"]
    assert function["Architectures"] == ours["Resources"]["FluvialLayer"]["Properties"]["CompatibleArchitectures"]
    assert function["Policies"] == [{"LambdaInvokePolicy": {"FunctionName": ("Ref", "PublishFunctionName")}}]
    waits = ours["Resources"]["SubscriptionFunction"]["Properties"]["Timeout"]
    assert function["Timeout"] > waits


@pytest.mark.slow
def test_examples_own_test_passes() -> None:
    """As its README says how to run it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "test_orders.py"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=EXAMPLE, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
