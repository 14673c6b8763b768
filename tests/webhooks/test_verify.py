"""The verifier for receivers, against forged and replayed requests."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from fluvial.client.webhooks import (
    KEY_SET_BYTES_MAX,
    KEY_SET_S,
    REFETCH_S,
    KeysUnavailableError,
    NotVerifiedError,
    WebhookVerifier,
    parse_key_set,
    verify,
)
from fluvial.model.limits import WEBHOOK_REPLAY_S
from fluvial.model.signing_keys import key_set
from fluvial.webhooks.signature import make_key, sign
from tests.support.clocks import START_MS, ManualTime

KEY, OTHER = make_key(START_MS), make_key(START_MS)
KEYS = parse_key_set(key_set((KEY,)))
BODY = b'{"subscription_id":"sub-1","wake_id":"w_1","generation":7}'
SIGNED = sign(KEY, BODY, START_MS)
NOW_S = START_MS / 1_000

TIME, KID, BYTES = SIGNED.split(",")


def test_request_of_the_server_is_verified() -> None:
    """At both ends of the window."""
    for late_s in (0, WEBHOOK_REPLAY_S, -WEBHOOK_REPLAY_S):
        verify(BODY, SIGNED, KEYS, now_s=NOW_S + late_s)


FORGED = {
    "another body": ("not of this body", BODY.replace(b"7", b"8"), SIGNED),
    "a body with a space": ("not of this body", BODY + b" ", SIGNED),
    "no body": ("not of this body", b"", SIGNED),
    "another time": ("not of this body", BODY, f"t={START_MS // 1_000 + 1},{KID},{BYTES}"),
    "a time with a zero": ("not of this body", BODY, f"t=0{START_MS // 1_000},{KID},{BYTES}"),
    "the time of another body": ("not of this body", b"." + BODY, SIGNED),
    "another key's signature": ("not of this body", BODY, f"{TIME},{KID},{sign(OTHER, BODY, START_MS).split(',')[2]}"),
    "an unknown key": ("does not publish", BODY, sign(OTHER, BODY, START_MS)),
    "zeros": ("not of this body", BODY, f"{TIME},{KID},ed25519={'A' * 86}"),
    "a short signature": ("does not have the form", BODY, f"{TIME},{KID},{BYTES[:-1]}"),
    "padding": ("does not have the form", BODY, f"{SIGNED}=="),
    "a second signature": ("does not have the form", BODY, f"{SIGNED},{BYTES}"),
    "a space": ("does not have the form", BODY, SIGNED.replace(",", ", ")),
    "a line break": ("does not have the form", BODY, f"{SIGNED}\n"),
    "another order": ("does not have the form", BODY, f"{KID},{TIME},{BYTES}"),
    "a negative time": ("does not have the form", BODY, SIGNED.replace("t=", "t=-")),
    "other digits": ("does not have the form", BODY, f"t=\u0661,{KID},{BYTES}"),
    "a huge time": ("does not have the form", BODY, f"t={'9' * 5_000},{KID},{BYTES}"),
    "another algorithm": ("does not have the form", BODY, SIGNED.replace("ed25519=", "sha256=")),
    "nothing": ("does not have the form", BODY, ""),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_request_is_refused(name: str) -> None:
    """Whatever the sender has seen of others."""
    reason, body, signature = FORGED[name]
    with pytest.raises(NotVerifiedError, match=reason):
        verify(body, signature, KEYS, now_s=NOW_S)


@pytest.mark.parametrize("late_s", [WEBHOOK_REPLAY_S + 1, -WEBHOOK_REPLAY_S - 1, 86_400, -86_400])
def test_replayed_request_is_refused(late_s: int) -> None:
    """And one of a server whose clock is far ahead."""
    with pytest.raises(NotVerifiedError, match="300 seconds"):
        verify(BODY, SIGNED, KEYS, now_s=NOW_S + late_s)


def test_tolerance_may_be_another() -> None:
    """A receiver that keeps the ids of a longer time may accept older requests."""
    verify(BODY, SIGNED, KEYS, now_s=NOW_S + 3_600, tolerance_s=3_600)
    with pytest.raises(NotVerifiedError):
        verify(BODY, SIGNED, KEYS, now_s=NOW_S + 2, tolerance_s=1)


def test_key_set_may_have_keys_of_other_kinds() -> None:
    """They are left out."""
    document = key_set((KEY,))
    document["keys"] += [{"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"}, {"kty": "OKP", "crv": "X25519"}]
    assert parse_key_set(msgspec.json.encode(document)).keys() == {KEY.kid}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k"}]}',
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "AAAA"}]}',
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": 1}]}',
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "\xc3\xa9"}]}',
    ],
)
def test_malformed_key_set_is_refused(document: bytes) -> None:
    """As a whole."""
    with pytest.raises(ValueError, match="not a JSON Web Key Set"):
        parse_key_set(document)


@dataclass
class Published:
    """What a server answers to those that ask for its keys."""

    document: bytes
    status: int = 200
    url: str = ""
    fetch_count: int = field(default=0)


@contextmanager
def publishing(document: bytes) -> Iterator[Published]:
    """A server that publishes keys."""
    published = Published(document)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            published.fetch_count += 1
            self.send_response(published.status)
            self.send_header("content-length", str(len(published.document)))
            self.send_header("location", published.url)
            self.end_headers()
            self.wfile.write(published.document)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    published.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield published
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Times:
    """Both clocks of a verifier."""

    time: ManualTime = field(default_factory=ManualTime)

    def verifier(self, url: str) -> WebhookVerifier:
        """A verifier with these clocks."""

        def now_s() -> float:
            return self.time.now_ms / 1_000

        return WebhookVerifier(url, monotonic_s=now_s, time_s=now_s)

    def advance(self, seconds: float) -> None:
        """Move both."""
        self.time.advance(int(seconds * 1_000))


def document_of(*keys: object) -> bytes:
    """A key set as a server sends it."""
    return msgspec.json.encode(key_set(keys))  # type: ignore[arg-type]


def test_keys_are_fetched_once_and_again_after_a_while() -> None:
    """Not for each request."""
    times = Times()
    with publishing(document_of(KEY)) as published:
        verifier = times.verifier(published.url)
        for _ in range(3):
            verifier.verify(BODY, SIGNED)
        assert published.fetch_count == 1
        times.advance(KEY_SET_S)
        verifier.verify(BODY, sign(KEY, BODY, times.time.now_ms))
        assert published.fetch_count == 2


def test_new_key_is_fetched_at_once_and_an_unknown_one_seldom() -> None:
    """Anybody can name a key: that costs the server a request every ten seconds, and no more."""
    times = Times()
    with publishing(document_of(KEY)) as published:
        verifier = times.verifier(published.url)
        verifier.verify(BODY, SIGNED)
        for _ in range(5):
            with pytest.raises(NotVerifiedError):
                verifier.verify(BODY, sign(OTHER, BODY, START_MS))
        assert published.fetch_count == 1
        published.document = document_of(OTHER, KEY)
        times.advance(REFETCH_S)
        verifier.verify(BODY, sign(OTHER, BODY, START_MS))
        assert published.fetch_count == 2


def test_known_keys_are_used_while_the_server_is_away() -> None:
    """Without any, the receiver asks for the webhook once more."""
    times = Times()
    with publishing(document_of(KEY)) as published:
        verifier = times.verifier(published.url)
        published.status = 503
        with pytest.raises(KeysUnavailableError):
            verifier.verify(BODY, SIGNED)
        published.status = 200
        verifier.verify(BODY, SIGNED)
    times.advance(KEY_SET_S)
    verifier.verify(BODY, sign(KEY, BODY, times.time.now_ms))


@pytest.mark.parametrize(
    "document", [b"no json", b'{"keys": []}'.ljust(KEY_SET_BYTES_MAX + 1)], ids=["malformed", "large"]
)
def test_answer_that_is_no_key_set_is_refused(document: bytes) -> None:
    """And one that is too large to be read."""
    with publishing(document) as published, pytest.raises(KeysUnavailableError):
        WebhookVerifier(published.url).verify(BODY, SIGNED)


def test_redirect_of_the_key_set_is_not_followed() -> None:
    """The keys are those of the URL that was given."""
    with publishing(document_of(KEY)) as published:
        published.status = 302
        with pytest.raises(KeysUnavailableError):
            WebhookVerifier(published.url).verify(BODY, SIGNED)
        assert published.fetch_count == 1
