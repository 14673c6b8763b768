"""What MkDocs calls while it builds: generated pages, links to files of the repository, and `llms.txt`.

A page may link to any file or folder of the repository, as it does where the repository is read. On the site such a
link leads to a page that shows the file, so that the site needs no other host.
"""

import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from tools.site.llms import Entry, expand_snippets, full_text, index_text
from tools.site.openapi_page import openapi_page
from tools.site.repository_links import FENCE, LINK, ROOT, listing, source_uri

#: Pages that are kept at the repository's root, where people look for them.
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md", "vulnerabilities.md": "SECURITY.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of other files, and a page for each file that a page links to."""
    for uri, name in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=_moved(ROOT / name)))
    files.append(File.generated(config, "reference/openapi.md", content=openapi_page()))
    linked = {path for file in files.documentation_pages() for path in _linked_paths(file)}
    for path in sorted(linked):
        files.append(File.generated(config, source_uri(path), content=listing(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links to files of the repository lead to their pages."""
    del config, files
    base = _base(page.file)
    depth = page.file.src_uri.count("/")

    def relink(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        path = _outside(base, target)
        if path is None:
            return match[0]
        to = _page_of_root(path) or source_uri(path)
        return f"]({'../' * depth}{to}{'#' + anchor if anchor else ''})"

    return _outside_fences(markdown, relink)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Note the pages in the order in which people read them."""
    del files
    config.extra["reading_order"] = list(nav.pages)
    return nav


def on_post_build(config: MkDocsConfig) -> None:
    """Write `llms.txt`, `llms-full.txt`, and each page's Markdown beside its HTML."""
    site = Path(config.site_dir)
    entries = list[Entry]()
    for page in config.extra["reading_order"]:
        markdown = expand_snippets(page.markdown or "", ROOT)
        to = site / page.file.src_uri
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(markdown)
        section = page.ancestors[-1].title if page.ancestors else "Fluvial"
        entries.append(Entry(section, page.title, page.file.src_uri, markdown))
    base = config.site_url or ""
    (site / "llms.txt").write_text(index_text(config.site_name, config.site_description or "", base, entries))
    (site / "llms-full.txt").write_text(full_text(entries))


def _base(file: File) -> Path:
    """The folder from which a page's links are read."""
    if file.src_uri in ROOT_PAGES:
        return ROOT / "docs"
    uri: str = file.src_uri
    return (ROOT / "docs" / uri).parent


def _moved(path: Path) -> str:
    """A page of the root, with links as they are from the documents' folder."""

    def move(match: re.Match[str]) -> str:
        target = match["target"]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        return f"]({target.removeprefix('docs/') if target.startswith('docs/') else '../' + target})"

    return _outside_fences(path.read_text(), move)


def _outside_fences(markdown: str, replace: Callable[[re.Match[str]], str]) -> str:
    """The text with its links replaced, but for those in code blocks."""
    parts = FENCE.split(markdown)
    return "".join(part if index % 2 else LINK.sub(replace, part) for index, part in enumerate(parts))


def _linked_paths(file: File) -> list[Path]:
    """The files and folders of the repository that a page links to."""
    base = _base(file)
    targets = [match["target"].partition("#")[0] for match in LINK.finditer(FENCE.sub("", file.content_string))]
    paths = [_outside(base, target) for target in targets]
    return [path for path in paths if path is not None and _page_of_root(path) is None]


def _outside(base: Path, target: str) -> Path | None:
    """The file or folder of the repository that a link means, if it is no page of the site."""
    if not target or re.match(r"[a-z]+:", target):
        return None
    path = (base / target).resolve()
    if not path.is_relative_to(ROOT) or (path.is_relative_to(ROOT / "docs") and path.suffix == ".md"):
        return None
    if path.is_relative_to(ROOT / "docs") and path.suffix == ".png":
        return None
    if not path.exists():
        raise PluginError(f"{base}: the link to {target} leads to no file")
    return path.relative_to(ROOT)


def _page_of_root(path: Path) -> str | None:
    """The page that a file of the root has."""
    if path == Path("README.md"):
        return "index.md"
    return next((uri for uri, name in ROOT_PAGES.items() if path == Path(name)), None)
