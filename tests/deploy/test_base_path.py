"""A custom domain's base path, as the template gives it to the Lambda Web Adapter."""

import re

import pytest

from tests.aws_local.live_function import path_without
from tests.aws_local.template import load_template

PATH = "/v1/stream/v1/stream/a"


@pytest.fixture(scope="module")
def pattern() -> re.Pattern[str]:
    """What the parameter may be."""
    return re.compile(load_template()["Parameters"]["BasePath"]["AllowedPattern"])


@pytest.mark.parametrize("base_path", ["", "/streams", "/api/v2", "/a/v1", "/video", "/v2", "/S$_.+!*'()-"])
def test_the_adapter_takes_a_base_path_off(pattern: re.Pattern[str], base_path: str) -> None:
    """And nothing of the stream's path."""
    assert pattern.fullmatch(base_path)
    assert path_without(base_path, base_path + PATH) == PATH


@pytest.mark.parametrize("base_path", ["/", "streams", "/streams/", "//a", "/v", "/v1", "/v1/stream", "/a b", "/a%20b"])
def test_a_base_path_that_the_adapter_would_mistake_is_refused(pattern: re.Pattern[str], base_path: str) -> None:
    """It takes off as often as the path begins with it, also what is the stream's."""
    assert not pattern.fullmatch(base_path)


def test_the_live_function_knows_the_base_path() -> None:
    """Only if there is one."""
    template = load_template()
    variables = template["Resources"]["LiveFunction"]["Properties"]["Environment"]["Variables"]
    assert "BasePath" in str(variables["AWS_LWA_REMOVE_BASE_PATH"])
    assert "HasBasePath" in template["Conditions"]
