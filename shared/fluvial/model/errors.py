"""Exceptions, grouped by what the caller does next, and the codes of error answers.

Clients compare codes: codes are added, and never renamed.
"""

from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """The stable `code` of an error body, `{"error": {"code", "message"}}`."""

    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_NAME = "malformed_name"
    MALFORMED_OFFSET = "malformed_offset"
    MALFORMED_HEADER = "malformed_header"
    MALFORMED_QUERY = "malformed_query"
    INVALID_JSON = "invalid_json"
    EMPTY_BODY = "empty_body"
    EMPTY_ARRAY = "empty_array"
    MISSING_CONTENT_TYPE = "missing_content_type"
    MISSING_OFFSET = "missing_offset"
    OFFSET_GONE = "offset_gone"
    UNKNOWN_FORK_OFFSET = "unknown_fork_offset"
    NOT_FOUND = "not_found"
    RESERVED_PATH = "reserved_path"
    GONE = "gone"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    PRECONDITION_FAILED = "precondition_failed"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    PATH_TOO_LONG = "path_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"
    STREAM_EXISTS = "stream_exists"
    STREAM_CLOSED = "stream_closed"
    STREAM_FULL = "stream_full"
    CONTENT_TYPE_MISMATCH = "content_type_mismatch"
    STREAM_SEQ_REGRESSION = "stream_seq_regression"
    PRODUCER_FENCED = "producer_fenced"
    PRODUCER_GAP = "producer_gap"
    PRODUCER_EPOCH_START = "producer_epoch_start"
    TOO_MANY_PRODUCERS = "too_many_producers"
    SOURCE_NOT_FOUND = "source_not_found"
    SOURCE_GONE = "source_gone"
    FORK_TOO_DEEP = "fork_too_deep"
    NOT_AN_ESTUARY = "not_an_estuary"
    ESTUARY_AS_SOURCE = "estuary_as_source"
    TOO_MANY_SOURCES = "too_many_sources"
    TOO_MANY_LIVE_READS = "too_many_live_reads"
    UNAUTHENTICATED = "unauthenticated"
    INVALID_TOKEN = "invalid_token"
    FORBIDDEN = "forbidden"
    NOT_THROUGH_THE_CDN = "not_through_the_cdn"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    PROJECT_EXISTS = "project_exists"
    PROJECT_NOT_FOUND = "project_not_found"
    PROJECT_NOT_EMPTY = "project_not_empty"
    PROJECT_CHANGED = "project_changed"
    STREAMS_CUT_OFF = "streams_cut_off"
    SECRET_EXISTS = "secret_exists"
    LAST_SECRET = "last_secret"
    TOO_MANY_SECRETS = "too_many_secrets"
    # The protocol names the codes of subscriptions itself, in capitals (spec 7).
    INVALID_SUBSCRIPTION_REQUEST = "INVALID_REQUEST"
    SUBSCRIPTION_NOT_FOUND = "SUBSCRIPTION_NOT_FOUND"
    SUBSCRIPTION_ALREADY_EXISTS = "SUBSCRIPTION_ALREADY_EXISTS"
    TOO_MANY_SUBSCRIPTIONS = "TOO_MANY_SUBSCRIPTIONS"
    TOO_MANY_LINKS = "TOO_MANY_LINKS"
    WEBHOOK_URL_REJECTED = "WEBHOOK_URL_REJECTED"
    WAKE_TOKEN_INVALID = "TOKEN_INVALID"
    WAKE_TOKEN_EXPIRED = "TOKEN_EXPIRED"
    FENCED = "FENCED"
    ALREADY_CLAIMED = "ALREADY_CLAIMED"
    NO_PENDING_WORK = "NO_PENDING_WORK"
    INVALID_OFFSET = "INVALID_OFFSET"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_BUSY = "store_busy"
    STORE_UNCERTAIN = "store_uncertain"
    STORAGE_DAMAGED = "storage_damaged"
    UPGRADE_REQUIRED = "upgrade_required"
    UNSUPPORTED_CODING = "unsupported_coding"
    EXPECTATION_FAILED = "expectation_failed"
    NOT_IMPLEMENTED = "not_implemented"
    ANSWER_TOO_LARGE = "answer_too_large"
    INTERNAL = "internal"


class FluvialError(Exception):
    """The base of all exceptions that Fluvial raises on purpose."""


class RequestError(FluvialError):
    """The request cannot be carried out as it is: it is answered with `status`, and not retried."""

    def __init__(
        self, code: ErrorCode, message: str, status: int = 400, fields: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """`message` is for the developer of the client, and must not quote a body or a token.

        `fields` are header fields of the answer.
        """
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields


class StoreError(FluvialError):
    """The store failed: the answer is `status_hint`, and the cause is in the log."""

    code: ClassVar = ErrorCode.INTERNAL
    status_hint: ClassVar = 500
    public_message: ClassVar = "the server could not answer this request"


class StoreUnavailable(StoreError):
    """Nothing was written: the same request may be sent again."""

    code = ErrorCode.STORE_UNAVAILABLE
    status_hint = 503
    public_message = "the store is busy or cannot write now; nothing was written, try again"


class StoreBusy(StoreUnavailable):
    """More is written at this moment than the store takes, to one stream or in all; nothing was written of this."""

    code = ErrorCode.STORE_BUSY
    status_hint = 429
    public_message = "more is written at once than the store takes; nothing was written, try again later"


class StoreUncertain(StoreError):
    """The write is in doubt: only an idempotent producer may send it again without reading the stream first."""

    code = ErrorCode.STORE_UNCERTAIN
    status_hint = 503
    public_message = "the write's result is not known; read the stream before sending it again"


class StorageDamaged(StoreError):
    """Stored bytes of one stream cannot be read; other streams are not affected."""

    code = ErrorCode.STORAGE_DAMAGED
    status_hint = 500
    public_message = "stored data of this stream cannot be read"


class StreamVanished(FluvialError):
    """The incarnation that a read began with was deleted during the read (spec 5.4)."""


class StartupError(FluvialError):
    """A command or the server could not start: one line for the operator, and exit status 1."""


class SettingsError(StartupError):
    """A setting or an option is invalid: one line for the operator, and exit status 2."""
