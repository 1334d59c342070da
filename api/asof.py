"""Read models and streams as they were: at a position, as recorded or as occurred before an instant.

The same folds as live, stopped.  A row that shows one stream is folded from that stream alone; one that adds up many is
folded from the whole log.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from ledger.decider import Story, fold
from ledger.events import Recorded
from ledger.store import Entry, Store
from ledger.streams import decider_of
from projections import replay
from projections.projection import Key, Projection


class Moment(msgspec.Struct, frozen=True):
    """At most one of these: up to and including a position, or strictly before an instant on one of the clocks."""

    position: int | None = None
    recorded_before: datetime | None = None
    occurred_before: datetime | None = None

    def __post_init__(self) -> None:
        given = (self.position, self.recorded_before, self.occurred_before)
        if sum(x is not None for x in given) > 1:
            raise ValueError("give a position, a recorded or an occurred instant, not several")

    @property
    def is_now(self) -> bool:
        """None of them: the present."""
        return self == Moment()

    def includes(self, position: int, recorded_at: datetime, occurred_at: datetime) -> bool:
        """Whether an event counts at this moment."""
        return (
            (self.position is None or position <= self.position)
            and (self.recorded_before is None or recorded_at < self.recorded_before)
            and (self.occurred_before is None or occurred_at < self.occurred_before)
        )

    def of(self, chunks: Iterator[Sequence[Recorded]]) -> Iterator[Sequence[Recorded]]:
        """The events that count at this moment."""
        return replay.as_of(
            chunks, position=self.position, recorded_before=self.recorded_before, occurred_before=self.occurred_before
        )


def key_of_text(projection: Projection, text: str) -> Key:
    """The key that is written as ``m-17/2015-07``; ``ValueError`` if it has not as many parts as the key."""
    parts = text.split("/") if len(projection.key) > 1 else [text]
    if len(parts) > len(projection.key):  # a stream's deadline may have a key with a slash of its own
        parts = [*parts[: len(projection.key) - 1], "/".join(parts[len(projection.key) - 1 :])]
    if len(parts) < len(projection.key):
        raise ValueError(f"a key of {projection.name} is {'/'.join(projection.key)}")
    types = {field.name: field.type for field in msgspec.structs.fields(projection.row)}
    return tuple(
        date.fromisoformat(part) if types[column] is date else part
        for column, part in zip(projection.key, parts, strict=True)
    )


def rows(store: Store, projection: Projection, moment: Moment) -> Iterator[Any]:
    """All rows of a read model as shown, in key order, folded from the log."""
    end = store.head().position
    upto = end if moment.position is None else min(moment.position, end)
    folded = replay.fold_rows(moment.of(store.scan(upto=upto)), {projection.name: projection})
    return replay.shown(projection, folded[projection.name])


def row(store: Store, projection: Projection, key: Key, moment: Moment) -> Any | None:
    """One row as shown; ``None`` if there was none."""
    if projection.stream_of is None:
        found = rows(store, projection, moment)
    else:
        events = store.read_stream(projection.stream_of(key))
        folded = replay.fold_rows(moment.of(iter([events])), {projection.name: projection})
        found = replay.shown(projection, folded[projection.name])
    return next((x for x in found if projection.key_of(x) == key), None)


def history(store: Store, stream: str, moment: Moment) -> tuple[list[Entry], Story]:
    """The events of a stream with all their columns, and the story they fold to; ``KeyError`` if there is no such kind
    of stream."""
    decider = decider_of(stream)
    entries = store.history(
        stream,
        upto_position=moment.position,
        recorded_before=moment.recorded_before,
        occurred_before=moment.occurred_before,
    )
    events = [
        Recorded(x.position, x.stream, x.version, x.occurred_at, x.received_at, x.recorded_at, x.data) for x in entries
    ]
    return entries, fold(decider, stream, events)
