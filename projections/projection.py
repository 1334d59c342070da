"""What a read model is: the type of its rows, and what each stream contributes to them.

A projection is a pure fold of the log.  Its *subject* is a stream: a *story* is folded from the stream's own events by
the stream's own ``evolve``, and ``rows(story)`` is what that story contributes.  A live row is the sum of its subjects'
contributions; where a row belongs to one subject it is a view of the state.  A projection that needs no state (the
journal) gives ``contributions(event)`` instead, which are simply added up.

Stored are sums and single values only.  Ratios and running balances are worked out by ``read`` from the rows in key
order, whenever they are shown.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from ledger.decider import Story
from ledger.events import Recorded

Key = tuple[Any, ...]


class Row(msgspec.Struct):
    """A row of a read model: its columns are the table's columns, the key's first.

    In a projection that adds up, every column but the key's is an integer, or a mapping of text to integers that is
    added entry by entry; a row of zeros alone does not exist."""


R = TypeVar("R", bound=Row)


def as_stored(rows: Iterator[Any]) -> Iterator[Any]:
    """Rows that are shown as they are stored."""
    return rows


class Projection(msgspec.Struct, frozen=True):
    """One read model."""

    name: str
    version: int
    """Raised when the fold changes its meaning, so that the live table is rebuilt."""
    row: type[Row]
    key: tuple[str, ...]
    """The key's columns, the first ones of ``row``."""
    streams: frozenset[str]
    """The kinds of stream it reads."""
    rows: Callable[[Story], Iterable[Row]] | None = None
    """What a story contributes."""
    contributions: Callable[[Recorded], Iterable[Row]] | None = None
    """What a single event adds, where no state is needed."""
    is_sum: bool = True
    """Many subjects add to a row; else each row belongs to one subject and is replaced."""
    stream_of: Callable[[Key], str] | None = None
    """The stream whose story a row shows, by its key, where it is one stream's."""
    read: Callable[[Iterator[Any]], Iterator[Any]] = as_stored
    """Stored rows in key order -> rows as shown: ratios, running balances."""
    shown: type[msgspec.Struct] | None = None
    """The type of the rows as shown, if it is not ``row``."""
    series: int | None = None
    """How many of the key's columns name a series along which ``read`` carries a balance; ``None``: it shows each row
    by itself."""
    indexes: tuple[tuple[str, ...], ...] = ()
    """Columns by which the table is looked up besides its key."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns as shown, in order."""
        return (self.shown or self.row).__struct_fields__

    def key_of(self, row: Row) -> Key:
        """The key of a row."""
        return tuple(getattr(row, column) for column in self.key)


def add(into: dict[Key, Row], projection: Projection, rows: Iterable[Row], sign: int = 1) -> None:
    """Adds rows (or takes them away) to what has been added up so far.  A row that belongs to one subject is simply
    put there, or taken out."""
    width = len(projection.key)
    for row in rows:
        key = projection.key_of(row)
        if not projection.is_sum:
            if sign > 0:
                into[key] = row
            else:
                into.pop(key, None)
            continue
        total = into.get(key)
        if total is None:
            into[key] = row if sign > 0 else negated(row, width)
        else:
            add_to(total, row, width, sign)


def add_to(total: Row, row: Row, width: int, sign: int = 1) -> None:
    """Adds the columns of a row behind its key, of ``width`` columns, to a total."""
    for column in row.__struct_fields__[width:]:
        value = getattr(row, column)
        if value:
            so_far = getattr(total, column)
            setattr(total, column, added(so_far, value, sign) if isinstance(value, dict) else so_far + sign * value)


def added(so_far: Mapping[str, int], more: Mapping[str, int], sign: int) -> dict[str, int]:
    """Two mappings added entry by entry; entries of 0 are left out, the others are in the order of their names."""
    names = sorted(so_far.keys() | more.keys())
    totals = {name: so_far.get(name, 0) + sign * more.get(name, 0) for name in names}
    return {name: total for name, total in totals.items() if total}


def negated(row: Row, width: int) -> Row:
    """The row that takes this one away."""
    taken = msgspec.structs.replace(row)
    for column in row.__struct_fields__[width:]:
        value = getattr(row, column)
        setattr(taken, column, added({}, value, -1) if isinstance(value, dict) else -value)
    return taken


def is_zero(row: Row, width: int) -> bool:
    """Nothing is left of it."""
    return not any(getattr(row, column) for column in row.__struct_fields__[width:])
