"""Puts the OpenAPI document together.

1. FastAPI describes parameters and bodies of requests to control routes, because its routes' code has their types.
2. Answers come from `CONTROL_OPERATIONS`, errors also from the permission that a route requires. FastAPI's own
   descriptions of answers are dropped: it knows none of the statuses.
3. The methods of streams come from `STREAM_OPERATIONS` as a whole, and those of subscriptions from
   `SUBSCRIPTION_OPERATIONS`.
"""

import re
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from fluvial.model.errors import ErrorCode
from fluvial.model.limits import STREAM_NAME_BYTES_MAX
from fluvial.model.permissions import Permission
from fluvial.model.project import PROJECT_NAME_PATTERN
from fluvial.server.application import CHECKS
from fluvial.server.control.fastapi_errors import RoutePermissions
from fluvial.server.control.openapi import schemas
from fluvial.server.control.openapi.answers import (
    TEXT,
    Field,
    JsonSchema,
    Operation,
    render_answers,
    render_content,
    render_parameter,
)
from fluvial.server.control.openapi.control_operations import CONTROL_OPERATIONS
from fluvial.server.control.openapi.errors import WITH_BODY, shared_codes
from fluvial.server.control.openapi.stream_operations import STREAM_OPERATIONS, STREAM_PATH, StreamOperation
from fluvial.server.control.openapi.subscription_operations import (
    SUBSCRIPTION_OPERATIONS,
    SubscriptionOperation,
    documented_path,
)
from fluvial.server.control.openapi.subscription_schemas import BODIES
from fluvial.server.streams import STREAM_PERMISSIONS
from fluvial.server.subscriptions import PERMISSIONS as SUBSCRIPTION_PERMISSIONS
from fluvial.wire.subscription_paths import Route

DESCRIPTION: Final = """\
Streams that are appended to, and read from any offset, once or live, by the Durable Streams protocol.

- **Errors** have one body, `{"error": {"code", "message"}}`. Codes are stable.
- **Every method** may also get 408, 417, 431, 501 or 505 with that body, when its request is not HTTP that the server
  can read. **HEAD** is answered wherever GET is. **OPTIONS** answers preflights on every path.
- **A stream's path** may have slashes. Send them as they are: `%2F` is a part of one segment.
- **A server is open** until it has a project. From then on the first segment of a stream's path is its project's name,
  and requests need a token. The routes below `__ds` are then those of each project: `/v1/stream/{project}/__ds/…`.
"""

TAGS: Final = (
    {"name": "streams", "description": "Create, append, read and delete streams; list and describe them."},
    {"name": "subscriptions", "description": "Durable cursors that wake workers when streams have pending work."},
    {"name": "estuaries", "description": "Fan-in streams, which other streams flow into."},
    {"name": "projects", "description": "Projects own streams: their secrets, origins, privacy and limits."},
    {"name": "server", "description": "The server's state, for operators and load balancers."},
)

SERVERS: Final = ({"url": "/", "description": "The server that this document comes from."},)

_SECURITY_SCHEMES: Final = {
    "bearerToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token that is signed (HS256) with a secret of the project, or with an operator's.",
    },
    "queryToken": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The same token, for reads that cannot have the field: EventSource, WebSocket.",
    },
}

_NAME: Final[JsonSchema] = {"type": "string", "minLength": 1, "maxLength": STREAM_NAME_BYTES_MAX}

_REFERENCE: Final = "#/components/schemas/{name}"

#: FastAPI's own errors, which no answer has.
_UNUSED_SCHEMAS: Final = frozenset({"HTTPValidationError", "ValidationError"})

#: The placeholders of paths.
_PATH_PARAMETERS: Final = {
    field.name: field
    for field in (
        Field("project", "The project's name.", {"type": "string", "pattern": PROJECT_NAME_PATTERN}),
        Field("stream", "The stream's path, or the rest of it after the project. It may have slashes.", _NAME),
        Field("estuary", "The estuary's id, one segment of a path.", _NAME),
        Field("secret_id", "The secret's id.", TEXT),
        Field("id", "The subscription's id, one segment of a path.", _NAME),
        Field("path", "A stream's path below its stream root; it may have slashes.", _NAME),
    )
}


def describe_api(app: FastAPI, permissions: RoutePermissions) -> dict[str, Any]:
    """The OpenAPI document of an application of control routes, and of the methods of streams."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=list(TAGS),
        servers=list(SERVERS),
    )
    components = document.setdefault("components", {})
    bodies = {name: one for name, one in components["schemas"].items() if name not in _UNUSED_SCHEMAS}
    components["schemas"] = bodies | _body_schemas()
    components["securitySchemes"] = _SECURITY_SCHEMES
    described = {(method, document_path(path)): one for (method, path), one in CONTROL_OPERATIONS.items()}
    required = {(method, document_path(path)): one for (method, path), one in permissions.items()}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            route = (method.upper(), path)
            _complete(operation, route, described.get(route, Operation(())), required.get(route, Permission.ADMINISTER))
    document["paths"] = {STREAM_PATH: _describe_stream_methods(), **_describe_subscriptions(), **document["paths"]}
    return document


def _body_schemas() -> dict[str, Any]:
    types = [one for one in vars(schemas).values() if isinstance(one, type) and issubclass(one, schemas.Body)]
    types.remove(schemas.Body)
    return msgspec.json.schema_components([*types, *BODIES], ref_template=_REFERENCE)[1]


def _schema_of(body: type) -> JsonSchema:
    return {"$ref": _REFERENCE.format(name=body.__name__)}


def document_path(path: str) -> str:
    """A route's path as OpenAPI spells it."""
    return path.replace(":path}", "}")


def _complete(operation: dict[str, Any], route: tuple[str, str], described: Operation, required: Permission) -> None:
    """Replace FastAPI's answers and placeholders of a control route; the rest of its description stays."""
    method, path = route
    others = [one for one in operation.get("parameters", ()) if one["in"] != "path"]
    operation["parameters"] = [*_path_parameters(path), *others]
    operation["security"] = _security(method, required, path)
    shared = shared_codes(method, required, is_named=bool({"stream", "estuary"} & set(_placeholders(path))))
    if method != "GET":
        shared += WITH_BODY
    if path.encode() in CHECKS:
        shared = tuple(code for code in shared if code is not ErrorCode.NOT_THROUGH_THE_CDN)
    operation["responses"] = render_answers(described, shared, _schema_of, has_bodies=True)


def _describe_stream_methods() -> dict[str, Any]:
    described = {method.lower(): _describe_stream_method(method, one) for method, one in STREAM_OPERATIONS.items()}
    return {"parameters": _path_parameters(STREAM_PATH), **described}


def _describe_stream_method(method: str, described: StreamOperation) -> dict[str, Any]:
    required = STREAM_PERMISSIONS.get(method, Permission.NOTHING)
    query = [render_parameter(field, "query") for field in described.query]
    fields = [render_parameter(field, "header") for field in described.fields]
    body = {} if described.content is None else {"requestBody": {"content": render_content(described.content)}}
    shared = shared_codes(method, required, is_named=True)
    if described.content is not None:
        shared += WITH_BODY
    return {
        "tags": ["streams"],
        "operationId": described.id,
        "summary": described.summary,
        "description": described.description,
        "security": _security(method, required, STREAM_PATH),
        "parameters": [*query, *fields],
        **body,
        "responses": render_answers(described.answers, shared, _schema_of, has_bodies=method != "HEAD"),
    }


def _describe_subscriptions() -> dict[str, Any]:
    paths = dict[str, Any]()
    for route, methods in SUBSCRIPTION_OPERATIONS.items():
        path = documented_path(route)
        described = {method.lower(): _describe_subscription(route, method, one) for method, one in methods.items()}
        paths[path] = {"parameters": _path_parameters(path), **described}
    return paths


def _describe_subscription(route: Route, method: str, described: SubscriptionOperation) -> dict[str, Any]:
    required = SUBSCRIPTION_PERMISSIONS[route][method]
    shared = (*shared_codes(method, required, is_named=False), ErrorCode.RESERVED_PATH, ErrorCode.STORAGE_DAMAGED)
    if "id" in _placeholders(documented_path(route)):
        shared += (ErrorCode.MALFORMED_NAME,)  # a token's scope is judged by the whole path, before the id is
    if method != "GET":
        shared += WITH_BODY
    content = {} if described.body is None else {"application/json": _schema_of(described.body)}
    return {
        "tags": ["subscriptions"],
        "operationId": described.id,
        "summary": described.summary,
        "description": described.description or described.summary + ".",
        "security": _security(method, required, documented_path(route)),
        "parameters": [render_parameter(field, "query") for field in described.query],
        **({"requestBody": {"content": render_content(content)}} if content else {}),
        "responses": render_answers(described.answers, shared, _schema_of, has_bodies=True),
    }


def _placeholders(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [render_parameter(_PATH_PARAMETERS[name], "path") for name in _placeholders(path)]


def _security(method: str, required: Permission, path: str) -> list[dict[str, list[str]]]:
    """The tokens that a request may have; the empty one is none, on an open server or for a public stream."""
    if required is Permission.NOTHING:
        return []
    is_of_streams = required in {Permission.READ, Permission.WRITE, Permission.LIST_STREAMS} or "{stream}" in path
    in_query: list[dict[str, list[str]]] = []
    if required is Permission.READ and method in {"GET", "HEAD"}:
        in_query = [{"queryToken": []}]
    return [{"bearerToken": []}, *in_query, *([{}] if is_of_streams else [])]
