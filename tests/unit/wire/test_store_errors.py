"""What a client is told when the store has failed."""

import pytest

from fluvial.model.errors import StorageDamaged, StoreBusy, StoreError, StoreUnavailable, StoreUncertain
from fluvial.wire.response import store_error_response


@pytest.mark.parametrize(
    ("error", "status", "is_passing"),
    [
        (StoreUnavailable(), 503, True),
        (StoreBusy(), 429, True),
        (StoreUncertain(), 503, True),
        (StorageDamaged(), 500, False),
    ],
)
def test_failure_that_passes_says_when_to_come_again(error: StoreError, status: int, *, is_passing: bool) -> None:
    """And one that does not pass says nothing of the kind."""
    response = store_error_response(error)
    assert response.status == status
    assert (b"retry-after", b"1") in response.headers or not is_passing
    assert any(name == b"retry-after" for name, _ in response.headers) is is_passing
    assert error.code.value.encode() in response.body
