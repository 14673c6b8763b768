"""`make cold`: how long a new environment takes to import each handler and to answer its first call.

Machines differ, so each figure is also given as a ratio to `import boto3` on the same machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.aws_local.__main__ import local_aws
from tests.aws_local.dynamodb_local import dynamodb_local

ROOT: Final = Path(__file__).parents[1]
ROUNDS: Final = 7

_TIMED: Final = """
import sys, time, json
sys.path[:0] = {paths!r}
began = time.perf_counter()
{imports}
imported = time.perf_counter()
{call}
print("ms", (imported - began) * 1e3, (time.perf_counter() - imported) * 1e3)
"""

_CALL: Final = """
class Context:
    function_name = "cold"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:cold"
    aws_request_id = "request"
result = handler(json.loads({event!r}), Context())
assert "errorMessage" not in result, result
"""


def timed(layer: Path, imports: str, call: str, environment: dict[str, str]) -> tuple[float, float]:
    """The medians of import and first call, in milliseconds, over fresh interpreters."""
    program = _TIMED.format(paths=[str(ROOT / "functions"), str(layer / "python")], imports=imports, call=call)
    rounds = list[tuple[float, float]]()
    for _ in range(ROUNDS + 1):
        ran = subprocess.run(
            [sys.executable, "-S", "-c", program],
            env={**os.environ, **environment, "PYTHONDONTWRITEBYTECODE": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        [line] = [line for line in ran.stdout.splitlines() if line.startswith("ms ")]
        _, imported, called = line.split()
        rounds.append((float(imported), float(called)))
    rounds = rounds[1:]  # the first one may have compiled
    return statistics.median(one for one, _ in rounds), statistics.median(one for _, one in rounds)


def layer_for_this_machine(folder: Path) -> Path:
    """What the layer would be if Lambda were this machine, bytecode and all."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["make", "-s", "-C", "shared", "build-FluvialLayer", f"ARTIFACTS_DIR={folder}", "PLATFORM=linux"]
    subprocess.run([*command, f"PYTHON_VERSION={version}"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)
    return folder


def folder_bytes(path: Path) -> int:
    """What a folder's files take."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def main() -> None:
    """Print the table."""
    out = sys.stdout.write
    with dynamodb_local() as url, local_aws(url) as settings, tempfile.TemporaryDirectory() as folder:
        layer = layer_for_this_machine(Path(folder))
        environment = {**settings, "POWERTOOLS_METRICS_NAMESPACE": "Fluvial"}
        boto3_ms, _ = timed(layer, "import boto3", "", environment)
        out(f"{'':<22}{'import, ms':>12}{'/ import boto3':>16}{'first call, ms':>16}\n")
        out(f"{'import boto3':<22}{boto3_ms:>12.0f}{1.0:>15.1f}x\n")
        for function, sample in (("append", "append_missing_stream"), ("edge", "edge_get_missing")):
            event = json.dumps(json.loads((ROOT / "events" / f"{sample}.json").read_text()))
            imports = f"from {function}.handler import handler"
            imported_ms, called_ms = timed(layer, imports, _CALL.format(event=event), environment)
            out(f"{function:<22}{imported_ms:>12.0f}{imported_ms / boto3_ms:>15.1f}x{called_ms:>16.0f}\n")
    built = ROOT / ".aws-sam" / "build"
    if built.exists():
        for part in sorted(path for path in built.iterdir() if path.is_dir()):
            out(f"{part.name:<22}{folder_bytes(part) / 1e6:>9.1f} MB unpacked\n")
    else:
        out("make build tells the packaged sizes, too\n")


if __name__ == "__main__":
    main()
