"""Reads template.yaml, and creates its table on this machine."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[2] / "template.yaml"


class _Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short functions: `!Ref X` becomes {"Ref": "X"}.

    The parser is the one in C: every process of a function reads the template.
    """


def _construct_function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    match node:
        case yaml.ScalarNode():
            value = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case yaml.MappingNode():
            value = loader.construct_mapping(node, deep=True)
        case _:
            raise AssertionError(node)
    name = suffix if suffix in {"Condition", "Ref"} else f"Fn::{suffix}"
    return {name: value.split(".", 1) if suffix == "GetAtt" and isinstance(value, str) else value}


_Loader.add_multi_constructor("!", _construct_function)


@cache
def load_template() -> dict[str, Any]:
    """The template with functions in their long form; YAML resolves its anchors and merge keys, as it does for SAM."""
    template: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)  # noqa: S506  a CSafeLoader
    return template


def load_properties(resource_type: str) -> dict[str, dict[str, Any]]:
    """The properties of the template's resources of one type, by their names."""
    resources = load_template()["Resources"].items()
    return {name: resource["Properties"] for name, resource in resources if resource["Type"] == resource_type}


def function_variables(handler: str) -> dict[str, str]:
    """The variables that the template gives a function as they are, without those that refer to other resources."""
    functions = load_properties("AWS::Serverless::Function").values()
    [function] = [one for one in functions if one["Handler"] == handler]
    shared = load_template()["Globals"]["Function"]["Environment"]["Variables"]
    variables = {**shared, **function.get("Environment", {}).get("Variables", {})}
    return {name: value for name, value in variables.items() if isinstance(value, str)}


def parameter_default(name: str) -> str:
    """The default of one of the template's parameters."""
    return str(load_template()["Parameters"][name]["Default"])


def create_table(client: Any, name: str) -> None:  # noqa: ANN401  boto3 makes its clients' classes at run time
    """Create the template's table with those of its properties that an engine on one machine knows."""
    properties = load_properties("AWS::DynamoDB::Table")["StreamTable"]
    passed = ("AttributeDefinitions", "BillingMode", "GlobalSecondaryIndexes", "KeySchema")
    stream = {**properties["StreamSpecification"], "StreamEnabled": True}
    client.create_table(TableName=name, StreamSpecification=stream, **{key: properties[key] for key in passed})
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
