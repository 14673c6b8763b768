"""Error codes: what a service's error means for the request, above all whether the request was carried out.

A code that is not listed here is judged by its HTTP status: a service that answers 4xx has refused the request; one
that answers 5xx may have carried it out.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from enum import Enum, auto
from typing import Final


class Meaning(Enum):
    """The result of a failed request. Except for UNKNOWN, nothing was written."""

    UNKNOWN = auto()  # it may have been carried out, or may still be
    CONDITION_FAILED = auto()
    CANCELLED = auto()  # a transaction, whose reasons say more
    BUSY = auto()  # it may be sent again at once, with a pause
    NOT_FOUND = auto()  # S3 has no such object
    FORBIDDEN = auto()  # the credentials, the clock, the policy or the key of the encryption
    MISSING = auto()  # the table or the bucket
    REFUSED = auto()  # for a reason that an operator can remove
    OUR_MISTAKE = auto()  # the request can never be carried out as it is


_CONDITION_FAILED: Final = frozenset(
    {"ConditionalCheckFailedException", "PreconditionFailed", "ConditionalRequestConflict"}
)

#: The service was too busy: the SDK's own list, and DynamoDB's and S3's codes for requests that conflict.
BUSY_CODES: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "KMS.ThrottlingException",
        "KMSThrottlingException",
        "LimitExceededException",
        "OperationAborted",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)

#: The connection or the service failed while the request was under way, whatever the status.
_UNKNOWN: Final = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "RequestAbortedException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    }
)

_NOT_FOUND: Final = frozenset({"NoSuchKey", "404", "InvalidRange"})

#: The same conditions have different names in DynamoDB, S3 and STS, and not all of them are a 401 or a 403.
_FORBIDDEN: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_FORBIDDEN_STATUSES: Final = frozenset({401, 403})
#: Of S3 and DynamoDB alike, e.g. `KMS.DisabledException` and `KMSAccessDeniedException`.
_OF_ENCRYPTION: Final = "KMS"

_MISSING: Final = frozenset({"ResourceNotFoundException", "TableNotFoundException", "NoSuchBucket"})

_OUR_MISTAKE: Final = frozenset({"SerializationException", "ValidationException"})

#: Operations by which a client gets credentials, before it sends the request itself.
_CREDENTIALS: Final = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity", "CreateToken", "GetRoleCredentials"})

_BY_CODE: Final[dict[str, Meaning]] = {
    **dict.fromkeys(_UNKNOWN, Meaning.UNKNOWN),
    **dict.fromkeys(_CONDITION_FAILED, Meaning.CONDITION_FAILED),
    "TransactionCanceledException": Meaning.CANCELLED,
    **dict.fromkeys(BUSY_CODES, Meaning.BUSY),
    **dict.fromkeys(_NOT_FOUND, Meaning.NOT_FOUND),
}
#: Valid with a status of 4xx only: a service that answers 5xx may have carried out the request.
_BY_CODE_OF_4XX: Final[dict[str, Meaning]] = {
    **dict.fromkeys(_FORBIDDEN, Meaning.FORBIDDEN),
    **dict.fromkeys(_MISSING, Meaning.MISSING),
    **dict.fromkeys(_OUR_MISTAKE, Meaning.OUR_MISTAKE),
}

_REFUSED_FROM, _REFUSED_TO = 300, 500

#: Why a transaction was cancelled; a cancelled one has changed nothing.
_BY_REASON: Final[dict[str, Meaning]] = {
    "ConditionalCheckFailed": Meaning.CONDITION_FAILED,
    "ProvisionedThroughputExceeded": Meaning.BUSY,
    "RequestLimitExceeded": Meaning.BUSY,
    "ThrottlingError": Meaning.BUSY,
    "TransactionConflict": Meaning.BUSY,
    "ValidationError": Meaning.OUR_MISTAKE,
}


def meaning_of(operation: str, code: str, status: int) -> Meaning:
    """The meaning of an error; `operation` is the one that the service answered, e.g. `UpdateItem`."""
    if operation in _CREDENTIALS:
        return Meaning.FORBIDDEN
    if code in _BY_CODE:
        return _BY_CODE[code]
    if not _REFUSED_FROM <= status < _REFUSED_TO:
        return Meaning.UNKNOWN
    if code in _BY_CODE_OF_4XX:
        return _BY_CODE_OF_4XX[code]
    if code.startswith(_OF_ENCRYPTION) or status in _FORBIDDEN_STATUSES:
        return Meaning.FORBIDDEN
    return Meaning.REFUSED


def meaning_of_cancellation(codes: list[str]) -> Meaning:
    """The meaning of a cancelled transaction's reasons: a failed condition comes before all others."""
    meanings = {_BY_REASON.get(code, Meaning.REFUSED) for code in codes if code != "None"}
    for meaning in (Meaning.CONDITION_FAILED, Meaning.OUR_MISTAKE, Meaning.REFUSED):
        if meaning in meanings:
            return meaning
    return Meaning.BUSY if meanings else Meaning.REFUSED
