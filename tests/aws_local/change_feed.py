"""The table's stream on one machine: DynamoDB Local's records, as Lambda hands them to a function."""

import json
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from tests.aws_local.template import load_properties


@dataclass
class ChangeFeedReader:
    """Reads a table's stream from its beginning; what the function's filter lets pass, in order."""

    client: Any
    table: str
    _iterators: dict[str, str | None] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """What is new since the last call."""
        found = list[dict[str, Any]]()
        for shard in self._shards():
            iterator = self._iterators[shard]
            while iterator is not None:
                answer = self.client.get_records(ShardIterator=iterator, Limit=1_000)
                found += map(as_lambda_has_it, answer["Records"])
                iterator = self._iterators[shard] = answer.get("NextShardIterator")
                if not answer["Records"]:
                    break
        return [record for record in found if passes_filter(record)]

    def _shards(self) -> list[str]:
        [stream] = self.client.list_streams(TableName=self.table)["Streams"]
        arn = stream["StreamArn"]
        described = self.client.describe_stream(StreamArn=arn)["StreamDescription"]
        names = [shard["ShardId"] for shard in described["Shards"]]
        for name in names:
            if name not in self._iterators:
                first = self.client.get_shard_iterator(StreamArn=arn, ShardId=name, ShardIteratorType="TRIM_HORIZON")
                self._iterators[name] = first["ShardIterator"]
        return names


def as_lambda_has_it(record: dict[str, Any]) -> dict[str, Any]:
    """A record in Lambda's JSON: bytes are base64, the moment is a number."""

    def spelt(value: object) -> object:
        return b64encode(value).decode() if isinstance(value, bytes) else str(value)

    as_json: dict[str, Any] = json.loads(json.dumps(record, default=spelt))
    for image in ("OldImage", "NewImage"):
        for value in as_json["dynamodb"].get(image, {}).values():
            if not value:
                value["M"] = {}  # DynamoDB Local leaves out an empty map; DynamoDB does not
    return as_json


def passes_filter(record: dict[str, Any]) -> bool:
    """Whether the template's filter lets a record pass."""
    mapping = load_properties("AWS::Lambda::EventSourceMapping")["ChangeSource"]
    [one] = mapping["FilterCriteria"]["Filters"]
    sort = record["dynamodb"]["Keys"]["sk"]["S"]
    rules = json.loads(one["Pattern"])["dynamodb"]["Keys"]["sk"]["S"]
    return any(sort == rule if isinstance(rule, str) else sort.startswith(rule["prefix"]) for rule in rules)
