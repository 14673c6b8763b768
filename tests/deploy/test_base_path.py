"""The base path of a custom domain: which ones the template allows, and how the Lambda Web Adapter removes them."""

import re

import pytest

from tests.aws_local.adapter import strip_base_path
from tests.aws_local.template import load_template

PATH = "/v1/stream/v1/stream/a"


@pytest.fixture(scope="module")
def pattern() -> re.Pattern[str]:
    """The pattern of allowed values of the parameter BasePath."""
    return re.compile(load_template()["Parameters"]["BasePath"]["AllowedPattern"])


@pytest.mark.parametrize("base_path", ["", "/streams", "/api/v2", "/a/v1", "/video", "/v2", "/S$_.+!*'()-"])
def test_adapter_removes_an_allowed_base_path_alone(pattern: re.Pattern[str], base_path: str) -> None:
    """The stream's own path stays whole, even if it has segments that look like a base path."""
    assert pattern.fullmatch(base_path)
    assert strip_base_path(base_path, base_path + PATH) == PATH


@pytest.mark.parametrize("base_path", ["/", "streams", "/streams/", "//a", "/v", "/v1", "/v1/stream", "/a b", "/a%20b"])
def test_base_path_that_is_a_prefix_of_stream_paths_is_not_allowed(pattern: re.Pattern[str], base_path: str) -> None:
    """The adapter removes the base path repeatedly, so it would remove a part of the stream's path, too."""
    assert not pattern.fullmatch(base_path)


def test_live_function_gets_the_base_path_if_there_is_one() -> None:
    """Without a base path the adapter's variable is absent."""
    template = load_template()
    variables = template["Resources"]["LiveFunction"]["Properties"]["Environment"]["Variables"]
    assert "BasePath" in str(variables["AWS_LWA_REMOVE_BASE_PATH"])
    assert "HasBasePath" in template["Conditions"]
