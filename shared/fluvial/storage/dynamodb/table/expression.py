"""Expressions: the names and values of one request, each behind a placeholder."""

from typing import Any

from fluvial.storage.dynamodb.table.items import number
from fluvial.storage.dynamodb.table.keys import Value

Scalar = int | str | bytes

#: A request's parameters, as boto3 takes them.
Request = dict[str, Any]


class Expression:
    """Collects the names and values that the condition and the update of one request mention."""

    def __init__(self) -> None:
        """No placeholders yet."""
        self._names: dict[str, str] = {}
        self._values: list[Value] = []

    def name(self, attribute: str) -> str:
        """A placeholder of an attribute's name or of a key in a map: any text may be one."""
        return self._names.setdefault(attribute, f"#n{len(self._names)}")

    def value(self, value: Scalar | Value) -> str:
        """A placeholder of a value."""
        match value:
            case int():
                value = number(value)
            case str():
                value = {"S": value}
            case bytes():
                value = {"B": value}
            case _:
                pass
        if value not in self._values:
            self._values.append(value)
        return f":v{self._values.index(value)}"

    def parameters(self) -> dict[str, Any]:
        """The request's parameters that define the placeholders."""
        parameters: dict[str, Any] = {}
        if self._names:
            parameters["ExpressionAttributeNames"] = {mark: name for name, mark in self._names.items()}
        if self._values:
            parameters["ExpressionAttributeValues"] = {f":v{index}": one for index, one in enumerate(self._values)}
        return parameters
