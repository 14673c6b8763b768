"""The contract of a project store, which tests/contract/test_projects.py checks for every implementation."""

from typing import Protocol

from fluvial.model.names import StreamName
from fluvial.model.project import Project, ProjectName


class StreamNames(Protocol):
    """The listing of a store's streams, also beside a server that uses the store."""

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See Store.names. Raises StoreUnavailable."""
        ...


class Projects(Protocol):
    """Projects and their daily usage. Any number of processes may share them.

    Every method raises StoreUnavailable: nothing was written. Those that write raise StoreUncertain: it may have been.
    """

    @property
    def staleness_s_max(self) -> float:
        """How long other processes may use an old version of a project; 0 if there are no others."""
        ...

    async def get(self, name: ProjectName) -> Project | None:
        """The stored version of a project."""
        ...

    async def put(self, project: Project) -> bool:
        """Store a version of a project: it replaces the previous version of the same incarnation, or is the first.

        False if another version or another project is stored: nothing was changed.
        """
        ...

    async def remove(self, project: Project) -> bool:
        """Delete a project. False if this is not its stored version: nothing was changed."""
        ...

    async def list_after(self, after: str, count_max: int) -> list[Project]:
        """At most `count_max` projects whose names come after `after`, in the order of their names."""
        ...

    async def has_had_any(self) -> bool:
        """Whether the store has or had a project: from the first one on, a server is closed."""
        ...

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """Add to the bytes that a project has appended on a day (counted from 1970), and return the day's sum.

        Additions may be lost, because the sum only bounds costs.
        """
        ...
