"""The template's logs: one level for all functions, and a line for each request if it is asked for."""

from tests.aws_local.template import load_template


def test_log_level_reaches_every_function() -> None:
    """The live function is a server with settings of its own; the others log with Powertools."""
    variables = load_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["FLUVIAL_LOG_LEVEL"] == variables["POWERTOOLS_LOG_LEVEL"] == {"Ref": "LogLevel"}


def test_stages_that_log_are_made_after_the_role_with_which_they_log() -> None:
    """API Gateway refuses such a stage in an account that has no role for logs. Both stages wait for their group."""
    resources = load_template()["Resources"]
    for name, key in (("Api", "AccessLogSetting"), ("SocketApi", "AccessLogSettings")):
        condition, settings, otherwise = resources[name]["Properties"][key]["Fn::If"]
        assert (condition, otherwise) == ("LogsAccess", {"Ref": "AWS::NoValue"})
        assert settings["DestinationArn"] == {"Fn::GetAtt": ["AccessLogGroup", "Arn"]}
    assert resources["AccessLogGroup"]["DependsOn"] == "ApiAccount"


def test_stack_is_a_dimension_of_every_metric() -> None:
    """Two stacks in one account do not add up."""
    variables = load_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["FLUVIAL_STACK"] == {"Ref": "AWS::StackName"}
