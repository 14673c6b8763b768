"""The DynamoDB store of signing keys: one item."""

from typing import Final

import msgspec

from fluvial.model.errors import StorageDamaged
from fluvial.model.signing_keys import KeyRing
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.items import number
from fluvial.storage.dynamodb.table.keys import signing_keys_key
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import Written, require_known

_RING: Final = msgspec.json.Decoder(KeyRing)


class DynamoDbSigningKeys:
    """The keys of one table."""

    def __init__(self, table: Table) -> None:
        """Use the store's table; no request is made yet."""
        self._table = table

    async def get(self) -> KeyRing | None:
        """See SigningKeys.get."""
        item = await self._table.get(signing_keys_key())
        if item is None:
            return None
        try:
            return _RING.decode(item[a.KEY_RING]["B"])
        except msgspec.DecodeError as exc:
            raise StorageDamaged from exc

    async def put(self, ring: KeyRing) -> bool:
        """See SigningKeys.put."""
        item = {**signing_keys_key(), a.KEY_RING: {"B": msgspec.json.encode(ring)}, a.VERSION: number(ring.version)}
        e = Expression()
        if ring.version == 1:
            condition = f"attribute_not_exists({e.name(a.KEY_RING)})"
        else:
            condition = f"{e.name(a.VERSION)} = {e.value(ring.version - 1)}"
        outcome = require_known(await self._table.put(item, ConditionExpression=condition, **e.parameters()))
        return isinstance(outcome, Written)
