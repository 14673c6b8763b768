"""The package's metadata that depends on where its repository is published: links, and what a package index shows.

A package index shows the README without the repository, so relative links would lead nowhere. With FLUVIAL_REPOSITORY
(the URL of the repository's page) they lead to the tag's files there; without it they become plain text.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

REPOSITORY_VARIABLE = "FLUVIAL_REPOSITORY"
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)]+)\)")


class RepositoryMetadataHook(MetadataHookInterface):
    """Called by hatchling for each build, also for an editable installation."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description and the URLs."""
        root = Path(self.root)
        repository = os.environ.get(REPOSITORY_VARIABLE, "").rstrip("/")
        files = f"{repository}/blob/v{version_of(root)}" if repository else ""
        text = with_absolute_links((root / "README.md").read_text("utf-8"), files)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        if repository:
            metadata["urls"] = {
                "Homepage": repository,
                "Documentation": f"{files}/docs",
                "Changelog": f"{files}/CHANGELOG.md",
                "Security": f"{files}/SECURITY.md",
            }


def version_of(root: Path) -> str:
    """The version that the package's source says: there is no other place for it."""
    [version] = _VERSION.findall((root / "shared" / "fluvial" / "__init__.py").read_text("utf-8"))
    return str(version)


def with_absolute_links(markdown: str, files: str) -> str:
    """Relative links lead below the URL `files`; without one they become their text."""
    return _RELATIVE_LINK.sub(rf"[\1]({files}/\2)" if files else r"\1", markdown)
