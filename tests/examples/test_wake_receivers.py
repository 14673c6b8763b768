"""The receivers of docs/webhooks.md, in Python and in Node, woken by a server, with good requests and forged ones."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import httpx
import pytest

from fluvial.webhooks.signature import make_key, sign
from tests.examples.programs import EXAMPLES, application, program
from tests.support.servers import RunningServer, running_server

pytestmark = pytest.mark.medium

NODE = shutil.which("node")
WITHIN_S = 30
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that may send to this machine."""
    with running_server(tmp_path_factory.mktemp("wakes") / "data", "--webhooks-to-localhost") as running:
        yield running


def start(language: str, server: RunningServer) -> AbstractContextManager[str]:
    """Start a receiver; its URL."""
    if language == "python":
        return application("wake-receiver", "receiver:app", FLUVIAL_URL=server.url)
    if NODE is None and "CI" not in os.environ:
        pytest.skip("there is no Node")
    return program("node", "receiver.mjs", folder=EXAMPLES / "wake-receiver", FLUVIAL_URL=server.url, PORT="0")


@pytest.mark.parametrize("language", ["python", "node"])
def test_receiver_is_woken_and_acks(language: str, server: RunningServer) -> None:
    """Each append is acked. The verifier is ours in Python, and Node's own in Node."""
    streams = f"{server.url}/v1/stream"
    subscription, stream = f"{streams}/__ds/subscriptions/{language}", f"{streams}/{language}/a"
    with start(language, server) as url, httpx.Client() as client:
        asked = {"type": "webhook", "pattern": f"{language}/*", "webhook": {"url": f"{url}/hook"}}
        assert client.put(subscription, json=asked).status_code == 201
        client.put(stream, headers=JSON, content=b"[]").raise_for_status()
        for number in range(3):
            appended = client.post(stream, headers=JSON, content=b'{"n":%d}' % number)
            wait_for_ack(client, subscription, appended.headers["stream-next-offset"])
        assert client.get(subscription).json()["status"] == "active"


def wait_for_ack(client: httpx.Client, subscription: str, offset: str) -> None:
    """Wait until a subscription's stream is acked up to an offset."""
    began, acked = time.monotonic(), ""
    while acked != offset:
        assert time.monotonic() - began < WITHIN_S, client.get(subscription).text
        acked = "".join(link["acked_offset"] for link in client.get(subscription).json()["streams"])


@pytest.mark.parametrize("language", ["python", "node"])
def test_receiver_refuses_forged_requests(language: str, server: RunningServer) -> None:
    """Of another key, of another body, of a former time, and without a signature."""
    now_ms, body = time.time_ns() // 1_000_000, b'{"streams":[]}'
    httpx.get(f"{server.url}/v1/stream/__ds/jwks.json").raise_for_status()
    forged = [
        "",
        "t=1,kid=k,ed25519=s",
        sign(make_key(now_ms), body, now_ms),
        sign(make_key(0), body, now_ms - 400_000),
    ]
    with start(language, server) as url, httpx.Client() as client:
        for signature in forged:
            answer = client.post(f"{url}/hook", content=body, headers={"webhook-signature": signature})
            assert answer.status_code == 401, signature
        assert client.post(f"{url}/hook", content=body).status_code == 401
        assert client.post(f"{url}/hook", content=bytes(1_000_001)).status_code == 413
