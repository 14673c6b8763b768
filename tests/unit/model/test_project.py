"""Projects: valid names, origins and secrets, and the stored format."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.errors import RequestError
from fluvial.model.limits import ORIGINS_PER_PROJECT_MAX
from fluvial.model.names import parse_name
from fluvial.model.project import (
    Project,
    ProjectLimits,
    is_project_name,
    parse_origins,
    parse_project_name,
    parse_secret,
)
from tests.support.access import SECRET, project


@given(st.text(max_size=70))
def test_project_name_has_one_spelling(text: str) -> None:
    """A valid name is the first segment of a path as it is; an invalid one is rejected."""
    if is_project_name(text):
        assert parse_name(f"{text}/x") == f"{parse_project_name(text)}/x"
    else:
        with pytest.raises(RequestError):
            parse_project_name(text)


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a" * 65, "a/b", "a b", "ä", "a\n", "..", "*", "%61", "a."])
def test_invalid_project_name_is_rejected(name: str) -> None:
    """The longest valid name has 64 characters."""
    assert not is_project_name(name)
    assert is_project_name("a" * 64)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "https://[::1]:8443",
        "https://a-b.c.example:8443",
        "capacitor://localhost",
        "tauri://localhost",
        "app://-",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "file://",
        "null",
        "*",
    ],
)
def test_origin_as_browsers_send_it_is_accepted(origin: str) -> None:
    """Unchanged, and once."""
    assert parse_origins([origin, origin]) == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "Null",
        "",
        "app.example",
        "app://x/path",
        "ws://app.example",
        "https://$(reboot)",
        "https://a;b",
        "https://app.example/",
        "https://app.example/path",
        "https://App.example",
        "HTTPS://app.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://user@app.example",
        "https://app.example?x",
        "https://app.example#x",
        "https://*.example",
        "ftp://app.example",
        "file:///x",
        "https://",
        "https://app.example:99999",
        "https://app.example,https://b.example",
        "https://app .example",
        "https://app.example\r\nx: y",
        "https://" + "a" * 300,
    ],
)
def test_origin_that_no_browser_sends_is_rejected(origin: str) -> None:
    """It would silently match nothing."""
    with pytest.raises(RequestError):
        parse_origins([origin])


def test_any_origin_replaces_the_others() -> None:
    """The number of origins is bounded."""
    assert parse_origins(["https://a.example", "*"]) == ("*",)
    with pytest.raises(RequestError):
        parse_origins([f"https://a{number}.example" for number in range(ORIGINS_PER_PROJECT_MAX + 1)])


@given(st.text(max_size=300))
def test_error_and_repr_of_a_secret_do_not_contain_it(text: str) -> None:
    """Neither if the secret is rejected, nor if it is accepted."""
    text_shown = ""
    try:
        secret = parse_secret(text, 0)
    except RequestError as exc:
        text_shown = exc.message
    else:
        text_shown = repr(secret) + secret.id
    assert len(text) < 8 or text not in text_shown
    assert SECRET.value not in repr(SECRET)


STORED = (
    b'{"name":"demo","life":7,"secrets":[{"value":"ssssssssssssssssssssssssssssssss","created_ms":1800000000000}],'
    b'"created_ms":1800000000000,"origins":["*"],"is_public":true,"limits":{"live_reads":5},"version":2,'
    b'"is_ending":false}'
)


def test_stored_project_keeps_its_format() -> None:
    """Existing data is read, and new data has the same bytes: the incarnation is stored as `life`."""
    full = project(incarnation=7, origins=("*",), is_public=True, limits=ProjectLimits(live_reads=5), version=2)
    assert msgspec.json.encode(full) == STORED
    assert msgspec.json.decode(STORED, type=Project) == full
