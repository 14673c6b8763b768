"""The contract of what keeps projects. Its suite is tests/contract/test_projects.py."""

from typing import Protocol

from fluvial.model.names import StreamName
from fluvial.model.project import Project, ProjectName


class StreamNames(Protocol):
    """As much of a store as tells which streams there are, also beside a server that uses it."""

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See Store.names. Raises StoreUnavailable."""
        ...


class Projects(Protocol):
    """Projects, and what they have appended; any number of processes may share them.

    Every method raises StoreUnavailable: nothing was written. Those that write raise StoreUncertain: it may have been.
    """

    @property
    def lag_s(self) -> float:
        """How long other processes may go on with what a project was; 0 where there are no others."""
        ...

    async def get(self, name: ProjectName) -> Project | None:
        """A project as it is now."""
        ...

    async def put(self, project: Project) -> bool:
        """Keep a project in the place of the version before it in its life; a first version where no project is.

        False when something else is there by now: nothing was changed.
        """
        ...

    async def remove(self, project: Project) -> bool:
        """End a project, if this is still its version."""
        ...

    async def listed(self, after: str, count_max: int) -> list[Project]:
        """Projects whose names come after a text, in order; at most `count_max`."""
        ...

    async def any_ever(self) -> bool:
        """Whether there is or was a project: from then on nothing is open to everybody."""
        ...

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """Add to what a project has appended on a day, counted from 1970 on; the day's sum.

        The sum may be lost in part, for it bounds costs and nothing else.
        """
        ...
