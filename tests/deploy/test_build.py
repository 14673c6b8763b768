"""The output of `sam build`: it fits Lambda's Python, processor and size limit, and it is complete."""

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

# One worker runs them all, because each worker would build a layer of its own.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("layer")]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Skip these tests, or fail them in CI, unless `make build` has run."""
    if not BUILT.exists():
        assert not is_required(), "make build has not run"
        pytest.skip("make build has not run")


def test_layer_binaries_are_for_the_functions_python_and_architecture() -> None:
    """They do not depend on the Python and the processor of the machine that built them."""
    function = load_template()["Globals"]["Function"]
    assert function["Architectures"] == ["arm64"]
    version = re.sub(r"\D", "", function["Runtime"])
    binaries = list((BUILT / "FluvialLayer").rglob("*.so"))
    assert binaries
    for path in binaries:
        assert path.read_bytes()[18:20] == b"\xb7\x00", f"{path} is not for AArch64"
        assert f"cpython-{version}-aarch64" in path.name or ".abi3." in path.name, path


def test_layer_and_functions_fit_into_lambdas_size_limit() -> None:
    """All of them together, unpacked, are smaller than the limit of one function."""
    assert sum(path.stat().st_size for path in BUILT.rglob("*") if path.is_file()) < UNPACKED_BYTES_MAX


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer, built for this machine's Python and processor from the same lock."""
    layer = tmp_path_factory.mktemp("layer")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["make", "-s", "-C", "shared", "build-FluvialLayer", f"ARTIFACTS_DIR={layer}", f"PYTHON_VERSION={here}"]
    subprocess.run([*command, "PLATFORM=linux"], cwd=ROOT, check=True, timeout=300, capture_output=True)
    packaged = {path.relative_to(layer) for path in (layer / "python" / "fluvial").rglob("*.py")}
    deployed = BUILT / "FluvialLayer"
    assert packaged == {path.relative_to(deployed) for path in (deployed / "python" / "fluvial").rglob("*.py")}
    return layer


@pytest.mark.parametrize("function", ["edge", "append", "sockets", "subscription", "fanout", "changes", "sweep"])
def test_function_imports_from_the_layer_and_its_own_folder_alone(function: str, layer: Path) -> None:
    """It needs no other folder on its path, and it does not import FastAPI at its start."""
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
