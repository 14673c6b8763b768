"""Check the built site: each link and anchor leads somewhere, and no page asks another host for anything.

    python -m tools.site.check site

Links to other hosts are checked by their form alone, because a check that needs the network fails with the network.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Elements that a browser loads by itself, and the attribute that says from where.
LOADED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "input": "src",
    "object": "data",
    "script": "src",
    "source": "src",
    "track": "src",
    "video": "src",
}

#: A `link` of these kinds leads to another page, and nothing is loaded.
LINKED_PAGES = {"canonical", "next", "prev", "alternate"}

#: A host with a dot, or the reader's own machine.
HOST = re.compile(r"localhost(:|$)|[^.]+\..")

CSS_URL = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])([^\"')\s]+)")


@dataclass
class PageParser(HTMLParser):
    """What a page links to, loads, and can be linked to."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        """Begin to parse."""
        super().__init__()

    def handle_data(self, data: str) -> None:
        """Add to the text, from which highlighting's elements are left out."""
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's name, link and source."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "link":
            is_page = bool(LINKED_PAGES & set(values.get("rel", "").split()))
            (self.links if is_page else self.loads).append(values.get("href", ""))
        elif tag in {"a", "area"} and "href" in values:
            self.links.append(values["href"])
        elif LOADED.get(tag) in values:
            self.loads.append(values[LOADED[tag]])
        if "srcset" in values:
            self.loads += [part.split()[0] for part in values["srcset"].split(",") if part.strip()]
        self.loads += CSS_URL.findall(values.get("style", ""))


def problems(site: Path) -> Iterator[str]:
    """A line for each link that is broken and each thing that is loaded from elsewhere."""
    pages = {path: parse(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: there is no page"
    for path in pages:
        yield from (f"{path.relative_to(site).as_posix()}: {text}" for text in page_problems(path, site, pages))
    for path in sorted(site.rglob("*.css")):
        for url in CSS_URL.findall(path.read_text()):
            if is_foreign(url):
                yield f"{path.relative_to(site)}: loads {url} from another host"


def page_problems(path: Path, site: Path, pages: dict[Path, PageParser]) -> Iterator[str]:
    """What is wrong with one page."""
    page = pages[path]
    if "--8" in page.text:
        yield "shows a line that should include a file"
    for url in page.loads:
        if is_foreign(url):
            yield f"loads {url} from another host"
    for url in (*page.links, *page.loads):
        reason = broken(url, path, site, pages)
        if reason:
            yield f"{url} {reason}"


def parse(path: Path) -> PageParser:
    """Read a page."""
    parser = PageParser()
    parser.feed(path.read_text())
    return parser


def is_foreign(url: str) -> bool:
    """Whether a URL has a host."""
    return not url.startswith("data:") and bool(urlsplit(url).netloc)


def broken(url: str, path: Path, site: Path, pages: dict[Path, PageParser]) -> str | None:
    """Why a link leads nowhere, if it does."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        is_formed = parts.scheme in {"data", "mailto"} or (
            parts.scheme in {"http", "https"} and bool(HOST.match(parts.netloc))
        )
        return None if is_formed else "is not a URL of another host"
    base = site if parts.path.startswith("/") else path.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        # The page for what is not found may be shown at any path, so its links begin with a slash.
        return "leads to no file"
    page = pages.get(target)
    if parts.fragment and page is not None and unquote(parts.fragment) not in page.anchors:
        return "leads to no anchor"
    return None


def main() -> int:
    """Print each problem; the exit status is 1 if there is one."""
    found = list(problems(Path(sys.argv[1]).resolve()))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
