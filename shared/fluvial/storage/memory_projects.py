"""The smallest keeper of projects: for tests, and for a server that forgets."""

from fluvial.model.project import Project, ProjectName


class MemoryProjects:
    """Projects in a dictionary."""

    def __init__(self) -> None:
        """No project."""
        self._projects: dict[ProjectName, Project] = {}
        self._usage: dict[ProjectName, tuple[int, int]] = {}
        self._had_any = False

    @property
    def lag_s(self) -> float:
        """See Projects.lag_s: nobody else sees this process's memory."""
        return 0.0

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        return self._projects.get(name)

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        known = self._projects.get(project.name)
        before = None if known is None else (known.life, known.version)
        if before != (None if project.version == 1 else (project.life, project.version - 1)):
            return False
        self._projects[project.name], self._had_any = project, True
        return True

    async def remove(self, project: Project) -> bool:
        """See Projects.remove."""
        known = self._projects.get(project.name)
        if known is None or (known.life, known.version) != (project.life, project.version):
            return False
        del self._projects[project.name]
        return True

    async def listed(self, after: str, count_max: int) -> list[Project]:
        """See Projects.listed."""
        return [self._projects[name] for name in sorted(self._projects) if name > after][:count_max]

    async def any_ever(self) -> bool:
        """See Projects.any_ever."""
        return self._had_any

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        known_day, known = self._usage.get(name, (day, 0))
        total = byte_count + (known if known_day == day else 0)
        self._usage[name] = (day, total)
        return total
