"""Questions that doors ask of a ledger: pages of read models, whose key it is, is it ready.

Everything in here waits for the database; an event loop asks it in a thread.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

import migrations
from api import asof
from api.asof import Moment
from api.keys import Holder
from ledger.store import Store
from projections import replay
from projections.projection import Key, Projection
from projections.reader import ReadModels, Where

OWNER_COLUMNS = ("merchant_id", "buyer_ref", "owner_role", "owner_id")
"""Columns that say whose a row is."""

_MOST = 2**63 - 1
_FIND_KEY = "SELECT actor, role FROM api_keys WHERE key_sha256 = %b AND revoked_at IS NULL"
_APPLIED = "SELECT name FROM migrations"


class NotYet(LookupError):
    """The log does not go as far as the position that was asked about."""


# --- pages of read models ---------------------------------------------------------------------------------------------


class Page(msgspec.Struct, frozen=True):
    """Some rows of a read model in key order, each as one line of JSON."""

    position: int
    """The position at which they are true."""
    rows: list[bytes]
    last_key: Key | None
    """Of the last row, if there are more behind it."""


def page(
    models: ReadModels,
    projection: Projection,
    *,
    key_prefix: Key = (),
    where: Sequence[Where] = (),
    after_key: Key | None = None,
    limit: int,
) -> Page:
    """At most ``limit`` rows as they are now.  ``NotBuilt`` if the read model has no table."""
    with models.snapshot(projection.name) as snapshot:
        rows = snapshot.rows(projection.name, key_prefix=key_prefix, where=where, after_key=after_key, limit=limit + 1)
        return _page(projection, rows, limit, snapshot.position)


def page_as_of(
    store: Store,
    projection: Projection,
    moment: Moment,
    *,
    where: Sequence[Where] = (),
    after_key: Key | None = None,
    limit: int,
) -> Page:
    """The same as it was, folded from the whole log."""
    position = position_of(store, moment)
    rows = (
        row
        for row in asof.rows(store, projection, moment)
        if _fits(row, where) and (after_key is None or projection.key_of(row) > after_key)
    )
    return _page(projection, rows, limit, position)


def row_as_of(store: Store, projection: Projection, key: Key, moment: Moment, where: Sequence[Where]) -> Page:
    """One row as it was, folded from its stream alone if it shows one stream."""
    position = position_of(store, moment)
    row = asof.row(store, projection, key, moment)
    return _page(projection, [row] if row is not None and _fits(row, where) else [], 1, position)


def position_of(store: Store, moment: Moment) -> int:
    """The position at which an answer about a moment is true: the one it names, else the present end of the log.

    ``NotYet`` if the log does not go that far."""
    head = store.head().position
    if moment.position is None:
        return head
    if moment.position > head:
        raise NotYet(f"The log ends at position {head}.")
    return moment.position


def _page(projection: Projection, rows: Iterable[Any], limit: int, position: int) -> Page:
    found = list(islice(rows, limit + 1))
    lines = [line[:-1] for line in replay.lines(projection, found[:limit])]
    return Page(position, lines, projection.key_of(found[limit - 1]) if len(found) > limit else None)


def _fits(row: Any, where: Sequence[Where]) -> bool:
    assert all(x.operator == "=" for x in where)
    return all(getattr(row, x.column) == x.value for x in where)


# --- text becomes values ----------------------------------------------------------------------------------------------


def searchable(projection: Projection) -> Mapping[str, Any]:
    """The columns by which a read model can be searched, with their types: its key's, the indexed ones, and those that
    say whose a row is."""
    wanted = {*projection.key, *(column for index in projection.indexes for column in index), *OWNER_COLUMNS}
    return {x.name: x.type for x in msgspec.structs.fields(projection.row) if x.name in wanted}


def value_of(kind: Any, text: str) -> Any:
    """A value of a column's type from text; ``ValueError`` if it is none."""
    if "\0" in text:
        raise ValueError("text must not hold the character NUL")
    if get_origin(kind) in (Union, UnionType):
        [kind] = [x for x in get_args(kind) if x is not type(None)]
    if kind is int:
        number = int(text)
        if not -_MOST <= number <= _MOST:
            raise ValueError("integers have 64 bits")
        return number
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError("true or false")
        return text == "true"
    if kind is date:
        return date.fromisoformat(text)
    return instant_of(text) if kind is datetime else text


def instant_of(text: str) -> datetime:
    """An instant from text, in UTC; ``ValueError`` if it is none, or one without a zone."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("an instant needs a zone, for example 2015-07-16T00:00:00+08:00")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the instant lies at the edge of the calendar") from error


def key_of_parts(projection: Projection, parts: Sequence[str]) -> Key:
    """A key from the texts of its parts; ``ValueError`` if they are none."""
    if len(parts) != len(projection.key):
        raise ValueError(f"a key of {projection.name} is {'/'.join(projection.key)}")
    types = {x.name: x.type for x in msgspec.structs.fields(projection.row)}
    return tuple(value_of(types[column], part) for column, part in zip(projection.key, parts, strict=True))


# --- the door's own questions -----------------------------------------------------------------------------------------


class DoorDatabase:
    """The few connections that the door needs for itself."""

    def __init__(self, url: str, schema: str, connections: int = 3) -> None:
        search_path = sql.SQL("SET search_path TO {}").format(sql.Identifier(schema))
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            url, min_size=0, max_size=connections, open=False, timeout=3.0, reconnect_timeout=1.0, name="door",
            kwargs={"autocommit": True, "connect_timeout": 5}, check=ConnectionPool.check_connection,
            configure=lambda connection: _configured(connection, search_path),
        )  # fmt: skip

    def open(self) -> None:
        """Connections are made when they are needed."""
        self._pool.open()

    def close(self) -> None:
        """Closes every connection."""
        self._pool.close()

    def holder(self, key_sha256: bytes) -> Holder | None:
        """Whom the key with this SHA-256 belongs to; ``None`` if nobody, or no longer."""
        for row in self._rows(_FIND_KEY, [key_sha256]):
            return Holder(*row)
        return None

    def missing_migrations(self) -> list[str]:
        """The migrations of this version that were not applied to the schema yet."""
        applied = {name for (name,) in self._rows(_APPLIED, [])}
        wanted = migrations.migrations(Path(migrations.__file__).parent)
        return [migration.name for migration in wanted if migration.name not in applied]

    def _rows(self, statement: str, parameters: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            yield from cursor.execute(statement, parameters, prepare=True).fetchall()


def _configured(connection: psycopg.Connection[Any], search_path: sql.Composed) -> None:
    connection.execute(search_path)
