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
from msgspec.structs import astuple

from ledger.decider import Decider, Story, fold
from ledger.events import Recorded
from ledger.streams import DECIDERS
from projections.projection import Key, Projection, Row
from projections.sums import Rows as Rows
from projections.sums import Sums

# --- folding everything -----------------------------------------------------------------------------------------------


class FoldFailed(Exception):
    """A fold raised: of these read models, at this version of a stream; or their rows could not be stored."""

    def __init__(self, names: Sequence[str], stream: str | None, version: int | None, message: str) -> None:
        super().__init__(names, stream, version, message)
        self.names, self.stream, self.version, self.message = list(names), stream, version, message

    def __str__(self) -> str:
        place = f" at {self.stream}@{self.version}" if self.stream else ""
        return f"{', '.join(self.names)}{place}: {self.message}"


def fold_rows(chunks: Iterable[Sequence[Recorded]], projections: Mapping[str, Projection]) -> dict[str, Rows]:
    """The stored rows of read models, by name and key, after events that come in the order of their streams.

    ``FoldFailed`` if a fold raises."""
    telling = Telling(projections)
    for chunk in chunks:
        telling.tell(chunk)
    return telling.rows()


class Singles:
    """The rows of a read model in which each belongs to one stream."""

    def __init__(self, projection: Projection) -> None:
        self._width = len(projection.key)
        self._rows: list[Row] = []
        self.add = self._rows.extend
        """Adds rows."""

    def __len__(self) -> int:
        return len(self._rows)

    def take(self) -> list[Row]:
        """The rows so far; they are not here any more."""
        taken = self._rows[:]
        self._rows.clear()
        return taken

    def rows(self) -> Rows:
        """The rows by key."""
        width = self._width
        return {astuple(row)[:width]: row for row in self._rows}


_Contributors = Mapping[type, Sequence[tuple[Projection, Callable[[Iterable[Row]], None]]]]
_Told = tuple[Story, Callable[[Any, Recorded], Any] | None, _Contributors, int | None]
"""A story, how it goes on (unless nobody wants to know), what single events add, and its last version if known."""


class Telling:
    """Stories under way, and what is already known of the rows.

    ``ends``: the last versions of streams, as far as they are known beforehand.  A story that has come to its end is
    turned into rows at once and forgotten, so that only open ones take room."""

    def __init__(self, projections: Mapping[str, Projection], ends: Mapping[str, int] | None = None) -> None:
        self.collected: dict[str, Sums | Singles] = {
            name: Sums(x) if x.is_sum else Singles(x) for name, x in projections.items()
        }
        kinds = {kind for x in projections.values() for kind in x.streams}
        self._kinds = {kind: _Kind(DECIDERS[kind], projections.values(), self.collected) for kind in kinds}
        self._told: dict[str, _Told] = {}
        self._ends = ends or {}

    @property
    def stories(self) -> dict[str, Story]:
        """The stories by stream, as far as they have come and are not forgotten."""
        return {stream: told[0] for stream, told in self._told.items()}

    def tell(self, events: Sequence[Recorded]) -> None:
        """Goes on with the next events; ``FoldFailed``."""
        # The hottest loop of all: what is looked up once per stream is kept with its story.
        told_of, begin, ended = self._told.get, self._begin, list[str]()
        for event in events:
            told = told_of(event.stream) or begin(event.stream)
            if told is None:
                continue
            story, evolve, contributors, end = told
            if evolve is not None:
                try:
                    story.state = evolve(story.state, event)
                except Exception as error:
                    raise self._kind_of(event.stream).failed(event, error) from error
                story.version = event.version
                if event.received_at > story.latest_at:
                    story.latest_at = event.received_at
            found = contributors.get(type(event.data))
            if found is not None:
                _contribute(found, event)
            if event.version == end:
                ended.append(event.stream)
        self._end(ended)

    def finish(self) -> None:
        """No more events come: turns what is open into rows; ``FoldFailed``."""
        self._end(list(self._told))

    def rows(self) -> dict[str, Rows]:
        """The stored rows now, by read model and key; ``FoldFailed``.  It is over then."""
        self.finish()
        return {name: collected.rows() for name, collected in self.collected.items()}

    def _kind_of(self, stream: str) -> "_Kind":
        return self._kinds[stream.partition("-")[0]]

    def _begin(self, stream: str) -> "_Told | None":
        kind = self._kinds.get(stream.partition("-")[0])
        if kind is None:
            return None
        story = Story(stream, kind.decider.initial())
        evolve = kind.decider.evolve if kind.tellers else None
        told = self._told[stream] = (story, evolve, kind.contributors, self._ends.get(stream))
        return told

    def _end(self, streams: Sequence[str]) -> None:
        """Turns stories into rows; all for one read model and then for the next, which is faster than the other way."""
        by_kind: dict[str, list[Story]] = {}
        for stream in streams:
            by_kind.setdefault(stream.partition("-")[0], []).append(self._told.pop(stream)[0])
        for kind, stories in by_kind.items():
            for projection, tell_rows, collect in self._kinds[kind].tellers:
                for story in stories:
                    try:
                        collect(tell_rows(story))
                    except Exception as error:
                        raise FoldFailed([projection.name], story.stream, story.version, repr(error)) from error


class _Kind:
    """A kind of stream, and who reads it."""

    def __init__(
        self, decider: Decider, projections: Iterable[Projection], collected: Mapping[str, Sums | Singles]
    ) -> None:
        readers = [x for x in projections if decider.name in x.streams]
        self.decider = decider
        self.tellers = [(x, x.rows, collected[x.name].add) for x in readers if x.rows is not None]
        self.contributors: _Contributors = {
            event: found
            for event in decider.events
            if (found := [(x, collected[x.name].add) for x in readers if x.is_fed_by(event)])
        }

    def failed(self, event: Recorded, error: Exception) -> FoldFailed:
        """Whom it concerns if a story cannot go on."""
        return FoldFailed([x.name for x, _, _ in self.tellers], event.stream, event.version, repr(error))


def _contribute(found: Sequence[tuple[Projection, Callable[[Iterable[Row]], None]]], event: Recorded) -> None:
    for projection, collect in found:
        assert projection.contributions is not None
        try:
            collect(projection.contributions(event))
        except Exception as error:
            raise FoldFailed([projection.name], event.stream, event.version, repr(error)) from error


# --- folding on -------------------------------------------------------------------------------------------------------


class Change:
    """What a batch of events does to the rows of one read model."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self.sums = Sums(projection) if projection.is_sum else None
        """To be added to the rows that are there."""
        self.replaced: dict[Key, Row | None] = {}
        """To be put in their place; ``None``: the subject has this row no more."""

    def add(self, rows: Iterable[Row]) -> None:
        """What an event adds."""
        assert self.sums is not None, f"{self.projection.name} does not add up"
        self.sums.add(rows)

    def replace(self, old: Sequence[Row], new: Sequence[Row]) -> None:
        """What one subject contributed until now, and contributes now."""
        if old == new:
            return
        if self.sums is not None:
            self.sums.subtract(old)
            self.sums.add(new)
            return
        key_of = self.projection.key_of
        gone = {key_of(row): row for row in old}
        for row in new:
            key = key_of(row)
            if gone.pop(key, None) != row:
                self.replaced[key] = row
        self.replaced.update(dict.fromkeys(gone))

    @property
    def keys_needed(self) -> list[Key]:
        """Of the rows that have to be looked up before they can be written."""
        return self.sums.keys() if self.sums is not None else []

    def result(self, found: Rows) -> tuple[list[Row], list[Key]]:
        """The rows to be put and the keys to be deleted, given those that were looked up."""
        if self.sums is None:
            gone = [key for key, row in self.replaced.items() if row is None]
            return [row for row in self.replaced.values() if row is not None], gone
        total = Sums(self.projection)
        total.add(found.values())
        total.merge(self.sums)
        put = total.rows()
        return list(put.values()), [key for key in found if key not in put]


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
                    if event.stream.partition("-")[0] in projection.streams and projection.is_fed_by(type(event.data)):
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
    convert = _plain(type(value))  # type: ignore[arg-type]
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
