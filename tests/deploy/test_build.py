"""The output of `sam build`: it fits Lambda's Python, processor and size limit, and it is complete."""

import re

import pytest

from tests.aws_local.template import load_template
from tests.deploy.built import BUILT

UNPACKED_BYTES_MAX = 250 * 1_048_576

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("built")]


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


def test_layer_has_the_bytecode_of_the_functions_python() -> None:
    """/opt is read-only on Lambda: without bytecode each new environment compiles what it imports."""
    version = re.sub(r"\D", "", load_template()["Globals"]["Function"]["Runtime"])
    python = BUILT / "FluvialLayer" / "python"
    for path in python.rglob("*.py"):
        if path.is_relative_to(python / "fluvial") or path.is_relative_to(python / "botocore"):
            assert (path.parent / "__pycache__" / f"{path.stem}.cpython-{version}.pyc").exists(), path
