"""The eventsourcing package as it comes: its default settings, its own PostgreSQL recorder."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from benchmarks import ground


class Rating(Aggregate):
    """An aggregate of one event, of about the size that the ledger's events have."""

    @event("Given")
    def __init__(self, order_id: str, merchant_id: str, rating_id: str, as_described: int) -> None:
        self.order_id, self.merchant_id = order_id, merchant_id
        self.rating_id, self.as_described = rating_id, as_described


class Ratings(Application[UUID]):
    """An application that saves ratings."""

    def rate(self, number: int) -> int:
        """Saves one; returns the position it got."""
        rating = Rating(
            order_id=f"o{number:08d}", merchant_id=f"m-{number % 1_000}", rating_id=f"r-{number}", as_described=5
        )
        [recording] = self.save(rating)
        return recording.notification.id


def environment(url: str) -> dict[str, str]:
    """The settings that the package cannot do without."""
    parts = urlsplit(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.removeprefix("/"),
        "POSTGRES_HOST": parts.hostname or "",
        "POSTGRES_PORT": str(parts.port or 5432),
        "POSTGRES_USER": unquote(parts.username or ""),
        "POSTGRES_PASSWORD": unquote(parts.password or ""),
    }


@contextmanager
def application() -> Iterator[Ratings]:
    """The application in a database of its own, beside the ledger's on the same server."""
    with ground.database("library") as url:
        ratings = Ratings(environment(url))
        try:
            yield ratings
        finally:
            ratings.close()


def saves_a_second(ratings: Ratings, threads: int, seconds: float) -> float:
    """How many one-event aggregates so many threads save in a second."""
    end = time.monotonic() + seconds
    counts = [0] * threads

    def save(thread: int) -> None:
        while time.monotonic() < end:
            ratings.rate(counts[thread])
            counts[thread] += 1

    begun = time.monotonic()
    running = [threading.Thread(target=save, args=[thread]) for thread in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    return sum(counts) / (time.monotonic() - begun)


# --- its read model ---------------------------------------------------------------------------------------------------


class CountsView(PostgresTrackingRecorder):
    """Ratings by merchant, kept as the package's documentation keeps its counters: event by event, each in one
    transaction with its position."""

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        table = Identifier(datastore.schema, f"{self.tracking_table_name}_counts")
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS {} (merchant_id text PRIMARY KEY, ratings bigint)").format(table)
        )
        self._count = SQL(
            "INSERT INTO {0} AS counts VALUES (%s, 1) "
            "ON CONFLICT (merchant_id) DO UPDATE SET ratings = counts.ratings + 1"
        ).format(table)

    def count(self, merchant_id: str, tracking: Tracking) -> None:
        """One more."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._count, [merchant_id], prepare=True)


class Counts(Projection[CountsView]):
    """Counts the ratings of each merchant."""

    name = "counts"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Whatever is rated is counted."""
        self.view.count(domain_event.merchant_id, tracking)


Running = ProjectionRunner[Ratings, CountsView]


@contextmanager
def running() -> Iterator[Running]:
    """The application with its projection running beside it, in a database of its own."""
    with (
        ground.database("library") as url,
        ProjectionRunner(
            application_class=Ratings, projection_class=Counts, view_class=CountsView, env=environment(url)
        ) as runner,
    ):
        yield runner
