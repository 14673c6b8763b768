"""The backlog where a change feed follows every commit: the committed head is all that it needs."""

from fluvial.core.plan import plan_delivered
from fluvial.fanout.delivering import Source
from fluvial.stores.contract import Store


class FeedBacklog:
    """The feed has been told by the append itself; only what needs no more work has to be noted."""

    def __init__(self, store: Store) -> None:
        """Over the store whose changes are fed."""
        self._store = store

    async def put(self, source: Source) -> None:
        """See Backlog.put: whoever handles the change of the head delivers."""

    async def done(self, source: Source) -> None:
        """See Backlog.done."""
        await self._store.apply(source.name, plan_delivered(source.head))
