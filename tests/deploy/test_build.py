"""What `sam build` made: for Lambda's Python and processor, and enough by itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws_local.dynamodb_local import is_required
from tests.aws_local.template import load_template

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".aws-sam" / "build"
UNPACKED_BYTES_MAX = 250 * 1_048_576

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """`make build` comes first."""
    if not BUILT.exists():
        assert not is_required(), "make build has not run"
        pytest.skip("make build has not run")


def test_binaries_are_for_lambdas_python_and_processor() -> None:
    """Whatever built them."""
    function = load_template()["Globals"]["Function"]
    assert function["Architectures"] == ["arm64"]
    version = re.sub(r"\D", "", function["Runtime"])
    binaries = list((BUILT / "FluvialLayer").rglob("*.so"))
    assert binaries
    for path in binaries:
        assert path.read_bytes()[18:20] == b"\xb7\x00", f"{path} is not for AArch64"
        assert f"cpython-{version}-aarch64" in path.name or ".abi3." in path.name, path


def test_it_fits_into_lambda() -> None:
    """Layer and functions, unpacked."""
    assert sum(path.stat().st_size for path in BUILT.rglob("*") if path.is_file()) < UNPACKED_BYTES_MAX


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer's lock for this machine's processor."""
    layer = tmp_path_factory.mktemp("layer")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = ["make", "-s", "-C", "shared", "build-FluvialLayer", f"ARTIFACTS_DIR={layer}", f"PYTHON_VERSION={here}"]
    subprocess.run([*made, "PLATFORM=linux"], cwd=ROOT, check=True, timeout=300, capture_output=True)
    packaged = {path.relative_to(layer) for path in (layer / "python" / "fluvial").rglob("*.py")}
    deployed = BUILT / "FluvialLayer"
    assert packaged == {path.relative_to(deployed) for path in (deployed / "python" / "fluvial").rglob("*.py")}
    return layer


@pytest.mark.parametrize("function", ["edge", "append", "sockets", "subscription", "fanout", "changes"])
def test_a_function_imports_from_its_own_folders(function: str, layer: Path) -> None:
    """The layer, the function, and nothing else."""
    folder = f"{function.capitalize()}Function"
    program = f"import sys; sys.path[:0] = [{str(BUILT / folder)!r}, {str(layer / 'python')!r}]\n"
    program += f"import {function}.handler, fluvial; print(fluvial.__file__); print('fastapi' in sys.modules)"
    environment = {"AWS_DEFAULT_REGION": "eu-central-1", "POWERTOOLS_TRACE_DISABLED": "true", "PATH": "/usr/bin:/bin"}
    environment |= {"FLUVIAL_APPEND_FUNCTION": "append", "FLUVIAL_FANOUT_QUEUE_URL": "https://queue"}
    environment["FLUVIAL_CONNECTIONS_URL"] = "https://connections"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(layer / "python" / "fluvial" / "__init__.py"), "False"]
