"""The part of DynamoDB's expression language that the store's writes use, compiled to functions on an item.

It is held to AWS's own engine by a test that sends both the same requests. Whatever it does not know is an error.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.OperatorsAndFunctions.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.UpdateExpressions.html
"""

import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

from fluvial.storage.dynamodb.table.keys import Item, Value

_TOKEN: Final = re.compile(r"\s*(<=|>=|<>|[()\[\],.=<>+-]|#\w+|:\w+|\w+)")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}

#: A name in a map, or an index in a list.
Step = str | int


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression is evaluated on; an update's operands are of the item as it was before."""

    item: Item
    names: Mapping[str, str]
    values: Mapping[str, Value]


Operand = Callable[[Scope], Value | None]
Condition = Callable[[Scope], bool]
Path = Callable[[Scope], list[Step]]
#: The item's new state.
Update = Callable[[Scope], Item]


class _Parser:
    """One expression's tokens."""

    def __init__(self, text: str) -> None:
        self._tokens, at = list[str](), 0
        text = text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(f"not simulated: {text[at:]}")
            self._tokens.append(match[1])
            at = match.end()
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise ValueError(f"not simulated: {token or 'the end'} where {expected or 'more'} was expected")
        self._at += 1
        return token

    def takes(self, token: str) -> bool:
        """Whether the next token is this one; then it is taken."""
        if self.peek() != token:
            return False
        self._at += 1
        return True

    def condition(self) -> Condition:
        either = [self._all_of()]
        while self.takes("OR"):
            either.append(self._all_of())
        return either[0] if len(either) == 1 else lambda scope: any(one(scope) for one in either)

    def _all_of(self) -> Condition:
        every = [self._one()]
        while self.takes("AND"):
            every.append(self._one())
        return every[0] if len(every) == 1 else lambda scope: all(one(scope) for one in every)

    def _one(self) -> Condition:
        if self.takes("NOT"):
            negated = self._one()
            return lambda scope: not negated(scope)
        if self.takes("("):
            inner = self.condition()
            self.take(")")
            return inner
        if self.peek() in ("attribute_exists", "attribute_not_exists"):
            is_wanted = self.take() == "attribute_exists"
            self.take("(")
            path = self.path()
            self.take(")")
            return lambda scope: (_at(scope.item, path(scope)) is not None) is is_wanted
        left, compare, right = self.operand(), _COMPARE[self.take()], self.operand()

        def compared(scope: Scope) -> bool:
            one, other = left(scope), right(scope)
            if one is None or other is None or one.keys() != other.keys():
                return False
            return compare(_comparable(one), _comparable(other))

        return compared

    def operand(self) -> Operand:
        total = self._operand()
        while self.peek() in ("+", "-"):
            total = _sum(total, self._operand(), 1) if self.take() == "+" else _sum(total, self._operand(), -1)
        return total

    def _operand(self) -> Operand:
        token = self.peek()
        if token.startswith(":"):
            self.take()
            return lambda scope: scope.values[token]
        if token not in ("size", "if_not_exists", "list_append"):
            path = self.path()
            return lambda scope: _at(scope.item, path(scope))
        self.take()
        self.take("(")
        first, second = self.operand(), None
        if self.takes(","):
            second = self.operand()
        self.take(")")
        if second is None:
            return lambda scope: _size(first(scope))
        if token == "if_not_exists":  # noqa: S105  a function's name
            return lambda scope, other=second: found if (found := first(scope)) is not None else other(scope)  # type: ignore[misc]
        return lambda scope, other=second: {"L": [*_list(first(scope)), *_list(other(scope))]}  # type: ignore[misc]

    def path(self) -> Path:
        steps: list[str | int] = [self.take()]
        while self.peek() in (".", "["):
            if self.take() == ".":
                steps.append(self.take())
            else:
                steps.append(int(self.take()))
                self.take("]")
        return lambda scope: [scope.names.get(step, step) if isinstance(step, str) else step for step in steps]

    def update(self) -> Update:
        sets, removes = list[tuple[Path, Operand]](), list[Path]()
        while self.peek():
            action = self.take()
            while True:
                path = self.path()
                if action == "SET":
                    self.take("=")
                    sets.append((path, self.operand()))
                elif action == "REMOVE":
                    removes.append(path)
                else:
                    raise ValueError(f"not simulated: {action}")
                if not self.takes(","):
                    break

        def updated(scope: Scope) -> Item:
            changes = [(path(scope), value(scope)) for path, value in sets]
            gone = sorted((path(scope) for path in removes), key=_last_index, reverse=True)
            item = dict(scope.item)
            for steps, new in changes:
                if new is None:
                    raise ValueError("an operand of the update is not in the item")
                _put(item, steps, new)
            for steps in gone:
                _put(item, steps, None)
            return item

        return updated


@lru_cache(maxsize=4_096)
def condition_of(text: str) -> Condition:
    """A ConditionExpression. Raises ValueError for what is not simulated."""
    return _Parser(text).condition()


@lru_cache(maxsize=4_096)
def update_of(text: str) -> Update:
    """An UpdateExpression. Raises ValueError for what is not simulated."""
    return _Parser(text).update()


def _last_index(steps: list[Step]) -> int:
    return steps[-1] if isinstance(steps[-1], int) else -1


def _at(item: Item, steps: list[Step]) -> Value | None:
    value: Value | None = item.get(str(steps[0]))
    for step in steps[1:]:
        if value is None:
            return None
        if isinstance(step, int):
            elements = value.get("L", [])
            value = elements[step] if step < len(elements) else None
        else:
            value = value.get("M", {}).get(step)
    return value


def _put(item: Item, steps: list[Step], value: Value | None) -> None:
    """Set or remove what is at the path, on copies of the containers above it."""
    holder: Any = item
    for place, step in enumerate(steps[:-1]):
        kind = "L" if isinstance(steps[place + 1], int) else "M"
        holder[step] = {kind: copy(holder[step][kind])}
        holder = holder[step][kind]
    last = steps[-1]
    if value is not None:
        holder[last] = value
    elif isinstance(last, int):
        if last < len(holder):
            del holder[last]
    else:
        holder.pop(last, None)


def _comparable(value: Value) -> Any:  # noqa: ANN401  of the value's own type
    ((kind, content),) = value.items()
    return int(content) if kind == "N" else content


def _sum(left: Operand, right: Operand, sign: int) -> Operand:
    def total(scope: Scope) -> Value | None:
        one, other = left(scope), right(scope)
        return None if one is None or other is None else {"N": str(int(one["N"]) + sign * int(other["N"]))}

    return total


def _size(value: Value | None) -> Value | None:
    return None if value is None else {"N": str(len(next(iter(value.values()))))}


def _list(value: Value | None) -> list[Value]:
    if value is None:
        raise ValueError("list_append of what is not in the item")
    elements: list[Value] = value["L"]
    return elements
