"""What each control route answers. Parameters and bodies of requests are in the routes' own code.

A route without a description has only the errors that routes share; tests/access/test_openapi.py finds it.
"""

from collections.abc import Mapping
from typing import Final

from fluvial.model.errors import ErrorCode
from fluvial.server.control.estuary_routes import ESTUARY, SUBSCRIBE, TOUCH
from fluvial.server.control.openapi.answers import TEXT, Answer, Operation
from fluvial.server.control.openapi.schemas import (
    EstuaryDescription,
    Health,
    ProjectDescription,
    ProjectsPage,
    ReaderKey,
    Ready,
    SecretDescription,
    StreamDescriptionsPage,
    StreamDetails,
    StreamNamesPage,
    SubscribedEstuary,
)
from fluvial.server.control.project_routes import LIMITS, ORIGINS, PRIVACY, PROJECT, PROJECTS, SECRET, SECRETS
from fluvial.server.control.stream_routes import INFO, PROJECT_STREAMS, READER_KEY, STREAMS

_ABSENT_STREAM: Final = (ErrorCode.NOT_FOUND, ErrorCode.GONE)
_ABSENT_ESTUARY: Final = (*_ABSENT_STREAM, ErrorCode.NOT_AN_ESTUARY)
_CHANGE: Final = (ErrorCode.PROJECT_NOT_FOUND, ErrorCode.PROJECT_CHANGED)

_DELETED: Final = Answer(204, "It is deleted.")
_ESTUARY: Final = Answer(200, "The estuary.", (EstuaryDescription,))
_CHANGED: Final = Answer(200, "The project as it is now.", (ProjectDescription,))
_PAGE: Final = Answer(
    200, "A page of names; with `details`, of descriptions.", (StreamNamesPage, StreamDescriptionsPage)
)

_SERVER: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/health"): Operation((Answer(200, "The server works.", (Health,)),)),
    ("GET", "/ready"): Operation((Answer(200, "The server can write; if it is read-only, read.", (Ready,)),)),
    ("GET", "/metrics"): Operation((Answer(200, "Prometheus's text format.", content={"text/plain": TEXT}),)),
}

_ESTUARIES: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", SUBSCRIBE): Operation(
        (
            Answer(201, "The estuary follows the stream from now on.", (SubscribedEstuary,)),
            Answer(200, "The estuary followed the stream before.", (SubscribedEstuary,)),
        ),
        (
            *_ABSENT_ESTUARY,
            ErrorCode.STREAM_EXISTS,
            ErrorCode.CONTENT_TYPE_MISMATCH,
            ErrorCode.ESTUARY_AS_SOURCE,
            ErrorCode.TOO_MANY_SOURCES,
        ),
    ),
    ("DELETE", SUBSCRIBE): Operation(
        (Answer(204, "The estuary does not follow the stream any more."),), _ABSENT_ESTUARY
    ),
    ("PUT", ESTUARY): Operation(
        (Answer(201, "The estuary is created.", (EstuaryDescription,)), _ESTUARY),
        (*_ABSENT_ESTUARY, ErrorCode.STREAM_EXISTS),
    ),
    ("GET", ESTUARY): Operation((_ESTUARY,), _ABSENT_ESTUARY),
    ("POST", TOUCH): Operation((_ESTUARY,), _ABSENT_ESTUARY),
    ("DELETE", ESTUARY): Operation((_DELETED,), _ABSENT_ESTUARY),
}

_PROJECTS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", PROJECTS): Operation(
        (Answer(201, "The project is created.", (ProjectDescription,)),),
        (ErrorCode.PROJECT_EXISTS, ErrorCode.STREAMS_CUT_OFF),
    ),
    ("GET", PROJECTS): Operation((Answer(200, "A page of projects.", (ProjectsPage,)),)),
    ("GET", PROJECT): Operation((Answer(200, "The project.", (ProjectDescription,)),), (ErrorCode.PROJECT_NOT_FOUND,)),
    ("DELETE", PROJECT): Operation((_DELETED,), (*_CHANGE, ErrorCode.PROJECT_NOT_EMPTY)),
    ("POST", SECRETS): Operation(
        (Answer(201, "The secret is added.", (SecretDescription,)),),
        (*_CHANGE, ErrorCode.SECRET_EXISTS, ErrorCode.TOO_MANY_SECRETS),
    ),
    ("DELETE", SECRET): Operation((_DELETED,), (*_CHANGE, ErrorCode.NOT_FOUND, ErrorCode.LAST_SECRET)),
    ("PUT", ORIGINS): Operation((_CHANGED,), _CHANGE),
    ("PUT", PRIVACY): Operation((_CHANGED,), _CHANGE),
    ("PUT", LIMITS): Operation((_CHANGED,), _CHANGE),
}

_STREAMS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", STREAMS): Operation((_PAGE,), (ErrorCode.STORAGE_DAMAGED,)),
    ("GET", PROJECT_STREAMS): Operation((_PAGE,), (ErrorCode.STORAGE_DAMAGED,)),
    ("GET", INFO): Operation((Answer(200, "The stream.", (StreamDetails,)),), _ABSENT_STREAM),
    ("POST", READER_KEY): Operation((Answer(200, "The new reader key.", (ReaderKey,)),), _ABSENT_STREAM),
}

#: What each control route answers, by its method and path.
CONTROL_OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {**_SERVER, **_ESTUARIES, **_PROJECTS, **_STREAMS}
