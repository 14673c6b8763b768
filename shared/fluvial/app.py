"""The composition root: builds store, projects, authorizer and application, in this order, from the settings.

Most imports of stores, AWS and the web framework stand inside the functions that need them, so that each process loads
only its own: the append function runs without a web framework, and a server on SQLite without boto3.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fluvial.access.authorizer import Authorizer, OperatorSecrets, no_operator
from fluvial.access.project_cache import ProjectCache
from fluvial.access.throttle import Throttle
from fluvial.clock import Clock
from fluvial.metrics.metrics import Metrics
from fluvial.metrics.sampler import Sampler
from fluvial.metrics.sources import Sources
from fluvial.model.errors import RequestError, SettingsError, StartupError, StoreError, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.model.project import Secret, parse_origins, parse_secret
from fluvial.settings import AccessMode, Settings, StoreKind
from fluvial.storage.contract import Store
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.observer import UNOBSERVED, StoreObserver
from fluvial.storage.projects import Projects, StreamNames
from fluvial.storage.signing_keys import SigningKeys
from fluvial.wire.cors import LOCAL_ORIGINS

if TYPE_CHECKING:
    from fluvial.fanout.publisher import Backlog
    from fluvial.server.application import Application
    from fluvial.server.exchange import Observers
    from fluvial.server.live_reads import SseDelivery
    from fluvial.server.monitoring import Monitoring
    from fluvial.server.streams import StreamsApp
    from fluvial.storage.dynamodb.store import DynamoDbStore
    from fluvial.storage.sqlite.adoption import Adoption

log = logging.getLogger(__name__)

#: Threads for requests to AWS in a Lambda function, which serves one request at a time.
FUNCTION_THREADS_MAX: Final = 8


def data_folder(settings: Settings) -> Path:
    """The absolute path of the data folder."""
    return Path(settings.data_dir).absolute()


def check_store_is_installed(settings: Settings) -> None:
    """Check that the libraries of the settings' store are installed. Raises StartupError."""
    if settings.store is StoreKind.DYNAMODB:
        _check_boto3_is_installed()


def check_data_exists(settings: Settings) -> None:
    """Check that a command which never creates data finds some. Raises SettingsError, StartupError."""
    if settings.store is StoreKind.SQLITE:
        from fluvial.storage.sqlite.database import has_data  # noqa: PLC0415

        if not has_data(data_folder(settings)):
            message = f"no fluvial data in {data_folder(settings)}: give --data-dir (fluvial serve creates the folder)"
            raise SettingsError(message)


async def open_store(settings: Settings, clock: Clock, observer: StoreObserver = UNOBSERVED) -> Store:
    """Open the settings' store for a long-running process. Raises StartupError."""
    match settings.store:
        case StoreKind.MEMORY:
            from fluvial.storage.memory import MemoryStore  # noqa: PLC0415

            return MemoryStore()
        case StoreKind.SQLITE:
            from fluvial.storage.sqlite.store import open_sqlite_store  # noqa: PLC0415

            return await open_sqlite_store(data_folder(settings), clock, observer=observer)
        case StoreKind.DYNAMODB:
            store = await open_dynamodb_store(settings, clock, observer)
            if follows_up(settings):
                await _claim_bucket(store)
            return store


async def open_dynamodb_store(
    settings: Settings, clock: Clock, observer: StoreObserver = UNOBSERVED
) -> "DynamoDbStore":
    """Open the store on the settings' table, which must exist: one read proves it. Raises StartupError."""
    store = _build_dynamodb_store(settings, clock, None, observer=observer)
    try:
        await store.head(StreamName("fluvial"))
    except StoreUnavailable as exc:
        await store.close()
        message = f"the table {settings.table} cannot be read: {exc.__cause__ or exc}"
        raise StartupError(message) from exc
    return store


def follows_up(settings: Settings) -> bool:
    """Whether a server follows up commits itself, by deliveries, rotations and collections in the background."""
    return not settings.read_only and not settings.change_feed


async def _claim_bucket(store: "DynamoDbStore") -> None:
    """Check that the bucket is there, and that no other table owns it. Raises StartupError."""
    try:
        await store.bucket_owner.claim()
    except StartupError:
        await store.close()
        raise
    except StoreError as exc:
        await store.close()
        message = f"the bucket {store.config.bucket} cannot be used: {exc.__cause__ or exc}"
        raise StartupError(message) from exc


def build_function_store(
    settings: Settings, clock: Clock, observer: StoreObserver = UNOBSERVED, limits: StoreLimits = STORE_LIMITS
) -> "DynamoDbStore":
    """Build the store of a Lambda function, without any I/O. Raises StartupError.

    It runs no background tasks, because the function of the change feed runs them.
    """
    return _build_dynamodb_store(settings, clock, FUNCTION_THREADS_MAX, limits, observer)


def _check_boto3_is_installed() -> None:
    try:
        import fluvial.storage.dynamodb.store  # noqa: F401, PLC0415  it imports boto3
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in {"boto3", "botocore"}:
            raise  # a bug of ours, not a missing package
        raise StartupError("DynamoDB and S3 need boto3: pip install 'fluvial[aws]'") from exc


def _build_dynamodb_store(
    settings: Settings,
    clock: Clock,
    function_threads: int | None,
    limits: StoreLimits = STORE_LIMITS,
    observer: StoreObserver = UNOBSERVED,
) -> "DynamoDbStore":
    _check_boto3_is_installed()
    from fluvial.storage.dynamodb.store import THREADS_MAX, DynamoDbConfig, DynamoDbStore  # noqa: PLC0415
    from fluvial.storage.dynamodb.table.aws_client import Endpoints  # noqa: PLC0415

    endpoints = Endpoints(settings.endpoint_url or None, settings.s3_endpoint_url or None, settings.region or None)
    config = DynamoDbConfig(
        table=settings.table,
        bucket=settings.bucket,
        endpoints=endpoints,
        runs_background_tasks=function_threads is None and follows_up(settings),
        threads_max=function_threads or THREADS_MAX,
        limits=limits,
        observer=observer,
        payload_item_bytes_max=settings.payload_item_max,
    )
    return DynamoDbStore(config, clock)


@dataclass(frozen=True, slots=True)
class ProjectStorage:
    """The projects of a store, the names of all its streams, and the keys that sign its webhooks."""

    projects: Projects
    stream_names: StreamNames
    signing_keys: SigningKeys


@asynccontextmanager
async def open_projects(settings: Settings, clock: Clock) -> AsyncIterator[ProjectStorage]:
    """Open the projects of an existing store, beside a server that may be using it. Raises StartupError."""
    check_data_exists(settings)
    match settings.store:
        case StoreKind.MEMORY:
            raise SettingsError("--store memory keeps no projects: create them over HTTP; they end with the server")
        case StoreKind.SQLITE:
            from fluvial.storage.sqlite.names import SqliteStreamNames  # noqa: PLC0415
            from fluvial.storage.sqlite.projects import SqliteProjects  # noqa: PLC0415

            with contextlib.closing(SqliteProjects(data_folder(settings))) as projects:
                names = SqliteStreamNames(data_folder(settings))
                yield ProjectStorage(projects, names, projects.signing_keys)
        case StoreKind.DYNAMODB:
            store = await open_dynamodb_store(settings, clock)
            try:
                yield ProjectStorage(store.projects, store, store.signing_keys)
            finally:
                await store.close()


def open_adoption(settings: Settings) -> "Adoption":
    """Lock the settings' data folder in order to rename streams in it. Raises StartupError."""
    from fluvial.storage.sqlite.adoption import Adoption  # noqa: PLC0415

    return Adoption(data_folder(settings))


def load_operator_secrets(settings: Settings) -> OperatorSecrets:
    """Load the secrets that operators' tokens are signed with. Raises SettingsError for a malformed one, StartupError.

    A file is read once, because it may be a pipe.
    """
    if settings.operator_secret_file:
        return _constant_secrets(_read_secret(Path(settings.operator_secret_file)))
    if settings.operator_secret_arn:
        if find_spec("aws_lambda_powertools") is None:
            raise StartupError("--operator-secret-arn needs aws-lambda-powertools: it is for the edge function")
        from fluvial.aws.operator_secret import OperatorSecret  # noqa: PLC0415

        return OperatorSecret(settings.operator_secret_arn).current
    return no_operator


def _read_secret(file: Path) -> Secret:
    try:
        return parse_secret(file.read_text("utf-8").strip(), 0)
    except (OSError, UnicodeDecodeError) as exc:
        message = f"--operator-secret-file: cannot read {file}: {exc}"
        raise SettingsError(message) from exc
    except RequestError as exc:
        message = f"--operator-secret-file: {exc.message}"
        raise SettingsError(message) from exc


def _constant_secrets(secret: Secret) -> OperatorSecrets:
    async def secrets() -> tuple[Secret, ...]:
        return (secret,)

    return secrets


def build_project_cache(settings: Settings, projects: Projects, clock: Clock) -> ProjectCache:
    """Build this process's cache of its store's projects."""
    return ProjectCache(projects, clock, closed=settings.access is AccessMode.PROJECTS)


def build_authorizer(
    settings: Settings, projects: Projects, clock: Clock, operators: OperatorSecrets | None = None
) -> Authorizer:
    """Build the authorizer of all requests; `operators` are the operators' secrets if they are loaded already.

    Raises as `load_operator_secrets` does, and SettingsError for a malformed origin.
    """
    _check_origins(settings.cors_origins)
    project_cache = build_project_cache(settings, projects, clock)
    secrets = operators or load_operator_secrets(settings)
    return Authorizer(project_cache, Throttle(projects, clock), clock, secrets, settings.cors_origins)


def _check_origins(text: str) -> None:
    """Reject an origin that no browser sends, because it would silently match nothing."""
    origins = [origin for origin in text.replace(" ", "").split(",") if origin]
    try:
        parse_origins([origin for origin in origins if origin != LOCAL_ORIGINS])
    except RequestError as exc:
        message = f"--cors-origins: {exc.message}, or localhost for pages of this machine"
        raise SettingsError(message) from exc


def build_application(  # noqa: PLR0913  the parts that differ between the server and the edge function
    settings: Settings,
    store: Store,
    clock: Clock,
    backlog: "Backlog",
    sse: "SseDelivery | None" = None,
    *,
    operators: OperatorSecrets | None = None,
    observers: "Observers | None" = None,
) -> "Application":
    """Build the application over an open store.

    `backlog` takes the background deliveries. `sse` says whether the events of an SSE response are streamed (the
    default) or buffered. `operators` are the operators' secrets if they are loaded already. `observers` are from
    `open_observers`; by default requests are counted alone.
    """
    from fluvial.fanout.deliveries import Deliveries  # noqa: PLC0415
    from fluvial.fanout.publisher import Publisher  # noqa: PLC0415
    from fluvial.server.application import Application  # noqa: PLC0415
    from fluvial.server.exchange import Observers  # noqa: PLC0415
    from fluvial.server.live_reads import LiveLimits, LiveReads, SseDelivery  # noqa: PLC0415
    from fluvial.server.streams import StreamsApp  # noqa: PLC0415

    delivery = sse or SseDelivery.STREAMED
    limits = LiveLimits(settings.long_poll_timeout, settings.sse_max_age, settings.max_live_reads, delivery)
    authorizer = build_authorizer(settings, store.projects, clock, operators)
    live = LiveReads(store, clock, limits, authorizer.throttle)
    publisher = Publisher(store, Deliveries(store, clock), backlog)
    streams = StreamsApp(store, clock, live, publisher, authorizer, settings.max_body, bool(settings.cdn_secret))
    observers = observers or Observers(Metrics(), clock)
    monitoring = _build_monitoring(settings, streams, observers, backlog)
    return Application(streams, observers, monitoring, read_only=settings.read_only, cdn_secret=settings.cdn_secret)


@asynccontextmanager
async def open_application(
    settings: Settings, clock: Clock, *, operators: OperatorSecrets | None = None
) -> AsyncIterator["Application"]:
    """Open the settings' store, and run the application with its background tasks while the block runs.

    The end of the block ends all live reads. `operators` are the operators' secrets if they are loaded already.
    Raises StartupError, SettingsError.
    """
    from fluvial.background import leave_backlog, run_backlog, run_subscriptions  # noqa: PLC0415
    from fluvial.observers import open_observers  # noqa: PLC0415
    from fluvial.server.openness import end_anonymous_reads  # noqa: PLC0415

    async with contextlib.AsyncExitStack() as opened:
        observers = opened.enter_context(open_observers(settings, clock))
        store = await open_store(settings, clock, observers.metrics)
        opened.push_async_callback(store.close)
        follow_up = run_backlog(store, clock) if follows_up(settings) else leave_backlog(settings, store)
        backlog = await opened.enter_async_context(follow_up)
        application = build_application(settings, store, clock, backlog, operators=operators, observers=observers)
        await opened.enter_async_context(run_subscriptions(settings, application, clock))
        watcher = asyncio.create_task(end_anonymous_reads(application), name="openness")
        opened.callback(watcher.cancel)
        opened.callback(application.live.stop)
        yield application


def _build_monitoring(
    settings: Settings, streams: "StreamsApp", observers: "Observers", backlog: "Backlog"
) -> "Monitoring":
    from fluvial.fanout.delivery_worker import DeliveryWorker  # noqa: PLC0415
    from fluvial.server.monitoring import Monitoring  # noqa: PLC0415
    from fluvial.server.readiness import Readiness  # noqa: PLC0415

    live, authorizer, access_log = streams.live, streams.authorizer, observers.access_log
    sources = Sources(settings.store.value, Sampler(streams.store), settings.max_live_reads)
    sources.rejected_origins = lambda: authorizer.rejected_origin_count
    if isinstance(backlog, DeliveryWorker):
        sources.fan_out_backlog = lambda: backlog.behind_count
    if access_log is not None:
        sources.dropped_log_lines = lambda: access_log.dropped_count
    readiness = Readiness(streams.store, is_read_only=settings.read_only, is_stopping=lambda: live.is_stopping)
    return Monitoring(observers.metrics, sources, readiness)
