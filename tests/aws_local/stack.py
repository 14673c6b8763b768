"""The template's stack in moto's CloudFormation: its queues, topic and rule, and outputs that name all its parts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.aws_local.template import load_properties, load_template

#: Much shorter than the template's, so that a failed message comes again soon.
VISIBILITY_TIMEOUT_S: Final = 10

#: A function cannot be subscribed in moto, so queues take what SNS and EventBridge send to it (sources.py).
RESOURCES: Final[dict[str, Any]] = {
    **{
        name: {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": VISIBILITY_TIMEOUT_S}}
        for name in ("PublicationQueue", "FanoutQueue", "TopicDeliveries", "BusDeliveries")
    },
    "PublicationTopic": {
        "Type": "AWS::SNS::Topic",
        "Properties": {"Subscription": [{"Protocol": "sqs", "Endpoint": {"Fn::GetAtt": ["TopicDeliveries", "Arn"]}}]},
    },
}


@dataclass(frozen=True)
class LocalStack:
    """What the functions and the sources need of the stack."""

    name: str
    fan_out_url: str
    publications_url: str
    topic_deliveries_url: str
    bus_deliveries_url: str
    operator_secret_arn: str


def create_stack(client: Callable[[str], Any], name: str, stream_url: str, storage: tuple[str, str]) -> LocalStack:
    """Create the stack. `client` makes a client of a service; `storage` is the names of the table and the bucket."""
    [length] = [
        secret["GenerateSecretString"]["PasswordLength"]
        for secret_name, secret in load_properties("AWS::SecretsManager::Secret").items()
        if secret_name == "OperatorSecret"
    ]
    secrets = client("secretsmanager")
    password = secrets.get_random_password(PasswordLength=length, ExcludePunctuation=True)["RandomPassword"]
    secret_arn = str(secrets.create_secret(Name=f"{name}-operator", SecretString=password)["ARN"])
    function = "arn:aws:lambda:eu-central-1:123456789012:function:"
    outputs: dict[str, Any] = {
        "StreamUrl": stream_url,
        "SocketUrl": stream_url.replace("http", "ws", 1).removesuffix("/v1/stream/"),
        "OperatorSecretArn": secret_arn,
        "AppendFunctionArn": f"{function}append",
        "AppendFunctionName": "append",
        "PublishFunctionArn": f"{function}subscription",
        "PublishFunctionName": "subscription",
        "LayerArn": "arn:aws:lambda:eu-central-1:123456789012:layer:fluvial:1",
        "PublicationQueueUrl": {"Ref": "PublicationQueue"},
        "PublicationTopicArn": {"Ref": "PublicationTopic"},
        "TableName": storage[0],
        "BucketName": storage[1],
    }
    hidden = {queue: {"Ref": queue} for queue in ("FanoutQueue", "TopicDeliveries", "BusDeliveries")}
    body = {
        "Resources": {**RESOURCES, "Bus": _rule()},
        "Outputs": {key: {"Value": value} for key, value in {**outputs, **hidden}.items()},
    }
    clouds = client("cloudformation")
    clouds.create_stack(StackName=name, TemplateBody=json.dumps(body))
    [described] = clouds.describe_stacks(StackName=name)["Stacks"]
    found = {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}
    return LocalStack(
        name,
        found["FanoutQueue"],
        found["PublicationQueueUrl"],
        found["TopicDeliveries"],
        found["BusDeliveries"],
        secret_arn,
    )


def _rule() -> dict[str, Any]:
    """The template's rule on the default bus, whose target is a queue here."""
    functions = load_template()["Resources"]["SubscriptionFunction"]["Properties"]
    pattern = functions["Events"]["Bus"]["Properties"]["Pattern"]
    target = {"Id": "deliveries", "Arn": {"Fn::GetAtt": ["BusDeliveries", "Arn"]}}
    return {"Type": "AWS::Events::Rule", "Properties": {"EventPattern": pattern, "Targets": [target]}}
