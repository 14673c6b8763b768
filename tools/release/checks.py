"""What must hold before a release is built, and of what was built."""

import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

from tools.release.metadata_hook import version_of

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_LINK_TO_A_FILE = re.compile(r"\]\((?![a-z]+:|#)[^)]+\)")

#: Files that the wheel and the source distribution are incomplete without.
WHEEL_FILES = ("fluvial/py.typed", "fluvial/__main__.py", "fluvial/storage/sqlite/queries.sql")
SDIST_FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "shared/fluvial/py.typed")


class ReleaseRefusedError(Exception):
    """A check failed; the message says which, and what to do."""


def git(root: Path, *arguments: str) -> str:
    """Git's answer."""
    ran = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def check_tree_is_clean(root: Path) -> None:
    """Nothing differs from the commit that gets the tag."""
    if changed := git(root, "status", "--porcelain"):
        raise ReleaseRefusedError(f"the tree is not clean; commit these files or remove them:\n{changed}")


def check_changelog(root: Path, version: str) -> None:
    """The newest section is this version's, with a date and with entries, and nothing waits in "Unreleased"."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    headings = list(_SECTION.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    sections = {heading[1]: text[heading.end() : end].strip() for heading, end in zip(headings, ends, strict=True)}
    if sections.pop("Unreleased", ""):
        raise ReleaseRefusedError(f'CHANGELOG.md has entries in "Unreleased"; move them below "## {version}, <date>"')
    newest = next(iter(sections), "")
    if not re.fullmatch(rf"{re.escape(version)}, \d{{4}}-\d\d-\d\d", newest):
        raise ReleaseRefusedError(f'the newest section of CHANGELOG.md is "{newest}", and not "{version}, <date>"')
    if not sections[newest]:
        raise ReleaseRefusedError(f'"{newest}" of CHANGELOG.md has no entries')


def check_chart(root: Path, version: str) -> None:
    """The Helm chart installs this version."""
    chart = (root / "packaging" / "helm" / "fluvial" / "Chart.yaml").read_text("utf-8")
    if f'appVersion: "{version}"\n' not in chart:
        raise ReleaseRefusedError(f"Chart.yaml of packaging/helm/fluvial needs appVersion {version}")


def check_tag(root: Path, version: str) -> None:
    """The tag does not exist, or it is this commit's."""
    tag = f"v{version}"
    if tag in git(root, "tag", "--list", tag).splitlines():
        commit, head = git(root, "rev-parse", f"{tag}^{{commit}}"), git(root, "rev-parse", "HEAD")
        if commit != head:
            message = f"{tag} is another commit's ({commit[:12]}); raise __version__ in shared/fluvial/__init__.py"
            raise ReleaseRefusedError(message)


def check_before(root: Path) -> str:
    """All checks before the build, in the order in which they are mended; the version."""
    version = version_of(root)
    check_tag(root, version)
    check_changelog(root, version)
    check_chart(root, version)
    check_tree_is_clean(root)
    return version


def check_built(wheel: Path, sdist: Path, version: str) -> None:
    """Both have what they need, their metadata is valid, and no link of the description is relative."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        information = f"fluvial-{version}.dist-info"
        _require(wheel, names, (*WHEEL_FILES, f"{information}/licenses/LICENSE", f"{information}/entry_points.txt"))
        _check_metadata(archive.read(f"{information}/METADATA"), version)
    if strange := {name for name in names if not name.startswith(("fluvial/", f"{information}/"))}:
        raise ReleaseRefusedError(f"{wheel.name} installs outside of its package: {sorted(strange)}")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
        _require(sdist, inside, SDIST_FILES)
        information_file = archive.extractfile(f"fluvial-{version}/PKG-INFO")
        assert information_file is not None
        _check_metadata(information_file.read(), version)


def _require(built: Path, names: set[str], needed: tuple[str, ...]) -> None:
    if missing := set(needed) - names:
        raise ReleaseRefusedError(f"{built.name} lacks {', '.join(sorted(missing))}")


def _check_metadata(data: bytes, version: str) -> None:
    metadata = Metadata.from_email(data, validate=True)
    assert str(metadata.version) == version
    description = metadata.description or ""
    if found := _LINK_TO_A_FILE.search(description):
        raise ReleaseRefusedError(f"the description has a relative link: {found[0]}")
