"""Projects in the table, all in one partition: they are few, and every process keeps what it has read for a while."""

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

#: What a day's sum is kept for, in seconds; nobody asks for it after its day.
USAGE_KEPT_S: Final = 3 * 86_400

_PROJECT: Final = msgspec.json.Decoder(Project)


class DynamoDbProjects:
    """The projects of one table."""

    def __init__(self, table: Table) -> None:
        """Nothing is asked yet."""
        self._table = table

    @property
    def lag_s(self) -> float:
        """See Projects.lag_s: what others keep, and then what they had begun."""
        return PROJECT_CACHE_S + 1.0

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        item = await self._table.get(project_key(name))
        return None if item is None or a.PROJECT not in item else _decoded(item)

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        item = {**project_key(project.name), a.PROJECT: {"B": msgspec.json.encode(project)}}
        e = Expression()
        if project.version == 1:
            condition = f"attribute_not_exists({e.name(a.PROJECT)})"
        else:
            condition = _is_version(project, project.version - 1, e)
        fields = {a.LIFE: number(project.life), a.VERSION: number(project.version)}
        return await self._put_if({**item, **fields}, condition, e)

    async def remove(self, project: Project) -> bool:
        """See Projects.remove; what stays tells that there was one."""
        e = Expression()
        return await self._put_if(project_key(project.name), _is_version(project, project.version, e), e)

    async def listed(self, after: str, count_max: int) -> list[Project]:
        """See Projects.listed."""
        found, partition = list[Project](), project_key(ProjectName(""))[a.PK]["S"]
        while len(found) < count_max:
            items = await self._table.query(partition, after=after, limit=count_max)
            found += [_decoded(item) for item in items if a.PROJECT in item]
            if not items:
                break
            after = items[-1][a.SK]["S"]
        return found[:count_max]

    async def any_ever(self) -> bool:
        """See Projects.any_ever."""
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
    """The condition that a version of this life is there."""
    return f"{e.name(a.LIFE)} = {e.value(project.life)} AND {e.name(a.VERSION)} = {e.value(version)}"


def _decoded(item: Item) -> Project:
    try:
        return _PROJECT.decode(item[a.PROJECT]["B"])
    except msgspec.DecodeError as exc:
        raise StorageDamaged from exc
