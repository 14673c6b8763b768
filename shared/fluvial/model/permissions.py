"""Permissions: what a request requires, and what a verified token allows."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from fluvial.model.names import StreamName


class Scope(StrEnum):
    """A token's `scope` claim; each scope includes the ones before it."""

    READ = "read"
    WRITE = "write"
    MANAGE = "manage"


class Permission(IntEnum):
    """What a request requires; writing includes reading, and managing includes both."""

    NOTHING = 0
    READ = 1  # see a stream
    WRITE = 2  # change a stream
    MANAGE = 3  # see and change a project
    LIST_STREAMS = 4  # list streams: an operator all, a project's token those that it may read
    ADMINISTER = 5  # create, list and end projects: an operator


_HIGHEST_PERMISSION: Final = {
    Scope.READ: Permission.READ,
    Scope.WRITE: Permission.WRITE,
    Scope.MANAGE: Permission.MANAGE,
}

#: The `sub` claim of an operator's token. No project can have this name.
OPERATOR: Final = "*"


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The claims of a token whose signature and times were verified.

    `stream` narrows the token: to one stream, by its name within the project, or, when it ends with a slash, to all
    streams whose names begin with it. None is the whole project.
    """

    project: str
    scope: Scope
    expires_at_ms: int
    stream: str | None = None

    def allows(self, required: Permission) -> bool:
        """Whether the scope includes a permission."""
        return _HIGHEST_PERMISSION[self.scope] >= required

    def covers(self, name: StreamName) -> bool:
        """Whether the token is for a stream of its project."""
        _, _, within = name.partition("/")
        if self.stream is None:
            return True
        return within.startswith(self.stream) if self.stream.endswith("/") else within == self.stream
