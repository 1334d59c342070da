"""The log folded to rows, as it is or as it was, and rows written down the one way that is hashed and exported.

Pure: events go in, rows and lines come out.  ``fold_rows`` tells every stream to its end and asks each projection
once what the story contributes, so nothing is worked out per event that is only needed per order.  ``Batch`` is the
other way to the same rows: what a few events change.
"""

import hashlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Union, get_args, get_origin

import msgspec

from ledger.decider import Decider, Story, fold
from ledger.events import Recorded
from ledger.streams import DECIDERS
from projections.projection import Key, Projection, Row, add, add_to, added, is_zero

Rows = dict[Key, Row]

# --- folding everything -----------------------------------------------------------------------------------------------


def fold_rows(chunks: Iterable[Sequence[Recorded]], projections: Mapping[str, Projection]) -> dict[str, Rows]:
    """The stored rows of read models, by name and key, after events that come in the order of their streams.

    Raises what a fold raises, with a note that says at which event."""
    telling = Telling(projections)
    for chunk in chunks:
        telling.tell(chunk)
    return telling.rows()


class FoldFailed(Exception):
    """A fold raised: of these read models, at this event."""

    def __init__(self, names: Sequence[str], position: int, stream: str, message: str) -> None:
        super().__init__(names, position, stream, message)
        self.names, self.position, self.stream, self.message = list(names), position, stream, message

    def __str__(self) -> str:
        return f"at position {self.position} of {self.stream}: {self.message}"


class Telling:
    """Stories under way, and what is already known of the rows."""

    def __init__(self, projections: Mapping[str, Projection]) -> None:
        self.projections = projections
        self.stories: dict[str, Story] = {}
        self._rows: dict[str, Rows] = {name: {} for name in projections}
        kinds = {kind for p in projections.values() for kind in p.streams}
        self._kinds = {kind: _Kind(DECIDERS[kind], projections) for kind in kinds}

    def tell(self, events: Sequence[Recorded]) -> None:
        """Goes on with the next events."""
        for event in events:
            kind = self._kinds.get(event.stream.partition("-")[0])
            if kind is None:
                continue
            if kind.tellers:
                self._evolve(kind, event)
            for projection in kind.contributors:
                add(self._rows[projection.name], projection, projection.contributions(event))  # type: ignore[misc]

    def _evolve(self, kind: "_Kind", event: Recorded) -> None:
        story = self.stories.get(event.stream)
        if story is None:
            story = self.stories[event.stream] = Story(event.stream, kind.decider.initial())
        fold(kind.decider, event.stream, (event,), story)

    def rows(self) -> dict[str, Rows]:
        """The rows now; the stories are over."""
        for stream, story in self.stories.items():
            for projection in self._kinds[stream.partition("-")[0]].tellers:
                add(self._rows[projection.name], projection, projection.rows(story))  # type: ignore[misc]
        self.stories.clear()
        return {name: settled(self.projections[name], rows) for name, rows in self._rows.items()}


class _Kind:
    """A kind of stream, and who reads it."""

    def __init__(self, decider: Decider, projections: Mapping[str, Projection]) -> None:
        readers = [p for p in projections.values() if decider.name in p.streams]
        self.decider = decider
        self.tellers = [p for p in readers if p.rows is not None]
        self.contributors = [p for p in readers if p.contributions is not None]


def settled(projection: Projection, rows: Rows) -> Rows:
    """Rows as they are stored: mappings in order and without zeros, and no row of zeros alone."""
    if not projection.is_sum:
        return rows
    width = len(projection.key)
    mappings = mapping_columns(projection.row)
    if mappings:
        for row in rows.values():
            settle(row, mappings)
    return {key: row for key, row in rows.items() if not is_zero(row, width)}


def settle(row: Row, mappings: Sequence[str]) -> None:
    """Gives equal mappings one form, whatever order they were added up in."""
    for column in mappings:
        if value := getattr(row, column):
            setattr(row, column, added(value, {}, 1))


@cache
def mapping_columns(row: type[Row]) -> tuple[str, ...]:
    """The columns that hold mappings."""
    return tuple(f.name for f in msgspec.structs.fields(row) if get_origin(f.type) is dict)


# --- folding on -------------------------------------------------------------------------------------------------------


class Change(msgspec.Struct):
    """What a batch of events does to the rows of one read model."""

    projection: Projection
    sums: Rows = {}
    """To be added to the rows that are there."""
    replaced: dict[Key, Row | None] = {}
    """To be put in their place; ``None``: the subject has this row no more."""

    def add(self, rows: Iterable[Row]) -> None:
        """What an event adds."""
        add(self.sums, self.projection, rows)

    def replace(self, old: Sequence[Row], new: Sequence[Row]) -> None:
        """What one subject contributes now, and contributed until now."""
        if old == new:
            return
        if self.projection.is_sum:
            add(self.sums, self.projection, old, -1)
            add(self.sums, self.projection, new, +1)
            return
        key_of = self.projection.key_of
        gone = {key_of(row): row for row in old}
        for row in new:
            key = key_of(row)
            if gone.pop(key, None) != row:
                self.replaced[key] = row
        self.replaced.update(dict.fromkeys(gone))


class Batch:
    """The next events after a checkpoint, and what they change in read models that stand there.

    ``before`` gives the stories of streams as they were just before a version each.  Stories are moved on in place."""

    def __init__(
        self,
        events: Sequence[Recorded],
        projections: Iterable[Projection],
        before: Callable[[Mapping[str, int]], Mapping[str, Story | Exception]],
    ) -> None:
        self.changes = {p.name: Change(p) for p in projections}
        self.failures: dict[str, Exception] = {}
        """What the fold of a read model raised; it has no changes then."""
        self.stories: dict[str, Story] = {}
        """Where the streams of the batch are now."""
        readers = [change.projection for change in self.changes.values()]
        self._contribute(events, [p for p in readers if p.contributions is not None])
        self._tell(_by_stream(events), [p for p in readers if p.rows is not None], before)

    def _contribute(self, events: Sequence[Recorded], projections: Sequence[Projection]) -> None:
        for projection in projections:
            contributions, change = projection.contributions, self.changes[projection.name]
            assert contributions is not None
            try:
                for event in events:
                    if event.stream.partition("-")[0] in projection.streams:
                        change.add(contributions(event))
            except Exception as error:
                self._fail(projection, error)

    def _tell(
        self,
        by_stream: Mapping[str, Sequence[Recorded]],
        projections: Sequence[Projection],
        before: Callable[[Mapping[str, int]], Mapping[str, Story | Exception]],
    ) -> None:
        kinds = {kind for p in projections for kind in p.streams}
        firsts = {s: events[0].version for s, events in by_stream.items() if s.partition("-")[0] in kinds}
        for stream, story in before(firsts).items() if firsts else ():
            kind = stream.partition("-")[0]
            readers = [p for p in projections if kind in p.streams and p.name not in self.failures]
            if isinstance(story, Exception):
                self._fail_all(readers, story)
            elif self._move(story, DECIDERS[kind], by_stream[stream], readers):
                self.stories[stream] = story

    def _move(self, story: Story, decider: Decider, events: Sequence[Recorded], readers: Sequence[Projection]) -> bool:
        """Tells one story on; whether it can be trusted afterwards."""
        old = {p.name: rows for p in readers if (rows := self._rows(p, story)) is not None} if story.version else {}
        try:
            fold(decider, story.stream, events, story)
        except Exception as error:
            self._fail_all(readers, error)
            return False
        for projection in readers:
            new = self._rows(projection, story)
            if new is not None:
                self.changes[projection.name].replace(old.get(projection.name, ()), new)
        return True

    def _rows(self, projection: Projection, story: Story) -> Sequence[Row] | None:
        if projection.name in self.failures:
            return None
        assert projection.rows is not None
        try:
            return list(projection.rows(story))
        except Exception as error:
            self._fail(projection, error)
            return None

    def _fail_all(self, projections: Iterable[Projection], error: Exception) -> None:
        for projection in projections:
            self._fail(projection, error)

    def _fail(self, projection: Projection, error: Exception) -> None:
        self.failures[projection.name] = error
        self.changes.pop(projection.name, None)


def _by_stream(events: Sequence[Recorded]) -> dict[str, list[Recorded]]:
    found: dict[str, list[Recorded]] = {}
    for event in events:
        found.setdefault(event.stream, []).append(event)
    return found


def summed(change: Change, found: Rows) -> tuple[list[Row], list[Key]]:
    """The rows to be put and the keys to be deleted, once the rows that are there were looked up."""
    projection = change.projection
    if not projection.is_sum:
        return (
            [row for row in change.replaced.values() if row is not None],
            [key for key, row in change.replaced.items() if row is None],
        )
    width, mappings = len(projection.key), mapping_columns(projection.row)
    put, delete = [], []
    for key, more in change.sums.items():
        if is_zero(more, width):
            continue
        total = found.get(key)
        if total is None:
            total = more
        else:
            add_to(total, more, width)
        settle(total, mappings)
        if not is_zero(total, width):
            put.append(total)
        elif key in found:
            delete.append(key)
    return put, delete


# --- as it was --------------------------------------------------------------------------------------------------------


def as_of(
    chunks: Iterable[Sequence[Recorded]],
    *,
    position: int | None = None,
    recorded_before: datetime | None = None,
    occurred_before: datetime | None = None,
) -> Iterator[Sequence[Recorded]]:
    """Of all events, in the order of positions, those up to and including a position, or strictly before an instant.

    As occurred, single events are left out; as recorded, it is a beginning of the log, because ``recorded_at`` never
    decreases."""
    for chunk in chunks:
        yield [
            event
            for event in chunk
            if (position is None or event.position <= position)
            and (recorded_before is None or event.recorded_at < recorded_before)
            and (occurred_before is None or event.occurred_at < occurred_before)
        ]


# --- rows as lines ----------------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode


def shown(projection: Projection, rows: Rows) -> Iterator[msgspec.Struct]:
    """Stored rows as they are shown, in key order."""
    return projection.read(rows[key] for key in sorted(rows))


def lines(projection: Projection, rows: Iterable[msgspec.Struct]) -> Iterator[bytes]:
    """Shown rows in key order -> the lines of ``export --format jsonl``, each with its line feed.

    UTF-8; one object a line, its columns in declared order, no blanks; instants with six digits and Z."""
    line_of = _plain(projection.shown or projection.row) or (lambda row: row)
    for row in rows:
        yield _encode(line_of(row)) + b"\n"


def digest(projection: Projection, rows: Iterable[msgspec.Struct]) -> str:
    """Hex SHA-256 of the lines of shown rows."""
    found = hashlib.sha256()
    for line in lines(projection, rows):
        found.update(line)
    return found.hexdigest()


def instant(at: datetime) -> str:
    """``2015-07-15T16:00:00.000000Z``: msgspec alone would leave out a zero fraction."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if at.year >= 1000 else f"{at.isoformat(timespec='microseconds')[:26]}Z"


def plain(value: Any) -> Any:
    """A struct as it is written down: what ``lines`` encodes."""
    convert = _plain(type(value))
    return convert(value) if convert else value


@cache
def _plain(kind: Any) -> Callable[[Any], Any] | None:
    """From a value of this type to what msgspec writes down as it should be; ``None`` if the value is that itself."""
    if kind is datetime:
        return instant
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _plain_struct(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _plain_optional([x for x in arguments if x is not types.NoneType])
    if origin in (tuple, list, frozenset, set) and arguments:
        return _plain_items(arguments[0])
    if origin is dict:
        return _plain_entries(arguments[1])
    return None


def _plain_struct(kind: type[msgspec.Struct]) -> Callable[[Any], Any] | None:
    fields = [(field.encode_name, field.name, _plain(field.type)) for field in msgspec.structs.fields(kind)]
    converted = [(at, name, convert) for at, (_, name, convert) in enumerate(fields) if convert]
    if not converted:
        return None
    names, as_tuple = [name for name, _, _ in fields], msgspec.structs.astuple

    def convert_struct(value: Any) -> dict[str, Any]:
        found = dict(zip(names, as_tuple(value), strict=True))
        for _, name, convert in converted:
            found[name] = convert(found[name])
        return found

    return convert_struct


def _plain_optional(kinds: Sequence[Any]) -> Callable[[Any], Any] | None:
    convert = _plain(kinds[0]) if len(kinds) == 1 else plain
    return (lambda value: None if value is None else convert(value)) if convert else None


def _plain_items(kind: Any) -> Callable[[Any], Any] | None:
    convert = _plain(kind)
    return (lambda values: [convert(value) for value in values]) if convert else None


def _plain_entries(kind: Any) -> Callable[[Any], Any] | None:
    convert = _plain(kind)
    return (lambda values: {key: convert(value) for key, value in values.items()}) if convert else None
