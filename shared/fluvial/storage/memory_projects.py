"""The in-memory project store, for tests and for `--store memory`."""

from fluvial.model.project import Project, ProjectName


class MemoryProjects:
    """Projects in a dictionary."""

    def __init__(self) -> None:
        """Start without projects."""
        self._projects: dict[ProjectName, Project] = {}
        self._usage: dict[ProjectName, tuple[int, int]] = {}
        self._had_any = False

    @property
    def staleness_s_max(self) -> float:
        """See Projects.staleness_s_max: no other process shares this one's memory."""
        return 0.0

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        return self._projects.get(name)

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        known = self._projects.get(project.name)
        before = None if known is None else (known.incarnation, known.version)
        if before != (None if project.version == 1 else (project.incarnation, project.version - 1)):
            return False
        self._projects[project.name], self._had_any = project, True
        return True

    async def remove(self, project: Project) -> bool:
        """See Projects.remove."""
        known = self._projects.get(project.name)
        if known is None or (known.incarnation, known.version) != (project.incarnation, project.version):
            return False
        del self._projects[project.name]
        return True

    async def list_after(self, after: str, count_max: int) -> list[Project]:
        """See Projects.list_after."""
        return [self._projects[name] for name in sorted(self._projects) if name > after][:count_max]

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        return self._had_any

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        known_day, known = self._usage.get(name, (day, 0))
        total = byte_count + (known if known_day == day else 0)
        self._usage[name] = (day, total)
        return total
