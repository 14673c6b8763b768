"""The backlog of a process beside a change feed.

The feed processes every commit, and delivers what the source's head says is undelivered: nothing else has to be noted.
"""

from fluvial.fanout.replication import Source
from fluvial.model.plan import plan_mark_delivered
from fluvial.storage.contract import Store


class ChangeFeedBacklog:
    """Marks delivered sources, and leaves undelivered ones to the change feed."""

    def __init__(self, store: Store) -> None:
        """`store` is the one whose changes the feed follows."""
        self._store = store

    async def put(self, source: Source) -> None:
        """See Backlog.put: nothing to do, because the feed delivers after every append."""

    async def mark_delivered(self, source: Source) -> None:
        """See Backlog.mark_delivered."""
        await self._store.apply(source.name, plan_mark_delivered(source.head))
