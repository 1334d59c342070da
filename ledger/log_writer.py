"""How events get into the log: one transaction for many appends, on the one connection a process appends with.

Whoever appends first locks the only row of ``head``.  Under that lock the keys and the streams' versions are looked up,
positions are given out without gaps, and events, command records and the new head are written.  The lock is held until
the commit is on disk, so the order of positions is the order of commits, and no reader can see a later event first.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

import psycopg
from eventsourcing import persistence
from psycopg.rows import tuple_row

from ledger.log import COLUMNS, Answer, CommandRecord, Head, Judge, Manner, Prepared, Unwritable, instant

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
_COPY_COMMANDS = (
    "COPY commands (first_version, version, position, recorded_at, key, stream, body_sha256) FROM STDIN (FORMAT binary)"
)
_MOVE_HEAD = "UPDATE head SET position = %b, recorded_at = %b, chain_sha256 = %b WHERE id = 1 AND position = %b"
_NOTIFY = "SELECT pg_notify(%b, %b)"

_COPY_START = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"
_PART = 250
"""Appends judged at a time: while PostgreSQL takes one part in, the next one is chained."""


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
        is_new = _copy(connection, _COPY_EVENTS, (judge.judge(part) for part in _parts(batch)))
        is_new |= _copy(connection, _COPY_COMMANDS, [b"".join(judge.commands)])
        if is_new and not judge.is_refused():
            _move_head(connection, head, judge, channel)
            connection.execute("COMMIT")
        else:
            connection.execute("ROLLBACK")
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


def _parts(batch: Sequence[Prepared]) -> Iterator[Sequence[Prepared]]:
    return (batch[start : start + _PART] for start in range(0, len(batch), _PART))


def _copy(connection: Connection, statement: str, parts: Iterable[bytes]) -> bool:
    """Sends rows to a table; returns whether there were any."""
    rows = filter(None, parts)
    first = next(rows, None)
    if first is None:
        return False
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for part in chain([_COPY_START + first], rows, [_COPY_END]):
            copy.write(part)
    return True


def _move_head(connection: Connection, head: Head, judge: Judge, channel: str) -> None:
    with connection.pipeline(), connection.cursor() as cursor:
        moved = [judge.position, instant(judge.recorded_at), judge.chain, head.position]
        if judge.position > head.position:
            cursor.execute(_MOVE_HEAD, moved, prepare=True)
        connection.execute(_NOTIFY, [channel, str(judge.position)], prepare=True)
    if judge.position > head.position and cursor.rowcount != 1:
        raise psycopg.errors.SerializationFailure("the head of the log moved although it was locked")


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
