"""`make release`: what it refuses, and how it changes links."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools.release.metadata_hook import with_absolute_links

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.medium

CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 1.2.3, 2026-01-02\n\n- New.\n\n## 1.2.2, 2026-01-01\n\n- Old.\n"


def git(folder: Path, *arguments: str) -> None:
    """A command of Git's."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "tag.gpgsign=false")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def write_version(folder: Path, version: str) -> None:
    """The one place of the version."""
    path = folder / "shared" / "fluvial" / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'"""A package."""\n\n__version__ = "{version}"\n')


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that is ready for the release of 1.2.3."""
    write_version(tmp_path, "1.2.3")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    chart = tmp_path / "packaging" / "helm" / "fluvial" / "Chart.yaml"
    chart.parent.mkdir(parents=True)
    chart.write_text('appVersion: "1.2.3"\n')
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


def check(repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`make release`, up to the build."""
    command = [sys.executable, "-m", "tools.release", "--check", "--root", str(repository), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_release_is_built_when_tree_tag_changelog_and_chart_agree(repository: Path) -> None:
    """Also when the tag is this commit's."""
    assert check(repository).returncode == 0
    git(repository, "tag", "v1.2.3")
    assert check(repository).returncode == 0


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("new.txt", "new", "the tree is not clean"),
        ("CHANGELOG.md", CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n- More.\n"), 'entries in "Unreleased"'),
        ("CHANGELOG.md", CHANGELOG.replace("1.2.3, 2026-01-02", "1.2.3"), 'is "1.2.3", and not "1.2.3, <date>"'),
        ("CHANGELOG.md", CHANGELOG.replace("- New.", ""), "has no entries"),
        ("packaging/helm/fluvial/Chart.yaml", 'appVersion: "1.2.2"\n', "needs appVersion 1.2.3"),
    ],
    ids=["untracked file", "unreleased entries", "no date", "no entries", "another chart"],
)
def test_release_is_refused_with_the_reason(repository: Path, path: str, text: str, reason: str) -> None:
    """In one line, before anything is built."""
    (repository / path).write_text(text)
    ran = check(repository)
    assert ran.returncode == 1
    assert ran.stderr.startswith("no release: ")
    assert reason in ran.stderr


def test_release_is_refused_when_the_tag_is_another_commits(repository: Path) -> None:
    """The version was not raised since."""
    git(repository, "tag", "v1.2.3")
    git(repository, "commit", "--allow-empty", "-qm", "more")
    assert "v1.2.3 is another commit's" in check(repository).stderr


def test_release_is_refused_for_a_repository_that_is_no_url(repository: Path) -> None:
    """Links of the description would lead nowhere."""
    assert "is not the https URL" in check(repository, "--repository", "git@example.com:a/b").stderr


def test_relative_links_lead_to_the_repository_or_become_text() -> None:
    """Absolute links, and links within the page, stay."""
    markdown = "[a](docs/a.md#b) [c](https://example.com/c) [d](#d)"
    rest = "[c](https://example.com/c) [d](#d)"
    files = "https://example.com/blob/v1"
    assert with_absolute_links(markdown, files) == f"[a]({files}/docs/a.md#b) {rest}"
    assert with_absolute_links(markdown, "") == f"a {rest}"
