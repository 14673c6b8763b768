"""Projects' names, origins and secrets: what may be one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.errors import RequestError
from fluvial.model.limits import ORIGINS_PER_PROJECT_MAX
from fluvial.model.names import parse_name
from fluvial.model.project import is_project_name, parse_origins, parse_project_name, parse_secret
from tests.support.access import SECRET


@given(st.text(max_size=70))
def test_a_projects_name_has_one_spelling(text: str) -> None:
    """As the first segment of a path it is itself, and nothing else is."""
    if is_project_name(text):
        assert parse_name(f"{text}/x") == f"{parse_project_name(text)}/x"
    else:
        with pytest.raises(RequestError):
            parse_project_name(text)


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a" * 65, "a/b", "a b", "ä", "a\n", "..", "*", "%61", "a."])
def test_no_other_name_is_one(name: str) -> None:
    """The longest has 64 characters."""
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
def test_origins_are_as_browsers_spell_them(origin: str) -> None:
    """Each is taken as it is."""
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
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    """It would never match, and whoever set it would wonder."""
    with pytest.raises(RequestError):
        parse_origins([origin])


def test_any_origin_makes_the_others_needless() -> None:
    """And there are so many, not more."""
    assert parse_origins(["https://a.example", "*"]) == ("*",)
    with pytest.raises(RequestError):
        parse_origins([f"https://a{number}.example" for number in range(ORIGINS_PER_PROJECT_MAX + 1)])


@given(st.text(max_size=300))
def test_no_refusal_of_a_secret_tells_it(text: str) -> None:
    """Nor does what is printed of one that was taken."""
    told = ""
    try:
        secret = parse_secret(text, 0)
    except RequestError as exc:
        told = exc.message
    else:
        told = repr(secret) + secret.id
    assert len(text) < 8 or text not in told
    assert SECRET.value not in repr(SECRET)
