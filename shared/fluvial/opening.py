"""Opening stores: settings become a store. A store is imported when it is chosen, for some need what others do not."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluvial.access.directory import Directory
from fluvial.core.errors import SettingsRefused, StartupRefused, StoreUnavailable
from fluvial.core.names import StreamName
from fluvial.settings import AccessMode, Settings, StoreKind
from fluvial.stores.contract import Store
from fluvial.stores.limits import STORE_LIMITS, StoreLimits
from fluvial.stores.projects import ListsStreams, Projects
from fluvial.world import World

if TYPE_CHECKING:
    from fluvial.stores.dynamodb.store import DynamoDbStore
    from fluvial.stores.sqlite.adoption import Adoption

#: Requests to AWS at the same time; a function serves one request at a time.
FUNCTION_THREADS_MAX = 8


@dataclass(frozen=True, slots=True)
class Owners:
    """The projects of a store, and the names of the streams that are or are not theirs."""

    projects: Projects
    streams: ListsStreams


def folder_of(settings: Settings) -> Path:
    """The data folder, spelt out."""
    return Path(settings.data_dir).absolute()


def check_store(settings: Settings) -> None:
    """Whether the settings' store is installed. Raises StartupRefused."""
    if settings.store is StoreKind.DYNAMODB:
        _import_dynamodb()


def check_is_there(settings: Settings) -> None:
    """Whether there is data where the settings say, for whoever makes none. Raises SettingsRefused, StartupRefused."""
    if settings.store is StoreKind.SQLITE:
        from fluvial.stores.sqlite.database import has_data  # noqa: PLC0415

        if not has_data(folder_of(settings)):
            message = f"no fluvial data in {folder_of(settings)}: give --data-dir (fluvial serve makes the folder)"
            raise SettingsRefused(message)


async def open_store(settings: Settings, world: World) -> Store:
    """The store that the settings name, for a process that lasts. Raises StartupRefused."""
    match settings.store:
        case StoreKind.MEMORY:
            from fluvial.stores.memory import MemoryStore  # noqa: PLC0415

            return MemoryStore()
        case StoreKind.SQLITE:
            from fluvial.stores.sqlite.store import open_sqlite_store  # noqa: PLC0415

            return await open_sqlite_store(folder_of(settings), world)
        case StoreKind.DYNAMODB:
            return await dynamodb_store(settings, world)


@asynccontextmanager
async def open_owners(settings: Settings, world: World) -> AsyncIterator[Owners]:
    """The projects of the settings' store, which is there and which a server may be using. Raises StartupRefused."""
    check_is_there(settings)
    match settings.store:
        case StoreKind.MEMORY:
            raise SettingsRefused("--store memory keeps no projects: they go with the server, and are made over HTTP")
        case StoreKind.SQLITE:
            from fluvial.stores.sqlite.names import SqliteNames  # noqa: PLC0415
            from fluvial.stores.sqlite.projects import SqliteProjects  # noqa: PLC0415

            with contextlib.closing(SqliteProjects(folder_of(settings))) as projects:
                yield Owners(projects, SqliteNames(folder_of(settings)))
        case StoreKind.DYNAMODB:
            store = await dynamodb_store(settings, world)
            try:
                yield Owners(store.projects, store)
            finally:
                await store.close()


def open_adoption(settings: Settings) -> "Adoption":
    """What renames the streams of the settings' folder, which is there. Raises StartupRefused."""
    from fluvial.stores.sqlite.adoption import Adoption  # noqa: PLC0415

    return Adoption(folder_of(settings))


async def dynamodb_store(settings: Settings, world: World) -> "DynamoDbStore":
    """The store on the settings' table, which is there. Raises StartupRefused."""
    store = _dynamodb_store(settings, world, None)
    try:
        await store.head(StreamName("fluvial"))
    except StoreUnavailable as exc:
        await store.close()
        message = f"the table {settings.table} cannot be read: {exc.__cause__ or exc}"
        raise StartupRefused(message) from exc
    return store


def function_store(settings: Settings, world: World, limits: StoreLimits = STORE_LIMITS) -> "DynamoDbStore":
    """The store of a Lambda function, whose chores the change feed does. Raises StartupRefused; asks nothing yet."""
    return _dynamodb_store(settings, world, FUNCTION_THREADS_MAX, limits)


def directory_of(settings: Settings, projects: Projects, world: World) -> Directory:
    """What a process knows of the projects of its store."""
    return Directory(projects, world, closed=settings.access is AccessMode.PROJECTS)


def _import_dynamodb() -> None:
    try:
        import fluvial.stores.dynamodb.store  # noqa: F401, PLC0415  what it needs may not be installed
    except ImportError as exc:
        raise StartupRefused("DynamoDB and S3 need boto3: pip install 'fluvial[aws]'") from exc


def _dynamodb_store(
    settings: Settings, world: World, function_threads: int | None, limits: StoreLimits = STORE_LIMITS
) -> "DynamoDbStore":
    _import_dynamodb()
    from fluvial.stores.dynamodb.aws import Endpoints  # noqa: PLC0415
    from fluvial.stores.dynamodb.store import THREADS_MAX, DynamoDbConfig, DynamoDbStore  # noqa: PLC0415

    endpoints = Endpoints(settings.endpoint_url or None, settings.s3_endpoint_url or None, settings.region or None)
    config = DynamoDbConfig(
        table=settings.table,
        bucket=settings.bucket,
        endpoints=endpoints,
        does_chores=function_threads is None and not settings.read_only,
        threads_max=function_threads or THREADS_MAX,
        limits=limits,
    )
    return DynamoDbStore(config, world)
