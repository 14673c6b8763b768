"""The append protocol's model: it keeps its promises in random histories, and needs each of its rules."""

from collections import Counter

import pytest

from tests.model.append_protocol import history
from tests.model.table import Rule
from tests.support.budget import luck, seeds

#: Histories after which a missing rule must have shown; the rarest shows in one of some hundred.
HISTORIES_MAX = 4_000


@luck
@seeds(4)
def test_every_history_keeps_the_promises(seed: int) -> None:
    """Requests and answers are lost, requests are late, and clients give up on servers."""
    seen = Counter[str]()
    for number in range(50):
        seen += history(seed * 50 + number)
    for what in (
        "request lost",
        "request late",
        "answer lost",
        "abandoned",
        "append refused",
        "delete_payload applied",
    ):
        assert seen[what] > 0


@pytest.mark.parametrize("rule", list(Rule))
def test_histories_fail_without_a_rule(rule: Rule) -> None:
    """A rule that no history needs would not be one."""
    for seed in range(HISTORIES_MAX):
        try:
            history(seed, rule)
        except AssertionError:
            return
    pytest.fail(f"{HISTORIES_MAX} histories hold without {rule}")
