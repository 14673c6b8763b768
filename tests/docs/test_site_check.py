"""The check of the built site finds what is broken, and nothing else."""

from pathlib import Path

import pytest
from tools.site.check import problems
from tools.site.llms import Entry, expand_snippets, index_text
from tools.site.openapi_page import bodies, routes

OTHER = '<h1 id="top">Other</h1>'


def check(folder: Path, body: str) -> list[str]:
    """The problems of a site of two pages."""
    (folder / "other").mkdir()
    (folder / "other" / "index.html").write_text(OTHER)
    (folder / "style.css").write_text("a { background: url(data:image/png;base64,xx) }")
    (folder / "index.html").write_text(body)
    return list(problems(folder))


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other/">x</a><a href="other/#top">x</a><a href="/other/index.html">x</a>',
        '<p id="here"><a href="#here">x</a>',
        '<a href="https://example.org/page#part">x</a><a href="mailto:a@example.org">x</a>',
        '<link rel="stylesheet" href="style.css"><link rel="canonical" href="https://example.org/">',
        '<img src="data:image/png;base64,xx">',
    ],
)
def test_links_that_lead_somewhere_are_no_problem(tmp_path: Path, body: str) -> None:
    """Pages, anchors, other hosts and files of the site."""
    assert check(tmp_path, body) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('<a href="missing/">x</a>', "leads to no file"),
        ('<a href="other/#middle">x</a>', "leads to no anchor"),
        ('<a href="#middle">x</a>', "leads to no anchor"),
        ('<a href="https://localhost-without-a-dot/">x</a>', "is not a URL of another host"),
        ('<img src="missing.png">', "leads to no file"),
        ('<script src="https://cdn.example/x.js"></script>', "from another host"),
        ('<link rel="stylesheet" href="//fonts.example/css">', "from another host"),
        ('<link rel="preconnect" href="https://fonts.example">', "from another host"),
        ('<img srcset="https://cdn.example/x.png 2x">', "from another host"),
        ('<p style="background: url(https://cdn.example/x.png)">', "from another host"),
        ('<iframe src="https://video.example/1"></iframe>', "from another host"),
        ("<code><span>--</span><span>8&lt;</span>-- &quot;notes.py&quot;</code>", "should include a file"),
    ],
)
def test_broken_links_and_foreign_hosts_are_found(tmp_path: Path, body: str, reason: str) -> None:
    """With the page and the reason."""
    found = check(tmp_path, body)
    assert found
    assert reason in found[0]
    assert found[0].startswith("index.html: ")


def test_stylesheet_that_loads_from_another_host_is_found(tmp_path: Path) -> None:
    """Fonts, for instance."""
    (tmp_path / "fonts.css").write_text('@import "https://fonts.example/css"; b { src: url("https://cdn.example/f") }')
    assert len(check(tmp_path, OTHER)) == 2


def test_site_without_pages_is_a_problem(tmp_path: Path) -> None:
    """A check of nothing would always succeed."""
    assert list(problems(tmp_path))


def test_llms_index_has_a_section_a_link_and_a_summary_for_each_page() -> None:
    """The summary is the first paragraph as plain text, and no heading."""
    text = "# Title\n\nA [stream](x.md) is **kept**. It stays. " + "More of it. " * 30
    index = index_text("Name", "What it is", "https://docs.example/", [Entry("Start", "Title", "a.md", text)])
    assert index.startswith(
        "# Name\n\n> What it is\n\n## Start\n\n- [Title](https://docs.example/a.md): A stream is kept."
    )
    assert "[stream]" not in index
    assert len(index) < 300


def test_included_files_are_expanded(tmp_path: Path) -> None:
    """A reader of the text alone sees the code."""
    (tmp_path / "a.py").write_text("print(1)\n")
    assert expand_snippets('```python\n--8<-- "a.py"\n```', tmp_path) == "```python\nprint(1)\n```"


def test_openapi_page_has_routes_parameters_answers_and_schemas() -> None:
    """References are resolved, and schemas are linked."""
    error = {"type": "object", "required": ["code"], "properties": {"code": {"type": "string"}}}
    document = {
        "paths": {
            "/v1/x/{name}": {
                "get": {
                    "summary": "Read x.",
                    "parameters": [{"$ref": "#/components/parameters/name"}],
                    "responses": {
                        "200": {"description": "Successful Response"},
                        "404": {
                            "description": "No x.",
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                        },
                    },
                }
            }
        },
        "components": {
            "parameters": {"name": {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}},
            "schemas": {"Error": error},
        },
    }
    page = "\n".join((*routes(document), *bodies({"Error": error})))
    assert "### GET `/v1/x/{name}` {: #get-v1-x-name }" in page
    assert "| `name` | path | string | required. |" in page
    assert "| 200 OK |  |" in page
    assert "| 404 Not Found | No x. `application/json` [Error](#error) |" in page
    assert "| `code` | string | required. |" in page
