"""The template's alarms: each failure raises one, and each alarm watches a metric of its own."""

import json

from tests.aws_local.template import load_properties

ALARM = "AWS::CloudWatch::Alarm"


def alarm_dimensions(metric: str, dimension: str) -> set[str]:
    """The values of one dimension of a metric for which there are alarms, as JSON of the template."""
    alarms = [one for one in load_properties(ALARM).values() if one["MetricName"] == metric]
    return {json.dumps(d["Value"]) for one in alarms for d in one["Dimensions"] if d["Name"] == dimension}


def test_every_function_has_an_alarm_for_errors() -> None:
    """An alarm refers to its function by the dimension FunctionName."""
    functions = load_properties("AWS::Serverless::Function")
    assert alarm_dimensions("Errors", "FunctionName") == {json.dumps({"Ref": name}) for name in functions}


def test_every_function_with_reserved_concurrency_has_an_alarm_for_throttles() -> None:
    """Its own limit throttles it, whatever the account's limit is."""
    functions = load_properties("AWS::Serverless::Function")
    reserving = [name for name, properties in functions.items() if "ReservedConcurrentExecutions" in properties]
    assert alarm_dimensions("Throttles", "FunctionName") == {json.dumps({"Ref": name}) for name in reserving}


def test_every_dead_letter_queue_has_an_alarm() -> None:
    """Its first message raises the alarm."""
    queues = [name for name in load_properties("AWS::SQS::Queue") if name.endswith("DeadLetters")]
    names = {json.dumps({"Fn::GetAtt": [name, "QueueName"]}) for name in queues}
    assert alarm_dimensions("ApproximateNumberOfMessagesVisible", "QueueName") == names


def test_no_two_alarms_watch_the_same_metric() -> None:
    """An alarm that repeats another's properties still names a metric or a dimension of its own."""
    alarms = load_properties(ALARM)
    keys = ("Namespace", "MetricName", "Dimensions", "Statistic")
    metrics = {json.dumps([one[key] for key in keys]) for one in alarms.values()}
    assert len(metrics) == len(alarms)


def test_every_alarm_notifies_the_topic() -> None:
    """It does so if the stack has a topic."""
    for name, properties in load_properties(ALARM).items():
        topics = [action["Fn::If"][:2] for action in properties["AlarmActions"]]
        assert topics == [["Notifies", {"Ref": "AlarmTopicArn"}], ["NotifiesByEmail", {"Ref": "AlarmTopic"}]], name


def test_every_function_has_an_alarm_for_logged_errors() -> None:
    """A function that answers 500, or fails in the background, raises nothing that Lambda would count."""
    functions = load_properties("AWS::Serverless::Function").values()
    services = {json.dumps(one["Handler"].partition(".")[0].partition("/")[0]) for one in functions}
    assert alarm_dimensions("LoggedErrors", "service") == services
    assert alarm_dimensions("Faults", "service") == {'"edge"', '"live"'}
    assert alarm_dimensions("Faults", "stack") == {json.dumps({"Ref": "AWS::StackName"})}


def test_dashboard_is_json_with_a_place_for_each_graph() -> None:
    """Its metrics are of this stack."""
    [board] = load_properties("AWS::CloudWatch::Dashboard").values()
    body, _ = board["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(body)["widgets"]
    assert len({(one["x"], one["y"]) for one in widgets}) == len(widgets)
    for one in widgets:
        assert "${" in json.dumps(one["properties"]["metrics"])
