"""Tokens: which are valid, and that a token's own header does not decide how it is verified."""

import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.access.tokens import InvalidToken, decode_unverified, verify
from fluvial.model.limits import TOKEN_BYTES_MAX, TOKEN_LEEWAY_S
from fluvial.model.names import StreamName
from fluvial.model.permissions import OPERATOR, Permission, Scope, VerifiedToken
from fluvial.model.project import Secret
from tests.support.access import FOREIGN_SECRET, OLD_SECRET, SECRET, token
from tests.support.clocks import START_MS

NOW_S = START_MS // 1_000
SECRETS = (SECRET, OLD_SECRET)
GOOD = {"sub": "demo", "scope": "read", "exp": NOW_S + 60}


def encoded(part: bytes) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes, secret: Secret = SECRET) -> str:
    """A token with exactly these bytes, signed with HS256."""
    body = f"{encoded(header)}.{encoded(payload)}"
    return f"{body}.{encoded(hmac.digest(secret.value.encode(), body.encode(), hashlib.sha256))}"


def with_header(**fields: Any) -> str:  # noqa: ANN401  whatever an attacker likes
    """A valid token with another header."""
    return signed(json.dumps({"alg": "HS256", "typ": "JWT", **fields}).encode(), json.dumps(GOOD).encode())


def with_claims(**claims: Any) -> str:  # noqa: ANN401  likewise
    """A signed token with other claims; None leaves one out."""
    merged = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    return signed(b'{"alg":"HS256"}', json.dumps(merged).encode())


def verified(text: str, project: str = "demo") -> VerifiedToken:
    """The token verified with the project's secrets."""
    return verify(text, project, SECRETS, START_MS)


@pytest.mark.parametrize("secret", SECRETS, ids=["newest", "old"])
@pytest.mark.parametrize("scope", Scope)
def test_token_signed_with_any_secret_of_the_project_is_valid(secret: Secret, scope: Scope) -> None:
    """With each scope, and all its claims are in the verified token."""
    text = token(scope, secret, stream="a/", jti="t1", iat=NOW_S, nbf=NOW_S)
    assert verified(text) == VerifiedToken("demo", scope, (NOW_S + 3_600) * 1_000, "a/")


INVALID: dict[str, Callable[[], str]] = {
    "alg none, unsigned": lambda: encoded(b'{"alg":"none"}') + "." + encoded(json.dumps(GOOD).encode()) + ".",
    "alg none, signed": lambda: with_header(alg="none"),
    "alg None": lambda: with_header(alg="None"),
    "no alg": lambda: signed(b"{}", json.dumps(GOOD).encode()),
    "alg RS256, keyed with what might be public": lambda: with_header(alg="RS256"),
    "alg HS384": lambda: with_header(alg="HS384"),
    "alg hs256": lambda: with_header(alg="hs256"),
    "alg a list": lambda: with_header(alg=["HS256"]),
    "crit": lambda: with_header(crit=["exp"], exp=1),
    "b64 false": lambda: with_header(b64=False, crit=["b64"]),
    "another's secret": lambda: token(secret=FOREIGN_SECRET),
    "empty secret": lambda: signed(b'{"alg":"HS256"}', json.dumps(GOOD).encode(), Secret("", 0)),
    "another payload under a good signature": lambda: ".".join(
        (*token(Scope.READ).split(".")[:1], token(Scope.MANAGE).split(".")[1], token(Scope.READ).split(".")[2])
    ),
    "signature cut off": lambda: token()[:-1],
    "no signature": lambda: token().rpartition(".")[0],
    "one part": lambda: "token",
    "four parts": lambda: token() + ".x",
    "empty": lambda: "",
    "not ASCII": lambda: token() + "é",
    "a megabyte": lambda: "a" * 1_048_576,
    "too large, but well signed": lambda: with_claims(jti="j" * TOKEN_BYTES_MAX),
    "expired": lambda: with_claims(exp=NOW_S),
    "expired long ago": lambda: with_claims(exp=0),
    "exp in milliseconds": lambda: with_claims(exp=(NOW_S + 60) * 1_000),
    "iat in milliseconds": lambda: with_claims(iat=NOW_S * 1_000),
    "nbf in milliseconds": lambda: with_claims(nbf=NOW_S * 1_000),
    "no exp": lambda: with_claims(exp=None),
    "exp a text": lambda: with_claims(exp=str(NOW_S + 60)),
    "exp true": lambda: with_claims(exp=True),
    "exp huge": lambda: with_claims(exp=10**30),
    "exp infinite": lambda: signed(b'{"alg":"HS256"}', b'{"sub":"demo","scope":"read","exp":Infinity}'),
    "exp not a number": lambda: signed(b'{"alg":"HS256"}', b'{"sub":"demo","scope":"read","exp":NaN}'),
    "not yet valid": lambda: with_claims(nbf=NOW_S + TOKEN_LEEWAY_S + 1),
    "from the future": lambda: with_claims(iat=NOW_S + TOKEN_LEEWAY_S + 1),
    "another project": lambda: with_claims(sub="other"),
    "all projects": lambda: with_claims(sub=OPERATOR),
    "project in capitals": lambda: with_claims(sub="DEMO"),
    "project a list": lambda: with_claims(sub=["demo"]),
    "no project": lambda: with_claims(sub=None),
    "no scope": lambda: with_claims(scope=None),
    "unknown scope": lambda: with_claims(scope="admin"),
    "two scopes": lambda: with_claims(scope="read write"),
    "scopes in a list": lambda: with_claims(scope=["read"]),
    "a claim twice": lambda: signed(
        b'{"alg":"HS256"}', b'{"sub":"demo","scope":"read","scope":"manage","exp":%d}' % (NOW_S + 60)
    ),
    "stream empty": lambda: with_claims(stream=""),
    "stream with dots": lambda: with_claims(stream="../other"),
    "stream half a character": lambda: signed(
        b'{"alg":"HS256"}', b'{"sub":"demo","scope":"read","exp":%d,"stream":"\\ud800"}' % (NOW_S + 60)
    ),
    "stream a slash": lambda: with_claims(stream="/"),
    "claims a list": lambda: signed(b'{"alg":"HS256"}', b"[]"),
    "claims no JSON": lambda: signed(b'{"alg":"HS256"}', b"{"),
    "claims nested without end": lambda: signed(b'{"alg":"HS256"}', b"[" * 2_000),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_token_is_rejected_without_quoting_it(name: str) -> None:
    """Forged, expired, for another project, or malformed."""
    text = INVALID[name]()
    with pytest.raises(InvalidToken) as rejected:
        verified(text)
    assert all(part not in str(rejected.value) for part in text.split(".") if len(part) > 8)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_token_time_in_milliseconds_is_rejected_with_that_reason(claim: str) -> None:
    """Such a token would expire in 57,000 years, and its issuer would not notice."""
    with pytest.raises(InvalidToken, match=f"{claim} .* in seconds, not in milliseconds"):
        verified(with_claims(**{claim: (NOW_S + 60) * 1_000}))
    assert verified(with_claims(exp=NOW_S + 99 * 365 * 86_400)).scope is Scope.READ


@pytest.mark.parametrize(
    "fields",
    [{"kid": "../../etc/passwd"}, {"kid": "1' OR '1'='1"}, {"jku": "https://evil.example"}, {"jwk": {"k": "x"}}],
    ids=lambda fields: next(iter(fields)),
)
def test_key_hints_in_a_token_header_are_ignored(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's secrets decide; nothing is fetched or opened."""
    monkeypatch.setattr("socket.socket", None)
    monkeypatch.setattr("builtins.open", None)
    assert verified(with_header(**fields)).scope is Scope.READ
    forged = signed(json.dumps({"alg": "HS256", **fields}).encode(), json.dumps(GOOD).encode(), FOREIGN_SECRET)
    with pytest.raises(InvalidToken):
        verified(forged)


def test_clock_leeway_applies_to_nbf_and_iat_but_not_to_exp() -> None:
    """A token may begin a little early, but it does not end late."""
    verified(with_claims(nbf=NOW_S + TOKEN_LEEWAY_S, iat=NOW_S + TOKEN_LEEWAY_S))
    verified(with_claims(exp=NOW_S + 0.001))
    with pytest.raises(InvalidToken, match="expired"):
        verified(with_claims(exp=NOW_S - 0.001))


def test_every_secret_is_compared_whichever_has_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time, so that the time reveals nothing about the secrets."""
    compared = list[int]()
    digests = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return digests(one, other)

    monkeypatch.setattr("hmac.compare_digest", counted)
    secrets = (SECRET, OLD_SECRET, Secret("t" * 32, 0))
    counts = set()
    for text in (token(secret=secrets[0]), token(secret=secrets[2]), token(secret=FOREIGN_SECRET)):
        compared.clear()
        with contextlib.suppress(InvalidToken):
            verify(text, "demo", secrets, START_MS)
        counts.add(len(compared))
    assert counts == {len(secrets)}


def test_operator_token_has_scope_manage_and_no_stream() -> None:
    """A token of an operator with other claims is invalid."""
    assert verified(with_claims(sub=OPERATOR, scope="manage"), OPERATOR).allows(Permission.MANAGE)
    for claims in ({"scope": "read"}, {"scope": "write"}, {"scope": "manage", "stream": "a"}):
        with pytest.raises(InvalidToken):
            verified(with_claims(sub=OPERATOR, **claims), OPERATOR)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_arbitrary_bytes_are_an_invalid_token(noise: bytes) -> None:
    """As the whole token, as its header, or as its claims."""
    for text in (noise.decode("latin-1"), signed(noise, json.dumps(GOOD).encode()), signed(b'{"alg":"HS256"}', noise)):
        with pytest.raises(InvalidToken):
            verified(text)


@pytest.mark.parametrize(
    ("claim", "name", "covers"),
    [
        (None, "demo/a", True),
        ("a", "demo/a", True),
        ("a", "demo/a/b", False),
        ("a", "demo/ab", False),
        ("a/", "demo/a/b", True),
        ("a/", "demo/a/b/c", True),
        ("a/", "demo/a", False),
        ("a/", "demo/ab", False),
        ("a/b", "demo/a%2Fb", False),
        ("a%2Fb", "demo/a%2Fb", True),
        ("room 1", "demo/room%201", True),
        ("%72oom", "demo/room", True),
        ("é", "demo/%C3%A9", True),
        ("*", "demo/a", False),
        ("*", "demo/*", True),
    ],
)
def test_stream_claim_covers_one_stream_or_a_prefix(claim: str | None, name: str, *, covers: bool) -> None:
    """In any spelling of the path; a part of a segment does not match."""
    assert verified(token(stream=claim)).covers(StreamName(name)) is covers


def test_token_is_decoded_without_its_secret() -> None:
    """Text that is not a token is an error."""
    header, claims = decode_unverified(token(secret=FOREIGN_SECRET, exp=1))
    assert (header["alg"], claims["exp"]) == ("HS256", 1)
    with pytest.raises(InvalidToken):
        decode_unverified("x.y.z")
