"""The relay's container file, tested without a container: the files that it copies, and the command that it runs."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from fluvial.clock import Clock
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints
from tests.access.clients import bearer, mint_token
from tests.aws_local.__main__ import local_aws
from tests.support.access import project
from tests.support.commands import append_commit, close_commit, create_commit
from tests.support.rigs import dynamodb_local_url
from tests.support.servers import start_python, stop_at_exit

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "packaging" / "relay.Containerfile").read_text().splitlines()
READERS = 40


def test_files_that_the_container_file_copies_exist() -> None:
    """Their paths are relative to the repository's root."""
    copied = [line.split()[1] for line in LINES if line.startswith("COPY ")]
    assert copied == ["shared/requirements.txt", "shared/fluvial"]
    assert all((ROOT / path).exists() for path in copied)


@pytest.mark.slow
async def test_relay_serves_many_readers_and_rejects_writes(tmp_path: Path) -> None:
    """The container's own command serves appends of another process to its readers, and stops at SIGTERM."""
    [command] = [json.loads(line.removeprefix("CMD ")) for line in LINES if line.startswith("CMD ")]
    variables = dict(line.removeprefix("ENV ").split("=", 1) for line in LINES if line.startswith("ENV "))
    name = StreamName("demo/news")
    with local_aws(dynamodb_local_url()) as environment:
        endpoints = Endpoints(environment["FLUVIAL_ENDPOINT_URL"], environment["FLUVIAL_S3_ENDPOINT_URL"])
        store = DynamoDbStore(
            DynamoDbConfig(environment["FLUVIAL_TABLE"], environment["FLUVIAL_BUCKET"], endpoints), Clock()
        )
        await store.projects.put(project())
        await store.apply(name, create_commit(body=b"first,"))
        assert command[0] == "python"
        with stop_at_exit(
            start_python([*command[1:], "--port", "0"], tmp_path / "relay.log", environment | variables)
        ) as relay:

            async def read(client: httpx.AsyncClient) -> str:
                url = f"{relay.url}/v1/stream/{name}?offset=-1&live=sse"
                return (await client.get(url)).text

            async def count_live_reads() -> int:
                return int((await client.get(f"{relay.url}/health")).json()["liveReads"])

            limits = httpx.Limits(max_connections=READERS + 1)
            async with httpx.AsyncClient(timeout=30, limits=limits, headers=bearer(mint_token())) as client:
                anonymous = {"authorization": ""}
                assert (await client.get(f"{relay.url}/v1/stream/{name}", headers=anonymous)).status_code == 401
                assert (await client.put(f"{relay.url}/v1/stream/other")).status_code == 405
                readers = [asyncio.create_task(read(client)) for _ in range(READERS)]
                while await count_live_reads() < READERS:
                    pass
                await store.apply(name, append_commit(b"second"))
                await store.apply(name, close_commit())
                for text in await asyncio.gather(*readers):
                    assert "first," in text
                    assert text.count("second") == 1
                    assert '"streamClosed":true' in text
            assert relay.terminate() == 0
        await store.close()
