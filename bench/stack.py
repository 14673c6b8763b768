"""What template.yaml creates that costs by being there, and how much memory its functions have."""

from collections import Counter
from typing import Any

from tests.aws_local.template import load_properties, load_template

from fluvial.pricing.measured import Stack


def count_stack() -> Stack:
    """As it is deployed with the template's defaults."""
    resources = load_template()["Resources"].values()
    types = Counter(one["Type"] for one in resources if "Condition" not in one or _holds(one))
    return Stack(
        alarms=types["AWS::CloudWatch::Alarm"] + types["AWS::CloudWatch::CompositeAlarm"],
        dashboards=types["AWS::CloudWatch::Dashboard"],
        secrets=types["AWS::SecretsManager::Secret"],
        edge_memory_mb=_memory_mb("EdgeFunction"),
        live_memory_mb=_memory_mb("LiveFunction"),
        changes_memory_mb=_memory_mb("ChangesFunction"),
        deleted_days=_deleted_days(),
    )


def _holds(condition: dict[str, Any]) -> bool:
    """A condition with each parameter's default. A name of a condition comes with the key of a resource, or of `!`."""
    [(function, of)] = [pair for pair in condition.items() if pair[0].endswith("Condition") or len(condition) == 1]
    match function:
        case "Condition" | "Fn::Condition":
            return _holds(load_template()["Conditions"][of])
        case "Fn::Equals":
            first, second = (str(_default(one)) for one in of)
            return first == second
        case "Fn::Not":
            return not _holds(of[0])
        case "Fn::And":
            return all(map(_holds, of))
        case "Fn::Or":
            return any(map(_holds, of))
        case _:
            raise AssertionError(condition)


def _default(value: Any) -> Any:  # noqa: ANN401  YAML's
    return load_template()["Parameters"][value["Ref"]]["Default"] if isinstance(value, dict) else value


def _deleted_days() -> int:
    """How long the bucket keeps what was deleted; AWS bills it as long."""
    rules = load_properties("AWS::S3::Bucket")["SegmentBucket"]["LifecycleConfiguration"]["Rules"]
    [days] = [
        one["NoncurrentVersionExpiration"]["NoncurrentDays"] for one in rules if "NoncurrentVersionExpiration" in one
    ]
    return int(days)


def _memory_mb(function: str) -> int:
    every: dict[str, Any] = load_template()["Globals"]["Function"]
    return int(_default(load_properties("AWS::Serverless::Function")[function].get("MemorySize", every["MemorySize"])))
