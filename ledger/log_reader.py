"""How events get out of the log: as lines that the server makes and msgspec decodes in one pass.

A line is the JSON array ``Wire.decode_lines`` reads.  Putting thousands of them into one value costs a fifth of what
as many rows would.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg.rows import tuple_row

from ledger import upcasters
from ledger.events import Recorded, Wire
from ledger.log_writer import Connection

_LINE = (
    "concat('[', notification_id, ',', to_json(originator_id), ',', originator_version, ',', to_json(occurred_at), ',',"
    " to_json(received_at), ',', to_json(recorded_at), ',', convert_from(state, 'UTF8'), ']')"
)
_LINES = f"SELECT string_agg({_LINE}, E'\\n' ORDER BY notification_id) FROM ledger_events WHERE "
_RANGE = "notification_id > %(after)s AND notification_id <= %(upto)s"

_IN_PARTITION = "(hashtext(originator_id) & 2147483647) %% %(parts)s = %(part)s"

READ_POSITIONS = _LINES + _RANGE
READ_PARTITION = f"{_LINES}{_RANGE} AND {_IN_PARTITION}"
READ_STREAMS = f"{_LINES}originator_id = ANY(%(streams)s)"
READ_STREAM = (
    f"{_LINES}originator_id = %(stream)s AND originator_version > %(after)s AND originator_version <= %(upto)s"
)


_VERSIONS = """
    SELECT '{{' || string_agg(to_json(originator_id) || ':' || version, ',') || '}}' FROM (
        SELECT originator_id, max(originator_version) AS version FROM ledger_events {condition} GROUP BY originator_id
    ) AS streams"""
READ_VERSIONS = _VERSIONS.format(condition="")
READ_VERSIONS_OF_PARTITION = _VERSIONS.format(condition=f"WHERE {_IN_PARTITION}")

READ_HEAD = "SELECT position, recorded_at, chain_sha256 FROM head WHERE id = 1"
FIND_COMMANDS = (
    "SELECT key, body_sha256, stream, first_version, version, position, recorded_at FROM commands "
    "WHERE key = ANY(%(keys)s)"
)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event with everything the log holds about it, in the order of ``guarantee export events``."""

    position: int
    stream: str
    version: int
    type: str
    occurred_at: datetime
    received_at: datetime
    recorded_at: datetime
    actor: str
    role: str
    key: str | None
    correlation_id: str
    causation: str | None
    source: str | None
    rule: str | None
    data: Any
    chain_sha256: bytes


READ_ENTRIES = (
    "SELECT notification_id, originator_id, originator_version, topic, occurred_at, received_at, recorded_at, actor, "
    "role, key, correlation_id, causation, source, rule, state, chain_sha256 FROM ledger_events WHERE "
)
ENTRIES_AFTER = READ_ENTRIES + "notification_id > %(after)s ORDER BY notification_id LIMIT %(limit)s"
ENTRIES_OF_STREAM = READ_ENTRIES + (
    "originator_id = %(stream)s "
    "AND (%(upto_position)s::bigint IS NULL OR notification_id <= %(upto_position)s) "
    "AND (%(recorded_before)s::timestamptz IS NULL OR recorded_at < %(recorded_before)s) "
    "AND (%(occurred_before)s::timestamptz IS NULL OR occurred_at < %(occurred_before)s) "
    "ORDER BY originator_version"
)


def read_lines(connection: Connection, statement: str, parameters: dict[str, Any]) -> bytes:
    """The lines that ``statement`` makes, as UTF-8; empty if there are no events."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters, prepare=True)
        # The raw value: as a row it would be decoded to str only to be encoded again.
        result = cursor.pgresult
        return (result and result.get_value(0, 0)) or b""


def decode_lines(wire: Wire, lines: bytes) -> Sequence[Recorded]:
    """The events of ``lines``, those of retired shapes too."""
    try:
        return wire.decode_lines(lines)
    except msgspec.ValidationError:
        return [_decode_line(wire, line) for line in lines.splitlines()]


class _RawLine(msgspec.Struct, array_like=True):
    """A recorded event whose data are left as they were written."""

    position: int
    stream: str
    version: int
    occurred_at: datetime
    received_at: datetime
    recorded_at: datetime
    data: msgspec.Raw


_raw_decoder = msgspec.json.Decoder(_RawLine)


def _decode_line(wire: Wire, line: bytes) -> Recorded:
    raw = _raw_decoder.decode(line)
    return Recorded(
        raw.position, raw.stream, raw.version, raw.occurred_at, raw.received_at, raw.recorded_at,
        upcasters.decode(wire, bytes(raw.data)),
    )  # fmt: skip


def read_entries(connection: Connection, wire: Wire, statement: str, parameters: dict[str, Any]) -> list[Entry]:
    """The events that ``statement`` selects, with all their columns."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(statement, parameters, prepare=True)
        return [Entry(*(*row[:14], upcasters.decode(wire, row[14]), row[15])) for row in rows]
