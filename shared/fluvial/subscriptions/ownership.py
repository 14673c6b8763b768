"""Ownership: whether a subscription still belongs to the project, or to the open server, that it was created for."""

from dataclasses import dataclass

from fluvial.access.project_cache import ProjectCache
from fluvial.model.subscriptions.state import Subscription


@dataclass(frozen=True, slots=True)
class Ownership:
    """Asks the projects of a store."""

    project_cache: ProjectCache

    async def is_owned(self, subscription: Subscription) -> bool | None:
        """See IsOwned. Raises StoreUnavailable.

        A subscription of an open server rests for ever once the server has projects: its pattern would match their
        streams. One of a project that is being deleted rests until the project is gone, because the deletion may be
        refused. One of a project that has ended is of no use to the next project with the name.
        """
        if not subscription.root:
            return await self.project_cache.is_open()
        name = subscription.root.rstrip("/")
        project = await self.project_cache.find(name)
        if project is not None and project.incarnation == subscription.owner:
            return True
        stored = await self.project_cache.stored(name)
        return None if stored is None or stored.incarnation != subscription.owner else not stored.is_ending
