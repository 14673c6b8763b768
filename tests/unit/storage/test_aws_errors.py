"""What the errors of DynamoDB, S3 and STS mean: whether a request may have been carried out."""

import json
import logging
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from botocore.retries.standard import ThrottledRetryableChecker

from fluvial.model.errors import StoreUnavailable
from fluvial.storage.dynamodb.table.aws_client import (
    Aws,
    Endpoints,
    NotFound,
)
from fluvial.storage.dynamodb.table.error_codes import BUSY_CODES, Meaning, meaning_of, meaning_of_cancellation
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, TransactionConditionFailed
from fluvial.storage.limits import StoreLimits
from tests.support.network import Body


async def result_of(write: Awaitable[object]) -> type:
    """The type of a write's outcome, or of the error that it raises."""
    try:
        return type(await write)
    except StoreUnavailable:
        return StoreUnavailable
    except ClientError:
        return ClientError


KEY: dict[str, Any] = {"TableName": "t", "Key": {"pk": {"S": "a"}}}
OBJECT = {"Bucket": "b", "Key": "k"}


@dataclass
class StandIn:
    """What answers a client in its service's place."""

    status: int = 500
    code: str = "InternalServerError"
    more: dict[str, Any] = field(default_factory=dict)
    requests: list[AWSPreparedRequest] = field(default_factory=list)
    failure: Exception | None = None

    def attach(self, *clients: Any) -> None:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """Lie between these clients and their services."""
        for client in clients:
            client.meta.events.register("before-send", self._send)

    def answer(self, status: int, code: str, **more: object) -> None:
        """Answer with this error from now on."""
        self.status, self.code, self.more, self.failure = status, code, more, None

    def _send(self, request: AWSPreparedRequest, event_name: str, **_: object) -> AWSResponse:
        if self.failure is not None:
            raise self.failure
        self.requests.append(request)
        if event_name.startswith("before-send.s3"):
            body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>m</Message></Error>".encode()
        else:
            body = json.dumps({"__type": f"x#{self.code}", "message": "m", **self.more}).encode()
        return AWSResponse(request.url, self.status, HTTPHeaders(), Body(body))


@pytest.fixture(scope="module", autouse=True)
def credentials() -> Iterator[None]:
    """Any will do, for nothing is sent."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", "x")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "x")
        yield


@pytest.fixture(scope="module")
def service() -> StandIn:
    """What answers the clients."""
    return StandIn()


@pytest.fixture(scope="module")
def aws(service: StandIn) -> Iterator[Aws]:
    """The clients, which take a while to be made."""
    clients = Aws(Endpoints(region="eu-central-1"), lambda: 0.5, 1, StoreLimits(busy_pause_s=0.0001))
    service.attach(clients.writes, clients.objects)
    yield clients
    clients.close()


#: Nothing was written, and it may pass: by what is logged of it.
DYNAMODB_REFUSALS = {
    "store_forbidden": [
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "KMSAccessDeniedException",
        "KMSInvalidStateException",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "UnrecognizedClientException",
    ],
    "store_missing": ["ResourceNotFoundException"],
    "store_refused": ["ItemCollectionSizeLimitExceededException", "ResourceInUseException", "OfNextYearException"],
    "store_busy": ["LimitExceededException", "ReplicatedWriteConflictException", "Throttling"],
}
S3_REFUSALS = {
    "store_forbidden": [
        ("AccessDenied", 403),
        ("AuthorizationHeaderMalformed", 400),
        ("ExpiredToken", 400),
        ("InvalidAccessKeyId", 403),
        ("InvalidObjectState", 403),
        ("InvalidToken", 400),
        ("KMS.DisabledException", 400),
        ("RequestTimeTooSkewed", 403),
        ("SignatureDoesNotMatch", 403),
        ("TokenRefreshRequired", 400),
    ],
    "store_missing": [("NoSuchBucket", 404)],
    "store_refused": [("InvalidRequest", 400), ("OfNextYear", 409)],
}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("line", "code"), [(line, code) for line, codes in DYNAMODB_REFUSALS.items() for code in codes]
)
async def test_write_refused_by_dynamodb_is_store_unavailable(
    aws: Aws, service: StandIn, caplog: pytest.LogCaptureFixture, line: str, code: str
) -> None:
    """Nothing was written; the log says why in one line."""
    service.answer(400, code)
    with pytest.raises(StoreUnavailable):
        await aws.write(aws.writes.update_item, **KEY)
    assert logged(caplog) == [line]


@pytest.mark.parametrize(
    ("line", "answer"), [(line, answer) for line, answers in S3_REFUSALS.items() for answer in answers]
)
async def test_object_refused_by_s3_is_store_unavailable(
    aws: Aws, service: StandIn, caplog: pytest.LogCaptureFixture, line: str, answer: tuple[str, int]
) -> None:
    """The same conditions by S3's names."""
    code, status = answer
    service.answer(status, code)
    with pytest.raises(StoreUnavailable):
        await aws.read(aws.objects.put_object, **OBJECT, Body=b"x")
    assert logged(caplog) == [line]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InternalServerError", 500),
        ("ServiceUnavailable", 503),
        ("InternalFailure", 400),
        ("RequestAbortedException", 400),
        ("OfNextYear", 502),
        ("AccessDeniedException", 500),
        ("", 0),
    ],
)
async def test_server_error_leaves_the_write_in_doubt(aws: Aws, service: StandIn, code: str, status: int) -> None:
    """Whatever is answered with 5xx or by a service that failed midway."""
    service.answer(status or 500, code)
    assert isinstance(await aws.write(aws.writes.update_item, **KEY), InDoubt)
    assert meaning_of("UpdateItem", code, status) is Meaning.UNKNOWN


async def test_invalid_request_raises_the_services_error(aws: Aws, service: StandIn) -> None:
    """It ends in the log with its traceback."""
    service.answer(400, "ValidationException")
    with pytest.raises(ClientError, match="ValidationException"):
        await aws.write(aws.writes.update_item, **KEY)


async def test_failed_condition_returns_the_item_that_was_checked(aws: Aws, service: StandIn) -> None:
    """As it was when it was judged."""
    service.answer(400, "ConditionalCheckFailedException", Item={"pk": {"S": "a"}})
    assert await aws.write(aws.writes.update_item, **KEY) == ConditionFailed({"pk": {"S": "a"}})


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (["None", "ConditionalCheckFailed"], TransactionConditionFailed),
        (["TransactionConflict", "ConditionalCheckFailed"], TransactionConditionFailed),
        (["TransactionConflict", "None"], StoreUnavailable),
        (["ItemCollectionSizeLimitExceeded", "TransactionConflict"], StoreUnavailable),
        (["OfNextYear"], StoreUnavailable),
        (["ValidationError", "None"], ClientError),
        ([], StoreUnavailable),
    ],
)
async def test_cancelled_transaction_is_not_in_doubt(
    aws: Aws, service: StandIn, reasons: list[str], told: type
) -> None:
    """Whatever its reasons, also those that nobody knows yet."""
    service.answer(400, "TransactionCanceledException", CancellationReasons=[{"Code": reason} for reason in reasons])
    assert await result_of(aws.write_transaction(aws.writes.transact_write_items, TransactItems=[])) is told


def test_redirect_to_another_region_is_a_refusal() -> None:
    """What is redirected was not carried out."""
    assert meaning_of("PutObject", "PermanentRedirect", 301) is Meaning.REFUSED


def test_conflict_among_cancellation_reasons_is_retried() -> None:
    """A conflict alone is tried again."""
    assert meaning_of_cancellation(["None", "TransactionConflict"]) is Meaning.BUSY


async def test_missing_object_is_not_found(aws: Aws, service: StandIn) -> None:
    """Which is no failure."""
    service.answer(404, "NoSuchKey")
    with pytest.raises(NotFound):
        await aws.read(aws.objects.get_object, **OBJECT)


@pytest.mark.parametrize(
    ("operation", "code", "status"),
    [
        ("AssumeRole", "AccessDenied", 403),
        ("AssumeRoleWithWebIdentity", "IDPCommunicationError", 400),
        ("AssumeRoleWithWebIdentity", "InvalidIdentityToken", 400),
        ("AssumeRoleWithWebIdentity", "ServiceUnavailable", 503),
        ("GetRoleCredentials", "UnauthorizedException", 401),
    ],
)
def test_failure_to_get_credentials_is_not_in_doubt(operation: str, code: str, status: int) -> None:
    """The client asks for them before it sends the request that they are for."""
    assert meaning_of(operation, code, status) is Meaning.FORBIDDEN


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CredentialRetrievalError(provider="p", error_msg="m"), StoreUnavailable),
        (PartialCredentialsError(provider="p", cred_var="v"), StoreUnavailable),
        (ProxyConnectionError(proxy_url="http://x"), StoreUnavailable),
        (TokenRetrievalError(provider="p", error_msg="m"), StoreUnavailable),
        (UnauthorizedSSOTokenError(), StoreUnavailable),
        (ReadTimeoutError(endpoint_url="http://x"), InDoubt),
        (ResponseParserError("not JSON"), InDoubt),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
async def test_failure_before_sending_is_not_in_doubt(aws: Aws, service: StandIn, error: Exception, told: type) -> None:
    """Nothing else is known to have failed before."""
    service.failure = error
    assert await result_of(aws.write(aws.writes.update_item, **KEY)) is told


def test_throttling_codes_of_the_sdk_mean_busy() -> None:
    """But for what only EC2 says."""
    codes = set(ThrottledRetryableChecker._THROTTLED_ERROR_CODES)  # type: ignore[attr-defined]
    assert codes - {"EC2ThrottledException"} <= BUSY_CODES


def _documented_codes() -> Iterator[tuple[str, str, int]]:
    session = botocore.session.get_session()
    writes = {"dynamodb": ["UpdateItem", "PutItem", "DeleteItem", "TransactWriteItems"], "s3": ["PutObject"]}
    for service, operations in writes.items():
        model = session.get_service_model(service)
        shapes = chain.from_iterable(model.operation_model(operation).error_shapes for operation in operations)
        for shape in shapes:
            yield service, shape.name, int(shape.metadata.get("error", {}).get("httpStatusCode", 400))


def test_every_code_of_the_sdks_models_has_a_meaning() -> None:
    """What the models list of our writes is none of the unknown ones, but for the service's own failure."""
    codes = set(_documented_codes())
    assert len(codes) > 10
    for _, code, status in codes:
        is_unknown = meaning_of("UpdateItem", code, status) is Meaning.UNKNOWN
        assert is_unknown is (code == "InternalServerError"), code


@pytest.mark.parametrize(("endpoint", "has_checksum"), [(None, True), ("http://127.0.0.1:9", False)])
async def test_requests_to_another_s3_have_no_checksums(endpoint: str | None, has_checksum: bool) -> None:  # noqa: FBT001
    """Stores that only resemble S3 refuse requests with fields that they do not know."""
    aws = Aws(Endpoints(s3=endpoint, region="eu-central-1"), lambda: 0.5, 1)
    service = StandIn(403, "AccessDenied")
    service.attach(aws.objects)
    for call, more in [(aws.objects.put_object, {"Body": b"x"}), (aws.objects.get_object, {})]:
        with pytest.raises(StoreUnavailable):
            await aws.read(call, **OBJECT, **more)
    aws.close()
    named = {name.lower() for request in service.requests for name in request.headers if "checksum" in name.lower()}
    assert named == ({"x-amz-sdk-checksum-algorithm", "x-amz-checksum-mode"} if has_checksum else set())
