"""Rows added up.

While they are, a row is the tuple of its values behind the key: adding 25 columns is then one step for the
interpreter, and the rows of a million events are added in a second.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from operator import add, sub
from typing import Any, Self, get_origin

import msgspec
from msgspec.structs import astuple

from projections.projection import Key, Projection, Row

Rows = dict[Key, Row]
Values = tuple[Any, ...]
"""Of a row's columns behind its key."""


class Amounts(dict[str, int]):
    """A mapping that is added entry by entry."""

    def __add__(self, more: Mapping[str, int]) -> "Amounts":
        return self._with(more, add) if more else self

    def __sub__(self, less: Mapping[str, int]) -> "Amounts":
        return self._with(less, sub) if less else self

    def _with(self, others: Mapping[str, int], combine: Callable[[int, int], int]) -> "Amounts":
        found = Amounts(self)
        for name, amount in others.items():
            found[name] = combine(found.get(name, 0), amount)
        return found

    def settled(self) -> dict[str, int]:
        """In the order of its names and without zeros, whatever order it was added up in."""
        return {name: self[name] for name in sorted(self) if self[name]}


class Sums:
    """The rows of one read model, added up by key."""

    def __init__(self, projection: Projection) -> None:
        self._row, self._width = projection.row, len(projection.key)
        self._nothing = _nothing(projection.row, self._width)
        self._has_mappings = any(isinstance(value, dict) for value in self._nothing)
        self.totals: dict[Key, Values] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Adds rows."""
        totals, width, nothing = self.totals, self._width, self._nothing
        for row in rows:
            values = astuple(row)
            key = values[:width]
            totals[key] = tuple(map(add, totals.get(key, nothing), values[width:]))

    def subtract(self, rows: Iterable[Row]) -> None:
        """Takes rows away."""
        totals, width, nothing = self.totals, self._width, self._nothing
        for row in rows:
            values = astuple(row)
            key = values[:width]
            totals[key] = tuple(map(sub, totals.get(key, nothing), values[width:]))

    def merge(self, other: Self) -> None:
        """Adds what others have added up."""
        totals, nothing = self.totals, self._nothing
        for key, values in other.totals.items():
            totals[key] = tuple(map(add, totals.get(key, nothing), values))

    def rows(self) -> Rows:
        """The rows as they are stored: a row of zeros alone does not exist."""
        row, has_mappings = self._row, self._has_mappings
        found = {}
        for key, values in self.totals.items():
            stored = _settled(values) if has_mappings else values
            if any(stored):
                found[key] = row(*key, *stored)
        return found


def _settled(values: Values) -> Values:
    return tuple([value.settled() if isinstance(value, Amounts) else value for value in values])


@cache
def _nothing(row: type[Row], width: int) -> Values:
    """The row of zeros; ``TypeError`` if there is a column that cannot be added up."""
    return tuple(_zero(field) for field in msgspec.structs.fields(row)[width:])


def _zero(field: msgspec.structs.FieldInfo) -> int | Amounts:
    if field.type is int:
        return 0
    if get_origin(field.type) is dict:
        return Amounts()
    raise TypeError(f"{field.name}: {field.type} cannot be added up")
