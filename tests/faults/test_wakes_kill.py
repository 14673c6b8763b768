"""Webhooks to a hostile receiver, from a server that is killed at random.

The receiver is slow, broken, redirects inward, answers nonsense, calls back twice, late, or never. In the end every
append is acked, and no callback of a stale generation was ever accepted.
"""

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.budget import luck, seeds
from tests.support.ports import free_port
from tests.support.servers import RunningServer, start_server, stop_at_exit

PATHS = [f"jobs/{name}" for name in "abcd"]
SUBSCRIPTION = "/v1/stream/__ds/subscriptions/soak"
ROUNDS = 8
LEASE_MS = 1_000

#: How long a wake may take in the end: the longest pause between two attempts, a lease, and a busy machine.
SETTLED_WITHIN_S = 150.0


@dataclass
class HostileReceiver:
    """What has come, and what was acked; `is_hostile` until the end."""

    random: random.Random
    is_hostile: bool = True
    newest: int = 0
    wakes: list[dict[str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def take(self, wake: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        """The answer to a webhook: its status, header fields and body."""
        with self.lock:
            self.newest = max(self.newest, wake["generation"])
            self.wakes.append(wake)
            kind = self.random.randrange(9) if self.is_hostile else 0
            old = self.random.choice(self.wakes)
        match kind:
            case 0 | 1:
                return 200, {}, b'{"done": true}'
            case 2:
                return 500, {}, b"broken"
            case 3:
                return 307, {"Location": "http://169.254.169.254/latest/meta-data"}, b""
            case 4:
                return 200, {}, b'{"done": "' + b"x" * 200_000
            case 5:
                self.ended.wait(2 * LEASE_MS / 1_000)  # longer than the lease
                return 200, {}, b'{"done": true}'
            case 6:
                for _ in range(2):
                    self.call_back(wake)
                return 202, {}, b""
            case 7:
                self.call_back(old)
                return 202, {}, b""
            case _:
                return 202, {}, b""

    def call_back(self, wake: dict[str, Any]) -> None:
        """Call back, and note when a stale generation is let in."""
        acks = [{"stream": one["path"], "offset": one["tail_offset"]} for one in wake["streams"]]
        body = {"wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": True}
        token = {"authorization": f"Bearer {wake['callback_token']}"}
        newest = self.newest
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.post(wake["callback_url"], json=body, headers=token, timeout=5)
            if answer.status_code == 200 and wake["generation"] < newest:
                self.violations.append(f"generation {wake['generation']} was accepted after {newest}")


@contextlib.contextmanager
def receiving(receiver: HostileReceiver) -> Iterator[str]:
    """The URL of the receiver, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        """Answers webhooks."""

        def do_POST(self) -> None:
            """Answer one."""
            body = self.rfile.read(int(self.headers["content-length"]))
            status, fields, answer = receiver.take(json.loads(body))
            with contextlib.suppress(OSError):  # the server may have been killed, or have given up
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    finally:
        receiver.ended.set()
        server.shutdown()
        server.server_close()


def start(folder: Path, port: int) -> RunningServer:
    """The server at a port, so that callbacks find it after a restart."""
    return start_server(folder, "--port", str(port), "--webhooks-to-localhost", "--log-level", "warning")


def append(url: str, path: str) -> None:
    """Append, unless the server is just being killed."""
    text = {"content-type": "text/plain"}
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{url}/v1/stream/{path}", content=b"x", headers=text, timeout=5)


def is_settled(url: str) -> bool:
    """Whether every stream is acked up to its tail, and nothing is awaited."""
    shown = httpx.get(url + SUBSCRIPTION, timeout=5).json()
    acked = {one["path"]: one["acked_offset"] for one in shown["streams"]}
    tails = {path: httpx.head(f"{url}/v1/stream/{path}", timeout=5).headers["stream-next-offset"] for path in PATHS}
    return acked == tails


@luck
@pytest.mark.slow
@seeds(1)
def test_every_append_is_acked_in_spite_of_kills_and_a_hostile_receiver(seed: int, tmp_path: Path) -> None:
    """See the module."""
    chance, port = random.Random(seed), free_port()
    receiver = HostileReceiver(random.Random(seed + 1))
    with receiving(receiver) as target, contextlib.ExitStack() as opened:
        server = start(tmp_path / "data", port)
        body = {"type": "webhook", "pattern": "jobs/*", "webhook": {"url": target}, "lease_ttl_ms": LEASE_MS}
        assert httpx.put(server.url + SUBSCRIPTION, json=body).status_code == 201
        for path in PATHS:
            made = httpx.put(f"{server.url}/v1/stream/{path}", content=b"x", headers={"content-type": "text/plain"})
            assert made.status_code == 201
        for _ in range(ROUNDS):
            before = len(receiver.wakes)
            for _ in range(chance.randrange(1, 5)):
                append(server.url, chance.choice(PATHS))
            if chance.random() < 0.5:
                until = time.monotonic() + 2 * LEASE_MS / 1_000
                while len(receiver.wakes) == before and time.monotonic() < until:
                    append(server.url, chance.choice(PATHS))
            server.kill()
            server = start(tmp_path / "data", port)
        opened.enter_context(stop_at_exit(server))
        receiver.is_hostile = False
        receiver.ended.set()
        until = time.monotonic() + SETTLED_WITHIN_S
        while not is_settled(server.url):
            assert time.monotonic() < until, httpx.get(server.url + SUBSCRIPTION).text
        assert receiver.violations == []
        assert receiver.newest > 1
        assert "Traceback" not in server.log
