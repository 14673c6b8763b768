"""Processes of other releases: their code comes from the history of this repository."""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any, Final

import boto3

from fluvial.clock import Clock
from fluvial.storage.dynamodb.bucket_owner import OWNER_KEY
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints
from tests.aws_local.__main__ import local_aws
from tests.support.rigs import dynamodb_local_url

ROOT: Final = Path(__file__).parents[2]

#: The last commit whose items have format 1. It is named by its id, since no tag says it.
FORMAT_1: Final = "c2287b447cace88adc35d516f213e6e5861180b4"

ANSWER_S_MAX: Final = 60


class WorkerError(Exception):
    """A command has failed in another release's process; the text is the name of the error there."""


@dataclass(frozen=True)
class OtherRelease:
    """A process of another release on a table."""

    process: subprocess.Popen[str]

    def do(self, command: str, name: str = "", **parameters: object) -> Any:  # noqa: ANN401  the command's own answer
        """Carry out a command there; its answer. Raises WorkerError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = json.dumps({"do": command, "name": name, **parameters})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        too_late = Timer(ANSWER_S_MAX, self.process.kill)
        too_late.start()
        try:
            answer = json.loads(self.process.stdout.readline())
        finally:
            too_late.cancel()
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["answer"]

    def append(self, name: str, data: bytes, **parameters: object) -> bool:
        """Append there; whether the commit was applied."""
        return bool(self.do("append", name, data=base64.b64encode(data).decode(), **parameters))

    def read(self, name: str) -> bytes:
        """The stream's bytes as that release reads them."""
        return base64.b64decode(self.do("read", name))


def is_in_history(commit: str) -> bool:
    """Whether this clone has a commit: a shallow one, or a source distribution, has not."""
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, check=False
    )
    return found.returncode == 0


def extract_package(commit: str, folder: Path) -> Path:
    """Extract the package as it was in a commit; the folder to import it from."""
    command = ["git", "archive", commit, "shared/fluvial"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return folder / "shared"


@contextmanager
def running_release(package: Path, environment: Mapping[str, str], now_ms: int) -> Iterator[OtherRelease]:
    """Run a process of a release for the block."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("worker.py"))],
        env={"PATH": os.environ["PATH"], **environment, "PYTHONPATH": str(package), "NOW_MS": str(now_ms)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield OtherRelease(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(ANSWER_S_MAX)
        finally:
            process.kill()
            process.stdout.close()


@contextmanager
def shared_table() -> Iterator[dict[str, str]]:
    """A table on AWS's own engine and a bucket behind a port, so that other processes reach both."""
    with local_aws(dynamodb_local_url()) as environment:
        yield environment


def open_store(environment: Mapping[str, str], clock: Clock) -> DynamoDbStore:
    """A store of this release on a shared table, with its background tasks."""
    endpoints = Endpoints(
        environment["FLUVIAL_ENDPOINT_URL"], environment["FLUVIAL_S3_ENDPOINT_URL"], environment["AWS_REGION"]
    )
    config = DynamoDbConfig(
        environment["FLUVIAL_TABLE"], environment["FLUVIAL_BUCKET"], endpoints, runs_background_tasks=True
    )
    return DynamoDbStore(config, clock)


def list_items(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """All items of a shared table but that with the table's own id, read without a store."""
    client = boto3.client("dynamodb", endpoint_url=environment["FLUVIAL_ENDPOINT_URL"])
    found: list[dict[str, Any]] = client.scan(TableName=environment["FLUVIAL_TABLE"], ConsistentRead=True)["Items"]
    return [item for item in found if item["pk"]["S"] != "TABLE"]


def list_objects(environment: Mapping[str, str]) -> list[str]:
    """The keys of all objects of a shared bucket but the one that names its owner."""
    client = boto3.client("s3", endpoint_url=environment["FLUVIAL_S3_ENDPOINT_URL"])
    listed = client.list_objects_v2(Bucket=environment["FLUVIAL_BUCKET"]).get("Contents", [])
    return [one["Key"] for one in listed if one["Key"] != OWNER_KEY]
