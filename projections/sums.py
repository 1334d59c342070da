"""Rows added up.

While they are, a row is the tuple of its numbers: adding 25 columns is then one step for the interpreter, and the rows
of a million events are added in a second.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from operator import add, itemgetter, sub
from typing import Any, NamedTuple, Self, get_origin

import msgspec
from msgspec.structs import astuple

from projections.projection import Key, Projection, Row

Rows = dict[Key, Row]
Numbers = tuple[int, ...]
Amounts = dict[str, int]


class Sums:
    """The rows of one read model, added up by key."""

    def __init__(self, projection: Projection) -> None:
        self._row, self._width = projection.row, len(projection.key)
        self._layout = _layout(projection.row, self._width)
        self._numbers: dict[Key, Numbers] = {}
        self._amounts: dict[Key, dict[int, Amounts]] = {}
        """Of the columns that hold mappings, by place; only where there is any."""

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, rows: Iterable[Row]) -> None:
        """Adds rows."""
        self._combine(rows, add)

    def subtract(self, rows: Iterable[Row]) -> None:
        """Takes rows away."""
        self._combine(rows, sub)

    def merge(self, other: Self) -> None:
        """Adds what others have added up."""
        numbers, nothing = self._numbers, self._layout.nothing
        for key, more in other._numbers.items():
            numbers[key] = tuple(map(add, numbers.get(key, nothing), more))
        for key, mappings in other._amounts.items():
            for place, amounts in mappings.items():
                self._combine_amounts(key, place, amounts, add)

    def keys(self) -> list[Key]:
        """Of the rows in which there is anything but zeros."""
        return [key for key, numbers in self._numbers.items() if any(numbers) or self._has_amounts(key)]

    def rows(self) -> Rows:
        """The rows as they are stored: a row of zeros alone does not exist."""
        make, order = self._row, self._layout.order
        found = {}
        for key, numbers in self._numbers.items():
            if not self._layout.mappings:
                if any(numbers):
                    found[key] = make(*key, *numbers)
            elif any(numbers) or self._has_amounts(key):
                values = (*numbers, *self._settled(key))
                found[key] = make(*key, *[values[place] for place in order])
        return found

    def _combine(self, rows: Iterable[Row], operation: Callable[[int, int], int]) -> None:
        totals, width = self._numbers, self._width
        _, mappings, pick, _, nothing = self._layout
        for row in rows:
            values = astuple(row)
            key = values[:width]
            totals[key] = tuple(map(operation, totals.get(key, nothing), pick(values)))
            for place in mappings:
                if values[place]:
                    self._combine_amounts(key, place, values[place], operation)

    def _combine_amounts(
        self, key: Key, place: int, amounts: Mapping[str, int], operation: Callable[[int, int], int]
    ) -> None:
        total = self._amounts.setdefault(key, {}).setdefault(place, {})
        for name, amount in amounts.items():
            total[name] = operation(total.get(name, 0), amount)

    def _has_amounts(self, key: Key) -> bool:
        return any(any(amounts.values()) for amounts in self._amounts.get(key, {}).values())

    def _settled(self, key: Key) -> list[Amounts]:
        """The mappings of a row in the order of their names and without zeros, whatever order they were added up in."""
        found = self._amounts.get(key, {})
        settled = []
        for place in self._layout.mappings:
            amounts = found.get(place, {})
            settled.append({name: amounts[name] for name in sorted(amounts) if amounts[name]})
        return settled


class _Layout(NamedTuple):
    """Which columns of a row hold numbers, and which mappings; places count from the first column of the key."""

    numbers: tuple[int, ...]
    mappings: tuple[int, ...]
    pick: Callable[[tuple[Any, ...]], Numbers]
    """The numbers of a row."""
    order: tuple[int, ...]
    """Where in numbers + mappings each column behind the key is found."""
    nothing: Numbers


@cache
def _layout(row: type[Row], width: int) -> _Layout:
    """``TypeError`` if there is a column that cannot be added up."""
    numbers, mappings = [], []
    for place, field in enumerate(msgspec.structs.fields(row)[width:], start=width):
        if field.type is int:
            numbers.append(place)
        elif get_origin(field.type) is dict:
            mappings.append(place)
        else:
            raise TypeError(f"{field.name}: {field.type} cannot be added up")
    found = [*numbers, *mappings]
    order = tuple(found.index(place) for place in sorted(found))
    return _Layout(tuple(numbers), tuple(mappings), _picker(numbers), order, (0,) * len(numbers))


def _picker(places: list[int]) -> Callable[[tuple[Any, ...]], Numbers]:
    if places == list(range(places[0], places[-1] + 1)) if places else False:
        return itemgetter(slice(places[0], places[-1] + 1))
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[place] for place in places])
