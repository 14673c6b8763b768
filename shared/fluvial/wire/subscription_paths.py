"""The paths of the protocol's own routes, below `__ds` in a stream root (spec 6).

"Servers MUST route the reserved `__ds` prefix before normal stream operations" -- spec 6. A server without projects has
one stream root, `/v1/stream/`; with projects each of them has its own, `/v1/stream/{project}/`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.names import RESERVED_SEGMENT, STREAM_ROOT
from fluvial.model.subscriptions.configuration import parse_subscription_id
from fluvial.model.subscriptions.pattern import StreamPath, parse_path

_ROOT: Final = STREAM_ROOT.encode()
_RESERVED: Final = RESERVED_SEGMENT.encode()
_MARK: Final = b"/" + _RESERVED


class Route(StrEnum):
    """One of the protocol's own routes; the value is its template, as metrics and logs have it."""

    KEYS = "__ds/jwks.json"
    SUBSCRIPTIONS = "__ds/subscriptions"
    SUBSCRIPTION = "__ds/subscriptions/{id}"
    STREAMS = "__ds/subscriptions/{id}/streams"
    STREAM = "__ds/subscriptions/{id}/streams/{path}"
    CALLBACK = "__ds/subscriptions/{id}/callback"
    CLAIM = "__ds/subscriptions/{id}/claim"
    ACK = "__ds/subscriptions/{id}/ack"
    RELEASE = "__ds/subscriptions/{id}/release"


_ACTIONS: Final = {route.value.rpartition("/")[2]: route for route in Route if "{id}/" in route.value}


@dataclass(frozen=True, slots=True)
class ControlPath:
    """A path below `__ds`: its route, and the values of the template."""

    route: Route
    subscription_id: str = ""
    path: StreamPath | None = None


def find_root(raw_path: bytes, *, has_projects: bool) -> tuple[str, str] | None:
    """The stream root of a path below `__ds`, and the rest after `__ds/`; None for the path of a stream.

    The root is empty, or a project with a slash. This is asked for every request, so most are told from the first look.
    """
    if _MARK not in raw_path:
        return None
    first, _, rest = raw_path[len(_ROOT) :].partition(b"/")
    if not has_projects:
        return ("", rest.decode("latin-1")) if first == _RESERVED else None
    second, _, rest = rest.partition(b"/")
    return (f"{first.decode('latin-1')}/", rest.decode("latin-1")) if second == _RESERVED else None


def parse_control_path(rest: str) -> ControlPath:
    """Parse what follows `__ds/`. Raises RequestError for a path without a route."""
    kind, _, rest = rest.partition("/")
    if (kind, rest) == ("jwks.json", ""):
        return ControlPath(Route.KEYS)
    if kind != "subscriptions":
        raise RequestError(ErrorCode.RESERVED_PATH, "there is no such route below __ds", 404)
    segment, _, rest = rest.partition("/")
    if not segment and not rest:
        return ControlPath(Route.SUBSCRIPTIONS)
    if not segment:
        raise RequestError(ErrorCode.RESERVED_PATH, "a subscription's id is missing", 404)
    subscription_id = parse_subscription_id(segment)
    if not rest:
        return ControlPath(Route.SUBSCRIPTION, subscription_id)
    action, _, path = rest.partition("/")
    if action == "streams" and path:
        # ":path is the URL-encoded stream-root-relative stream path and may contain slashes." -- spec 6.4
        return ControlPath(Route.STREAM, subscription_id, parse_path(path.replace("%2F", "/").replace("%2f", "/")))
    if action in _ACTIONS and not path:
        return ControlPath(_ACTIONS[action], subscription_id)
    raise RequestError(ErrorCode.RESERVED_PATH, "a subscription has no such route", 404)
