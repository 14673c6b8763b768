"""The template's concurrency: it deploys into a new account, and readers cannot stop writers."""

import json
from typing import Any

from tests.aws_local.template import load_properties, load_template

FUNCTION = "AWS::Serverless::Function"


def test_no_function_reserves_concurrency_by_itself() -> None:
    """A new account has ten, and CloudFormation fails if a reservation leaves fewer than a hundred to all others."""
    template = load_template()
    for name, properties in load_properties(FUNCTION).items():
        if "ReservedConcurrentExecutions" not in properties:
            continue
        condition, reserved, otherwise = properties["ReservedConcurrentExecutions"]["Fn::If"]
        assert otherwise == {"Ref": "AWS::NoValue"}, name
        parameter = reserved["Ref"]
        assert template["Parameters"][parameter]["Default"] == 0, name
        assert template["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, 0]}]}, name


def test_readers_are_limited_by_default() -> None:
    """A custom resource has the concurrency function reserve for the live function, as much as the account allows."""
    template = load_template()
    assert template["Parameters"]["ReserveConcurrency"]["Default"] == "true"
    [resource] = load_properties("AWS::CloudFormation::CustomResource").values()
    variables = load_properties(FUNCTION)["ConcurrencyFunction"]["Environment"]["Variables"]
    assert variables["FLUVIAL_LIVE_FUNCTION"] == {"Ref": "LiveFunction"}
    decided = {"Fn::If": ["ReservesLive", "template", {"Fn::If": ["ReservesForReaders", "auto", "none"]}]}
    assert variables["FLUVIAL_RESERVATION"] == resource["Reservation"] == decided


def test_concurrency_function_runs_at_each_deployment() -> None:
    """CloudFormation updates a custom resource only when a property changes; SAM names each API deployment anew."""
    [resource] = load_properties("AWS::CloudFormation::CustomResource").values()
    assert resource["Deployment"] == {"Ref": "Api.Deployment"}
    assert load_properties("AWS::Serverless::Api")["Api"]["AlwaysDeploy"] is True


def test_deployment_does_not_wait_long_for_the_concurrency_function() -> None:
    """CloudFormation waits an hour for a resource without a time-out of its own."""
    [resource] = load_properties("AWS::CloudFormation::CustomResource").values()
    assert load_properties(FUNCTION)["ConcurrencyFunction"]["Timeout"] < resource["ServiceTimeout"] <= 300


def test_queues_have_a_bound_of_their_own() -> None:
    """Lambda polls a queue with up to 1,250 invocations at once unless it is told otherwise."""
    sources: dict[str, Any] = load_properties("AWS::Lambda::EventSourceMapping")
    of_queues = [one for one in sources.values() if "Queue" in json.dumps(one["EventSourceArn"])]
    assert len(of_queues) == 2
    for one in of_queues:
        assert one["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "QueueConcurrency"}}


def test_alarm_tells_before_the_account_has_no_concurrency_left() -> None:
    """Its threshold is four fifths of what the account has."""
    alarm = load_properties("AWS::CloudWatch::Alarm")["ConcurrencyNearLimit"]
    assert alarm["MetricName"] == "ClaimedAccountConcurrency"
    assert alarm["Threshold"] == {"Fn::GetAtt": ["ReaderConcurrency", "AlarmAt"]}
