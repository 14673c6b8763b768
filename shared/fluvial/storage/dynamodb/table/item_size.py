"""The size of an item, as DynamoDB bills it."""

from typing import Final

from fluvial.storage.dynamodb.table.keys import Item, Value

_CONTAINER_BYTES: Final = 3
_ELEMENT_BYTES: Final = 1


def item_bytes(item: Item) -> int:
    """An item's size as DynamoDB bills it: names and values.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Value) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "B":
            return len(content)
        case "N":
            # "approximately [...] (1 byte per two significant digits) + (1 byte)"; signs and zeros aside.
            return (len(content.strip("-").strip("0")) + 1) // 2 + 1
        case "L":
            return _CONTAINER_BYTES + sum(_ELEMENT_BYTES + _value_bytes(one) for one in content)
        case "M":
            return _CONTAINER_BYTES + sum(
                _ELEMENT_BYTES + len(name.encode()) + _value_bytes(one) for name, one in content.items()
            )
        case _:
            return 1
