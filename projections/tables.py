"""How a read model lies in PostgreSQL: its table, made from the type of its rows, and the registry that names it.

A table is called ``<read model>__<generation>``.  The registry, ``read_models``, has one row a read model: the
generation that is live and its checkpoint, the position up to which the log has been folded into it.  Whoever reads
looks the generation up in the snapshot in which it reads.
"""

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from projections.projection import Key, Projection, Row
from projections.replay import Change

Connection = psycopg.Connection[Any]

_SQL_TYPES: dict[type, str] = {
    str: 'text COLLATE "C"',
    int: "bigint",
    bool: "boolean",
    datetime: "timestamptz",
    date: "date",
}
_JSON = "json"
"""Keeps its text byte for byte, unlike jsonb."""


class Column(NamedTuple):
    """A column of a table: ``type`` is that of the rows' field, without ``None``."""

    name: str
    type: Any
    sql_type: str
    is_optional: bool

    @property
    def is_json(self) -> bool:
        """It holds a nested value."""
        return self.sql_type == _JSON

    @property
    def base_type(self) -> str:
        """The SQL type without its collation."""
        return self.sql_type.split()[0]


@cache
def columns_of(row: type[Row]) -> tuple[Column, ...]:
    """The columns of a type of rows; ``TypeError`` for a float, which no fold may hold."""
    return tuple(_column(field.name, field.type) for field in msgspec.structs.fields(row))


def _column(name: str, annotated: Any) -> Column:
    given = annotated
    is_optional = False
    if get_origin(given) in (Union, types.UnionType):
        others = [x for x in get_args(given) if x is not types.NoneType]
        is_optional = len(others) < len(get_args(given))
        given = others[0] if len(others) == 1 else Union[tuple(others)]  # noqa: UP007 - made at run time
    if get_origin(given) is Literal and all(isinstance(x, str) for x in get_args(given)):
        given = str
    if given is float:
        raise TypeError(f"{name}: no fold holds a float")
    return Column(name, given, _SQL_TYPES.get(given, _JSON), is_optional)


class Table:
    """One generation of a read model, and everything that is said to PostgreSQL about it."""

    def __init__(self, projection: Projection, generation: int) -> None:
        self.projection, self.generation = projection, generation
        self.name = table_name(projection.name, generation)
        self.columns = columns_of(projection.row)
        self.width = len(projection.key)
        self._statements = _statements(projection, self.name)
        self._pack, self._unpack = _packing(projection.row)

    # --- its life -------------------------------------------------------------------------------------------------

    def create(self, connection: Connection) -> None:
        """Makes the table anew, without indexes, so that rows come in fast."""
        connection.execute(self._statements.drop)
        connection.execute(self._statements.create)

    def finish(self, connection: Connection) -> None:
        """Adds the primary key and the indexes, once the rows are there."""
        for statement in self._statements.finish:
            connection.execute(statement)

    # --- rows -----------------------------------------------------------------------------------------------------

    def copy_in(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Adds many rows that are not there yet."""
        pack = self._pack
        with connection.cursor() as cursor, cursor.copy(self._statements.copy_in) as copy:
            copy.set_types(["text" if column.is_json else column.base_type for column in self.columns])
            write = copy.write_row
            for row in rows:
                write(pack(row))

    def find(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        """The rows with these keys, as far as there are any."""
        width, unpack = self.width, self._unpack
        with connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            cursor.execute(self._statements.find, _transposed(keys, width), prepare=True)
            return {values[:width]: unpack(values) for values in cursor}

    def put(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Adds rows, or puts them in the place of those with the same keys."""
        if rows:
            packed = [self._pack(row) for row in rows]
            connection.execute(self._statements.put, _transposed(packed, len(self.columns)), prepare=True)

    def delete(self, connection: Connection, keys: Sequence[Key]) -> None:
        """Takes the rows with these keys away."""
        if keys:
            connection.execute(self._statements.delete, _transposed(keys, self.width), prepare=True)

    def apply(self, connection: Connection, change: Change) -> None:
        """Writes what a batch of events changes; inside a transaction that holds the lock of the read model."""
        keys = change.keys_needed
        put, delete = change.result(self.find(connection, keys) if keys else {})
        self.delete(connection, delete)
        self.put(connection, put)

    def read(self, connection: Connection, query: "Query") -> Iterator[Row]:
        """The rows that ``query`` asks for, streamed; inside a transaction."""
        statement, parameters = _select(self, query)
        unpack = self._unpack
        with connection.cursor(f"read_{self.name}"[:63], row_factory=tuple_row) as cursor:
            cursor.itersize = 5_000
            cursor.execute(statement, parameters, binary=True)
            for values in cursor:
                yield unpack(values)

    def raw(self, connection: Connection) -> Iterator[bytes]:
        """Every row in key order, as binary COPY writes it: equal bytes are equal rows."""
        with connection.cursor() as cursor, cursor.copy(self._statements.raw) as copy:
            row = bytes(copy.read())[_COPY_HEADER_BYTES:]
            while True:
                if row and row != _COPY_END:
                    yield row
                row = bytes(copy.read())
                if not row:
                    return


_COPY_HEADER_BYTES = 19
_COPY_END = b"\xff\xff"


def table_name(name: str, generation: int) -> str:
    """``<read model>__<generation>``."""
    return f"{name}__{generation}"


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """One list a column."""
    return [[row[column] for row in rows] for column in range(width)]


# --- rows become values -----------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode


@cache
def _packing(row: type[Row]) -> tuple[Callable[[Row], Sequence[Any]], Callable[[Sequence[Any]], Row]]:
    """From a row to the values of its columns, and back."""
    columns = columns_of(row)
    nested = [(i, msgspec.json.Decoder(c.type).decode) for i, c in enumerate(columns) if c.is_json]
    instants = [i for i, c in enumerate(columns) if c.sql_type == "timestamptz"]
    as_tuple = msgspec.structs.astuple

    def pack(given: Row) -> Sequence[Any]:
        values = list(as_tuple(given))
        for i, _ in nested:
            if (value := values[i]) is not None:
                values[i] = _encode(value).decode()
        return values

    def unpack(given: Sequence[Any]) -> Row:
        values = list(given)
        for i, decode in nested:
            if (value := values[i]) is not None:
                values[i] = decode(value)
        for i in instants:
            if (value := values[i]) is not None:
                values[i] = value.replace(tzinfo=UTC)
        return row(*values)

    return (pack if nested else as_tuple), (unpack if nested or instants else lambda values: row(*values))


# --- statements -------------------------------------------------------------------------------------------------------


class _Statements(NamedTuple):
    drop: sql.Composed
    create: sql.Composed
    finish: list[sql.Composed]
    copy_in: sql.Composed
    find: sql.Composed
    put: sql.Composed
    delete: sql.Composed
    raw: sql.Composed


@cache
def _statements(projection: Projection, name: str) -> _Statements:
    columns = columns_of(projection.row)
    keys = columns[: len(projection.key)]
    table = sql.Identifier(name)
    key_names, key_arrays = _names(keys), _arrays(keys)
    join = sql.SQL(" AND ").join(sql.SQL("t.{0} = wanted.{0}").format(sql.Identifier(column.name)) for column in keys)
    return _Statements(
        drop=sql.SQL("DROP TABLE IF EXISTS {}").format(table),
        create=sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(map(_definition, columns))),
        finish=[
            sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(table, key_names),
            *(
                sql.SQL("CREATE INDEX ON {} ({})").format(table, sql.SQL(", ").join(map(sql.Identifier, index)))
                for index in projection.indexes
            ),
            sql.SQL("ANALYZE {}").format(table),
        ],
        copy_in=sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, _names(columns)),
        find=sql.SQL("SELECT {} FROM {} AS t JOIN unnest({}) AS wanted ({}) ON {}").format(
            _selected(columns), table, key_arrays, key_names, join
        ),
        put=sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS new ({}) ON CONFLICT ({}) DO UPDATE SET {}"
        ).format(
            table, _names(columns), _converted(columns), _arrays(columns), _names(columns), key_names,
            _excluded(columns[len(keys):] or keys),
        ),
        delete=sql.SQL("DELETE FROM {} AS t USING unnest({}) AS wanted ({}) WHERE {}").format(
            table, key_arrays, key_names, join
        ),
        raw=sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT (FORMAT binary)").format(
            _names(columns), table, key_names
        ),
    )  # fmt: skip


def _definition(column: Column) -> sql.Composable:
    null = sql.SQL("") if column.is_optional else sql.SQL(" NOT NULL")
    return sql.SQL("{} {}{}").format(sql.Identifier(column.name), _trusted(column.sql_type), null)


def _names(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)


def _arrays(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("%b::{}[]").format(_trusted("text" if column.is_json else column.base_type)) for column in columns
    )


def _selected(columns: Sequence[Column]) -> sql.Composed:
    """Nested values as the text they are: they are decoded to the types of the row."""
    return sql.SQL(", ").join(
        sql.SQL("t.{}::text" if column.is_json else "t.{}").format(sql.Identifier(column.name)) for column in columns
    )


def _converted(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("new.{}::json" if column.is_json else "new.{}").format(sql.Identifier(column.name))
        for column in columns
    )


def _excluded(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column.name)) for column in columns)


def _trusted(text: str) -> sql.SQL:
    """One of the SQL types named above."""
    assert text in (*_SQL_TYPES.values(), *(x.split()[0] for x in _SQL_TYPES.values()), _JSON)
    return sql.SQL(text)


# --- queries ----------------------------------------------------------------------------------------------------------

Operator = Literal["=", "<", "<=", ">", ">="]


class Where(NamedTuple):
    """A condition on a stored column."""

    column: str
    operator: Operator
    value: Any


class Query(NamedTuple):
    """Which stored rows, and in what order."""

    key_prefix: Key = ()
    after_key: Key | None = None
    where: Sequence[Where] = ()
    order_by: Sequence[str] = ()
    """Columns to order by; by default the key's."""
    limit: int | None = None


def _select(table: Table, query: Query) -> tuple[sql.Composed, list[Any]]:
    names = {column.name for column in table.columns}
    key = table.projection.key
    conditions: list[sql.Composable] = [sql.SQL("true")]
    parameters: list[Any] = []
    for column, operator, value in [
        *(Where(k, "=", v) for k, v in zip(key, query.key_prefix, strict=False)),
        *query.where,
    ]:
        if column not in names or operator not in get_args(Operator):
            raise ValueError(f"{table.projection.name} cannot be searched by {column} {operator}")
        conditions.append(sql.SQL("t.{} {} %b").format(sql.Identifier(column), sql.SQL(operator)))
        parameters.append(value)
    if query.after_key is not None:
        after = query.after_key
        columns = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(k)) for k in key[: len(after)])
        conditions.append(sql.SQL("({}) > ({})").format(columns, sql.SQL(", ").join([sql.SQL("%b")] * len(after))))
        parameters += after
    if any(column not in names for column in query.order_by):
        raise ValueError(f"{table.projection.name} cannot be ordered by {', '.join(query.order_by)}")
    order = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(k)) for k in (*query.order_by, *key))
    limit = sql.SQL("")
    if query.limit is not None:
        limit = sql.SQL(" LIMIT %b")
        parameters.append(query.limit)
    statement = sql.SQL("SELECT {} FROM {} AS t WHERE {} ORDER BY {}{}").format(
        _selected(table.columns), sql.Identifier(table.name), sql.SQL(" AND ").join(conditions), order, limit
    )
    return statement, parameters


# --- the registry -----------------------------------------------------------------------------------------------------


class Registered(NamedTuple):
    """What the registry says of a read model."""

    name: str
    version: int
    """Of the projection whose rows are in the table."""
    generation: int
    position: int
    """The checkpoint."""
    error_position: int | None
    """The event at which the fold failed."""
    error_stream: str | None
    error: str | None


_REGISTERED = "SELECT name, version, generation, position, error_position, error_stream, error FROM read_models"
_LOCK = _REGISTERED + " WHERE name = ANY(%b::text[]) ORDER BY name FOR NO KEY UPDATE"
_MOVE = (
    "UPDATE read_models SET position = %b, error_position = NULL, error_stream = NULL, error = NULL "
    "WHERE name = ANY(%b::text[])"
)
_REPORT = (
    "UPDATE read_models SET error_position = %b, error_stream = %b, error = %b "
    "WHERE name = %b AND generation = %b AND position = %b"
)
_REGISTER = (
    "INSERT INTO read_models (name, version, generation, position) VALUES (%b, %b, %b, %b) "
    "ON CONFLICT (name) DO UPDATE SET version = excluded.version, generation = excluded.generation, "
    "position = excluded.position, error_position = NULL, error_stream = NULL, error = NULL"
)


def registry(connection: Connection) -> dict[str, Registered]:
    """Every read model that has a table."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return {row[0]: Registered(*row) for row in cursor.execute(_REGISTERED, prepare=True)}


def lock(connection: Connection, names: Sequence[str]) -> dict[str, Registered]:
    """The same for some, and nobody else moves them until the transaction ends.

    Always the first lock a writer of read models takes, so that writers cannot wait for each other in a circle."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return {row[0]: Registered(*row) for row in cursor.execute(_LOCK, [list(names)], prepare=True)}


def move(connection: Connection, names: Sequence[str], position: int) -> None:
    """Sets the checkpoint of read models that were locked."""
    connection.execute(_MOVE, [position, list(names)], prepare=True)


def report(connection: Connection, at: Registered, position: int | None, stream: str | None, error: str) -> None:
    """Writes down that the fold of a read model failed (at an event), unless somebody else got past it."""
    connection.execute(_REPORT, [position, stream, error, at.name, at.generation, at.position])


def register(connection: Connection, projection: Projection, generation: int, position: int) -> None:
    """Makes a generation of a read model the live one."""
    connection.execute(_REGISTER, [projection.name, projection.version, generation, position])


def is_shaped_like(connection: Connection, table: "Table") -> bool:
    """Whether the table in the database has the columns that the projection has today."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier(table.name)))
        found = [(column.name, column.type_display) for column in cursor.description or ()]
    return found == [(column.name, _DISPLAYED[column.base_type]) for column in table.columns]


_DISPLAYED = {
    "text": "text", "bigint": "int8", "boolean": "bool", "timestamptz": "timestamptz", "date": "date", "json": "json",
}  # fmt: skip


def drop(connection: Connection, name: str) -> None:
    """Drops a table that is not live; waits for its readers two seconds at most, and nobody else waits for us."""
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout TO '2s'")
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))


def lock_rebuild(connection: Connection, schema: str) -> None:
    """Waits until no other session rebuilds read models of this ledger; held until the session ends."""
    _advisory(connection, "pg_advisory_lock", "rebuild", schema)


def unlock_rebuild(connection: Connection, schema: str) -> None:
    """The next one may rebuild."""
    _advisory(connection, "pg_advisory_unlock", "rebuild", schema)


def lock_parts(connection: Connection, schema: str) -> None:
    """Held by every process that works on a rebuild, until its session ends: it may outlive the rebuild."""
    _advisory(connection, "pg_advisory_lock_shared", "parts of a rebuild", schema)


def wait_for_parts(connection: Connection, schema: str) -> None:
    """Waits until no session works on an earlier rebuild any more."""
    _advisory(connection, "pg_advisory_lock", "parts of a rebuild", schema)
    _advisory(connection, "pg_advisory_unlock", "parts of a rebuild", schema)


def _advisory(connection: Connection, function: str, what: str, schema: str) -> None:
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout TO 0")
        call = sql.SQL("SELECT {}(hashtextextended(%b::text, 0))").format(sql.Identifier(function))
        connection.execute(call, [f"{what} {schema}"])


def retired(connection: Connection, names: Iterable[str], live: Mapping[str, Registered]) -> list[str]:
    """The tables of read models that are not live: left by a rebuild that was done, or that died."""
    patterns = [f"{name}\\_\\_%" for name in names]
    found = connection.cursor(row_factory=tuple_row).execute(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' "
        "AND relname LIKE ANY(%b::text[])",
        [patterns],
    )
    alive = {table_name(x.name, x.generation) for x in live.values()}
    return sorted(name for (name,) in found if name not in alive and name.rpartition("__")[2].isdigit())


# --- connections ------------------------------------------------------------------------------------------------------

# A crash of the server may take the last rows, and their checkpoint with them: then they are folded again.
_SETTINGS = """
    SET search_path TO {schema};
    SET timezone TO 'UTC';
    SET datestyle TO 'ISO';
    SET jit TO off;
    SET lock_timeout TO '30s';
    SET synchronous_commit TO off;
    SET idle_in_transaction_session_timeout TO 0
"""


def connect(url: str, schema: str) -> Connection:
    """A connection of its own, with autocommit, on the ledger in ``schema``."""
    connection: Connection = psycopg.connect(url, autocommit=True, connect_timeout=5)
    prepare_connection(connection, schema)
    return connection


def prepare_connection(connection: Connection, schema: str) -> None:
    """What every connection to the read models starts with."""
    connection.execute(sql.SQL(_SETTINGS).format(schema=sql.Identifier(schema)))


_BY_KEY = "SET enable_seqscan TO off; SET enable_hashjoin TO off; SET enable_mergejoin TO off"


def prefer_keys(connection: Connection) -> None:
    """Rows are found by key, whatever the planner still believes of a table that was empty a moment ago."""
    connection.execute(_BY_KEY)
