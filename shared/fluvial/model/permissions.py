"""Grants: what a token lets its bearer do, and what each request needs."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from fluvial.model.names import StreamName


class Scope(StrEnum):
    """What a token is for; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    MANAGE = "manage"


class Permission(IntEnum):
    """What a request must be allowed to do; writing includes reading, and managing both."""

    NOTHING = 0
    READ = 1  # see a stream
    WRITE = 2  # change a stream
    MANAGE = 3  # see and change a project
    LIST_STREAMS = 4  # see the names of all streams: everybody on an open server, else an operator
    ADMINISTER = 5  # make and end projects, and see them all: an operator


_ALLOWS = {Scope.READ: Permission.READ, Scope.WRITE: Permission.WRITE, Scope.MANAGE: Permission.MANAGE}

#: Whose token an operator's is: no project has this name.
OPERATOR = "*"


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that was verified.

    `stream` is the name within the project of the one stream that it is for or, when it ends with a slash, of what
    all of them begin with; None is for the whole project.
    """

    project: str
    scope: Scope
    expires_at_ms: int
    stream: str | None = None

    def allows(self, need: Permission) -> bool:
        """Whether the scope is enough."""
        return _ALLOWS[self.scope] >= need

    def covers(self, name: StreamName) -> bool:
        """Whether the token is for a stream of its project."""
        _, _, within = name.partition("/")
        if self.stream is None:
            return True
        return within.startswith(self.stream) if self.stream.endswith("/") else within == self.stream
