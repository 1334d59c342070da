"""What a read model is: the type of its rows, and what each stream contributes to them.

A projection is a pure fold of the log.  Its *subject* is a stream: a *story* is folded from the stream's own events by
the stream's own ``evolve``, and ``rows(story)`` is what that story contributes.  A live row is the sum of its subjects'
contributions; where a row belongs to one subject it is a view of the state.  A projection that needs no state (the
journal) gives ``contributions(event)`` instead, which are simply added up.

Stored are sums and single values only.  Ratios and running balances are worked out by ``read`` from the rows in key
order, whenever they are shown.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from ledger.decider import Story
from ledger.events import Recorded

Key = tuple[Any, ...]


class Row(msgspec.Struct):
    """A row of a read model: its columns are the table's columns, the key's first.

    In a projection that adds up, every column but the key's is an integer, or a mapping of text to integers that is
    added entry by entry; a row of zeros alone does not exist."""


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
    events: frozenset[type] | None = None
    """The types of event that add anything; ``None``: any may."""
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

    def is_fed_by(self, event: type) -> bool:
        """Whether single events of this type add anything."""
        return self.contributions is not None and (self.events is None or event in self.events)

    def key_of(self, row: Row) -> Key:
        """The key of a row."""
        return tuple(getattr(row, column) for column in self.key)
