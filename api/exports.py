"""Read models, and the log, written out for other programs."""

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec

from api.asof import Moment
from ledger.calendar import ZONE
from ledger.store import Entry, Store
from projections import replay
from projections.projection import Projection

Format = Literal["csv", "jsonl"]
_PAGE = 5_000


def read_model(projection: Projection, rows: Iterable[Any], form: Format) -> Iterator[bytes]:
    """The rows of a read model, in key order.

    ``jsonl`` is what digests are taken of.  ``csv``: header = column names, null empty, instants in the business zone
    (+08:00), nested values as compact JSON."""
    if form == "jsonl":
        yield from replay.lines(projection, rows)
        return
    yield from _csv(projection.columns, rows)


def events(store: Store, moment: Moment = Moment()) -> Iterator[bytes]:  # noqa: B008 - it is immutable
    """The log as it stood, one event a line, with every column but the chain, in order."""
    after, end = 0, store.head().position if moment.position is None else moment.position
    while after < end:
        entries = store.entries(after, min(_PAGE, end - after))
        for entry in entries:
            if moment.includes(entry.position, entry.recorded_at, entry.occurred_at):
                yield entry_line(entry)
        after = entries[-1].position


def entry_line(entry: Entry) -> bytes:
    """An event with its metadata as one line of JSON."""
    return msgspec.json.encode(entry_dict(entry)) + b"\n"


def entry_dict(entry: Entry) -> dict[str, Any]:
    """An event with its metadata, plain values in the order of the documented columns."""
    return {name: replay.plain(getattr(entry, name)) for name in ENTRY_COLUMNS} | {"data": plain(entry.data)}


def plain(row: msgspec.Struct) -> dict[str, Any]:
    """A row, a state or the data of an event as what JSON has, by name of the field."""
    found: dict[str, Any] = msgspec.to_builtins(replay.plain(row))
    tag = row.__struct_config__.tag_field
    if tag is not None:  # an event says its type beside its data
        found.pop(tag, None)
    return found


ENTRY_COLUMNS = (
    "position", "stream", "version", "type", "occurred_at", "received_at", "recorded_at", "actor", "role", "key",
    "correlation_id", "causation", "source", "rule",
)  # fmt: skip


def _csv(columns: tuple[str, ...], rows: Iterable[Any]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = plain(row)
        writer.writerow([_cell(getattr(row, column), values[column]) for column in columns])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def _cell(value: Any, as_json: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(ZONE).isoformat(timespec="microseconds")
    if isinstance(as_json, list | tuple | dict | bool):
        return msgspec.json.encode(as_json).decode()
    return as_json
