"""The DynamoDB project store. One partition has all projects, because they are few, and each process caches them."""

from typing import Final

import msgspec

from fluvial.model.errors import StorageDamaged
from fluvial.model.limits import PROJECT_CACHE_S
from fluvial.model.project import Project, ProjectName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.items import number
from fluvial.storage.dynamodb.table.keys import Item, project_key, usage_key
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import Written, require_known

#: How long a day's sum is kept, in seconds. It is not read after its day.
USAGE_KEPT_S: Final = 3 * 86_400

_PROJECT: Final = msgspec.json.Decoder(Project)


class DynamoDbProjects:
    """The projects of one table."""

    def __init__(self, table: Table) -> None:
        """Use the store's table; no request is made yet."""
        self._table = table

    @property
    def staleness_s_max(self) -> float:
        """See Projects.staleness_s_max: the age of other processes' caches, and a second for their open requests."""
        return PROJECT_CACHE_S + 1.0

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        item = await self._table.get(project_key(name))
        return None if item is None or a.PROJECT not in item else _decode(item)

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        item = {**project_key(project.name), a.PROJECT: {"B": msgspec.json.encode(project)}}
        e = Expression()
        if project.version == 1:
            condition = f"attribute_not_exists({e.name(a.PROJECT)})"
        else:
            condition = _is_version(project, project.version - 1, e)
        fields = {a.LIFE: number(project.incarnation), a.VERSION: number(project.version)}
        return await self._put_if({**item, **fields}, condition, e)

    async def remove(self, project: Project) -> bool:
        """See Projects.remove. The item stays, without the project, for `has_had_any`."""
        e = Expression()
        return await self._put_if(project_key(project.name), _is_version(project, project.version, e), e)

    async def list_after(self, after: str, count_max: int) -> list[Project]:
        """See Projects.list_after."""
        found, partition = list[Project](), project_key(ProjectName(""))[a.PK]["S"]
        while len(found) < count_max:
            items = await self._table.query(partition, after=after, limit=count_max)
            found += [_decode(item) for item in items if a.PROJECT in item]
            if not items:
                break
            after = items[-1][a.SK]["S"]
        return found[:count_max]

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        return bool(await self._table.query(project_key(ProjectName(""))[a.PK]["S"], limit=1))

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        e = Expression()
        total, ttl = e.name(a.BYTE_COUNT), e.name(a.TTL)
        until_s = day * 86_400 + USAGE_KEPT_S
        update = f"ADD {total} {e.value(byte_count)} SET {ttl} = {e.value(until_s)}"
        request = {"Key": usage_key(name, day), "UpdateExpression": update, "ReturnValues": "ALL_NEW"}
        outcome = require_known(await self._table.update({**request, **e.parameters()}))
        assert isinstance(outcome, Written), "the update has no condition"
        return int(outcome.item[a.BYTE_COUNT]["N"])

    async def _put_if(self, item: Item, condition: str, e: Expression) -> bool:
        outcome = require_known(await self._table.put(item, ConditionExpression=condition, **e.parameters()))
        return isinstance(outcome, Written)


def _is_version(project: Project, version: int, e: Expression) -> str:
    """The condition that a version of the project's incarnation is stored."""
    return f"{e.name(a.LIFE)} = {e.value(project.incarnation)} AND {e.name(a.VERSION)} = {e.value(version)}"


def _decode(item: Item) -> Project:
    try:
        return _PROJECT.decode(item[a.PROJECT]["B"])
    except msgspec.DecodeError as exc:
        raise StorageDamaged from exc
