"""The REST API's routes, as the template gives them to its functions."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.aws_local.template import load_properties

_PARAMETER: Final = re.compile(r"\\\{(\w+)\\\+\\\}")


@dataclass(frozen=True)
class Route:
    """A method of a resource. `function` is the function's logical name."""

    resource: str
    method: str
    function: str

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters; None if it is not the resource's."""
        pattern = _PARAMETER.sub(r"(?P<\1>.+)", re.escape(self.resource))
        found = re.fullmatch(pattern, path)
        return None if found is None else found.groupdict()


@cache
def all_routes() -> tuple[Route, ...]:
    """All routes; those of one method come before those of any."""
    routes = [
        Route(event["Properties"]["Path"], event["Properties"]["Method"], name)
        for name, function in load_properties("AWS::Serverless::Function").items()
        for event in function.get("Events", {}).values()
        if event["Type"] == "Api"
    ]
    return tuple(sorted(routes, key=lambda route: route.method == "ANY"))


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The route of a request, and its parameters; None if the API has none."""
    for route in all_routes():
        parameters = route.match(path) if route.method in {method, "ANY"} else None
        if parameters is not None:
            return route, parameters
    return None
