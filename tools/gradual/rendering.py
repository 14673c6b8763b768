"""Renders the variant of template.yaml with aliases, gradual deployments and SnapStart (decision 0018).

SAM takes no condition for an alias, so no parameter can leave it out: the template itself has none.
"""

import json
from typing import Any, Final

Template = dict[str, Any]

ALIAS: Final = "live"

#: The functions that events reach by an alias; the others run once a day or at a deployment.
ALIASED: Final = (
    "EdgeFunction",
    "LiveFunction",
    "AppendFunction",
    "SocketsFunction",
    "SubscriptionFunction",
    "FanoutFunction",
    "ChangesFunction",
)

#: The functions for whose start somebody waits. The live function is a server beside Lambda's own runtime, and nobody
#: says what a snapshot of one is like.
SNAPSHOT: Final = ("EdgeFunction", "AppendFunction", "SocketsFunction", "SubscriptionFunction")

PARAMETERS: Final[Template] = {
    "Deployment": {
        "Type": "String",
        "Default": "Canary10Percent10Minutes",
        "AllowedValues": [
            "AllAtOnce",
            "Canary10Percent5Minutes",
            "Canary10Percent10Minutes",
            "Canary10Percent15Minutes",
            "Canary10Percent30Minutes",
            "Linear10PercentEvery1Minute",
            "Linear10PercentEvery2Minutes",
            "Linear10PercentEvery3Minutes",
            "Linear10PercentEvery10Minutes",
        ],
        "Description": "How CodeDeploy shifts events to a new version of the functions",
    },
    "SnapStart": {
        "Type": "String",
        "Default": "None",
        "AllowedValues": ["None", "PublishedVersions"],
        "Description": "Whether new environments start from a snapshot, which is billed by its size and time",
    },
}

_ALARM: Final = "AWS::CloudWatch::Alarm"

#: Metrics whose alarms stop a deployment and roll it back.
_STOPPING: Final = frozenset({"Errors", "Faults", "LoggedErrors"})

#: Properties that take a function's name for the function itself, and so would pass its alias by.
_INVOKES: Final = frozenset({"FLUVIAL_APPEND_FUNCTION", "FunctionName"})


def render_gradual(template: Template, stamp: str) -> Template:
    """The variant of a template whose functions are in their long form.

    `stamp` must be new in its first ten characters: they become the name of the version, which CloudFormation publishes
    when it does not know the name yet. SAM's own hash leaves out parameters, with whose change nothing would happen.
    """
    rendered: Template = json.loads(json.dumps(template))
    rendered["Parameters"] |= PARAMETERS
    for name, resource in rendered["Resources"].items():
        if resource["Type"] == _ALARM or name == "ConcurrencyFunction":
            continue  # which are about functions, whatever their versions
        resource["Properties"] = _by_alias(resource.get("Properties", {}))
    for name, output in rendered["Outputs"].items():
        if not name.endswith("FunctionName"):  # a policy takes the name for all aliases
            output["Value"] = _by_alias(output["Value"])
    for name in ALIASED:
        properties = rendered["Resources"][name]["Properties"]
        variables = properties.setdefault("Environment", {}).setdefault("Variables", {})
        variables["FLUVIAL_RELEASE"] = stamp  # Lambda publishes no version of what has not changed
        properties |= {
            "AutoPublishAlias": ALIAS,
            "AutoPublishCodeSha256": stamp,
            "VersionDeletionPolicy": "Delete",  # after the shift; a snapshot is billed as long as its version is there
            "DeploymentPreference": {
                "Type": {"Ref": "Deployment"},
                "Alarms": [{"Ref": alarm} for alarm in find_alarms(rendered, name)],
            },
        }
        if name in SNAPSHOT:
            properties["SnapStart"] = {"ApplyOn": {"Ref": "SnapStart"}}
    return rendered


def find_alarms(template: Template, function: str) -> list[str]:
    """The alarms of a function that stop its deployment."""
    service = template["Resources"][function]["Properties"]["Handler"].partition(".")[0].partition("/")[0]
    found = list[str]()
    for name, resource in template["Resources"].items():
        if resource["Type"] != _ALARM or resource["Properties"]["MetricName"] not in _STOPPING:
            continue
        dimensions = {one["Name"]: one["Value"] for one in resource["Properties"]["Dimensions"]}
        if dimensions.get("FunctionName") == {"Ref": function} or dimensions.get("service") == service:
            found.append(name)
    return found


def _by_alias(value: Any, key: str = "") -> Any:  # noqa: ANN401  the template's own types
    """A value in which the functions' ARNs are those of their aliases."""
    match value:
        case {"Fn::GetAtt": [function, "Arn"]} if function in ALIASED:
            return {"Ref": f"{function}.Alias"}
        case {"Ref": function} if function in ALIASED and key in _INVOKES:
            return {"Ref": f"{function}.Alias"}
        case dict():
            return {name: _by_alias(one, name) for name, one in value.items()}
        case list():
            return [_by_alias(one, key) for one in value]
        case _:
            return value
