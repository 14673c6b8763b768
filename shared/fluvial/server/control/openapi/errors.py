"""Error codes in the OpenAPI document: the statuses of each code, and the codes that many routes share."""

from typing import Final

from fluvial.model.errors import ErrorCode
from fluvial.model.permissions import Permission

#: The codes that each status comes with. Two codes have two statuses.
CODES: Final[dict[int, tuple[ErrorCode, ...]]] = {
    400: (
        ErrorCode.MALFORMED_REQUEST,
        ErrorCode.MALFORMED_NAME,
        ErrorCode.MALFORMED_OFFSET,
        ErrorCode.MALFORMED_HEADER,
        ErrorCode.MALFORMED_QUERY,
        ErrorCode.INVALID_JSON,
        ErrorCode.EMPTY_BODY,
        ErrorCode.EMPTY_ARRAY,
        ErrorCode.MISSING_CONTENT_TYPE,
        ErrorCode.MISSING_OFFSET,
        ErrorCode.UNKNOWN_FORK_OFFSET,
        ErrorCode.PRODUCER_EPOCH_START,
        ErrorCode.INVALID_SUBSCRIPTION_REQUEST,
        ErrorCode.WEBHOOK_URL_REJECTED,
    ),
    401: (
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.INVALID_TOKEN,
        ErrorCode.WAKE_TOKEN_INVALID,
        ErrorCode.WAKE_TOKEN_EXPIRED,
    ),
    403: (ErrorCode.FORBIDDEN, ErrorCode.NOT_THROUGH_THE_CDN, ErrorCode.PRODUCER_FENCED),
    404: (
        ErrorCode.NOT_FOUND,
        ErrorCode.RESERVED_PATH,
        ErrorCode.SOURCE_NOT_FOUND,
        ErrorCode.PROJECT_NOT_FOUND,
        ErrorCode.SUBSCRIPTION_NOT_FOUND,
    ),
    405: (ErrorCode.METHOD_NOT_ALLOWED,),
    408: (ErrorCode.REQUEST_TIMEOUT,),
    409: (
        ErrorCode.STREAM_EXISTS,
        ErrorCode.STREAM_CLOSED,
        ErrorCode.CONTENT_TYPE_MISMATCH,
        ErrorCode.STREAM_SEQ_REGRESSION,
        ErrorCode.PRODUCER_GAP,
        ErrorCode.TOO_MANY_PRODUCERS,
        ErrorCode.SOURCE_GONE,
        ErrorCode.FORK_TOO_DEEP,
        ErrorCode.NOT_AN_ESTUARY,
        ErrorCode.ESTUARY_AS_SOURCE,
        ErrorCode.TOO_MANY_SOURCES,
        ErrorCode.PROJECT_EXISTS,
        ErrorCode.PROJECT_NOT_EMPTY,
        ErrorCode.PROJECT_CHANGED,
        ErrorCode.STREAMS_CUT_OFF,
        ErrorCode.SECRET_EXISTS,
        ErrorCode.LAST_SECRET,
        ErrorCode.TOO_MANY_SECRETS,
        ErrorCode.SUBSCRIPTION_ALREADY_EXISTS,
        ErrorCode.TOO_MANY_SUBSCRIPTIONS,
        ErrorCode.TOO_MANY_LINKS,
        ErrorCode.FENCED,
        ErrorCode.ALREADY_CLAIMED,
        ErrorCode.NO_PENDING_WORK,
        ErrorCode.INVALID_OFFSET,
    ),
    410: (ErrorCode.GONE, ErrorCode.OFFSET_GONE),
    412: (ErrorCode.PRECONDITION_FAILED,),
    413: (ErrorCode.BODY_TOO_LARGE, ErrorCode.STREAM_FULL),
    414: (ErrorCode.PATH_TOO_LONG,),
    415: (ErrorCode.UNSUPPORTED_CODING,),
    417: (ErrorCode.EXPECTATION_FAILED,),
    426: (ErrorCode.UPGRADE_REQUIRED,),
    429: (ErrorCode.RATE_LIMITED, ErrorCode.QUOTA_EXCEEDED, ErrorCode.TOO_MANY_LIVE_READS, ErrorCode.STORE_BUSY),
    431: (ErrorCode.HEADERS_TOO_LARGE,),
    500: (ErrorCode.INTERNAL, ErrorCode.STORAGE_DAMAGED, ErrorCode.ANSWER_TOO_LARGE),
    501: (ErrorCode.NOT_IMPLEMENTED,),
    503: (ErrorCode.STORE_UNAVAILABLE, ErrorCode.STORE_UNCERTAIN, ErrorCode.TOO_MANY_LIVE_READS),
    505: (ErrorCode.NOT_IMPLEMENTED,),
}

#: Codes of requests that are refused before their path is looked at. Each route would have them, so none lists them.
BEFORE_ROUTING: Final = frozenset(
    {
        ErrorCode.REQUEST_TIMEOUT,
        ErrorCode.EXPECTATION_FAILED,
        ErrorCode.HEADERS_TOO_LARGE,
        ErrorCode.NOT_IMPLEMENTED,
    }
)

#: Codes that every route may answer with.
EVERYWHERE: Final = (
    ErrorCode.MALFORMED_REQUEST,
    ErrorCode.MALFORMED_HEADER,
    ErrorCode.NOT_THROUGH_THE_CDN,
    ErrorCode.PATH_TOO_LONG,
    ErrorCode.STORE_UNAVAILABLE,
    ErrorCode.INTERNAL,
)

#: Those of a path that has a stream's or an estuary's name.
NAMED: Final = (
    ErrorCode.MALFORMED_NAME,
    ErrorCode.RESERVED_PATH,
    ErrorCode.NOT_FOUND,
    ErrorCode.STORAGE_DAMAGED,
)

#: Those of a method that changes something; a read-only server answers with `method_not_allowed`.
UNSAFE: Final = (
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.STORE_UNCERTAIN,
    ErrorCode.STORE_BUSY,
)

#: Those of a request with a body.
WITH_BODY: Final = (
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.UNSUPPORTED_CODING,
)

_TOKEN: Final = (
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.INVALID_TOKEN,
    ErrorCode.FORBIDDEN,
    ErrorCode.MALFORMED_QUERY,
)

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def shared_codes(method: str, required: Permission, *, is_named: bool) -> tuple[ErrorCode, ...]:
    """The codes that a route shares with others: of its method, its permission, and whether its path has a name."""
    codes: tuple[ErrorCode, ...] = EVERYWHERE
    if required is not Permission.NOTHING:
        codes += _TOKEN
    if required not in {Permission.NOTHING, Permission.ADMINISTER}:
        codes += (ErrorCode.RATE_LIMITED,)
    if is_named:
        codes += NAMED
    if method not in _SAFE_METHODS:
        codes += UNSAFE
    return codes


def codes_by_status(codes: tuple[ErrorCode, ...]) -> dict[int, list[ErrorCode]]:
    """The statuses that codes come with, in order, and the codes of each."""
    found = {status: [code for code in known if code in codes] for status, known in CODES.items()}
    return {status: members for status, members in found.items() if members}
