"""What `sam build` has made, and its layer once more for this machine's Python and processor."""

import subprocess
import sys
from pathlib import Path

from tests.aws_local.dynamodb_local import is_required

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".aws-sam" / "build"


def is_built() -> bool:
    """Whether `make build` has run; in CI it must have."""
    assert BUILT.exists() or not is_required(), "make build has not run"
    return BUILT.exists()


def build_layer(folder: Path) -> Path:
    """Build the layer from the same lock for this machine; the folder that Lambda would have on the path."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["make", "-s", "-C", "shared", "build-FluvialLayer", f"ARTIFACTS_DIR={folder}", f"PYTHON_VERSION={here}"]
    subprocess.run([*command, "PLATFORM=linux"], cwd=ROOT, check=True, timeout=300, capture_output=True)
    return folder / "python"
