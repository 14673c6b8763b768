"""The template's logs: one level for all functions, and a line for each request if it is asked for."""

from tests.aws_local.template import load_template


def test_log_level_reaches_every_function() -> None:
    """The live function is a server with settings of its own; the others log with Powertools."""
    variables = load_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["FLUVIAL_LOG_LEVEL"] == variables["POWERTOOLS_LOG_LEVEL"] == {"Ref": "LogLevel"}


def test_stack_is_a_dimension_of_every_metric() -> None:
    """Two stacks in one account do not add up."""
    variables = load_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["FLUVIAL_STACK"] == {"Ref": "AWS::StackName"}
