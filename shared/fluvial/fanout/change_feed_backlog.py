"""The backlog where a change feed follows every commit: the committed head is all that it needs."""

from fluvial.fanout.replication import Source
from fluvial.model.plan import plan_mark_delivered
from fluvial.storage.contract import Store


class ChangeFeedBacklog:
    """The feed has been told by the append itself; only what needs no more work has to be noted."""

    def __init__(self, store: Store) -> None:
        """Over the store whose changes are fed."""
        self._store = store

    async def put(self, source: Source) -> None:
        """See Backlog.put: whoever handles the change of the head delivers."""

    async def done(self, source: Source) -> None:
        """See Backlog.done."""
        await self._store.apply(source.name, plan_mark_delivered(source.head))
