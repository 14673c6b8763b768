"""The variant of the template with aliases: events reach an alias, and a function's alarms stop its release."""

import json
from typing import Any

import pytest
import yaml
from tools.gradual.rendering import ALIASED, SNAPSHOT, render_gradual

from tests.aws_local.template import load_template

STAMP = "0123456789abcdef"
#: They run the newest code: a schedule invokes one, CloudFormation and a schedule the other.
NOT_ALIASED = {"SweepFunction", "ConcurrencyFunction"}


@pytest.fixture(scope="module")
def gradual() -> dict[str, Any]:
    """The variant as SAM reads it."""
    rendered: dict[str, Any] = yaml.safe_load(yaml.safe_dump(render_gradual(load_template(), STAMP)))
    return rendered


def references(value: Any, function: str) -> list[Any]:  # noqa: ANN401  the template's own types
    """The references to a function itself, passing its alias by."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), "Arn"]} if name == function:
            return [value]
        case dict():
            return [found for one in value.values() for found in references(one, function)]
        case list():
            return [found for one in value for found in references(one, function)]
        case _:
            return []


def test_every_function_that_events_reach_has_an_alias(gradual: dict[str, Any]) -> None:
    """A new version is published for each rendering, also when nothing but a parameter has changed."""
    functions = {name: one for name, one in gradual["Resources"].items() if one["Type"] == "AWS::Serverless::Function"}
    assert set(ALIASED) == functions.keys() - NOT_ALIASED
    for name, function in functions.items():
        properties = function["Properties"]
        assert ("AutoPublishAlias" in properties) == (name in ALIASED)
        assert ("SnapStart" in properties) == (name in SNAPSHOT)
        if name in ALIASED:
            assert properties["AutoPublishCodeSha256"] == STAMP
            assert properties["Environment"]["Variables"]["FLUVIAL_RELEASE"] == STAMP


def test_nothing_passes_an_alias_by(gradual: dict[str, Any]) -> None:
    """Alarms and the dashboard watch all versions; the reader's concurrency is the function's."""
    allowed = {"AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard"}
    for name, resource in gradual["Resources"].items():
        if resource["Type"] not in allowed and name != "ConcurrencyFunction":
            found = {function for function in ALIASED if references(resource.get("Properties"), function)}
            assert found == set(), name
    outputs = {name for name, one in gradual["Outputs"].items() if any(references(one, f) for f in ALIASED)}
    assert outputs == {"AppendFunctionName", "PublishFunctionName"}


def test_alarms_of_a_function_roll_its_release_back(gradual: dict[str, Any]) -> None:
    """Each has its errors and the errors in its log; the two that answer HTTP also have faults."""
    for name in ALIASED:
        alarms = {one["Ref"] for one in gradual["Resources"][name]["Properties"]["DeploymentPreference"]["Alarms"]}
        prefix = name.removesuffix("Function")
        assert alarms >= {f"{prefix}Errors", f"{prefix}LoggedErrors"}
        assert all(alarm in gradual["Resources"] for alarm in alarms)
        assert (f"{prefix}Faults" in alarms) == (prefix in {"Edge", "Live"})


def test_rest_of_the_template_is_unchanged(gradual: dict[str, Any]) -> None:
    """A deployment may change from the one to the other and back."""
    plain = json.loads(json.dumps(load_template()))
    assert gradual["Resources"].keys() == plain["Resources"].keys()
    assert gradual["Parameters"].keys() == plain["Parameters"].keys() | {"Deployment", "SnapStart"}
    for name in ("StreamTable", "SegmentBucket", "Api", "SweepFunction", "ReaderConcurrency"):
        assert gradual["Resources"][name] == plain["Resources"][name]
