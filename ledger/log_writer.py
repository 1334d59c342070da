"""How events get into the log: one transaction for many appends, on the one connection a process appends with.

Whoever appends first locks the only row of ``head``.  Under that lock the keys and the streams' versions are looked up,
positions are given out without gaps, and events, command records and the new head are written.  The lock is held until
the commit is on disk, so the order of positions is the order of commits, and no reader can see a later event first.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

import psycopg
from eventsourcing import persistence
from psycopg.rows import tuple_row

from ledger.log import (
    COLUMN_TYPES,
    COLUMNS,
    COMMAND_COLUMN_TYPES,
    COMMAND_COLUMNS,
    Answer,
    CommandRecord,
    Head,
    Judge,
    Manner,
    Prepared,
    Row,
    Unwritable,
    array_format,
    copy_format,
    instant,
)

Connection = psycopg.Connection[Any]
T = TypeVar("T")

READ_HEAD = "SELECT position, recorded_at, chain_sha256 FROM head WHERE id = 1"
FIND_COMMANDS = (
    "SELECT key, body_sha256, stream, first_version, version, position, recorded_at FROM commands WHERE key = ANY(%b)"
)
_LOCK_HEAD = READ_HEAD + " FOR UPDATE"
_FIND_VERSIONS = (
    "SELECT stream, (SELECT max(originator_version) FROM ledger_events WHERE originator_id = stream) "
    "FROM unnest(%b::text[]) AS streams (stream)"
)
_COPY_EVENTS = f"COPY ledger_events ({COLUMNS}) FROM STDIN (FORMAT binary)"
_COPY_COMMANDS = f"COPY commands ({COMMAND_COLUMNS}) FROM STDIN (FORMAT binary)"
_MOVE_HEAD = "UPDATE head SET position = %b, recorded_at = %b, chain_sha256 = %b WHERE id = 1 AND position = %b"
_NOTIFY = "SELECT pg_notify(%b, %b)"


def _insert_statement(table: str, columns: str, types: Sequence[str]) -> str:
    """Writes rows given as one array for each column, and only while the head is where it was."""
    arrays = ", ".join(f"%b::{name}[]" for name in types)
    return f"INSERT INTO {table} ({columns}) SELECT rows.* FROM head, unnest({arrays}) AS rows WHERE head.position = %b"


_INSERT_EVENTS = _insert_statement("ledger_events", COLUMNS, COLUMN_TYPES)
_INSERT_COMMANDS = _insert_statement("commands", COMMAND_COLUMNS, COMMAND_COLUMN_TYPES)

_COPY_START = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"
_MANY = 500
"""Appends from which on COPY is faster; and how many are judged at a time then: while PostgreSQL takes some in, the
next ones are chained."""


def write(
    connection: Connection, batch: Sequence[Prepared], now: Callable[[], datetime], channel: str, manner: Manner
) -> list[Answer]:
    """Writes a batch in one transaction and answers each of its appends.

    ``now`` is asked once, under the lock.  ``channel`` is notified of the new end of the log.  psycopg's errors come
    through; after one that breaks the connection nobody knows whether the batch was written: write it again, the keys
    will tell.
    """
    try:
        head, commands, versions = _lock_and_look(connection, batch)
        judge = Judge(head, commands, versions, now(), manner)
        if len(batch) < _MANY:
            _insert(connection, judge, judge.judge(batch), head, channel)
        else:
            parts = (batch[start : start + _MANY] for start in range(0, len(batch), _MANY))
            _copy(connection, judge, (judge.judge(part) for part in parts), head, channel)
        return judge.answers
    except BaseException:
        with suppress(psycopg.Error):
            connection.rollback()
        raise


def _lock_and_look(
    connection: Connection, batch: Sequence[Prepared]
) -> tuple[Head, dict[str, CommandRecord], dict[str, int]]:
    """Begins, waits for the end of the log, and reads what it holds for the keys and streams: one round trip.

    Each statement sees what was committed before it began, so those after the lock see all there is.
    """
    keys = list({prepared.append.key for prepared in batch if prepared.append.key is not None})
    streams = list({prepared.append.stream for prepared in batch})
    with connection.pipeline():
        connection.execute("BEGIN")
        head = connection.cursor(row_factory=tuple_row).execute(_LOCK_HEAD, prepare=True)
        commands = connection.cursor(row_factory=tuple_row).execute(FIND_COMMANDS, [keys], prepare=True)
        versions = connection.cursor(row_factory=tuple_row).execute(_FIND_VERSIONS, [streams], prepare=True)
    locked = head.fetchone()
    if locked is None:
        raise persistence.ProgrammingError("the ledger has no head; was it migrated?")
    return (
        Head(*locked),
        {row[0]: CommandRecord(*row) for row in commands},
        {stream: version for stream, version in versions if version is not None},
    )


def _insert(connection: Connection, judge: Judge, rows: list[Row], head: Head, channel: str) -> None:
    """Writes a few rows, moves the head and commits: one round trip.

    All three statements write nothing if the head is not where it was, so the commit is harmless then.
    """
    if not (rows or judge.commands) or judge.is_refused():
        connection.execute("ROLLBACK")
        return
    with connection.pipeline(), connection.cursor() as cursor:
        if rows:
            arrays = map(_Binary, array_format(rows, COLUMN_TYPES))
            connection.execute(_INSERT_EVENTS, [*arrays, head.position], prepare=True)
        if judge.commands:
            arrays = map(_Binary, array_format(judge.commands, COMMAND_COLUMN_TYPES))
            connection.execute(_INSERT_COMMANDS, [*arrays, head.position], prepare=True)
        _move_head(connection, cursor, judge, head, channel)
        connection.execute("COMMIT")
    _check_moved(cursor)


def _copy(connection: Connection, judge: Judge, parts: Iterable[list[Row]], head: Head, channel: str) -> None:
    """The same for many rows: more round trips, but each row costs half as much."""
    is_new = _copy_rows(connection, _COPY_EVENTS, parts)
    is_new |= _copy_rows(connection, _COPY_COMMANDS, [judge.commands])
    if not is_new or judge.is_refused():
        connection.execute("ROLLBACK")
        return
    with connection.cursor() as cursor:
        with connection.pipeline():
            _move_head(connection, cursor, judge, head, channel)
        _check_moved(cursor)
    connection.execute("COMMIT")


def _copy_rows(connection: Connection, statement: str, parts: Iterable[list[Row]]) -> bool:
    """Sends rows to a table; returns whether there were any."""
    data = filter(None, map(copy_format, parts))
    first = next(data, None)
    if first is None:
        return False
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for part in chain([_COPY_START + first], data, [_COPY_END]):
            copy.write(part)
    return True


def _move_head(connection: Connection, cursor: psycopg.Cursor[Any], judge: Judge, head: Head, channel: str) -> None:
    moved = [judge.position, instant(judge.recorded_at), judge.chain, head.position]
    if judge.position == head.position:  # commands that changed nothing: the last event is what it was
        moved[1:3] = [head.recorded_at, head.chain]
    connection.execute(_NOTIFY, [channel, str(judge.position)], prepare=True)
    cursor.execute(_MOVE_HEAD, moved, prepare=True)


def _check_moved(cursor: psycopg.Cursor[Any]) -> None:
    if cursor.rowcount != 1:
        raise psycopg.errors.SerializationFailure("the head of the log moved although it was locked")


class _Binary(bytes):
    """A value in PostgreSQL's binary format already; the statement says of which type."""


class _BinaryDumper(psycopg.adapt.Dumper):
    format = psycopg.pq.Format.BINARY

    def dump(self, obj: _Binary) -> bytes:
        return obj


psycopg.adapters.register_dumper(_Binary, _BinaryDumper)


# --- the connection ---------------------------------------------------------------------------------------------------

_PASSING_SQLSTATES = ("08", "40", "53", "57P", "55P03", "25P")
"""Connection lost, serialisation, no room, server going down or coming up, lock not available, session timed out."""
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0


def is_passing(error: psycopg.Error) -> bool:
    """Whether the same may succeed a little later: the connection broke, or the server asks for patience."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_PASSING_SQLSTATES)


def library_error(error: psycopg.Error) -> persistence.PersistenceError:
    """The eventsourcing package's error of the same kind."""
    for cls in type(error).__mro__:
        if issubclass(cls, psycopg.Error) and cls.__name__ in vars(persistence):
            kind: type[persistence.PersistenceError] = getattr(persistence, cls.__name__)
            return kind(str(error))
    return persistence.PersistenceError(str(error))


def patiently(attempt: Callable[[], T], retry_seconds: float) -> T:
    """The result of ``attempt``, made again for up to ``retry_seconds`` while it fails for a passing reason."""
    give_up_at = time.monotonic() + retry_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return attempt()
        except psycopg.Error as error:
            if not is_passing(error) or time.monotonic() + pause > give_up_at:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


class LogWriter:
    """The one connection on which a process appends; any thread may use it, one at a time."""

    def __init__(
        self, connect: Callable[[], Connection], now: Callable[[], datetime], channel: str, retry_seconds: float
    ) -> None:
        self._connect, self._now, self._channel, self._retry_seconds = connect, now, channel, retry_seconds
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def write(self, batch: Sequence[Prepared], manner: Manner) -> list[Answer]:
        """Writes ``batch`` in one transaction and answers each of its appends, in order.

        If the database refuses the batch for good, its halves are written one after the other, and so on, until only
        what is bad is refused (``Unwritable``).  A broken connection is opened anew for up to ``retry_seconds``; then
        the library's error is raised.
        """
        try:
            with self._lock:
                return patiently(lambda: self._write_once(batch, manner), self._retry_seconds)
        except psycopg.Error as error:
            if is_passing(error) or manner == "whole":
                raise library_error(error) from error
            if len(batch) == 1:
                return [Unwritable(f"{batch[0].append.stream!r}: {error}")]
        half = len(batch) // 2
        return [*self.write(batch[:half], manner), *self.write(batch[half:], manner)]

    def close(self) -> None:
        """Closes the connection; the next write would open another."""
        with self._lock:
            self._drop()

    def _write_once(self, batch: Sequence[Prepared], manner: Manner) -> list[Answer]:
        if self._connection is None:
            self._connection = self._connect()
        try:
            return write(self._connection, batch, self._now, self._channel, manner)
        except BaseException:
            if self._connection.closed:
                self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
