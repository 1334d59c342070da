"""Read models kept up to date: the next events are folded, their rows written and the checkpoint moved, in one
transaction.

Any number of runners may work at the same time, and none is needed for correctness: whoever comes second finds the
checkpoint moved, and goes on from there.  A fold that raises stops its own read model at that event, and no other.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import psycopg
import structlog

from ledger.events import Recorded
from ledger.log_library import SCHEMA
from ledger.log_writer import is_passing
from ledger.store import Store
from projections import PROJECTIONS, tables
from projections.projection import Projection
from projections.reader import ReadModels
from projections.rebuild import Progress, Rebuilt, outdated, rebuild
from projections.replay import Batch, Change
from projections.stories import Stories
from projections.tables import Connection, Registered, Table

log = structlog.get_logger("projections")

BATCH = 2_000
"""Events a transaction, unless told otherwise."""


class Projector:
    """Folds the log of one ledger into its read models.  One thread at a time runs it; any may read and wait."""

    def __init__(
        self, url: str, schema: str, store: Store, projections: Mapping[str, Projection], *, stories: int
    ) -> None:
        self.url, self.schema, self.store, self.projections = url, schema, store, dict(projections)
        self.models = ReadModels.open(url, schema, projections)
        self._stories = Stories(store.load_streams, stories)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._limits: dict[str, int] = {}
        self._stopped: dict[str, Registered] = {}
        self._unbuildable: set[str] = set()

    @classmethod
    def open(
        cls,
        url: str,
        schema: str = SCHEMA,
        store: Store | None = None,
        projections: Mapping[str, Projection] = PROJECTIONS,
        *,
        stories: int = 10_000,
    ) -> Self:
        """Opens the read models in ``schema`` of the database at ``url``, which was migrated before.

        ``store``: the ledger's log.  ``stories``: how many streams are remembered, so that their next event is folded
        without reading those before it again."""
        assert store is not None
        return cls(url, schema, store, projections, stories=stories)

    def close(self) -> None:
        """Closes every connection but the store's."""
        with self._lock:
            self._drop_connection()
        self.models.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- running --------------------------------------------------------------------------------------------------

    def run_once(self, limit: int = BATCH, *, upto: int | None = None) -> int:
        """Folds at most ``limit`` of the next events into the read models; those that stand at the same position
        share the work.

        Returns the position that every read model has reached which is built and did not fail; 0 if there is none.
        """
        return self._run(limit, upto) or 0

    def _run(self, limit: int, upto: int | None) -> int | None:
        """The same, with ``None`` if no read model is running."""
        with self._lock:
            running = self._running()
            if running:
                self._step(running, limit, upto)
                running = self._running()
            return min((found.position for found in running.values()), default=None)

    def catch_up(self, to: int | None = None) -> int:
        """Folds up to a position, by default the present end of the log; builds what is missing first.

        Returns the position that every read model has reached which did not fail, as ``run_once``."""
        self.build()
        head = self.store.head().position
        return self._catch_up(head if to is None else min(to, head))

    def _catch_up(self, to: int) -> int:
        while True:
            position = self._run(BATCH, to)
            if position is None or position >= to:
                return position or 0

    def build(self) -> list[Rebuilt]:
        """Builds every read model that has no table, or one of an earlier version of its projection.

        One whose fold fails is not tried again here; a first one begins with no rows at position 0, so that it is
        followed up to the event that stops it."""
        missing = {
            name: projection
            for name, projection in outdated(self.models.status(), self.projections).items()
            if name not in self._unbuildable
        }
        if not missing:
            return []
        built = rebuild(self.url, self.schema, self.store, missing, only_outdated=True)
        self._unbuildable |= {x.name for x in built if x.outcome == "failed"}
        return built

    def rebuild(
        self, names: Iterable[str] | None = None, *, processes: int = 1, progress: Progress = lambda done, total: None
    ) -> list[Rebuilt]:
        """Folds read models, by default all, again from the first event, compares and swaps: see ``rebuild.py``.

        ``processes``: how many share the work; ``progress(done, total)`` is told how many events are folded.
        ``KeyError`` if there is none of a name."""
        wanted = {name: self.projections[name] for name in (self.projections if names is None else names)}
        return rebuild(self.url, self.schema, self.store, wanted, processes=processes, progress=progress)

    def follow(self, stop: threading.Event) -> None:
        """Folds whatever comes, until ``stop`` is set; survives a database that goes away and comes back."""
        pause = _FIRST_PAUSE_SECONDS
        with self.store.listen() as tail:
            while not stop.is_set():
                try:
                    self.build()
                    while not stop.is_set():
                        head = self.store.head().position
                        self._catch_up(head)
                        pause = _FIRST_PAUSE_SECONDS
                        tail.wait(head, _POLL_SECONDS)
                except Exception as error:
                    if not _is_passing(error):
                        raise
                    log.warning("projector_paused", error=str(error), seconds=pause)
                    stop.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _running(self) -> dict[str, Registered]:
        """The read models whose table is of our version and whose fold did not fail here."""
        registered = tables.registry(self._connected())
        for name, stopped in list(self._stopped.items()):
            found = registered.get(name)
            if found is None or (found.generation, found.position) != (stopped.generation, stopped.position):
                del self._stopped[name]
        return {
            name: registered[name]
            for name, projection in self.projections.items()
            if name in registered and registered[name].version == projection.version and name not in self._stopped
        }

    def _step(self, running: Mapping[str, Registered], limit: int, upto: int | None) -> None:
        """One batch for each group of read models that stand together; those in front first, so that one that has
        much to catch up with keeps no other waiting.  It stops where the next ones stand, to go on with them."""
        groups: dict[tuple[int, int], dict[str, Registered]] = {}
        for found in running.values():
            place = (found.position, min(limit, self._limits.get(found.name, limit)))
            groups.setdefault(place, {})[found.name] = found
        for (position, most), group in sorted(groups.items(), key=lambda item: item[0], reverse=True):
            if upto is not None and position >= upto:
                continue
            ends = [ahead for ahead, _ in groups if ahead > position]
            events = self.store.read(position, most, min(ends if upto is None else [*ends, upto], default=None))
            if events:
                self._advance(group, events)

    def _advance(self, group: Mapping[str, Registered], events: Sequence[Recorded]) -> None:
        """Folds a batch and writes what it changes; who fails is left behind, and tries again with fewer events."""
        batch = Batch(events, [self.projections[name] for name in group], self._stories.before)
        failures, position = dict(batch.failures), events[-1].position
        while changes := {name: change for name, change in batch.changes.items() if name not in failures}:
            try:
                is_first = self._write(group, changes, position)
                break
            except _Unwritable as unwritable:
                failures[unwritable.name] = unwritable.error
        # Whoever wrote it: a story is what its version says.
        self._stories.keep(batch.stories.values())
        if changes and not is_first:
            return
        for name in changes:
            self._go_faster(name)
        for name, error in failures.items():
            self._slow_down(group[name], events, error)

    def _write(self, group: Mapping[str, Registered], changes: Mapping[str, Change], position: int) -> bool:
        """Writes what a batch changes; whether nobody else had moved the checkpoint before."""
        connection = self._connected()
        with connection.transaction():
            found = tables.lock(connection, list(changes))
            if any(name not in found or not _is_same(found[name], group[name]) for name in changes):
                return False
            for name, change in changes.items():
                _apply(connection, Table(change.projection, group[name].generation), change)
            tables.move(connection, list(changes), position)
        self.models.progress.moved(dict.fromkeys(changes, position))
        return True

    def _go_faster(self, name: str) -> None:
        if name in self._limits:
            self._limits[name] *= _SLOWER
            if self._limits[name] >= BATCH:
                del self._limits[name]

    def _slow_down(self, at: Registered, events: Sequence[Recorded], error: Exception) -> None:
        """Closes in on the event at which a fold fails, and stops there."""
        if len(events) > 1:
            self._limits[at.name] = max(1, len(events) // _SLOWER)
            return
        self._limits.pop(at.name, None)
        self._stopped[at.name] = at
        event, message = events[0], f"{type(error).__name__}: {error}"
        tables.report(self._connected(), at, event.position, event.stream, message)
        log.error(
            "projection_stopped", read_model=at.name, position=event.position, stream=event.stream, error=message,
            exc_info=error,
        )  # fmt: skip

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = tables.connect(self.url, self.schema)
            tables.prefer_keys(self._connection)
        return self._connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_SLOWER = 8
_POLL_SECONDS = 0.5
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0


class _Unwritable(Exception):
    """The rows of a read model cannot be stored as they are."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name)
        self.name, self.error = name, error


def _apply(connection: Connection, table: Table, change: Change) -> None:
    try:
        table.apply(connection, change)
    except Exception as error:
        if _is_passing(error):
            raise
        raise _Unwritable(table.projection.name, error) from error


def _is_same(found: Registered, expected: Registered) -> bool:
    return (found.version, found.generation, found.position) == (
        expected.version, expected.generation, expected.position,
    )  # fmt: skip


def _is_passing(error: BaseException) -> bool:
    """Whether the same may succeed a little later; the store's errors come with their cause."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    return isinstance(cause, psycopg.Error) and is_passing(cause)
