"""`make release`: check, build, check what was built, and say what to push. It publishes nothing itself."""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tools.release.checks import ReleaseRefusedError, check_before, check_built, git
from tools.release.metadata_hook import REPOSITORY_VARIABLE

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"


def build(root: Path, to: Path) -> tuple[Path, Path]:
    """The wheel, which is built from the source distribution, and the source distribution."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": git(root, "log", "-1", "--format=%ct")}
    hatchling = [sys.executable, "-m", "hatchling", "build", "-d", str(to), "-t"]
    subprocess.run([*hatchling, "sdist"], cwd=root, env=environment, check=True, capture_output=True)
    [sdist] = to.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
        [source] = Path(folder).iterdir()
        subprocess.run([*hatchling, "wheel"], cwd=source, env=environment, check=True, capture_output=True)
    [wheel] = to.glob("*.whl")
    return wheel, sdist


def build_twice(root: Path) -> tuple[Path, Path]:
    """Build into dist/, and once more elsewhere: both must have the same bytes."""
    shutil.rmtree(DIST, ignore_errors=True)
    built = build(root, DIST)
    with tempfile.TemporaryDirectory() as folder:
        again = build(root, Path(folder))
        for one, other in zip(built, again, strict=True):
            if one.read_bytes() != other.read_bytes():
                raise ReleaseRefusedError(f"{one.name} is not the same when it is built again")
    return built


def write_sums(built: tuple[Path, ...]) -> None:
    """Write what `sha256sum -c SHA256SUMS` reads."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in built]
    (DIST / "SHA256SUMS").write_text("".join(lines), "utf-8")


def run_wheel(wheel: Path) -> None:
    """Run the built wheel outside of this clone."""
    command = [sys.executable, "-m", "pytest", "tests/deploy/test_wheel.py"]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, "FLUVIAL_WHEEL": str(wheel)}, check=False)
    if ran.returncode != 0:
        raise ReleaseRefusedError("the wheel does not run outside of this clone")


def check_repository(url: str) -> None:
    """The URL of the repository's page, if there is one, can be a link on any page."""
    if url and not re.fullmatch(r"https://[^/\s]+/\S+", url):
        raise ReleaseRefusedError(f"{url} is not the https URL of a repository's page")


def say(text: str) -> None:
    """A message for people."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Make a release, or say in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    parser.add_argument("--repository", default="", help="the URL of the repository's page, for absolute links")
    parser.add_argument("--check", action="store_true", help="only check what must hold before a build")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        check_repository(options.repository)
        version = check_before(options.root)
        say(f"version {version}: tree, tag, changelog and chart agree")
        if options.check:
            return
        os.environ[REPOSITORY_VARIABLE] = options.repository
        built = build_twice(options.root)
        check_built(*built, version)
        say("wheel and source distribution: reproducible, complete, valid metadata")
        run_wheel(built[0])
        write_sums(built)
    except ReleaseRefusedError as exc:
        sys.exit(f"no release: {exc}")
    except subprocess.CalledProcessError as exc:
        sys.exit(f"no release: {exc}\n{(exc.stderr or b'').decode()}")
    if not options.repository:
        say("the description has no links; give the repository's page for them: make release REPOSITORY=https://…")
    print(f"""In dist/: {", ".join(path.name for path in built)}, SHA256SUMS. Now:

  git tag --sign v{version} --message "Fluvial {version}"    # unless it exists
  git push origin HEAD v{version}
  .venv/bin/uv publish {" ".join(f"dist/{path.name}" for path in built)}

and put the files of dist/ and the section of CHANGELOG.md into the release's page.""")


if __name__ == "__main__":
    main()
