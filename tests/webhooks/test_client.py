"""The webhook client and hostile receivers, over real sockets."""

import asyncio
import gzip
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from fluvial.webhooks.addresses import Address
from fluvial.webhooks.client import WebhookClient
from fluvial.webhooks.errors import WebhookError, WebhookErrorKind
from fluvial.webhooks.exchange import Exchange
from fluvial.webhooks.limits import WEBHOOK_LIMITS
from fluvial.webhooks.target import Target
from tests.support.certificates import Authority
from tests.support.receivers import (
    Behaviour,
    Receiver,
    answers,
    answers_without_end,
    hang,
    never_read,
    receiver,
    trickles,
)

FIELDS = {"Content-Type": "application/json", "Webhook-Signature": "t=1,kid=k,ed25519=s"}
DONE = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"done": true}'

#: Short waits, for receivers that never answer; the others answer long before.
IMPATIENT = replace(WEBHOOK_LIMITS, connect_s=0.2, write_s=0.2, first_byte_s=0.2, whole_s=0.5)

PUBLIC = ip_address("2606:4700::1111")


def local_client(**more: object) -> WebhookClient:
    """A client that may send to this machine."""
    return WebhookClient(**{"allow_localhost": True, **more})  # type: ignore[arg-type]


def answering(*addresses: str) -> Callable[[str], Awaitable[tuple[Address, ...]]]:
    """A resolver with one answer to all questions."""

    async def resolve(_: str) -> tuple[Address, ...]:
        return tuple(map(ip_address, addresses))

    return resolve


async def failure(client: WebhookClient, url: str, body: bytes = b"{}") -> WebhookErrorKind:
    """Why a webhook does not arrive."""
    with pytest.raises(WebhookError) as failed:
        await client.post(url, body, FIELDS)
    return failed.value.kind


async def test_request_is_a_plain_post_and_its_answer_is_read() -> None:
    """Every byte of the request is known: no cookie, no coding, no connection that is kept."""
    async with receiver(answers(DONE)) as running:
        answer = await local_client().post(f"{running.url}?a=%20b", b'{"x":1}', FIELDS)
    assert (answer.status, answer.body) == (200, b'{"done": true}')
    [request] = running.requests
    assert request.split(b"\r\n") == [
        b"POST /hook?a=%20b HTTP/1.1",
        f"Host: 127.0.0.1:{running.port}".encode(),
        b"Content-Type: application/json",
        b"Webhook-Signature: t=1,kid=k,ed25519=s",
        b"User-Agent: fluvial",
        b"Accept: application/json",
        b"Accept-Encoding: identity",
        b"Connection: close",
        b"Content-Length: 7",
        b"",
        b'{"x":1}',
    ]


async def test_each_request_has_a_connection_and_no_cookie() -> None:
    """Although the receiver offers both."""
    kept = b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\nConnection: keep-alive\r\n\r\n"
    async with receiver(answers(kept)) as running:
        client = local_client()
        assert [(await client.post(running.url, b"", FIELDS)).status for _ in range(2)] == [204, 204]
        assert running.connections == 2
    assert not [request for request in running.requests if b"ookie" in request]


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to other addresses than the one that was checked."""
    async with receiver(answers(DONE)) as running, receiver(answers(DONE)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await local_client().post(running.url, b"", FIELDS)).status == 200
        assert (running.connections, proxy.connections) == (1, 0)


async def test_localhost_is_both_addresses_of_this_machine() -> None:
    """The receiver listens on one of them; `localhost` is not looked up."""

    async def resolve(name: str) -> tuple[Address, ...]:
        raise AssertionError(name)

    async with receiver(answers(DONE)) as running:
        url = f"http://localhost:{running.port}/"
        assert (await local_client(resolve=resolve).post(url, b"", FIELDS)).status == 200


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int) -> None:
    """Neither inward nor anywhere: the redirect is the answer."""
    async with receiver(answers(DONE)) as inner:
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {inner.url}\r\nContent-Length: 0\r\n\r\n".encode()
        async with receiver(answers(moved)) as running:
            assert (await local_client().post(running.url, b"{}", FIELDS)).status == status
        assert inner.connections == 0


#: Addresses of a name, of which at least one is not public.
INWARD = [
    ("127.0.0.1",),
    ("::1",),
    ("169.254.169.254",),
    ("fd00:ec2::254",),
    ("10.0.0.1",),
    ("8.8.8.8", "192.168.0.1"),
    ("2606:4700::1111", "::ffff:127.0.0.1"),
    ("64:ff9b::7f00:1",),
    ("2002:7f00:1::1",),
    ("fe80::1%2",),
    ("0.0.0.0",),  # noqa: S104  an answer of DNS
    ("::",),
]


@pytest.mark.parametrize("addresses", INWARD, ids=str)
@pytest.mark.parametrize("allow_localhost", [False, True])
async def test_name_with_an_inward_address_gets_no_connection(
    addresses: tuple[str, ...], *, allow_localhost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even to its other addresses, and not where localhost is allowed: the exception is for its own name."""
    connected = record_connections(monkeypatch)
    client = WebhookClient(allow_localhost=allow_localhost, resolve=answering(*addresses))
    assert await failure(client, "https://worker.example/") is WebhookErrorKind.TARGET
    assert connected == []


def record_connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuse all connections, and list where they would have gone to."""
    connected = list[str]()

    async def refuse(host: str, port: int, **_: object) -> None:
        connected.append(f"{host} {port}")
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", refuse)
    return connected


async def test_answer_that_changes_after_the_check_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once for a request, and the connection is to that address. The next request asks again."""
    connected, asked = record_connections(monkeypatch), list[str]()

    async def rebind(name: str) -> tuple[Address, ...]:
        asked.append(name)
        return (PUBLIC,) if len(asked) == 1 else (ip_address("127.0.0.1"),)

    client = WebhookClient(allow_localhost=False, resolve=rebind)
    assert await failure(client, "https://worker.example:444/") is WebhookErrorKind.CONNECT
    assert await failure(client, "https://worker.example:444/") is WebhookErrorKind.TARGET
    assert asked == ["worker.example"] * 2
    assert connected == [f"{PUBLIC} 444"]


async def test_addresses_are_tried_in_their_order_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may have very many."""
    connected = record_connections(monkeypatch)
    many = [f"8.8.8.{number}" for number in range(50)]
    client = WebhookClient(allow_localhost=False, resolve=answering(*many))
    assert await failure(client, "https://worker.example/") is WebhookErrorKind.CONNECT
    assert connected == [f"{address} 443" for address in many[: WEBHOOK_LIMITS.addresses_tried]]


async def test_url_is_checked_again_at_each_delivery() -> None:
    """A subscription of a time when localhost was allowed sends nothing once it is not."""
    async with receiver(answers(DONE)) as running:
        assert await failure(WebhookClient(allow_localhost=False), running.url) is WebhookErrorKind.TARGET
        assert running.connections == 0


async def test_certificate_is_that_of_the_name_and_not_of_the_address() -> None:
    """The receiver is told the name (SNI), and a certificate of another name is refused before anything is sent."""
    authority, names = Authority(), list[str | None]()
    served = authority.server_context("worker.example")
    served.sni_callback = lambda _socket, name, _context: names.append(name)
    async with receiver(answers(DONE), served) as running:

        async def post(host: str, tls: ssl.SSLContext) -> int:
            target = Target("https", host, running.port, "/")
            exchange = Exchange(target, (ip_address("127.0.0.1"),), tls, WEBHOOK_LIMITS)
            return (await exchange.run(b"{}", FIELDS)).status

        assert await post("worker.example", authority.client_context()) == 200
        for host, tls in (
            ("other.example", authority.client_context()),
            ("127.0.0.1", authority.client_context()),
            ("worker.example", ssl.create_default_context()),
        ):
            with pytest.raises(WebhookError) as failed:
                await post(host, tls)
            assert failed.value.kind is WebhookErrorKind.TLS
    assert names == ["worker.example", "other.example", None, "worker.example"]
    assert len(running.requests) == 1
    assert f"Host: worker.example:{running.port}".encode() in running.requests[0]


async def test_receiver_without_tls_is_refused() -> None:
    """It answers the handshake with text."""
    async with receiver(answers_without_request(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as running:
        url = running.url.replace("http:", "https:")
        assert await failure(local_client(), url) is WebhookErrorKind.TLS


def answers_without_request(answer: bytes) -> Behaviour:
    """A receiver that reads no request."""

    async def behave(_: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()

    return behave


#: Answers that have an end only because the client gives up; and what becomes of the request.
ENDLESS: dict[str, tuple[Behaviour, int | WebhookErrorKind]] = {
    "fields": (answers_without_end(b"HTTP/1.1 200 OK\r\n", b"X-Long: aaaaaaaa\r\n" * 64), WebhookErrorKind.ANSWER),
    "one field": (answers_without_end(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 4_096), WebhookErrorKind.ANSWER),
    "status line": (answers_without_end(b"HTTP/1.1 200 ", b"a" * 4_096), WebhookErrorKind.ANSWER),
    "not even http": (answers_without_end(b"", b"\x00" * 4_096), WebhookErrorKind.ANSWER),
    "empty lines": (answers_without_end(b"", b"\r\n" * 2_048), WebhookErrorKind.ANSWER),
    "interim answers": (
        answers_without_end(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 64),
        WebhookErrorKind.ANSWER,
    ),
    "body": (answers_without_end(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"a" * 4_096), 200),
    "body up to the end": (answers_without_end(b"HTTP/1.0 200 OK\r\n\r\n", b"a" * 4_096), 200),
    "body of a failure": (answers_without_end(b"HTTP/1.1 500 No\r\n\r\n", b"a" * 4_096), 500),
    "chunks": (
        answers_without_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\naaaaa\r\n" * 512),
        200,
    ),
    "small chunks": (
        answers_without_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 512),
        200,
    ),
    "one chunk": (
        answers_without_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b"a" * 4_096),
        200,
    ),
    "chunk extension": (
        answers_without_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"a" * 4_096),
        200,
    ),
    "trailers": (
        answers_without_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: aaa\r\n" * 512),
        200,
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_endless_answer_is_read_up_to_a_limit(name: str) -> None:
    """Of a body that is read, the status counts. The receiver sends no more than buffers of the system hold."""
    behaviour, expected = ENDLESS[name]
    async with receiver(behaviour) as running:
        client = local_client()
        if isinstance(expected, WebhookErrorKind):
            assert await failure(client, running.url) is expected
        else:
            answer = await client.post(running.url, b"{}", FIELDS)
            assert answer.status == expected
            assert len(answer.body) <= WEBHOOK_LIMITS.body_bytes
    assert running.sent_bytes < 32 * 1_048_576


#: Receivers that keep the client waiting.
SLOW: dict[str, Behaviour] = {
    "no answer": hang,
    "fields": trickles(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n"),
    "interim answers": trickles(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "body": trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"a"),
    "body without length": trickles(b"HTTP/1.0 200 OK\r\n\r\n", b"a"),
    "chunks": trickles(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
}


@pytest.mark.parametrize("name", SLOW)
async def test_slow_receiver_is_given_up(name: str) -> None:
    """However little it sends at a time."""
    async with receiver(SLOW[name]) as running:
        assert await failure(local_client(limits=IMPATIENT), running.url) is WebhookErrorKind.TIMEOUT


async def test_receiver_that_does_not_read_is_given_up() -> None:
    """The request is larger than all buffers between."""
    async with receiver(never_read) as running:
        body = bytes(32 * 1_048_576)
        assert await failure(local_client(limits=IMPATIENT), running.url, body) is WebhookErrorKind.TIMEOUT


async def test_receiver_that_does_not_finish_the_handshake_is_given_up() -> None:
    """It accepts the connection, and says nothing."""
    async with receiver(never_read) as running:
        url = running.url.replace("http:", "https:")
        assert await failure(local_client(limits=IMPATIENT), url) is WebhookErrorKind.TIMEOUT


#: Answers that are not HTTP, or not whole.
MALFORMED = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a request": b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a short body": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"done": true}',
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a malformed chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "another protocol from now on": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "interim answers alone": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_answer_is_a_failure(name: str) -> None:
    """Whatever its status says: the webhook comes again."""
    async with receiver(answers(MALFORMED[name])) as running:
        assert await failure(local_client(), running.url) is WebhookErrorKind.ANSWER


async def test_body_is_never_decoded() -> None:
    """So no small answer becomes a large one."""
    bomb = gzip.compress(bytes(2 * 1_048_576))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with receiver(answers(head, bomb)) as running:
        assert (await local_client().post(running.url, b"{}", FIELDS)).body == bomb


async def test_answer_after_interim_ones_counts() -> None:
    """In pieces of any size."""
    parts = [bytes([one]) for one in b"HTTP/1.1 103 Early Hints\r\n\r\n" + DONE]
    async with receiver(answers(*parts)) as running:
        assert (await local_client().post(running.url, b"{}", FIELDS)).body == b'{"done": true}'


async def test_receiver_that_is_away_is_a_failed_connection() -> None:
    """Nothing was sent."""
    async with receiver(answers(DONE)) as running:
        pass
    assert await failure(local_client(), running.url) is WebhookErrorKind.CONNECT


async def test_dead_receiver_delays_no_other() -> None:
    """As many as there may be at a time hang, but for one; one more is refused at once, and not kept waiting."""
    limits = replace(WEBHOOK_LIMITS, requests_at_once=21)
    async with receiver(hang) as dead, receiver(answers(DONE)) as alive:
        client = local_client(limits=limits)
        hanging = [asyncio.create_task(client.post(dead.url, b"{}", FIELDS)) for _ in range(20)]
        while len(dead.requests) < len(hanging):
            assert (await client.post(alive.url, b"{}", FIELDS)).status == 200
        hanging.append(asyncio.create_task(client.post(dead.url, b"{}", FIELDS)))
        await dead.wait_for_requests(len(hanging))
        assert await failure(client, alive.url) is WebhookErrorKind.BUSY
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert (await client.post(alive.url, b"{}", FIELDS)).status == 200
