"""Opening stores: settings become a store. A store is imported when it is chosen, for some need what others do not."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fluvial.access.directory import Directory
from fluvial.core.errors import StartupRefused, StoreUnavailable
from fluvial.core.names import StreamName
from fluvial.settings import AccessMode, Settings, StoreKind
from fluvial.stores.contract import Store
from fluvial.stores.projects import Projects
from fluvial.world import World

if TYPE_CHECKING:
    from fluvial.stores.dynamodb.store import DynamoDbStore

#: Requests to AWS at the same time; a function serves one request at a time.
FUNCTION_THREADS_MAX = 8


async def open_store(settings: Settings, world: World) -> Store:
    """The store that the settings name, for a process that lasts. Raises StartupRefused."""
    match settings.store:
        case StoreKind.MEMORY:
            from fluvial.stores.memory import MemoryStore  # noqa: PLC0415

            return MemoryStore()
        case StoreKind.SQLITE:
            from fluvial.stores.sqlite.store import open_sqlite_store  # noqa: PLC0415

            return await open_sqlite_store(Path(settings.data_dir), world)
        case StoreKind.DYNAMODB:
            return await dynamodb_store(settings, world)


@asynccontextmanager
async def open_projects(settings: Settings, world: World) -> AsyncIterator[Projects]:
    """The projects of the settings' store alone, which a server may be using. Raises StartupRefused."""
    match settings.store:
        case StoreKind.MEMORY:
            raise StartupRefused("--store memory keeps no projects: they go with the server, and are made over HTTP")
        case StoreKind.SQLITE:
            from fluvial.stores.sqlite.projects import open_sqlite_projects  # noqa: PLC0415

            with contextlib.closing(open_sqlite_projects(Path(settings.data_dir))) as projects:
                yield projects
        case StoreKind.DYNAMODB:
            store = await dynamodb_store(settings, world)
            try:
                yield store.projects
            finally:
                await store.close()


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


def function_store(settings: Settings, world: World) -> "DynamoDbStore":
    """The store of a Lambda function, whose chores the change feed does. Raises StartupRefused; asks nothing yet."""
    return _dynamodb_store(settings, world, FUNCTION_THREADS_MAX)


def directory_of(settings: Settings, projects: Projects, world: World) -> Directory:
    """What a process knows of the projects of its store."""
    return Directory(projects, world, closed=settings.access is AccessMode.PROJECTS)


def _dynamodb_store(settings: Settings, world: World, function_threads: int | None) -> "DynamoDbStore":
    try:
        from fluvial.stores.dynamodb.aws import Endpoints  # noqa: PLC0415
        from fluvial.stores.dynamodb.store import THREADS_MAX, DynamoDbConfig, DynamoDbStore  # noqa: PLC0415
    except ImportError as exc:
        raise StartupRefused("--store dynamodb needs boto3: pip install 'fluvial[aws]'") from exc
    endpoints = Endpoints(settings.endpoint_url or None, settings.s3_endpoint_url or None, settings.region or None)
    config = DynamoDbConfig(
        table=settings.table,
        bucket=settings.bucket,
        endpoints=endpoints,
        does_chores=function_threads is None and not settings.read_only,
        threads_max=function_threads or THREADS_MAX,
    )
    return DynamoDbStore(config, world)
