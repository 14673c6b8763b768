"""How often a test tries what only luck finds: a little and always the same, or at length, which is `make soak`.

Both are Hypothesis' profiles, which tests/conftest.py registers: the long one tries fifty times as
much, and never the same.
"""

from typing import Any, Final

import pytest
from hypothesis import settings

QUICK: Final = settings(derandomize=True, deadline=None, database=None, max_examples=100)
SOAK: Final = settings(deadline=None, max_examples=50 * QUICK.max_examples)

#: `make soak` runs what has this mark, and all that Hypothesis gives examples to.
luck = pytest.mark.luck


def examples(count: int, **others: Any) -> settings:  # noqa: ANN401  they are Hypothesis' own
    """So many examples, or at length that many times more."""
    return settings(max_examples=_lengthened(count), **others)


def seeds(count: int) -> pytest.MarkDecorator:
    """The test's parameter `seed`: one of so many, or at length of that many times more."""
    return pytest.mark.parametrize("seed", range(_lengthened(count)))


def _lengthened(count: int) -> int:
    assert settings.default is not None, "tests/conftest.py has loaded a profile"
    return count * settings.default.max_examples // QUICK.max_examples
