"""Projects and tokens for tests."""

from fluvial.access.authorizer import Authorizer, no_operator
from fluvial.access.project_cache import ProjectCache
from fluvial.access.throttle import Throttle
from fluvial.access.tokens import Claims, mint
from fluvial.clock import Clock
from fluvial.model.permissions import Scope
from fluvial.model.project import Project, ProjectName, Secret
from fluvial.storage.projects import Projects
from tests.support.clocks import START_MS

SECRET = Secret("s" * 32, START_MS)
OLD_SECRET = Secret("o" * 32, START_MS)
FOREIGN_SECRET = Secret("f" * 32, START_MS)
OPERATOR_SECRET = Secret("p" * 32, START_MS)


def open_authorizer(projects: Projects, clock: Clock) -> Authorizer:
    """The authorizer of a server that is open until it has a project."""
    return Authorizer(ProjectCache(projects, clock, closed=False), Throttle(projects, clock), clock, no_operator, "*")


def project(name: str = "demo", **fields: object) -> Project:
    """A project with one secret, and these fields."""
    defaults: dict[str, object] = {
        "name": ProjectName(name),
        "incarnation": 1,
        "secrets": (SECRET,),
        "created_ms": START_MS,
    }
    return Project(**{**defaults, **fields})  # type: ignore[arg-type]


def token(scope: Scope = Scope.READ, secret: Secret = SECRET, sub: str = "demo", **claims: object) -> str:
    """A token of `demo` that expires in an hour, unless other claims are given."""
    defaults: dict[str, object] = {"sub": sub, "scope": scope, "exp": START_MS / 1_000 + 3_600}
    return mint(secret, Claims(**{**defaults, **claims}))  # type: ignore[arg-type]
