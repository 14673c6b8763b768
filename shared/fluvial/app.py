"""The composition root: settings become a store, an authorizer and an application.

A module that not every process needs is imported where it is used: a function of AWS's imports no web framework to
append, and a server on SQLite needs no boto3.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fluvial.access.authorizer import Authorizer, OperatorSecrets, no_operator
from fluvial.access.project_cache import ProjectCache
from fluvial.access.throttle import Throttle
from fluvial.clock import Clock
from fluvial.model.errors import RequestError, SettingsError, StartupError, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.model.project import Secret, parse_origins, parse_secret
from fluvial.settings import AccessMode, Settings, StoreKind
from fluvial.storage.contract import Store
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.projects import Projects, StreamNames
from fluvial.wire.cors import LOCAL_ORIGINS

if TYPE_CHECKING:
    from fluvial.fanout.publisher import Backlog
    from fluvial.server.application import Application
    from fluvial.server.live_reads import SseDelivery
    from fluvial.storage.dynamodb.store import DynamoDbStore
    from fluvial.storage.sqlite.adoption import Adoption

#: Requests to AWS at the same time; a function serves one request at a time.
FUNCTION_THREADS_MAX = 8


@dataclass(frozen=True, slots=True)
class Owners:
    """The projects of a store, and the names of the streams that are or are not theirs."""

    projects: Projects
    streams: StreamNames


def data_folder(settings: Settings) -> Path:
    """The data folder, spelt out."""
    return Path(settings.data_dir).absolute()


def check_store(settings: Settings) -> None:
    """Whether the settings' store is installed. Raises StartupError."""
    if settings.store is StoreKind.DYNAMODB:
        _import_dynamodb()


def check_data_exists(settings: Settings) -> None:
    """Whether there is data where the settings say, for whoever makes none. Raises SettingsError, StartupError."""
    if settings.store is StoreKind.SQLITE:
        from fluvial.storage.sqlite.database import has_data  # noqa: PLC0415

        if not has_data(data_folder(settings)):
            message = f"no fluvial data in {data_folder(settings)}: give --data-dir (fluvial serve makes the folder)"
            raise SettingsError(message)


async def open_store(settings: Settings, clock: Clock) -> Store:
    """The store that the settings name, for a process that lasts. Raises StartupError."""
    match settings.store:
        case StoreKind.MEMORY:
            from fluvial.storage.memory import MemoryStore  # noqa: PLC0415

            return MemoryStore()
        case StoreKind.SQLITE:
            from fluvial.storage.sqlite.store import open_sqlite_store  # noqa: PLC0415

            return await open_sqlite_store(data_folder(settings), clock)
        case StoreKind.DYNAMODB:
            return await dynamodb_store(settings, clock)


@asynccontextmanager
async def open_owners(settings: Settings, clock: Clock) -> AsyncIterator[Owners]:
    """The projects of the settings' store, which is there and which a server may be using. Raises StartupError."""
    check_data_exists(settings)
    match settings.store:
        case StoreKind.MEMORY:
            raise SettingsError("--store memory keeps no projects: they go with the server, and are made over HTTP")
        case StoreKind.SQLITE:
            from fluvial.storage.sqlite.names import SqliteNames  # noqa: PLC0415
            from fluvial.storage.sqlite.projects import SqliteProjects  # noqa: PLC0415

            with contextlib.closing(SqliteProjects(data_folder(settings))) as projects:
                yield Owners(projects, SqliteNames(data_folder(settings)))
        case StoreKind.DYNAMODB:
            store = await dynamodb_store(settings, clock)
            try:
                yield Owners(store.projects, store)
            finally:
                await store.close()


def open_adoption(settings: Settings) -> "Adoption":
    """What renames the streams of the settings' folder, which is there. Raises StartupError."""
    from fluvial.storage.sqlite.adoption import Adoption  # noqa: PLC0415

    return Adoption(data_folder(settings))


async def dynamodb_store(settings: Settings, clock: Clock) -> "DynamoDbStore":
    """The store on the settings' table, which is there. Raises StartupError."""
    store = _dynamodb_store(settings, clock, None)
    try:
        await store.head(StreamName("fluvial"))
    except StoreUnavailable as exc:
        await store.close()
        message = f"the table {settings.table} cannot be read: {exc.__cause__ or exc}"
        raise StartupError(message) from exc
    return store


def function_store(settings: Settings, clock: Clock, limits: StoreLimits = STORE_LIMITS) -> "DynamoDbStore":
    """The store of a Lambda function, whose background tasks the change feed runs. Raises StartupError."""
    return _dynamodb_store(settings, clock, FUNCTION_THREADS_MAX, limits)


def _import_dynamodb() -> None:
    try:
        import fluvial.storage.dynamodb.store  # noqa: F401, PLC0415  what it needs may not be installed
    except ImportError as exc:
        raise StartupError("DynamoDB and S3 need boto3: pip install 'fluvial[aws]'") from exc


def _dynamodb_store(
    settings: Settings, clock: Clock, function_threads: int | None, limits: StoreLimits = STORE_LIMITS
) -> "DynamoDbStore":
    _import_dynamodb()
    from fluvial.storage.dynamodb.store import THREADS_MAX, DynamoDbConfig, DynamoDbStore  # noqa: PLC0415
    from fluvial.storage.dynamodb.table.aws_client import Endpoints  # noqa: PLC0415

    endpoints = Endpoints(settings.endpoint_url or None, settings.s3_endpoint_url or None, settings.region or None)
    config = DynamoDbConfig(
        table=settings.table,
        bucket=settings.bucket,
        endpoints=endpoints,
        runs_background_tasks=function_threads is None and not settings.read_only,
        threads_max=function_threads or THREADS_MAX,
        limits=limits,
    )
    return DynamoDbStore(config, clock)


def build_project_cache(settings: Settings, projects: Projects, clock: Clock) -> ProjectCache:
    """What a process knows of the projects of its store."""
    return ProjectCache(projects, clock, closed=settings.access is AccessMode.PROJECTS)


def build_authorizer(
    settings: Settings, projects: Projects, clock: Clock, operators: OperatorSecrets | None = None
) -> Authorizer:
    """What every request passes; `operators` if they were looked up before.

    Raises as `load_operator_secrets` does, and SettingsError for an origin that is none.
    """
    _check_origins(settings.cors_origins)
    project_cache, operators = (
        build_project_cache(settings, projects, clock),
        operators or load_operator_secrets(settings),
    )
    return Authorizer(project_cache, Throttle(projects, clock), clock, operators, settings.cors_origins)


def _check_origins(text: str) -> None:
    """An origin that no browser sends would match nothing, and whoever has set it would wonder."""
    origins = [origin for origin in text.replace(" ", "").split(",") if origin]
    try:
        parse_origins([origin for origin in origins if origin != LOCAL_ORIGINS])
    except RequestError as exc:
        message = f"--cors-origins: {exc.message}, or localhost for pages of this machine"
        raise SettingsError(message) from exc


def load_operator_secrets(settings: Settings) -> OperatorSecrets:
    """What operators' tokens are signed with. Raises SettingsError for what is no secret, StartupError.

    The file is read once, for it may be a pipe.
    """
    if settings.operator_secret_file:
        return _kept(_secret_in(Path(settings.operator_secret_file)))
    if settings.operator_secret_arn:
        if find_spec("aws_lambda_powertools") is None:
            raise StartupError("--operator-secret-arn needs aws-lambda-powertools: it is for the edge function")
        from fluvial.aws.operator_secret import OperatorSecret  # noqa: PLC0415

        return OperatorSecret(settings.operator_secret_arn).current
    return no_operator


def _secret_in(file: Path) -> Secret:
    try:
        return parse_secret(file.read_text("utf-8").strip(), 0)
    except (OSError, UnicodeDecodeError) as exc:
        message = f"--operator-secret-file: cannot read {file}: {exc}"
        raise SettingsError(message) from exc
    except RequestError as exc:
        message = f"--operator-secret-file: {exc.message}"
        raise SettingsError(message) from exc


def _kept(secret: Secret) -> OperatorSecrets:
    async def secrets() -> tuple[Secret, ...]:
        return (secret,)

    return secrets


def build_application(  # noqa: PLR0913  the last one is for who had to look it up before
    settings: Settings,
    store: Store,
    clock: Clock,
    backlog: "Backlog",
    sse: "SseDelivery | None" = None,
    *,
    operators: OperatorSecrets | None = None,
) -> "Application":
    """The application over an open store; `sse` tells whether what it sends leaves at once.

    `backlog` takes the deliveries that no publisher waits for, `operators` has what `load_operator_secrets` has found.
    """
    from fluvial.fanout.publisher import Publisher  # noqa: PLC0415
    from fluvial.server.application import Application  # noqa: PLC0415
    from fluvial.server.live_reads import LiveLimits, LiveReads, SseDelivery  # noqa: PLC0415
    from fluvial.server.streams import StreamsApp  # noqa: PLC0415

    delivery = sse or SseDelivery.STREAMED
    limits = LiveLimits(settings.long_poll_timeout, settings.sse_max_age, settings.max_live_reads, delivery)
    authorizer = build_authorizer(settings, store.projects, clock, operators)
    live = LiveReads(store, clock, limits, authorizer.throttle)
    publisher = Publisher(store, clock, backlog)
    streams = StreamsApp(store, clock, live, publisher, authorizer, settings.max_body, bool(settings.cdn_secret))
    return Application(streams, read_only=settings.read_only, cdn_secret=settings.cdn_secret)
