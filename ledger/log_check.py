"""Is the log what it was?  Every promise that can be checked from the outside, as a number of differences."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from psycopg.rows import dict_row, tuple_row

from ledger.log import COLUMNS, GENESIS, chain_after, chained_fields
from ledger.log_writer import Connection


class Check(msgspec.Struct, frozen=True):
    """One promise, and how often it is broken."""

    name: str
    differences: int
    first: dict[str, Any] | None
    """The first place where it is broken."""
    note: str | None = None
    """What should be known although nothing is broken."""


# Each selects the places where a promise is broken, the first one first.
_BROKEN = {
    "positions have no gap": """
        SELECT position, found FROM (
            SELECT row_number() OVER (ORDER BY notification_id) AS position, notification_id AS found FROM ledger_events
        ) AS counted WHERE found <> position ORDER BY position""",
    "versions of a stream have no gap": """
        SELECT stream, version, found, position FROM (
            SELECT originator_id AS stream, row_number() OVER in_stream AS version, originator_version AS found,
                   notification_id AS position, lag(notification_id) OVER in_stream AS position_before
            FROM ledger_events WINDOW in_stream AS (PARTITION BY originator_id ORDER BY originator_version)
        ) AS counted WHERE found <> version OR position_before > position ORDER BY position""",
    "recorded_at never decreases": """
        SELECT position, recorded_at, recorded_at_before FROM (
            SELECT notification_id AS position, recorded_at,
                   lag(recorded_at) OVER (ORDER BY notification_id) AS recorded_at_before FROM ledger_events
        ) AS pairs WHERE recorded_at < recorded_at_before ORDER BY position""",
    "the type is that of the data": """
        SELECT notification_id AS position, topic AS type FROM ledger_events
        WHERE convert_to('{"type":"' || topic || '"', 'UTF8') <> substr(state, 1, octet_length(topic) + 10)
        ORDER BY notification_id""",
    "the head is the last event": """
        SELECT head.position, head.recorded_at, last.notification_id AS last_position,
               last.recorded_at AS last_recorded_at
        FROM head LEFT JOIN (SELECT * FROM ledger_events ORDER BY notification_id DESC LIMIT 1) AS last ON true
        WHERE (head.position, head.recorded_at, head.chain_sha256) IS DISTINCT FROM (
            coalesce(last.notification_id, 0), coalesce(last.recorded_at, '0001-01-01 00:00:00+00'),
            coalesce(last.chain_sha256, decode(repeat('00', 32), 'hex')))""",
    "commands point at their events": """
        SELECT key, stream, first_version, version, position FROM commands WHERE
            CASE WHEN version >= first_version
            THEN NOT EXISTS (
                SELECT FROM ledger_events AS e WHERE e.originator_id = commands.stream
                AND e.originator_version = commands.version AND e.notification_id = commands.position
                AND e.key = commands.key AND e.recorded_at = commands.recorded_at
            ) OR NOT EXISTS (
                SELECT FROM ledger_events AS e WHERE e.originator_id = commands.stream
                AND e.originator_version = commands.first_version AND e.key = commands.key
            )
            ELSE position > (SELECT head.position FROM head) OR (version > 0 AND NOT EXISTS (
                SELECT FROM ledger_events AS e WHERE e.originator_id = commands.stream
                AND e.originator_version = commands.version AND e.notification_id <= commands.position
            )) END
        ORDER BY position, key""",
    "keys of events have a command": """
        SELECT notification_id AS position, key FROM ledger_events AS e WHERE key IS NOT NULL AND NOT EXISTS (
            SELECT FROM commands AS c WHERE c.key = e.key AND c.stream = e.originator_id
            AND e.originator_version BETWEEN c.first_version AND c.version)
        ORDER BY notification_id""",
    "the log is append-only": """
        SELECT wanted AS "table" FROM unnest(ARRAY['ledger_events', 'commands', 'head']) AS wanted WHERE NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = wanted::regclass AND tgname = 'append_only' AND tgenabled = 'A')""",
}


def check(connection: Connection, writer_role: str) -> list[Check]:
    """Every check, on one snapshot of the log; takes 10 to 30 seconds for a million events."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # Whole tables are read here, and not by index.
        connection.execute("SET LOCAL enable_seqscan TO on")
        checks = [_check(connection, name, query) for name, query in _BROKEN.items()]
        return [*checks, _check_chain(connection), _check_role(connection, writer_role)]


def _check(connection: Connection, name: str, query: str) -> Check:
    counting = f"SELECT count(*) OVER () AS differences, broken.* FROM ({query}) AS broken LIMIT 1"
    first = connection.cursor(row_factory=dict_row).execute(counting).fetchone()
    return Check(name, first.pop("differences") if first else 0, first)


def _check_role(connection: Connection, writer_role: str) -> Check:
    current = connection.cursor(row_factory=tuple_row).execute("SELECT current_user::text").fetchone()
    note = None if current == (writer_role,) else f"the application does not write as {writer_role}"
    return Check("the writer can only add", 0, None, note)


def _check_chain(connection: Connection) -> Check:
    """Each event's hash made again from the one before and its columns, as ``log_writer`` says."""
    before, differences, first = GENESIS, 0, None
    for position, fields, chain in _fields(connection):
        if chain_after(before, fields) != chain:
            differences += 1
            first = first or {"position": position}
        before = chain
    return Check("every event is chained to the one before", differences, first)


def _fields(connection: Connection) -> Iterator[tuple[int, bytes, bytes]]:
    """Position, fields as they are chained, and chain of every event, in order."""
    statement = f"COPY (SELECT {COLUMNS} FROM ledger_events ORDER BY notification_id) TO STDOUT (FORMAT binary)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        yield from map(chained_fields, _rows(copy.read))


_COPY_START_BYTES = 19
_COPY_END = b"\xff\xff"


def _rows(read: Callable[[], Any]) -> Iterator[bytes]:
    """The rows of a binary COPY, without its start and end; the server sends each row as a message of its own."""
    row = bytes(read())[_COPY_START_BYTES:]
    while True:
        if row and row != _COPY_END:
            yield row
        row = bytes(read())
        if not row:
            return
