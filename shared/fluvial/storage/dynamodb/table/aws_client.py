"""The AWS client: the one module that calls DynamoDB and S3, and that interprets their errors.

Rules:

1. Calls run on threads, because the SDK blocks.
2. The clients are botocore's, of which boto3 is a wrapper: a function then need not import S3's transfer code.
3. The SDK never sends a write to DynamoDB a second time: a repeated `list_append` would append twice.
4. A failed write is interpreted by one question: may it have been carried out? See `write_outcome`.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    EndpointProviderError,
    InvalidConfigError,
    MetadataRetrievalError,
    MissingDependencyException,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProxyConnectionError,
    RefreshWithMFAUnsupportedError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from fluvial.concurrency import backoff_s
from fluvial.model.errors import FluvialError, StartupError, StoreBusy, StoreUnavailable
from fluvial.storage.dynamodb.table.error_codes import Meaning, meaning_of, meaning_of_cancellation
from fluvial.storage.dynamodb.table.write_outcome import (
    ConditionFailed,
    InDoubt,
    TransactionConditionFailed,
    TransactionOutcome,
    WriteOutcome,
    Written,
)
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.observer import UNOBSERVED, AwsOutcome, StoreObserver

log = logging.getLogger(__name__)

#: Within a region a connection takes a millisecond or two and DynamoDB answers in under ten. A service that has not
#: answered by then is not reachable. A commit in doubt takes six more requests, all well within a function's time-out.
CONNECT_TIMEOUT_S: Final = 1
DYNAMODB_TIMEOUT_S: Final = 2
S3_TIMEOUT_S: Final = 10

#: What DynamoDB refused because it was busy was not carried out: it is tried again this often, then it is a 429.
BUSY_TRIES_MAX: Final = 5

#: The SDK repeats reads in its `standard` mode. In `adaptive` mode one client has one rate for all that it reads: a
#: partition that is throttled would slow down the reads of all other streams.
#: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
READ_TRIES_MAX: Final = 4

#: Raised before anything is sent: the connection or the credentials could not be had.
_UNREACHABLE: Final = (
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    EndpointProviderError,
    InvalidConfigError,
    MetadataRetrievalError,
    MissingDependencyException,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    RefreshWithMFAUnsupportedError,
    SSOError,
    TokenRetrievalError,
)

#: What is logged of a request that was refused.
_REFUSALS: Final = {
    Meaning.FORBIDDEN: "store_forbidden",
    Meaning.MISSING: "store_missing",
    Meaning.REFUSED: "store_refused",
}


#: Given how often a request was tried, and the service too busy for it: the pause in seconds, None to give up.
OnBusy = Callable[[int], float | None]


class NotFound(FluvialError):
    """S3 has no such object."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The service's answer to a request that it carried out."""

    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Busy:
    """The service was too busy for the request: nothing was written, and it may be sent again."""

    cause: Exception


_Result = _Answer | ConditionFailed | TransactionConditionFailed | InDoubt | _Busy

#: What an observer is told of each result; of all others, that the request was answered.
_OUTCOMES: Final[dict[type[object], AwsOutcome]] = {InDoubt: AwsOutcome.IN_DOUBT, _Busy: AwsOutcome.BUSY}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the services are: None means AWS's own, in the region that the environment names."""

    dynamodb: str | None = None
    s3: str | None = None
    region: str | None = None


class Aws:
    """The clients of one process, and the threads that wait for them."""

    def __init__(
        self,
        endpoints: Endpoints,
        jitter: Callable[[], float],
        threads_max: int,
        limits: StoreLimits = STORE_LIMITS,
        observer: StoreObserver = UNOBSERVED,
    ) -> None:
        """No connection is made before the first call. Raises StartupError when the region is not known."""
        self._endpoints, self._jitter, self._threads_max, self._limits = endpoints, jitter, threads_max, limits
        self._observer = observer
        self._is_closed = False
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix="fluvial-aws")
        self._session = botocore.session.get_session()
        self.writes = self._client("dynamodb", endpoints.dynamodb, {"mode": "standard", "total_max_attempts": 1})

    @property
    def region(self) -> str:
        """The region that the table is in."""
        return str(self.writes.meta.region_name)

    @functools.cached_property
    def reads(self) -> Any:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """The client for what may be asked again: the SDK retries."""
        retries = {"mode": "standard", "total_max_attempts": READ_TRIES_MAX}
        return self._client("dynamodb", self._endpoints.dynamodb, retries)

    @functools.cached_property
    def objects(self) -> Any:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """The client for S3: objects are immutable, so every call may be repeated."""
        retries = {"mode": "standard", "total_max_attempts": READ_TRIES_MAX}
        return self._client("s3", self._endpoints.s3, retries)

    def _client(self, service: str, endpoint: str | None, retries: dict[str, Any]) -> Any:  # noqa: ANN401
        # AWS's own S3 takes the SDK's checksums; others refuse requests that have them.
        checksums: Literal["when_required"] | None = "when_required" if service == "s3" and endpoint else None
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=S3_TIMEOUT_S if service == "s3" else DYNAMODB_TIMEOUT_S,
            retries=retries,  # type: ignore[arg-type]
            max_pool_connections=self._threads_max,
            tcp_keepalive=True,
            parameter_validation=False,
            s3={"addressing_style": "path"} if endpoint else None,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
        )
        try:
            client = self._session.create_client(
                service, region_name=self._endpoints.region, endpoint_url=endpoint, config=config
            )
        except NoRegionError as exc:
            raise StartupError("no AWS region is set: give --region, or set AWS_DEFAULT_REGION") from exc
        if service == "dynamodb":
            client.meta.events.register("provide-client-params.dynamodb.*", _ask_for_units)
        return client

    async def write(
        self,
        method: Callable[..., Any],
        on_busy: OnBusy | None = None,
        **parameters: Any,  # noqa: ANN401
    ) -> WriteOutcome:
        """Send a write of one item once, or again while the service is too busy for it.

        `Written.item` is the answer's `Attributes`. Raises StoreUnavailable, and StoreBusy when `on_busy` gives up:
        nothing was written.
        """
        result = await self._send_unless_busy(method, parameters, on_busy)
        assert not isinstance(result, TransactionConditionFailed), "only transactions are cancelled"
        return Written(result.content.get("Attributes", {})) if isinstance(result, _Answer) else result

    async def write_transaction(self, method: Callable[..., Any], **parameters: Any) -> TransactionOutcome:  # noqa: ANN401
        """Send a transaction once, or again while the service is too busy. Raises StoreUnavailable, StoreBusy."""
        result = await self._send_unless_busy(method, parameters)
        assert not isinstance(result, ConditionFailed), (
            "a transaction's conditions are in the reasons of its cancellation"
        )
        return Written({}) if isinstance(result, _Answer) else result

    async def read(self, method: Callable[..., Any], **parameters: Any) -> dict[str, Any]:  # noqa: ANN401
        """Send a read, as often as the client retries; the answer. Raises NotFound, StoreUnavailable.

        S3's requests are all sent by this method: its objects never change, so that each request may be repeated.
        """
        result = await self._send(method, parameters)
        match result:
            case _Answer(content):
                return content
            case _Busy(cause) | InDoubt(cause):
                log.warning("store_unreadable", extra={"reason": str(cause)})
                raise StoreUnavailable from cause
            case ConditionFailed() | TransactionConditionFailed():
                log.warning("store_unreadable", extra={"reason": "the service refused a condition that was not sent"})
                raise StoreUnavailable

    async def read_body(self, method: Callable[..., Any], **parameters: Any) -> bytes:  # noqa: ANN401
        """Ask S3 for an object's bytes. Raises NotFound, StoreUnavailable."""

        def whole(**parameters: Any) -> dict[str, Any]:  # noqa: ANN401
            return {"Body": method(**parameters)["Body"].read()}

        whole.__name__ = method.__name__
        body: bytes = (await self.read(whole, **parameters))["Body"]
        return body

    async def _send_unless_busy(
        self, method: Callable[..., Any], parameters: dict[str, Any], on_busy: OnBusy | None = None
    ) -> _Answer | ConditionFailed | TransactionConditionFailed | InDoubt:
        tries = 0
        while isinstance(result := await self._send(method, parameters), _Busy):
            tries += 1
            pause_s = (on_busy or self._pause_after)(tries)
            if pause_s is None:
                log.warning("store_busy", extra={"reason": str(result.cause)})
                raise StoreBusy from result.cause
            await asyncio.sleep(pause_s)
        return result

    def _pause_after(self, tries: int) -> float | None:
        if tries >= BUSY_TRIES_MAX:
            return None
        return backoff_s(self._limits.busy_pause_s, tries, self._jitter())

    async def _send(self, method: Callable[..., Any], parameters: dict[str, Any]) -> _Result:
        """Send one request, and tell the observer how it ended. Raises as `_send_once` does."""
        if self._is_closed:
            raise StoreUnavailable
        outcome = AwsOutcome.FAILED
        try:
            result = await self._send_once(method, parameters)
            outcome = _OUTCOMES.get(type(result), AwsOutcome.ANSWERED)
        except NotFound:
            outcome = AwsOutcome.ANSWERED
            raise
        finally:
            self._observer.on_aws_request(method.__name__, outcome)
        return result

    async def _send_once(self, method: Callable[..., Any], parameters: dict[str, Any]) -> _Result:
        """Send one request. Raises NotFound, StoreUnavailable: nothing was written."""
        loop = asyncio.get_running_loop()
        try:
            answer: dict[str, Any] = await loop.run_in_executor(self._threads, functools.partial(method, **parameters))
        except ClientError as exc:
            return _interpret(exc)
        except _UNREACHABLE as exc:
            log.warning("store_unreachable", extra={"reason": str(exc)})
            raise StoreUnavailable from exc
        except (BotoCoreError, ResponseParserError, OSError) as exc:
            return InDoubt(exc)
        consumed = answer.get("ConsumedCapacity", ())
        if units := sum(
            one["CapacityUnits"] for one in (consumed if isinstance(consumed, list) else [consumed]) if one
        ):
            self._observer.on_units(method.__name__, units)
        return _Answer(answer)

    def close(self) -> None:
        """Let go of the threads and connections, once the calls under way are answered; refuse every later one."""
        self._is_closed = True
        self._threads.shutdown(wait=True)
        self.writes.close()
        for lazy in ("reads", "objects"):
            if lazy in self.__dict__:
                self.__dict__[lazy].close()


def _ask_for_units(params: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401  botocore's own
    """Ask DynamoDB to tell the capacity units of each request that can be asked so."""
    if "ReturnConsumedCapacity" in model.input_shape.members:
        params["ReturnConsumedCapacity"] = "TOTAL"


def _interpret(error: ClientError) -> _Result:
    """What a service's error means for the request that it answers.

    Raises NotFound, StoreUnavailable, and the error itself when the request is our own mistake.
    """
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    meaning = meaning_of(error.operation_name, code, status)
    if meaning is Meaning.CONDITION_FAILED:
        return ConditionFailed(error.response.get("Item"))  # type: ignore[arg-type]
    if meaning is not Meaning.CANCELLED:
        return _interpret_failure(error, meaning)
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    meaning = meaning_of_cancellation([reason.get("Code", "None") for reason in reasons])
    if meaning is not Meaning.CONDITION_FAILED:
        return _interpret_failure(error, meaning)
    failed = (at for at, reason in enumerate(reasons) if reason.get("Code") == "ConditionalCheckFailed")
    return TransactionConditionFailed({at: reasons[at].get("Item") for at in failed})


def _interpret_failure(error: ClientError, meaning: Meaning) -> InDoubt | _Busy:
    match meaning:
        case Meaning.UNKNOWN:
            return InDoubt(error)
        case Meaning.BUSY:
            return _Busy(error)
        case Meaning.NOT_FOUND:
            raise NotFound from error
        case Meaning.OUR_MISTAKE:
            raise error
        case _:
            log.error(_REFUSALS[meaning], extra={"reason": str(error)})
            raise StoreUnavailable from error
