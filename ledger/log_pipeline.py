"""Prepared statements, many in one round trip, with values in PostgreSQL's binary format as they are.

psycopg's own cursors do the same, but cost the appending process three times the work of a small transaction: values
are adapted one by one, and every statement is sent by itself.  Here the bytes of the chain are the bytes that are sent.
"""

import select
import struct
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.pq.abc import PGconn, PGresult

from ledger.log import POSTGRES_EPOCH, field, instant

Statement = tuple[bytes, Sequence[bytes]]
"""The name of a prepared statement, and its parameters in binary format."""

_DONE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


def prepare(connection: psycopg.Connection[Any], statements: dict[bytes, str]) -> None:
    """Makes statements (name -> SQL with $1, $2, …) known to the server, for as long as the connection lasts."""
    for name, statement in statements.items():
        _checked(connection.pgconn.prepare(name, statement.encode()))


def run(connection: psycopg.Connection[Any], statements: Sequence[Statement]) -> list[PGresult]:
    """Runs prepared statements, all in one round trip; returns their results, or raises the first one's error."""
    pgconn = connection.pgconn
    pgconn.enter_pipeline_mode()
    for name, parameters in statements:
        pgconn.send_query_prepared(name, parameters, [pq.Format.BINARY] * len(parameters), pq.Format.BINARY)
    pgconn.pipeline_sync()
    results = _results(pgconn)
    pgconn.exit_pipeline_mode()
    return [_checked(result) for result in results]


def _results(pgconn: PGconn) -> list[PGresult]:
    """What the server answers until all statements of a pipeline are done; other threads run while it is awaited."""
    results: list[PGresult] = []
    while True:
        _wait(pgconn)
        result = pgconn.get_result()
        if result is not None:
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)


def _wait(pgconn: PGconn) -> None:
    """Until there is a result, or the end of one, to be had."""
    while (is_unsent := pgconn.flush()) or pgconn.is_busy():
        waiting = select.poll()
        waiting.register(pgconn.socket, select.POLLIN | select.POLLOUT if is_unsent else select.POLLIN)
        waiting.poll()
        pgconn.consume_input()


def _checked(result: PGresult) -> PGresult:
    if result.status not in _DONE:
        error = errors.error_from_result(result)
        # What the server did not say was said of the connection.
        raise error if error.sqlstate else psycopg.OperationalError(str(error))
    return result


def rows(result: PGresult) -> list[list[Any]]:
    """The values of a result: bytes in binary format, or None."""
    columns = range(result.nfields)
    return [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]


_bigint = struct.Struct(">q")


def bigint(number: int) -> bytes:
    """A number in binary format."""
    return _bigint.pack(number)


def number_of(data: bytes) -> int:
    """The number in a bigint."""
    return int(_bigint.unpack(data)[0])


def timestamptz(micros: int) -> bytes:
    """An instant in binary format; from microseconds since 1970."""
    return _bigint.pack(micros - POSTGRES_EPOCH)


def instant_of(data: bytes) -> datetime:
    """The instant in a timestamptz."""
    return instant(number_of(data) + POSTGRES_EPOCH)


def text_array(texts: Collection[str]) -> bytes:
    """Texts as an array in binary format."""
    return array("text", [field(text.encode()) for text in texts])


def array(type_name: str, fields: Collection[bytes]) -> bytes:
    """Values, each as its length and its bytes, as an array in binary format."""
    # One dimension (or none), which may hold nulls, of that type; with so many elements, counted from 1.
    head = struct.pack(">iii", 1 if fields else 0, 1, _OIDS[type_name])
    return head + (struct.pack(">ii", len(fields), 1) + b"".join(fields) if fields else b"")


_OIDS = {"int8": 20, "timestamptz": 1184, "text": 25, "bytea": 17}
