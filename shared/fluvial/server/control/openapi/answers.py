"""The types that describe a route's answers, and their form in OpenAPI."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fluvial.model.errors import ErrorCode
from fluvial.server.control.openapi.errors import codes_by_status
from fluvial.server.control.openapi.schemas import Error

JsonSchema = Mapping[str, Any]

#: The JSON schema of a type, by reference.
SchemaOf = Callable[[type], JsonSchema]

TEXT: Final[JsonSchema] = {"type": "string"}
COUNT: Final[JsonSchema] = {"type": "integer", "minimum": 0}
TRUE: Final[JsonSchema] = {"type": "string", "enum": ["true"]}


class Field(NamedTuple):
    """A header field of an answer, or a parameter of a request."""

    name: str
    description: str
    schema: JsonSchema = TEXT


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that carries a request out, or says in a form of its own why not.

    Its body is JSON of one of the types in `bodies`, or one of the media types in `content`, or it is empty. The fields
    of `always` are in each such answer, those of `at_times` in some.
    """

    status: int
    description: str
    bodies: tuple[type, ...] = ()
    content: Mapping[str, JsonSchema] | None = None
    always: tuple[Field, ...] = ()
    at_times: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route answers: when it carries a request out, and the codes of errors that are its own."""

    answers: tuple[Answer, ...]
    errors: tuple[ErrorCode, ...] = ()


_RETRY_AFTER: Final = Field("Retry-After", "The seconds after which to send the request again.", COUNT)
_CLOSED: Final = Field("Stream-Closed", "The stream is closed.", TRUE)
_REQUEST_ID: Final = Field("X-Request-Id", "The request's own or a new one; the server's log lines have it, too.")
_CHALLENGE: Final = Field("WWW-Authenticate", "Which token the request needs.")

#: The header fields that errors of a status always have.
ERROR_FIELDS_ALWAYS: Final[Mapping[int, tuple[Field, ...]]] = {
    401: (_CHALLENGE,),
    405: (Field("Allow", "The methods that the path has."),),
    415: (Field("Accept-Encoding", "The codings that a body may have."),),
    429: (_RETRY_AFTER,),
    503: (_RETRY_AFTER,),
}

#: The header fields that errors with a code have, as far as they are known.
ERROR_FIELDS_OF_CODES: Final[Mapping[ErrorCode, tuple[Field, ...]]] = {
    ErrorCode.FORBIDDEN: (_CHALLENGE,),
    ErrorCode.PRODUCER_FENCED: (Field("Producer-Epoch", "The producer's present epoch.", COUNT),),
    ErrorCode.PRODUCER_GAP: (
        Field("Producer-Expected-Seq", "The sequence number of the missing batch.", COUNT),
        Field("Producer-Received-Seq", "The sequence number of this one.", COUNT),
    ),
    ErrorCode.STREAM_CLOSED: (
        Field("Stream-Next-Offset", "The closed stream's final offset."),
        _CLOSED,
    ),
    ErrorCode.STREAM_EXISTS: (_CLOSED,),
    ErrorCode.PRECONDITION_FAILED: (Field("ETag", "The present tag of the stream, if it exists."),),
    ErrorCode.UPGRADE_REQUIRED: (
        Field("Upgrade", "The protocol to change to.", {"type": "string", "enum": ["websocket"]}),
    ),
}


def render_parameter(field: Field, place: str) -> dict[str, Any]:
    """A parameter in a request's `query`, `header` or `path`."""
    rendered: dict[str, Any] = {"name": field.name, "in": place, "description": field.description}
    if place == "path":
        rendered["required"] = True
    return {**rendered, "schema": field.schema}


def render_content(content: Mapping[str, JsonSchema]) -> dict[str, Any]:
    """The media types that a body may have."""
    return {media_type: {"schema": schema} for media_type, schema in content.items()}


def render_answers(
    operation: Operation, shared: tuple[ErrorCode, ...], schema_of: SchemaOf, *, has_bodies: bool
) -> dict[str, Any]:
    """The answers of a route by their statuses. Without `has_bodies`, as for HEAD, no answer has a body."""
    answers = {str(answer.status): _render_answer(answer, schema_of) for answer in operation.answers}
    for status, codes in codes_by_status((*shared, *operation.errors)).items():
        rendered = _render_error(status, codes, schema_of(Error) if has_bodies else None)
        answers.setdefault(str(status), rendered)  # a route may describe its own answer with such a status
    return answers


def _render_answer(answer: Answer, schema_of: SchemaOf) -> dict[str, Any]:
    content = answer.content
    if answer.bodies:
        found = [schema_of(one) for one in answer.bodies]
        content = {"application/json": found[0] if len(found) == 1 else {"anyOf": found}}
    rendered = {} if content is None else {"content": render_content(content)}
    return {"description": answer.description, **_render_fields(answer.always, answer.at_times), **rendered}


def _render_error(status: int, codes: list[ErrorCode], schema: JsonSchema | None) -> dict[str, Any]:
    listed = ", ".join(f"`{code.value}`" for code in codes)
    at_times = tuple(field for code in codes for field in ERROR_FIELDS_OF_CODES.get(code, ()))
    bodies = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    return {
        "description": f"{HTTPStatus(status).phrase}: {listed}.",
        **_render_fields(ERROR_FIELDS_ALWAYS.get(status, ()), (_REQUEST_ID, *at_times)),
        **bodies,
        "x-error-codes": [code.value for code in codes],
    }


def _render_fields(always: tuple[Field, ...], at_times: tuple[Field, ...]) -> dict[str, Any]:
    fields: dict[str, dict[str, Any]] = {
        field.name: {"description": field.description, "schema": field.schema} for field in (*at_times, *always)
    }
    for field in always:
        fields[field.name]["required"] = True
    return {"headers": fields} if fields else {}
