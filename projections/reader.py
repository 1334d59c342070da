"""Read models as they are read: in one snapshot, with the position they stand at.

A snapshot looks the tables up in the registry it sees, so a rebuilt table takes the place of the old one between two
snapshots and never within one.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from ledger.log_library import SCHEMA
from projections import PROJECTIONS, replay, tables
from projections.projection import Key, Projection, Row
from projections.tables import Connection, Query, Registered, Table, Where

__all__ = ["NotBuilt", "Query", "ReadModels", "Snapshot", "Where"]


class NotBuilt(LookupError):
    """The read model has no table yet: nobody has built it since the schema was migrated."""


class Snapshot:
    """Some read models at one moment; usable while it is open, by one thread."""

    def __init__(
        self, connection: Connection, projections: Mapping[str, Projection], registered: Mapping[str, Registered]
    ) -> None:
        self.registered = dict(registered)
        """What the registry says of each."""
        self._connection = connection
        self._tables = {name: Table(projections[name], found.generation) for name, found in registered.items()}

    @property
    def position(self) -> int:
        """The position that all of them have reached."""
        return min((found.position for found in self.registered.values()), default=0)

    def stored(self, name: str, query: Query = Query()) -> Iterator[Row]:  # noqa: B008 - it is immutable
        """Stored rows, streamed, in the order of the query."""
        return self._tables[name].read(self._connection, query)

    def rows(
        self,
        name: str,
        *,
        key_prefix: Key = (),
        after_key: Key | None = None,
        where: Sequence[Where] = (),
        limit: int | None = None,
    ) -> Iterator[Any]:
        """Rows as they are shown, streamed, in key order.

        ``key_prefix``: only those whose key begins so; ``after_key``: only those behind a whole key, or its beginning;
        ``where``: conditions on shown columns; ``limit``: at most so many.  ``ValueError`` on an unknown column.
        """
        projection = self._tables[name].projection
        query = Query(key_prefix, after_key, where, (), limit)
        stored_query, is_whole = _pushed_down(projection, query)
        found = projection.read(self.stored(name, stored_query))
        return found if is_whole else _chosen(projection, found, query)

    def digest(self, name: str) -> str:
        """Hex SHA-256 of the whole read model as ``export --format jsonl`` writes it."""
        return replay.digest(self._tables[name].projection, self.rows(name))

    def lines(self, name: str) -> Iterator[bytes]:
        """The whole read model as ``export --format jsonl`` writes it."""
        return replay.lines(self._tables[name].projection, self.rows(name))


def _pushed_down(projection: Projection, query: Query) -> tuple[Query, bool]:
    """What the database can answer of a query, and whether that is all of it.

    A balance that is carried along a series needs the series from its beginning."""
    stored = set(projection.row.__struct_fields__)
    if projection.series is None:
        where = [x for x in query.where if x.column in stored]
        is_whole = len(where) == len(query.where)
        return query._replace(where=where, limit=query.limit if is_whole else None), is_whole
    series = projection.key[: projection.series]
    where = [x for x in query.where if x.column in series]
    if query.after_key is not None:
        where += _from_series(series, query.after_key)
    return Query(query.key_prefix[: projection.series], None, where), False


def _from_series(series: Sequence[str], after: Key) -> list[Where]:
    """The first column of a series is enough to leave out most of what lies before."""
    return [Where(series[0], ">=", after[0])]


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def _chosen(projection: Projection, rows: Iterable[Any], query: Query) -> Iterator[Any]:
    """The same query on rows as they are shown."""
    unknown = {x.column for x in query.where} - set(projection.columns)
    if unknown:
        raise ValueError(f"{projection.name} cannot be searched by {', '.join(sorted(unknown))}")
    return _search(projection, rows, query)


def _search(projection: Projection, rows: Iterable[Any], query: Query) -> Iterator[Any]:
    left = query.limit
    prefix, after = query.key_prefix, query.after_key
    for row in rows:
        if left == 0:
            return
        key = projection.key_of(row)
        if key[: len(prefix)] != prefix or (after is not None and key[: len(after)] <= after):
            continue
        if all(_holds(getattr(row, x.column), x) for x in query.where):
            left = None if left is None else left - 1
            yield row


def _holds(value: Any, condition: Where) -> bool:
    return value is not None and _COMPARE[condition.operator](value, condition.value)


class ReadModels:
    """The read models of a ledger, to be read by many."""

    def __init__(self, url: str, schema: str, projections: Mapping[str, Projection], connections: int) -> None:
        self.url, self.schema, self.projections = url, schema, dict(projections)
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url, min_size=0, max_size=connections, open=True, kwargs={"autocommit": True, "connect_timeout": 5},
            configure=lambda connection: tables.prepare_connection(connection, schema),
            check=ConnectionPool.check_connection, timeout=30.0, name="read-models",
        )  # fmt: skip
        self.progress = Progress(self._positions)

    @classmethod
    def open(
        cls,
        url: str,
        schema: str = SCHEMA,
        projections: Mapping[str, Projection] = PROJECTIONS,
        *,
        connections: int = 8,
    ) -> Self:
        """Opens the read models in ``schema`` of the database at ``url``, which was migrated before; at most so many
        ``connections`` at a time."""
        return cls(url, schema, projections, connections)

    def close(self) -> None:
        """Closes every connection."""
        self.progress.close()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self, *names: str) -> Iterator[Snapshot]:
        """Some read models, by default all, at one moment.  ``NotBuilt``, ``KeyError`` if there is none of the name."""
        chosen = {name: self.projections[name] for name in names or self.projections}
        with self._pool.connection() as connection:
            try:
                yield _look(connection, chosen)
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")

    def status(self) -> dict[str, Registered]:
        """What the registry says: versions, generations, checkpoints, errors.  What was never built is not there."""
        with self._pool.connection() as connection:
            return tables.registry(connection)

    def wait_for(self, position: int, timeout: float, *names: str) -> int:
        """The position that the read models (by default all) have reached: at least ``position``, or less if
        ``timeout`` seconds passed.  ``KeyError`` if there is none of a name."""
        return self.progress.wait(position, timeout, self._chosen(names))

    async def wait_for_async(self, position: int, timeout: float, *names: str) -> int:
        """The same for tasks; thousands may wait."""
        return await self.progress.wait_async(position, timeout, self._chosen(names))

    def _chosen(self, names: Sequence[str]) -> Sequence[str]:
        return [projection.name for projection in map(self.projections.__getitem__, names or self.projections)]

    def _positions(self) -> dict[str, int]:
        return {name: found.position for name, found in self.status().items()}


def _look(connection: Connection, projections: Mapping[str, Projection]) -> Snapshot:
    """Begins a transaction, and holds what is live in it."""
    for _ in range(_ATTEMPTS):
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        registered = tables.registry(connection)
        if missing := [name for name in projections if name not in registered]:
            raise NotBuilt(*missing)
        wanted = {name: registered[name] for name in projections}
        try:
            _hold(connection, wanted.values())
            return Snapshot(connection, projections, wanted)
        except psycopg.errors.UndefinedTable:
            # It was replaced and dropped between our two questions: the registry names another one by now.
            connection.execute("ROLLBACK")
    raise NotBuilt(*projections)


_ATTEMPTS = 20


def _hold(connection: Connection, found: Iterable[Registered]) -> None:
    """Nobody drops these tables until the transaction ends."""
    names = sql.SQL(", ").join(sql.Identifier(tables.table_name(x.name, x.generation)) for x in found)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))


class Progress:
    """How far read models have come, for those who wait to see what they wrote.

    A runner in this process says so at once; for runners elsewhere the registry is asked again and again, by one
    thread, as long as anybody waits."""

    def __init__(self, ask: Callable[[], Mapping[str, int]], pause_seconds: float = 0.01) -> None:
        self._ask, self._pause = ask, pause_seconds
        self._positions: dict[str, int] = {}
        self._changed = threading.Condition()
        self._waiting: dict[object, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def moved(self, positions: Mapping[str, int]) -> None:
        """Read models have come this far."""
        with self._changed:
            for name, position in positions.items():
                self._positions[name] = max(position, self._positions.get(name, 0))
            for wake in self._waiting.values():
                wake()

    def reached(self, names: Sequence[str]) -> int:
        """As far as is known here."""
        return min((self._positions.get(name, 0) for name in names), default=0)

    def wait(self, position: int, timeout: float, names: Sequence[str]) -> int:
        """As ``ReadModels.wait_for``."""
        if self.reached(names) >= position:
            return self.reached(names)
        woken = threading.Event()
        give_up_at = time.monotonic() + timeout
        with self._waiter(woken.set):
            while self.reached(names) < position and (left := give_up_at - time.monotonic()) > 0:
                woken.wait(left)
                woken.clear()
        return self.reached(names)

    async def wait_async(self, position: int, timeout: float, names: Sequence[str]) -> int:
        """As ``ReadModels.wait_for_async``."""
        if self.reached(names) >= position:
            return self.reached(names)
        woken, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(woken.set)

        give_up_at = time.monotonic() + timeout
        with self._waiter(wake):
            while self.reached(names) < position and (left := give_up_at - time.monotonic()) > 0:
                await _wait_for_event(woken, left)
                woken.clear()
        return self.reached(names)

    def close(self) -> None:
        """Stops asking."""
        self._is_closed = True
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def _waiter(self, wake: Callable[[], None]) -> Iterator[None]:
        me = object()
        with self._changed:
            self._waiting[me] = wake
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll, name="read-models-progress", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                del self._waiting[me]

    def _poll(self) -> None:
        """Asks while anybody waits."""
        while not self._is_closed:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting), 1.0)
                is_wanted = bool(self._waiting)
            if is_wanted:
                with suppress_database_errors():
                    self.moved(self._ask())
                time.sleep(self._pause)


@contextmanager
def suppress_database_errors() -> Iterator[None]:
    """Whoever waits has a timeout; the database may be back before that."""
    try:
        yield
    except psycopg.Error:
        time.sleep(0.2)


async def _wait_for_event(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
