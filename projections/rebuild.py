"""Read models folded again from the first event, beside the live tables, compared with them, and put in their place.

The live rows and their checkpoint P are read in one snapshot, and the log is folded to exactly P into a table of the
next generation.  If the projection is the same version, every row must be the same.  Then the new table catches up
with the live one, and one UPDATE of the registry makes it the live one: no reader ever finds less than before.
"""

import gc
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from multiprocessing.connection import Connection as Pipe
from typing import Literal, NamedTuple

import msgspec
import psycopg
import structlog

from ledger.log_writer import is_passing
from ledger.store import Store
from ledger.streams import WIRE
from projections import tables
from projections.projection import Key, Projection, Row
from projections.replay import Batch, FoldFailed, Singles, Telling
from projections.stories import Stories
from projections.sums import Sums
from projections.tables import Connection, Query, Registered, Table

log = structlog.get_logger("projections")

Progress = Callable[[int, int], None]
"""Told how many events of how many are folded."""

Outcome = Literal["built", "same", "changed", "different", "failed"]
"""*built*: there was none before.  *same*: every row was the same; the new table is live.  *changed*: the projection
has another version; the new table is live.  *different*: rows differ although the version is the same; the live table
stays.  *failed*: the fold raised; the live table, if any, stays."""


class Difference(msgspec.Struct, frozen=True):
    """A row that is not the same live and rebuilt; ``None``: there is no such row."""

    key: Key
    live: Row | None
    rebuilt: Row | None


class Rebuilt(msgspec.Struct, frozen=True):
    """What came of the rebuild of one read model."""

    name: str
    outcome: Outcome
    position: int
    """Up to which the log was folded, and at which the rows were compared."""
    rows: int
    differences: int = 0
    first: Difference | None = None
    """The first row, in key order, that differs."""
    error: str | None = None

    @property
    def is_live(self) -> bool:
        """The new table has taken the place of the old one."""
        return self.outcome in ("built", "same", "changed")


class Part(NamedTuple):
    """What one process folds: every ``parts``-th part of the streams, to a position."""

    url: str
    schema: str
    projections: Mapping[str, Projection]
    generations: Mapping[str, int]
    upto: int
    part: int
    parts: int
    chunk: int


def rebuild(
    url: str,
    schema: str,
    store: Store,
    projections: Mapping[str, Projection],
    *,
    processes: int = 1,
    progress: Progress = lambda done, total: None,
    chunk: int = 20_000,
    only_outdated: bool = False,
) -> list[Rebuilt]:
    """Rebuilds these read models, in one pass over the log for all that are live at the same position.

    Meanwhile the live ones are read and run on.  One rebuild at a time: a second one waits.  ``processes``: how many
    share the work.  ``chunk``: events read at a time.  ``only_outdated``: leaves out those that somebody else has built
    by the time it is our turn."""
    with tables.connect(url, schema) as connection, _alone(connection, schema):
        if only_outdated:
            projections = outdated(tables.registry(connection), projections)
        return _Rebuild(url, schema, store, connection, processes, progress, chunk).run(projections)


def outdated(registered: Mapping[str, Registered], projections: Mapping[str, Projection]) -> dict[str, Projection]:
    """Those that have no table, or one of an earlier version of the projection."""
    return {
        name: projection
        for name, projection in projections.items()
        if name not in registered or registered[name].version < projection.version
    }


class _Rebuild:
    """One call of ``rebuild``, holding the lock."""

    def __init__(
        self,
        url: str,
        schema: str,
        store: Store,
        connection: Connection,
        processes: int,
        progress: Progress,
        chunk: int,
    ) -> None:
        self.url, self.schema, self.store = url, schema, store
        self.connection, self.processes, self.progress, self.chunk = connection, processes, progress, chunk

    def run(self, projections: Mapping[str, Projection]) -> list[Rebuilt]:
        """Pass by pass; in the order of ``projections``."""
        with tables.connect(self.url, self.schema) as live:
            live.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            registered = tables.registry(live)
            done: dict[str, Rebuilt] = {}
            for position, names in self._passes(registered, projections).items():
                done |= self._pass(live, registered, {name: projections[name] for name in names}, position)
            live.execute("ROLLBACK")
        for name, rebuilt in done.items():
            if rebuilt.outcome == "failed":
                self._leave_failed(projections[name], registered.get(name), rebuilt)
        self._drop_retired(projections)
        return [done[name] for name in projections]

    def _leave_failed(self, projection: Projection, found: Registered | None, rebuilt: Rebuilt) -> None:
        """What is live says why it was not replaced; what is not begins empty, to be followed up to the failure."""
        if found is not None:
            tables.report(self.connection, found, None, None, rebuilt.error or "")
            return
        table = Table(projection, 1)
        table.create(self.connection)
        table.finish(self.connection)
        tables.register(self.connection, projection, 1, 0)

    def _passes(
        self, registered: Mapping[str, Registered], projections: Mapping[str, Projection]
    ) -> dict[int, list[str]]:
        """Position -> the read models to be folded to exactly there; those without a live table join the others."""
        found: dict[int, list[str]] = {}
        for name in projections:
            if name in registered:
                found.setdefault(registered[name].position, []).append(name)
        new = [name for name in projections if name not in registered]
        if new:
            found.setdefault(max(found) if found else self.store.head().position, []).extend(new)
        return found

    def _pass(
        self, live: Connection, registered: Mapping[str, Registered], wanted: dict[str, Projection], position: int
    ) -> dict[str, Rebuilt]:
        generations = {n: registered[n].generation + 1 if n in registered else 1 for n in wanted}
        done: dict[str, Rebuilt] = {}
        counts = self._fold(wanted, generations, position, done)
        ready: dict[str, Rebuilt] = {}
        for name, rows in counts.items():
            table = Table(wanted[name], generations[name])
            found = registered.get(name)
            rebuilt = Rebuilt(name, "built", position, rows)
            if found is not None:
                rebuilt = self._compared(live, found, table, rebuilt)
            (done if rebuilt.outcome == "different" else ready)[name] = rebuilt
        return done | self._swap(ready, wanted, generations, position)

    # --- folding --------------------------------------------------------------------------------------------------

    def _fold(
        self, wanted: dict[str, Projection], generations: dict[str, int], position: int, done: dict[str, Rebuilt]
    ) -> dict[str, int]:
        """Makes and fills the new tables; those whose fold raises are set aside, and the others folded without them."""
        while left := {name: p for name, p in wanted.items() if name not in done}:
            for name, projection in left.items():
                Table(projection, generations[name]).create(self.connection)
            part = Part(self.url, self.schema, left, generations, position, 0, self.processes, self.chunk)
            try:
                return self._fold_parts(part)
            except FoldFailed as failed:
                for name in failed.names:
                    done[name] = Rebuilt(name, "failed", position, 0, error=str(failed))
                log.error("rebuild_failed", read_models=failed.names, stream=failed.stream, version=failed.version,
                          error=failed.message)  # fmt: skip
        return {}

    def _fold_parts(self, part: Part) -> dict[str, int]:
        """Folds the parts, all but the first in other processes; adds up what they say; rows by table."""
        with ExitStack() as children, _without_gc():
            others = [children.enter_context(_Child(part._replace(part=number))) for number in range(1, part.parts)]
            folded = fold_part(part, self.store, lambda position: self.progress(position, part.upto))
            for other in others:
                folded.merge(other.result())
            self.progress(part.upto, part.upto)
            return folded.written | self._write_sums(part, folded.sums)

    def _write_sums(self, part: Part, folded: Mapping[str, Sums]) -> dict[str, int]:
        counts = {}
        for name, projection in part.projections.items():
            table = Table(projection, part.generations[name])
            with _storing(name):
                if projection.is_sum:
                    rows = folded[name].rows()
                    table.copy_in(self.connection, rows.values())
                    counts[name] = len(rows)
                table.finish(self.connection)
        return counts

    # --- comparing ------------------------------------------------------------------------------------------------

    def _compared(self, live: Connection, found: Registered, table: Table, rebuilt: Rebuilt) -> Rebuilt:
        old = Table(table.projection, found.generation)
        is_same_version = found.version == table.projection.version
        if not is_same_version:
            rebuilt = msgspec.structs.replace(rebuilt, outcome="changed")
            if not tables.is_shaped_like(live, old):
                return msgspec.structs.replace(rebuilt, differences=rebuilt.rows)
        if _is_equal(old.raw(live), table.raw(self.connection)):
            return rebuilt if rebuilt.outcome == "changed" else msgspec.structs.replace(rebuilt, outcome="same")
        with self.connection.transaction():
            differences, first = _compared(old.read(live, Query()), table.read(self.connection, Query()), table)
        if is_same_version:
            log.error("rebuild_differs", read_model=rebuilt.name, differences=differences, key=first and first.key)
            rebuilt = msgspec.structs.replace(rebuilt, outcome="different")
        return msgspec.structs.replace(rebuilt, differences=differences, first=first)

    # --- swapping -------------------------------------------------------------------------------------------------

    def _swap(
        self,
        ready: Mapping[str, Rebuilt],
        wanted: Mapping[str, Projection],
        generations: Mapping[str, int],
        position: int,
    ) -> dict[str, Rebuilt]:
        """Lets the new tables catch up with the live ones, and puts them in their place."""
        stories = Stories(self.store.load_streams, _STORIES)
        done = {}
        for name, rebuilt in ready.items():
            try:
                self._swap_one(Table(wanted[name], generations[name]), position, stories)
                done[name] = rebuilt
            except FoldFailed as failed:
                done[name] = msgspec.structs.replace(rebuilt, outcome="failed", error=str(failed))
        return done

    def _swap_one(self, table: Table, position: int, stories: Stories) -> None:
        name = table.projection.name
        while True:
            with self.connection.transaction():
                found = tables.lock(self.connection, [name]).get(name)
                goal = found.position if found else self.store.head().position
                if goal - position <= _LAST_STEP:
                    # Only now, with the runners waiting: the rest is short.
                    self._catch_up(table, position, goal, stories)
                    tables.register(self.connection, table.projection, table.generation, goal)
                    return
            position = self._catch_up(table, position, goal, stories)

    def _catch_up(self, table: Table, position: int, goal: int, stories: Stories) -> int:
        while position < goal:
            events = self.store.read(position, _STEP, goal)
            batch = Batch(events, [table.projection], stories.before)
            for error in batch.failures.values():
                last = events[-1]
                raise FoldFailed([table.projection.name], last.stream, last.version, repr(error)) from error
            with self.connection.transaction():
                table.apply(self.connection, batch.changes[table.projection.name])
            stories.keep(batch.stories.values())
            position = events[-1].position
        return position

    def _drop_retired(self, names: Iterable[str]) -> None:
        """Drops what is not live; a table that is being read longer than we care to wait is left to the next time."""
        for name in tables.retired(self.connection, names, tables.registry(self.connection)):
            try:
                tables.drop(self.connection, name)
            except psycopg.errors.LockNotAvailable:
                log.info("retired_table_kept", table=name)


_STORIES = 10_000
_STEP = 5_000
_LAST_STEP = 1_000


def _is_equal(live: Iterator[bytes], rebuilt: Iterator[bytes]) -> bool:
    """Both are read to their ends: a COPY that is broken off would break off the transaction of the live rows."""
    differences = [1 for a, b in zip_longest(live, rebuilt) if a != b]
    return not differences


def _compared(live: Iterator[Row], rebuilt: Iterator[Row], table: Table) -> tuple[int, Difference | None]:
    """How many rows differ, and the first one; both in key order."""
    key_of = table.projection.key_of
    differences, first = 0, None
    mine, other = next(live, None), next(rebuilt, None)
    while mine is not None or other is not None:
        key = min(key_of(row) for row in (mine, other) if row is not None)
        a = mine if mine is not None and key_of(mine) == key else None
        b = other if other is not None and key_of(other) == key else None
        if a != b:
            differences += 1
            first = first or Difference(key, a, b)
        mine, other = (next(live, None) if a else mine), (next(rebuilt, None) if b else other)
    return differences, first


# --- one process's part -----------------------------------------------------------------------------------------------


class Folded(NamedTuple):
    """What one process folded: rows still to be added up with those of others, and how many were written."""

    sums: dict[str, Sums]
    written: dict[str, int]

    def merge(self, other: "Folded") -> None:
        """Adds what another process folded."""
        for name, sums in other.sums.items():
            self.sums[name].merge(sums)
        for name, count in other.written.items():
            self.written[name] += count


def fold_part(part: Part, store: Store, progress: Callable[[int], None]) -> Folded:
    """Folds a part of the streams to their ends.  Rows that belong to one stream go to the tables on the way."""
    partition = None if part.parts == 1 else (part.part, part.parts)
    telling = Telling(part.projections, store.versions(partition=partition))
    singles = {name: x for name, x in telling.collected.items() if isinstance(x, Singles)}
    written = dict.fromkeys(singles, 0)

    def write(at_least: int) -> None:
        for name, rows in singles.items():
            if len(rows) >= at_least:
                written[name] += len(rows)
                with _storing(name):
                    Table(part.projections[name], part.generations[name]).copy_in(connection, rows.take())

    with tables.connect(part.url, part.schema) as connection:
        tables.lock_parts(connection, part.schema)
        _check_parent()
        for chunk in store.scan(upto=part.upto, chunk=part.chunk, partition=partition):
            telling.tell(chunk)
            write(_ROWS_AT_A_TIME)
            if chunk:
                progress(chunk[-1].position)
            _check_parent()
        telling.finish()  # streams that went on after this position
        write(1)
    return Folded({name: x for name, x in telling.collected.items() if isinstance(x, Sums)}, written)


_ROWS_AT_A_TIME = 5_000


@contextmanager
def _storing(name: str) -> Iterator[None]:
    """Rows that the database does not take concern their own read model only."""
    try:
        yield
    except Exception as error:
        if isinstance(error, psycopg.Error) and is_passing(error):
            raise
        raise FoldFailed([name], None, None, repr(error)) from error


def _check_parent() -> None:
    """A part whose rebuild was killed must not write: the next one makes tables of the same names."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise RuntimeError("the rebuild that this part belongs to is gone")


class _Child:
    """Another process that folds a part."""

    def __init__(self, part: Part) -> None:
        # Not forked: threads and connections of this process would not survive it.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_fold_in_child, args=(part, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def result(self) -> Folded:
        """What ``fold_part`` returned there; raises what it raised."""
        try:
            kind, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a process of the rebuild died") from None
        if kind == "error":
            raise answer
        return answer  # type: ignore[no-any-return]


def _fold_in_child(part: Part, pipe: Pipe) -> None:
    try:
        with Store.open(part.url, part.schema, wire=WIRE) as store, _without_gc():
            folded = fold_part(part, store, lambda position: None)
        pipe.send(("done", folded))
    except FoldFailed as failed:
        pipe.send(("error", failed))
    except Exception as error:
        pipe.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))


@contextmanager
def _without_gc() -> Iterator[None]:
    """States and rows make no cycles; looking for some among millions of them would cost a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _alone(connection: Connection, schema: str) -> Iterator[None]:
    """Waits for another rebuild of the same ledger; the lock is gone when the process is."""
    tables.lock_rebuild(connection, schema)
    try:
        tables.wait_for_parts(connection, schema)
        yield
    finally:
        tables.unlock_rebuild(connection, schema)
