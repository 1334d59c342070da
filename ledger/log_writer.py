"""How events get into the log: one transaction for many appends, on the one connection a process appends with.

Whoever appends first locks the only row of ``head``.  Under that lock the keys and the streams' versions are looked up,
positions are given out without gaps, and events, command records and the new head are written.  The lock is held until
the commit is on disk, so the order of positions is the order of commits, and no reader can see a later event first.
"""

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

import psycopg
from eventsourcing import persistence
from psycopg.pq.abc import PGresult

from ledger import log_pipeline
from ledger.log import (
    COLUMN_TYPES,
    COLUMNS,
    COMMAND_COLUMN_TYPES,
    COMMAND_COLUMNS,
    Answer,
    CommandRecord,
    Encoded,
    Head,
    Judge,
    Manner,
    Prepared,
    Row,
    Unwritable,
    microseconds,
    prepare,
)
from ledger.log_pipeline import Statement, array, bigint, instant_of, number_of, text_array, timestamptz

Connection = psycopg.Connection[Any]
T = TypeVar("T")


def _insert_statement(table: str, columns: str, types: Sequence[str]) -> str:
    """Writes rows given as one array for each column, and only while the head is where it was."""
    arrays = ", ".join(f"${number}::{name}[]" for number, name in enumerate(types, start=2))
    return f"INSERT INTO {table} ({columns}) SELECT rows.* FROM head, unnest({arrays}) AS rows WHERE head.position = $1"


STATEMENTS = {
    b"begin": "BEGIN",
    b"lock_head": "SELECT position, recorded_at, chain_sha256 FROM head WHERE id = 1 FOR UPDATE",
    b"find_commands": f"SELECT {COMMAND_COLUMNS} FROM commands WHERE key = ANY($1)",
    b"find_versions": "SELECT string_agg(int8send(coalesce("
    "(SELECT max(originator_version) FROM ledger_events WHERE originator_id = stream), 0)), '' ORDER BY place) "
    "FROM unnest($1::text[]) WITH ORDINALITY AS streams (stream, place)",
    b"insert_events": _insert_statement("ledger_events", COLUMNS, COLUMN_TYPES),
    b"insert_commands": _insert_statement("commands", COMMAND_COLUMNS, COMMAND_COLUMN_TYPES),
    b"move_head": "UPDATE head SET position = $2, recorded_at = $3, chain_sha256 = $4 WHERE id = 1 AND position = $1",
    b"notify": "SELECT pg_notify($1, $2)",
    b"commit": "COMMIT",
    b"rollback": "ROLLBACK",
}
"""What a connection must have prepared before ``write``."""

_COPY_EVENTS = f"COPY ledger_events ({COLUMNS}) FROM STDIN (FORMAT binary)"
_COPY_COMMANDS = f"COPY commands ({COMMAND_COLUMNS}) FROM STDIN (FORMAT binary)"
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
    through; the connection must then be closed, which ends the transaction.  Nobody knows then whether the batch was
    written: write it again, the keys will tell.
    """
    head, commands, versions = _lock_and_look(connection, batch)
    judge = Judge(head, commands, versions, now(), manner)
    if len(batch) < _MANY:
        is_written = _insert(connection, judge, judge.judge(batch), head, channel)
    else:
        parts = (batch[start : start + _MANY] for start in range(0, len(batch), _MANY))
        is_written = _copy(connection, judge, (judge.judge(part) for part in parts), head, channel)
    if not is_written:
        log_pipeline.run(connection, [(b"rollback", ())])
    return judge.answers


def _lock_and_look(
    connection: Connection, batch: Sequence[Prepared]
) -> tuple[Head, dict[str, CommandRecord], dict[str, int]]:
    """Begins, waits for the end of the log, and reads what it holds for the keys and streams: one round trip.

    Each statement sees what was committed before it began, so those after the lock see all there is.
    """
    keys = text_array({prepared.append.key for prepared in batch if prepared.append.key is not None})
    streams = list({prepared.append.stream for prepared in batch})
    looks: list[Statement] = [
        (b"begin", ()),
        (b"lock_head", ()),
        (b"find_commands", [keys]),
        (b"find_versions", [text_array(streams)]),
    ]
    _, head, commands, versions = map(log_pipeline.rows, log_pipeline.run(connection, looks))
    if not head:
        raise persistence.ProgrammingError("the ledger has no head; was it migrated?")
    return (
        Head(number_of(head[0][0]), instant_of(head[0][1]), head[0][2]),
        {row[4].decode(): _command(*row) for row in commands},
        dict(zip(streams, struct.unpack(f">{len(streams)}q", versions[0][0]), strict=True)),
    )


def _command(*row: bytes) -> CommandRecord:
    first_version, version, position, recorded_at, key, stream, body_sha256 = row
    return CommandRecord(
        key.decode(), body_sha256, stream.decode(), number_of(first_version), number_of(version), number_of(position),
        instant_of(recorded_at),
    )  # fmt: skip


def _insert(connection: Connection, judge: Judge, rows: list[Row], head: Head, channel: str) -> bool:
    """Writes a few rows, moves the head and commits: one round trip.  False if there is nothing to write.

    All three statements write nothing if the head is not where it was, so the commit is harmless then.
    """
    if not (rows or judge.commands) or judge.is_refused():
        return False
    expected = bigint(head.position)
    statements: list[Statement] = []
    if rows:
        statements.append((b"insert_events", [expected, *_arrays(rows, COLUMN_TYPES)]))
    if judge.commands:
        statements.append((b"insert_commands", [expected, *_arrays(judge.commands, COMMAND_COLUMN_TYPES)]))
    *_, moved, _, _ = log_pipeline.run(connection, [*statements, *_moves(judge, head, channel), (b"commit", ())])
    _check_moved(moved)
    return True


def _copy(connection: Connection, judge: Judge, parts: Iterable[list[Row]], head: Head, channel: str) -> bool:
    """The same for many rows: more round trips, but each row costs half as much."""
    is_new = _copy_rows(connection, _COPY_EVENTS, parts)
    is_new |= _copy_rows(connection, _COPY_COMMANDS, [judge.commands])
    if not is_new or judge.is_refused():
        return False
    moved, _ = log_pipeline.run(connection, _moves(judge, head, channel))
    _check_moved(moved)
    log_pipeline.run(connection, [(b"commit", ())])
    return True


def _copy_rows(connection: Connection, statement: str, parts: Iterable[list[Row]]) -> bool:
    """Sends rows to a table; returns whether there were any."""
    data = filter(None, map(_copy_format, parts))
    first = next(data, None)
    if first is None:
        return False
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for part in chain([_COPY_START + first], data, [_COPY_END]):
            copy.write(part)
    return True


def _moves(judge: Judge, head: Head, channel: str) -> list[Statement]:
    """Moves the head to the last event, which stays the same if the commands changed nothing; and tells everybody."""
    position, recorded_at, chain_sha256 = judge.position, judge.recorded_at, judge.chain
    if position == head.position:
        recorded_at = microseconds(head.recorded_at)
    moved = [bigint(head.position), bigint(position), timestamptz(recorded_at), chain_sha256]
    return [(b"move_head", moved), (b"notify", [channel.encode(), str(position).encode()])]


def _check_moved(moved: PGresult) -> None:
    if moved.command_tuples != 1:
        raise psycopg.errors.SerializationFailure("the head of the log moved although it was locked")


# --- rows as PostgreSQL takes them ------------------------------------------------------------------------------------

_BYTES_OF_NUMBER = 12


def _copy_format(rows: Sequence[Row]) -> bytes:
    """Rows as binary COPY has them: the number of columns, and the columns."""
    if not rows:
        return b""
    numbers, columns, _, _ = rows[0]
    count = struct.pack(">h", len(numbers) // _BYTES_OF_NUMBER + len(columns) + 1)
    return b"".join([part for numbers, _, body, last in rows for part in (count, numbers, body, last)])


def _arrays(rows: Sequence[Row], types: Sequence[str]) -> list[bytes]:
    """The same rows as one array for each column."""
    starts = range(0, len(rows[0][0]), _BYTES_OF_NUMBER)
    columns: list[Sequence[bytes]] = [[row[0][start : start + _BYTES_OF_NUMBER] for row in rows] for start in starts]
    columns += zip(*[row[1] for row in rows], strict=True)
    columns.append([row[3] for row in rows])
    return [array(type_name, column) for type_name, column in zip(types, columns, strict=True)]


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


def _is_about_data(error: psycopg.Error) -> bool:
    """Whether what was to be written is to blame: its values, a constraint, or its size."""
    return error.sqlstate is not None and error.sqlstate.startswith(("22", "23", "54"))


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


def _prepared(append: Encoded) -> Prepared | Unwritable:
    try:
        return prepare(append)
    except Unwritable as error:
        return error


class LogWriter:
    """The one connection on which a process appends; any thread may use it, one at a time."""

    def __init__(
        self, connect: Callable[[], Connection], now: Callable[[], datetime], channel: str, retry_seconds: float
    ) -> None:
        self._connect, self._now, self._channel, self._retry_seconds = connect, now, channel, retry_seconds
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def write(self, batch: Sequence[Encoded], manner: Manner) -> list[Answer]:
        """Writes ``batch`` in one transaction and answers each of its appends, in order.

        If the database refuses the data of the batch, its halves are written one after the other, and so on, until only
        what is bad is refused (``Unwritable``).  A broken connection is opened anew for up to ``retry_seconds``; then
        the library's error is raised.
        """
        prepared = [_prepared(append) for append in batch]
        good = [one for one in prepared if isinstance(one, Prepared)]
        if manner == "whole" and (bad := [one for one in prepared if isinstance(one, Unwritable)]):
            return [bad[0]] * len(batch)
        answers = iter(self._write(good, manner) if good else ())
        return [next(answers) if isinstance(one, Prepared) else one for one in prepared]

    def begin(self, batch: Sequence[Encoded], manner: Manner) -> Callable[[], list[Answer]]:
        """Writes at once, and returns what gives the answers."""
        answers = self.write(batch, manner)
        return lambda: answers

    async def write_soon(self, batch: Sequence[Encoded], manner: Manner) -> list[Answer]:
        """The same for a task of an event loop."""
        return await asyncio.to_thread(self.write, batch, manner)

    def _write(self, batch: Sequence[Prepared], manner: Manner) -> list[Answer]:
        try:
            with self._lock:
                return patiently(lambda: self._write_once(batch, manner), self._retry_seconds)
        except psycopg.Error as error:
            if not _is_about_data(error) or manner == "whole":
                raise library_error(error) from error
            if len(batch) == 1:
                return [Unwritable(f"{batch[0].append.stream!r}: {error}")]
        half = len(batch) // 2
        return [*self._write(batch[:half], manner), *self._write(batch[half:], manner)]

    def close(self) -> None:
        """Closes the connection; the next write would open another."""
        with self._lock:
            self._drop()

    def _write_once(self, batch: Sequence[Prepared], manner: Manner) -> list[Answer]:
        try:
            if self._connection is None:
                self._connection = self._connect()
                log_pipeline.prepare(self._connection, STATEMENTS)
            return write(self._connection, batch, self._now, self._channel, manner)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
