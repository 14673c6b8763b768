"""A table and a bucket that processes of several releases share."""

from collections.abc import AsyncIterator, Iterator

import pytest

from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.support.clocks import FixedClock
from tests.tables.releases import open_store, shared_table


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Where the table and the bucket are."""
    with shared_table() as variables:
        yield variables


@pytest.fixture
def still() -> FixedClock:
    """The time of this release's process."""
    return FixedClock()


@pytest.fixture
async def store(environment: dict[str, str], still: FixedClock) -> AsyncIterator[DynamoDbStore]:
    """A process of this release."""
    opened = open_store(environment, still.own_clock())
    yield opened
    await opened.close()
