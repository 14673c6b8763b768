"""boto3's clients off the event loop: the one place that calls AWS, and that says what its errors mean.

They are made by botocore, which boto3 makes its own by: that saves a function the import of S3's transfer machinery.

What a failed call means depends on one question: may it have been carried out? A commit is never sent a second time
by the SDK, because a blind second `list_append` would append twice.
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

from fluvial.model.errors import FluvialError, StartupError, StoreUnavailable
from fluvial.storage.dynamodb.table.error_codes import Meaning, meaning_of, meaning_of_cancellation
from fluvial.storage.dynamodb.table.keys import Item
from fluvial.storage.limits import STORE_LIMITS, StoreLimits

log = logging.getLogger(__name__)

#: Within a region a connection takes a millisecond or two and an answer of DynamoDB's under ten; past this nobody is
#: there. A commit in doubt is settled in six more requests, all well within a function's time.
CONNECT_TIMEOUT_S: Final = 1
DYNAMODB_TIMEOUT_S: Final = 2
S3_TIMEOUT_S: Final = 10

#: What DynamoDB refused because it was busy was not carried out: it is tried again this often, then it is a 503.
BUSY_TRIES_MAX: Final = 5

#: Reads may be repeated as they are; the SDK does so, slowing down when it is told to.
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


class ConditionFailed(FluvialError):
    """The condition did not hold; `item` is what it was judged on, None where nothing is."""

    def __init__(self, item: Item | None = None) -> None:
        """Nothing was written."""
        super().__init__("the condition did not hold")
        self.item = item


class TransactionConditionFailed(FluvialError):
    """The conditions of a transaction did not all hold; `items` are what the failed ones were judged on, by index."""

    def __init__(self, items: dict[int, Item | None]) -> None:
        """Nothing was written."""
        super().__init__("a condition of the transaction did not hold")
        self.items = items


class OutcomeUnknown(FluvialError):
    """The answer was lost: the write may have been carried out, or may still be."""


class NotFound(FluvialError):
    """S3 has no such object."""


class _Busy(FluvialError):
    """Nothing was written, because there was too much to do."""


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
    ) -> None:
        """No connection is made before the first call. Raises StartupError when the region is not known."""
        self._endpoints, self._jitter, self._threads_max, self._limits = endpoints, jitter, threads_max, limits
        self._is_closed = False
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix="fluvial-aws")
        self._session = botocore.session.get_session()
        self.writes = self._client("dynamodb", endpoints.dynamodb, {"mode": "standard", "total_max_attempts": 1})

    @functools.cached_property
    def reads(self) -> Any:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """The client for what may be asked again: the SDK retries."""
        retries = {"mode": "adaptive", "total_max_attempts": READ_TRIES_MAX}
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
            return self._session.create_client(
                service, region_name=self._endpoints.region, endpoint_url=endpoint, config=config
            )
        except NoRegionError as exc:
            raise StartupError("no AWS region is set: give --region, or set AWS_DEFAULT_REGION") from exc

    async def write(self, method: Callable[..., Any], **parameters: Any) -> dict[str, Any]:  # noqa: ANN401
        """Send a write once, or again while the service says that it is too busy.

        Raises Refused, TransactionConditionFailed, Unknown, StoreUnavailable.
        """
        for tried in range(1, BUSY_TRIES_MAX + 1):
            try:
                return await self._call(method, parameters)
            except _Busy as exc:
                if tried == BUSY_TRIES_MAX:
                    log.warning("store_busy", extra={"reason": str(exc.__cause__)})
                    raise StoreUnavailable from exc
                await asyncio.sleep(self._limits.busy_pause_s * 2**tried * (0.5 + self._jitter() / 2))
        raise AssertionError("the last try returns or raises")

    async def read(self, method: Callable[..., Any], **parameters: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask, as often as the client retries. Raises NotFound, StoreUnavailable."""
        try:
            return await self._call(method, parameters)
        except (_Busy, OutcomeUnknown, ConditionFailed) as exc:
            log.warning("store_unreadable", extra={"reason": str(exc.__cause__)})
            raise StoreUnavailable from exc

    async def read_body(self, method: Callable[..., Any], **parameters: Any) -> bytes:  # noqa: ANN401
        """Ask S3 for an object's bytes. Raises NotFound, StoreUnavailable."""

        def whole(**parameters: Any) -> dict[str, Any]:  # noqa: ANN401
            return {"Body": method(**parameters)["Body"].read()}

        body: bytes = (await self.read(whole, **parameters))["Body"]
        return body

    async def _call(self, method: Callable[..., Any], parameters: dict[str, Any]) -> dict[str, Any]:
        if self._is_closed:
            raise StoreUnavailable
        loop = asyncio.get_running_loop()
        try:
            answer: dict[str, Any] = await loop.run_in_executor(self._threads, functools.partial(method, **parameters))
        except ClientError as exc:
            raise _meaning(exc) from exc
        except _UNREACHABLE as exc:
            log.warning("store_unreachable", extra={"reason": str(exc)})
            raise StoreUnavailable from exc
        except (BotoCoreError, ResponseParserError, OSError) as exc:
            raise OutcomeUnknown from exc
        return answer

    def close(self) -> None:
        """Let go of the threads and connections, once the calls under way are answered; refuse every later one."""
        self._is_closed = True
        self._threads.shutdown(wait=True)
        self.writes.close()
        for lazy in ("reads", "objects"):
            if lazy in self.__dict__:
                self.__dict__[lazy].close()


def _meaning(error: ClientError) -> Exception:
    """What a service's error says of the write that it answers; the error itself when it is our own mistake."""
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    meaning = meaning_of(error.operation_name, code, status)
    if meaning is Meaning.CANCELLED:
        return _cancellation(error)
    if meaning is Meaning.CONDITION_FAILED:
        return ConditionFailed(error.response.get("Item"))  # type: ignore[arg-type]
    return _failure(error, meaning)


def _cancellation(error: ClientError) -> Exception:
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    meaning = meaning_of_cancellation([reason.get("Code", "None") for reason in reasons])
    if meaning is Meaning.CONDITION_FAILED:
        failed = (at for at, reason in enumerate(reasons) if reason.get("Code") == "ConditionalCheckFailed")
        return TransactionConditionFailed({at: reasons[at].get("Item") for at in failed})
    return _failure(error, meaning)


def _failure(error: ClientError, meaning: Meaning) -> Exception:
    match meaning:
        case Meaning.UNKNOWN:
            return OutcomeUnknown()
        case Meaning.BUSY:
            return _Busy()
        case Meaning.NOT_FOUND:
            return NotFound()
        case Meaning.OUR_MISTAKE:
            return error
        case _:
            log.error(_REFUSALS[meaning], extra={"reason": str(error)})
            return StoreUnavailable()
