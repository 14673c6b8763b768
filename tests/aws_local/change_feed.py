"""The table's change feed on one machine: DynamoDB Local's stream records, in the form that Lambda gives a function."""

import json
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from tests.aws_local.template import load_properties


@dataclass
class ChangeFeedReader:
    """Reads a table's stream in order from its beginning, and keeps the records that the template's filter passes."""

    client: Any
    table: str
    _iterators: dict[str, str | None] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The new records since the last call."""
        found = list[dict[str, Any]]()
        for shard in self._shards():
            iterator = self._iterators[shard]
            while iterator is not None:
                answer = self.client.get_records(ShardIterator=iterator, Limit=1_000)
                found += map(lambda_record, answer["Records"])
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


def lambda_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record in Lambda's JSON: bytes as base64, and times as text."""

    def encode(value: object) -> object:
        return b64encode(value).decode() if isinstance(value, bytes) else str(value)

    as_json: dict[str, Any] = json.loads(json.dumps(record, default=encode))
    for image in ("OldImage", "NewImage"):
        for value in as_json["dynamodb"].get(image, {}).values():
            if not value:
                value["M"] = {}  # DynamoDB Local omits an empty map, but DynamoDB does not
    return as_json


def passes_filter(record: dict[str, Any]) -> bool:
    """Whether a record passes the filter of the template's event source."""
    mapping = load_properties("AWS::Lambda::EventSourceMapping")["ChangeSource"]
    [one] = mapping["FilterCriteria"]["Filters"]
    sort = record["dynamodb"]["Keys"]["sk"]["S"]
    rules = json.loads(one["Pattern"])["dynamodb"]["Keys"]["sk"]["S"]
    return any(sort == rule if isinstance(rule, str) else sort.startswith(rule["prefix"]) for rule in rules)
