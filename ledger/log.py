"""The log on paper: what is appended, what is answered, how events are chained.  Nothing in here touches a database.

Each event is chained to the one before it:

    ``chain_sha256 = SHA-256(chain_sha256 of the event before || field || field || ...)``

with 32 zero bytes before the first event.  The fields are all other columns in the table's order (``COLUMNS``),
position first and data last.  A field is its length in bytes as a big-endian 32-bit integer, -1 for null, and then its
bytes: UTF-8 for text, a big-endian 64-bit integer for numbers and instants, which count microseconds since 1970-01-01
UTC.

That is also how PostgreSQL's binary formats write the columns of a row, but for instants, which there count from
2000-01-01.  So the bytes of an event are made once, for the chain and for the table.
"""

import hashlib
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

import msgspec

from ledger.events import NewEvent, Wire

COLUMNS = (
    "notification_id, originator_version, occurred_at, received_at, recorded_at, originator_id, topic, actor, role, "
    "key, correlation_id, causation, source, rule, state, chain_sha256"
)
"""Of a row of the log, in the table's order."""
COLUMN_TYPES = ["int8"] * 2 + ["timestamptz"] * 3 + ["text"] * 9 + ["bytea"] * 2

COMMAND_COLUMNS = "first_version, version, position, recorded_at, key, stream, body_sha256"
"""Of the record of a command, in the table's order."""
COMMAND_COLUMN_TYPES = ["int8"] * 3 + ["timestamptz", "text", "text", "bytea"]

GENESIS = bytes(32)
"""What the first event is chained to."""


# --- what is asked and answered ---------------------------------------------------------------------------------------


class Append(msgspec.Struct, gc=False):
    """What one command adds to one stream, in one piece or not at all."""

    stream: str
    expected_version: int
    """The stream's version it was decided at; 0: the stream must be new."""
    events: list[NewEvent]
    """May be empty if there is a key: a command that changed nothing, and shall say so again when repeated."""
    actor: str
    role: str
    key: str | None
    """The command's idempotency key, unique in the ledger for ever; None: fired by the clock, or beside a rejection."""
    body_sha256: bytes | None
    """Of the command's body, 32 bytes; there if and only if there is a key."""
    correlation_id: str
    source: str | None = None
    """The event id of the message's source, for carried messages."""


class Appended(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where an append lies in the log."""

    stream: str
    first_version: int
    """Of this append; the stream's version + 1 if it has no events."""
    version: int
    """The stream's last version after it."""
    position: int
    """The last one written by it; the end of the log at that time if it has no events."""
    recorded_at: datetime
    is_repeated: bool
    """The key was known: this is the first answer again, and nothing was written."""


class CommandRecord(msgspec.Struct, frozen=True, gc=False):
    """An accepted command, as the log remembers it; fields as in ``Appended``."""

    key: str
    body_sha256: bytes
    stream: str
    first_version: int
    version: int
    position: int
    recorded_at: datetime


class Head(msgspec.Struct, frozen=True, gc=False):
    """The end of the log."""

    position: int
    """Of the last event; 0 in an empty log."""
    recorded_at: datetime
    """Of the last event; year 1 in an empty log."""
    chain: bytes
    """``chain_sha256`` of the last event; ``GENESIS`` in an empty log."""


class StoreError(Exception):
    """An append that was not written, and why."""


class Conflict(StoreError):
    """The stream is not at the version that the append was decided at.  Load it, decide again."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"{stream} is at version {actual}, not {expected}")
        self.stream, self.expected, self.actual = stream, expected, actual


class KeyReused(StoreError):
    """The key belongs to another command, with another body."""

    def __init__(self, key: str) -> None:
        super().__init__(f"key {key!r} was used for another command")
        self.key = key


class Overloaded(StoreError):
    """Too many appends are waiting; nothing of this one was written.  Try later."""


class Unwritable(StoreError):
    """This append can never be written, for the reason given."""


Answer = Appended | StoreError

Manner = Literal["each", "sequence", "whole"]
"""How the appends of a batch hang together.  *each*: not at all, they come from many callers.  *sequence*: one caller
decided them one upon the other, so after a conflict no later one to the same stream may pass.  *whole*: if one is
refused, none is written."""


# --- an append becomes bytes ------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
POSTGRES_EPOCH = (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""From where PostgreSQL counts its microseconds, in microseconds since 1970."""

_NULL = b"\xff\xff\xff\xff"
_HASH_LENGTH = b"\0\0\0\x20"
_MOST_BYTES = 500
"""Of a stream's name or a key: they are indexed, and an index entry must fit a third of a page."""

_length = struct.Struct(">i").pack
_four_numbers = struct.Struct(">" + "iq" * 4).pack
_five_numbers = struct.Struct(">" + "iq" * 5).pack

Columns = tuple[bytes, ...]
"""Of a row, as fields: each is the value's length and its bytes."""
Row = tuple[bytes, Columns, bytes, bytes]
"""A row to write: its numbers, of 12 bytes each; the columns behind them; the same in one piece; the last column."""


class EncodedEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A new event, its data as they will be stored."""

    type: str
    state: bytes
    occurred_at: datetime
    received_at: datetime
    rule: str | None
    causation: str | None


class Encoded(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An append that needs no event classes any more; fields as in ``Append``."""

    stream: str
    expected_version: int
    events: list[EncodedEvent]
    actor: str
    role: str
    key: str | None
    body_sha256: bytes | None
    correlation_id: str
    source: str | None


def encode(append: Append, wire: Wire) -> Encoded:
    """The append with the data of its events as bytes; raises ``Unwritable``."""
    try:
        events = [
            EncodedEvent(type(x.data).__name__, wire.encode(x.data), x.occurred_at, x.received_at, x.rule, x.causation)
            for x in append.events
        ]
    except (ValueError, TypeError, OverflowError) as error:
        raise Unwritable(f"{append.stream!r}: {error}") from error
    return Encoded(
        append.stream, append.expected_version, events, append.actor, append.role, append.key, append.body_sha256,
        append.correlation_id, append.source,
    )  # fmt: skip


class Prepared(msgspec.Struct, gc=False):
    """An append with everything worked out that does not depend on its place in the log."""

    append: Encoded
    events: list[tuple[int, int, Columns, bytes]]
    """occurred_at and received_at in microseconds since 1970, the columns from the stream to the data, and the same in
    one piece."""


def prepare(append: Encoded) -> Prepared:
    """Checks an append and brings it into the form in which it is chained and sent; raises ``Unwritable``."""
    try:
        _check(append)
        key = _NULL if append.key is None else _indexed("a key", append.key)
        head = (_name(append.actor), _name(append.role), key, _text(append.correlation_id))
        stream, source = _indexed("a stream's name", append.stream), _name(append.source)
        events: list[tuple[int, int, Columns, bytes]] = []
        causation, caused_by = None, _NULL
        for event in append.events:
            if event.causation != causation:  # what one fact made comes in a row
                causation, caused_by = event.causation, _text(event.causation)
            columns = (stream, _name(event.type), *head, caused_by, source, _name(event.rule), field(event.state))
            events.append(
                (microseconds(event.occurred_at), microseconds(event.received_at), columns, b"".join(columns))
            )
        return Prepared(append, events)
    except (ValueError, TypeError) as error:
        raise Unwritable(f"{append.stream!r}: {error}") from error


def _check(append: Encoded) -> None:
    """What the columns of the log demand beyond their types."""
    if append.expected_version < 0:
        raise ValueError("expected_version is at least 0")
    if (append.key is None) != (append.body_sha256 is None):
        raise ValueError("a key and the hash of a body come together")
    if append.key is None and not append.events:
        raise ValueError("without a key and without events there is nothing to write")
    if append.body_sha256 is not None and len(append.body_sha256) != 32:
        raise ValueError("body_sha256 has 32 bytes")


def field(data: bytes) -> bytes:
    """A column's value as the chain and PostgreSQL's binary formats have it: its length and its bytes."""
    return _length(len(data)) + data


def _text(text: str | None) -> bytes:
    if text is None:
        return _NULL
    if "\0" in text:
        raise ValueError("PostgreSQL keeps no NUL character in text")
    return field(text.encode())


def _indexed(what: str, text: str) -> bytes:
    data = text.encode()
    if not 0 < len(data) <= _MOST_BYTES or b"\0" in data:
        raise ValueError(f"{what} has 1 to {_MOST_BYTES} bytes of UTF-8 without NUL")
    return _length(len(data)) + data


def is_name(text: str) -> bool:
    """Whether a stream or a key can be called so; nothing is found under another name, and it is not worth asking."""
    try:
        return bool(_indexed("it", text))
    except ValueError:
        return False


_name = lru_cache(maxsize=4096)(_text)
"""The same for words that come again and again: types, actors, roles, rules."""


def microseconds(instant: datetime) -> int:
    """Since 1970-01-01 UTC; ``TypeError`` if the instant has no zone."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(micros: int) -> datetime:
    """The other way round, in UTC."""
    return _EPOCH + micros * _MICROSECOND


# --- appends are given their place, in order --------------------------------------------------------------------------


class Judge:
    """Gives appends their place after the end of the log, or the reason why they have none."""

    def __init__(
        self, head: Head, commands: dict[str, CommandRecord], versions: dict[str, int], now: datetime, manner: Manner
    ) -> None:
        """``commands`` and ``versions``: what the log holds for the keys and streams that will be judged."""
        self.position, self.chain = head.position, head.chain
        self.recorded_at = max(microseconds(head.recorded_at), microseconds(now))
        self.answers: list[Answer] = []
        self.commands: list[Row] = []
        """Rows for the commands that were accepted, with ``COMMAND_COLUMNS``."""
        self._known, self._versions, self._manner = commands, versions, manner
        self._broken: set[str] = set()

    def judge(self, batch: Sequence[Prepared]) -> list[Row]:
        """Adds an answer for each append of ``batch``; returns the rows of the events accepted, with ``COLUMNS``."""
        rows: list[Row] = []
        for prepared in batch:
            append = prepared.append
            actual = self._versions.get(append.stream, 0)
            known = self._known.get(append.key) if append.key is not None else None
            if known is not None:
                self.answers.append(_first_answer(known, append))
            elif append.expected_version == actual and append.stream not in self._broken:
                self._accept(prepared, actual, rows)
            else:
                self.answers.append(Conflict(append.stream, append.expected_version, actual))
                if self._manner != "each":
                    self._broken.add(append.stream)
        return rows

    def is_refused(self) -> bool:
        """Whether nothing may be written, because all or nothing was asked for."""
        return self._manner == "whole" and any(isinstance(answer, StoreError) for answer in self.answers)

    def _accept(self, prepared: Prepared, version: int, rows: list[Row]) -> None:
        append, first_version = prepared.append, version + 1
        position, recorded_at, chain = self.position, self.recorded_at, self.chain
        for occurred_at, received_at, columns, body in prepared.events:
            position += 1
            version += 1
            if received_at > recorded_at:
                recorded_at = received_at
            numbers = _five_numbers(8, position, 8, version, 8, occurred_at, 8, received_at, 8, recorded_at)
            chain = hashlib.sha256(chain + numbers + body).digest()
            row_numbers = _five_numbers(
                8, position, 8, version, 8, occurred_at - POSTGRES_EPOCH, 8, received_at - POSTGRES_EPOCH,
                8, recorded_at - POSTGRES_EPOCH,
            )  # fmt: skip
            rows.append((row_numbers, columns, body, _HASH_LENGTH + chain))
        self.position, self.recorded_at, self.chain = position, recorded_at, chain
        self._versions[append.stream] = version
        answer = Appended(append.stream, first_version, version, position, instant(recorded_at), is_repeated=False)
        self.answers.append(answer)
        if append.key is not None and append.body_sha256 is not None:
            self._remember(append.key, append.body_sha256, answer)

    def _remember(self, key: str, body_sha256: bytes, answer: Appended) -> None:
        stream, first_version, version, position = answer.stream, answer.first_version, answer.version, answer.position
        self._known[key] = CommandRecord(key, body_sha256, stream, first_version, version, position, answer.recorded_at)
        numbers = _four_numbers(8, first_version, 8, version, 8, position, 8, self.recorded_at - POSTGRES_EPOCH)
        columns = (_text(key), _text(stream))
        self.commands.append((numbers, columns, b"".join(columns), _HASH_LENGTH + body_sha256))


def _first_answer(known: CommandRecord, append: Encoded) -> Answer:
    """What the command was answered when it was accepted."""
    if known.body_sha256 != append.body_sha256:
        return KeyReused(known.key)
    return Appended(
        known.stream, known.first_version, known.version, known.position, known.recorded_at, is_repeated=True
    )


# --- a row becomes fields again, to be checked ------------------------------------------------------------------------

_read_numbers = struct.Struct(">" + "iq" * 5).unpack_from


def chained_fields(row: bytes) -> tuple[int, bytes, bytes]:
    """Position, fields as they are chained, and chain of an event, from its row as binary COPY gives it.

    A row is a count of fields (2 bytes) and the fields; the first five are numbers (12 bytes each), the last one is the
    hash (36 bytes).
    """
    _, position, _, version, _, occurred_at, _, received_at, _, recorded_at = _read_numbers(row, 2)
    numbers = _five_numbers(
        8, position, 8, version, 8, occurred_at + POSTGRES_EPOCH, 8, received_at + POSTGRES_EPOCH,
        8, recorded_at + POSTGRES_EPOCH,
    )  # fmt: skip
    return position, numbers + row[62:-36], row[-32:]


def chain_after(before: bytes, fields: bytes) -> bytes:
    """The hash of an event with these fields after one with the hash ``before``."""
    return hashlib.sha256(before + fields).digest()
