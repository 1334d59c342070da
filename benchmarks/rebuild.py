"""A full rebuild of all read models, against the least it could take and against the package's own runner.

In every round, on the same log: COPY of the events' data to the client, which is the floor; the rebuild by one process
and by two; and the eventsourcing package's ProjectionRunner on the first events, once as it keeps all the same read
models, and once as it only counts events by merchant, which is the least it can do.  It commits after every event.

    python -m benchmarks.rebuild [--events 1000000] [--rounds 3]
"""

import argparse
import time
from typing import Any

import psycopg
from eventsourcing.application import Application
from eventsourcing.persistence import Mapper, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg import sql

from api.wiring import Ledger
from benchmarks import ground
from benchmarks.ground import Figure
from benchmarks.library import CountsView, environment
from benchmarks.orders_log import BEGINNING, fill
from ledger.events import Recorded
from ledger.log_library import LedgerMapper
from ledger.streams import WIRE
from projections import PROJECTIONS
from projections.replay import Batch
from projections.stories import Stories
from projections.tables import Table

FIRST = 20_000
"""Events that the package's runner is timed on while it counts."""
FIRST_OF_MODELS = 4_000
"""And while it keeps all read models, which takes ten times as long for each."""


def main() -> None:
    """Measures, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with ground.ledger(recorded_from=BEGINNING) as ledger:
        figures = measure(ledger, chosen.events, chosen.rounds)
    ground.show(f"Rebuild of all read models from {chosen.events:,} events", figures)


def measure(ledger: Ledger, events: int, rounds: int) -> list[Figure]:
    """Fills the ledger, and measures so many times."""
    ground.note(f"{events:,} events are made and appended")
    fill(ledger.store, events)
    ledger.projector.build()
    rates: dict[str, list[float]] = {"copy": [], "models": [], "counts": [], "one": [], "two": []}
    for number in range(rounds):
        ground.note(f"round {number + 1} of {rounds}")
        rates["models"].append(library_events_a_second(ledger, FIRST_OF_MODELS, Models, ModelsView))
        rates["counts"].append(library_events_a_second(ledger, FIRST, Counts, CountsView))
        rates["copy"].append(copied_events_a_second(ledger))
        rates["one"].append(rebuilt_events_a_second(ledger, 1))
        rates["two"].append(rebuilt_events_a_second(ledger, 2))
    return figures(rates)


def figures(rates: dict[str, list[float]]) -> list[Figure]:
    """What is told of the rates."""
    seconds = {name: [1_000_000 / rate for rate in found] for name, found in rates.items()}
    floor = "8 COPYs at most: 0.12"
    return [
        Figure("COPY (SELECT data) TO STDOUT", rates["copy"], "events/s"),
        Figure(f"library's runner, all read models, first {FIRST_OF_MODELS:,}", rates["models"], "events/s"),
        Figure(f"library's runner, counting, first {FIRST:,}", rates["counts"], "events/s"),
        Figure("rebuild, 1 process, against COPY", seconds["one"], "s/M", seconds["copy"], True),
        Figure("rebuild, 2 processes, against COPY", seconds["two"], "s/M", seconds["copy"], True, floor),
        Figure("rebuild, 1 process, against the same by the library", rates["one"], "events/s", rates["models"]),
        Figure(
            "rebuild, 2 processes, against the same by the library",
            rates["two"],
            "events/s",
            rates["models"],
            False,
            "150",
        ),
        Figure("rebuild, 2 processes, against its counting", rates["two"], "events/s", rates["counts"]),
    ]


def rebuilt_events_a_second(ledger: Ledger, processes: int) -> float:
    """A whole rebuild: folded, written, indexed, compared row by row with the live tables, swapped."""
    begun = time.monotonic()
    results = ledger.projector.rebuild(processes=processes)
    seconds = time.monotonic() - begun
    if any(result.outcome != "same" for result in results):
        raise AssertionError(f"not the same: {results}")
    return ledger.store.head().position / seconds


def copied_events_a_second(ledger: Ledger) -> float:
    """The events' data alone, thrown away as they arrive."""
    data = sql.SQL("COPY (SELECT state FROM {}) TO STDOUT").format(sql.Identifier(ledger.schema, "ledger_events"))
    with psycopg.connect(ledger.url) as connection, connection.cursor() as cursor:
        begun = time.monotonic()
        with cursor.copy(data) as copy:
            rows = sum(1 for _ in copy)
        return rows / (time.monotonic() - begun)


# --- the package's way ------------------------------------------------------------------------------------------------


class Orders(Application[str]):
    """The ledger's log as the package reads it."""

    name = "ledger"

    def construct_mapper(self) -> Mapper[str]:
        """Between what is stored and events."""
        return LedgerMapper(WIRE)


class Counts(Projection[CountsView]):
    """Counts the events of each merchant, one transaction each."""

    name = "counts"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Whatever happened to an order is counted."""
        self.view.count(domain_event.data.merchant_id, tracking)


class ModelsView(PostgresTrackingRecorder):
    """All read models, by the same folds, kept as the package keeps one: each event in one transaction with its
    position."""

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self._tables = {name: Table(projection, 1) for name, projection in PROJECTIONS.items()}
        self._stories = Stories(lambda streams: {stream: [] for stream in streams}, FIRST)
        with datastore.transaction(commit=True) as cursor:
            for table in self._tables.values():
                table.create(cursor.connection)
                table.finish(cursor.connection)

    def fold(self, event: Recorded, tracking: Tracking) -> None:
        """What it changes."""
        batch = Batch([event], PROJECTIONS.values(), self._stories.before)
        if batch.failures:
            raise AssertionError(f"cannot be folded: {batch.failures}")
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            for name, change in batch.changes.items():
                self._tables[name].apply(cursor.connection, change)
        self._stories.keep(batch.stories.values())


class Models(Projection[ModelsView]):
    """Every read model.  The package hands over no instants, so they are all the same: months come out wrong, the work
    does not."""

    name = "models"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Folds it."""
        x, at = domain_event, BEGINNING
        event = Recorded(tracking.notification_id, x.originator_id, x.originator_version, at, at, at, x.data)
        self.view.fold(event, tracking)


def library_events_a_second(ledger: Ledger, first: int, projection: Any, view: Any) -> float:
    """Its runner on the first events, from an empty view."""
    with ground.database("view") as url:
        with psycopg.connect(url, autocommit=True) as connection:  # rows are found by key, as in our own connections
            connection.execute("ALTER DATABASE guarantee_benchmark_view SET enable_seqscan TO off")
        settings = {f"{projection.name.upper()}_{name}": value for name, value in environment(url).items()}
        settings |= {"PERSISTENCE_MODULE": "ledger.log_library:LedgerFactory", "GUARANTEE_DATABASE_URL": ledger.url}
        begun = time.monotonic()
        with ProjectionRunner(
            application_class=Orders, projection_class=projection, view_class=view, env=settings
        ) as runner:
            while not reached(runner, first):
                time.sleep(0.05)
            seconds = time.monotonic() - begun
    return first / seconds


def reached(runner: Any, position: int) -> bool:
    """Whether its view has come so far."""
    last: int | None = runner.projection.view.max_tracking_id(Orders.name)
    return last is not None and last >= position


if __name__ == "__main__":
    main()
