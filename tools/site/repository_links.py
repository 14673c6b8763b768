"""Pages that show files of the repository."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

#: A code block, whose brackets and parentheses are no links.
FENCE: Final = re.compile(r"(?ms)(^ *```.*?^ *```)")

#: A link's target.
LINK: Final = re.compile(r"\]\((?P<target>[^)\s]+)\)")

LANGUAGES: Final = {
    ".mjs": "js",
    ".js": "js",
    ".json": "json",
    ".py": "python",
    ".html": "html",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".conf": "nginx",
    ".md": "markdown",
}

#: Of a folder these are left out: long, and for programs.
LEFT_OUT: Final = {"package-lock.json", "node_modules", "__pycache__"}


def source_uri(path: Path) -> str:
    """The page of a file or a folder; a dot would make the page of index.html and that of its folder one."""
    return f"source/{path.as_posix().replace('.', '-')}.md"


def listing(path: Path) -> str:
    """The page's Markdown: the file as a code block, or each file of the folder with a heading of its own."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path.as_posix()}\n\n"
    full = ROOT / path
    if full.is_file():
        return head + _block(full)
    files = [file for file in sorted(full.rglob("*")) if file.is_file() and not LEFT_OUT & set(file.parts)]
    return head + "\n".join(f"## {file.relative_to(full).as_posix()}\n\n{_block(file)}" for file in files)


def _block(path: Path) -> str:
    """A file as a code block, whose fence is longer than any in the file."""
    return f"``````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text().rstrip()}\n``````\n"
