"""`llms.txt` and `llms-full.txt`: the documentation as a language model reads it (https://llmstxt.org)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

SNIPPET: Final = re.compile(r'^ *--8<-- "(?P<path>[^":]+)"$', re.MULTILINE)

#: A page's summary is cut at the end of a sentence past this length.
SUMMARY_LENGTH: Final = 160


@dataclass(frozen=True, slots=True)
class Entry:
    """A page: where it is in the navigation, and its Markdown."""

    section: str
    title: str
    uri: str
    markdown: str

    @property
    def summary(self) -> str:
        """Its first paragraph as plain text, or the beginning of it."""
        body = re.sub(r"(?s)^---\n.*?\n---\n", "", self.markdown)
        paragraphs = (part.strip() for part in body.split("\n\n"))
        first = next((part for part in paragraphs if re.match(r"[A-Z`*\[]", part)), "")
        text = re.sub(r"\s+", " ", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", first)).replace("**", "")
        sentences: list[str] = re.findall(r".+?[.:](?= |$)", text) or [text]
        kept = sentences[0]
        for sentence in sentences[1:]:
            if len(kept) + len(sentence) > SUMMARY_LENGTH:
                break
            kept += sentence
        return kept.strip().removesuffix(":")


def expand_snippets(markdown: str, root: Path) -> str:
    """The text with the files that it includes."""
    return SNIPPET.sub(lambda match: (root / match["path"]).read_text().rstrip(), markdown)


def index_text(name: str, description: str, base: str, entries: Iterable[Entry]) -> str:
    """`llms.txt`: a heading, a sentence, and a list of links for each section."""
    lines = [f"# {name}", "", f"> {description}", ""]
    for section, pages in groupby(entries, key=lambda entry: entry.section):
        lines += [f"## {section}", ""]
        lines += [f"- [{page.title}]({base}{page.uri}): {page.summary}" for page in pages]
        lines += [""]
    return "\n".join(lines)


def full_text(entries: Iterable[Entry]) -> str:
    """`llms-full.txt`: every page's Markdown, each below its address."""
    return "\n\n".join(f"<!-- {entry.uri} -->\n\n{entry.markdown.strip()}" for entry in entries) + "\n"
