"""`make pythons`: the fast tests on every supported Python that is on this machine."""

import re
import subprocess
import sys
from pathlib import Path
from shutil import which

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-pythons"
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
UV = Path(sys.executable).parent / "uv"


def interpreter(version: str) -> str | None:
    """A Python of this version, from pyenv or on the PATH."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if found:
        return str(found[-1])
    path = which(f"python{version}")
    runs = path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
    return path if runs else None  # pyenv's shims exist for versions that are not chosen


def run(version: str, python: str, tests: list[str]) -> str:
    """Install what tests need into an environment of its own, and run them; pytest's last line."""
    environment = ENVIRONMENTS / version
    if not environment.exists():
        subprocess.run([python, "-m", "venv", "--without-pip", str(environment)], check=True)
    install = [str(UV), "pip", "install", "--quiet", "--no-config", "--python", str(environment / "bin" / "python")]
    subprocess.run([*install, "--require-hashes", "-r", "requirements/dev.txt"], cwd=ROOT, check=True)
    command = [str(environment / "bin" / "pytest"), "-p", "no:cacheprovider", "-n", "2", "--dist", "worksteal"]
    command += ["-m", "not slow and not medium", *tests]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        print(ran.stdout[-8_000:] + ran.stderr[-2_000:])
    summary = re.findall(r"^\d+ (?:passed|failed).*$", ran.stdout, re.MULTILINE)
    return summary[-1] if summary else f"no tests ran (exit status {ran.returncode})"


def main() -> None:
    """A line for each version; exit status 1 if one failed."""
    results = dict[str, str]()
    for version in SUPPORTED:
        python = interpreter(version)
        results[version] = run(version, python, sys.argv[1:]) if python else "not on this machine"
        print(f"Python {version}: {results[version]}", flush=True)
    is_bad = any("failed" in result or "no tests" in result or "error" in result for result in results.values())
    sys.exit(1 if is_bad else 0)


if __name__ == "__main__":
    main()
