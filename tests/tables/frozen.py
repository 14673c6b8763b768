"""A table and a bucket as a file: what a release has written, to be put before later releases.

python -m tests.tables.frozen    # writes format_1.json anew, by the code of that release
"""

import base64
import json
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import boto3

from tests.support.clocks import START_MS
from tests.tables.releases import FORMAT_1, OtherRelease, extract_package, running_release, shared_table

FORMAT_1_FILE: Final = Path(__file__).with_name("format_1.json")

#: The streams of the file: one with segments and payloads in the table, one that was moved into the bucket, and one
#: with more producers than fit into a head.
FILLED, CLOSED, PRODUCERS = "old/filled", "old/closed", "old/producers"
PRODUCER_COUNT: Final = 20

#: The sizes of the batches of FILLED and CLOSED: payloads are in the table and in the bucket, and segments and the
#: buffer point to them.
SIZES: Final = (100, 700, 400, 400, 5_000, 20_000, 301_000, 300, 400, 400, 600, 100)


def batch(number: int, size: int) -> bytes:
    """The batch of a number: its bytes tell one from another."""
    return (b"<%d>" % number).ljust(size, bytes([97 + number % 26]))


def filled_bytes() -> bytes:
    """The bytes of FILLED and of CLOSED."""
    return b"".join(batch(number, size) for number, size in enumerate(SIZES))


def fill(release: OtherRelease) -> None:
    """Let a release write the streams of the file."""
    for name in (FILLED, CLOSED, PRODUCERS):
        release.do("create", name)
    for name in (FILLED, CLOSED):
        for number, size in enumerate(SIZES):
            release.append(name, batch(number, size))
    release.do("close", CLOSED)
    for number in range(PRODUCER_COUNT):
        release.append(PRODUCERS, b"%02d" % number, producer=f"p{number}")


def dump(environment: dict[str, str]) -> dict[str, Any]:
    """All items and objects, as JSON."""
    table = boto3.client("dynamodb", endpoint_url=environment["FLUVIAL_ENDPOINT_URL"])
    s3 = boto3.client("s3", endpoint_url=environment["FLUVIAL_S3_ENDPOINT_URL"])
    items = table.scan(TableName=environment["FLUVIAL_TABLE"], ConsistentRead=True)["Items"]
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=environment["FLUVIAL_BUCKET"]).get("Contents", [])]
    objects = {}
    for key in keys:
        found = s3.get_object(Bucket=environment["FLUVIAL_BUCKET"], Key=key)
        objects[key] = {"body": _pack(found["Body"].read()), "metadata": found["Metadata"]}
    items.sort(key=lambda item: (item["pk"]["S"], item["sk"]["S"]))
    return {"items": [_encode(item) for item in items], "objects": objects}


def load(path: Path, environment: dict[str, str]) -> None:
    """Put what a file has into a table and a bucket."""
    content = json.loads(path.read_text())
    table = boto3.client("dynamodb", endpoint_url=environment["FLUVIAL_ENDPOINT_URL"])
    s3 = boto3.client("s3", endpoint_url=environment["FLUVIAL_S3_ENDPOINT_URL"])
    for item in content["items"]:
        table.put_item(TableName=environment["FLUVIAL_TABLE"], Item=_decode(item))
    for key, one in content["objects"].items():
        body, metadata = _unpack(one["body"]), one["metadata"]
        s3.put_object(Bucket=environment["FLUVIAL_BUCKET"], Key=key, Body=body, Metadata=metadata)


def _pack(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _unpack(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def _encode(value: Any) -> Any:  # noqa: ANN401  DynamoDB's own attribute values
    """An item or a value with its bytes as text."""
    match value:
        case bytes():
            return _pack(value)
        case dict():
            return {name: _encode(one) for name, one in value.items()}
        case list():
            return [_encode(one) for one in value]
        case _:
            return value


def _decode(value: Any, kind: str = "") -> Any:  # noqa: ANN401  DynamoDB's own attribute values
    match value:
        case str() if kind == "B":
            return _unpack(value)
        case dict():
            return {name: _decode(one, name) for name, one in value.items()}
        case list():
            return [_decode(one) for one in value]
        case _:
            return value


def main() -> None:
    """Write the file."""
    with TemporaryDirectory() as folder, shared_table() as environment:
        with running_release(extract_package(FORMAT_1, Path(folder)), environment, START_MS) as release:
            fill(release)
        content = dump(environment)
    FORMAT_1_FILE.write_text(json.dumps(content, indent=1) + "\n")
    sys.stdout.write(f"{len(content['items'])} items, {len(content['objects'])} objects\n")


if __name__ == "__main__":
    main()
