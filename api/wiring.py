"""A ledger opened: its database found, its log, read models and doors put together.  Every command begins here."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from api import embedded
from api.checkpoints import Checkpoints
from api.clock import Clock, SystemClock
from api.commands import Desk
from api.settings import Settings
from api.worker import Worker
from ledger.store import Store
from ledger.streams import WIRE
from migrations import MigrationError, migrate, missing
from projections.reader import ReadModels
from projections.runner import Projector


class Ledger(msgspec.Struct):
    """One open ledger."""

    url: str
    schema: str
    store: Store
    projector: Projector
    desk: Desk
    worker: Worker

    @property
    def models(self) -> ReadModels:
        """Its read models, to be read."""
        return self.projector.models


def database_url(settings: Settings) -> str:
    """The database that is set, else the embedded one, started if it is not running.

    ``ValueError`` if what is set is no URL of a PostgreSQL."""
    if settings.database_url is None:
        return embedded.start(settings.home)
    try:
        conninfo_to_dict(settings.database_url)
    except psycopg.ProgrammingError:  # which repeats the text, password and all
        raise ValueError("GUARANTEE_DATABASE_URL is no URL of a PostgreSQL: postgresql://user@host/database") from None
    return settings.database_url


def spare_collector() -> None:
    """Lets the collector of cycles look more seldom, and never at what was loaded by now.

    Events, states and rows make no cycles.  By its defaults it would take a tenth of a busy door's time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@contextmanager
def opened(
    settings: Settings, clock: Clock | None = None, *, recorded_from: datetime | None = None, writes_apart: bool = False
) -> Iterator[Ledger]:
    """Opens the ledger that the settings name, and closes it.

    An embedded database is brought up to date by itself; another one by ``guarantee migrate`` only, and
    ``MigrationError`` says so.  ``recorded_from``:
    the writer's clock stands there, so that what is relived is recorded at the time it was received.
    ``writes_apart``: as in ``Store.open``."""
    url, schema = database_url(settings), settings.ledger_schema
    if settings.database_url is None:
        migrate(url, schema)
    elif missing(url, schema):  # asked first, so that a database which is away is reported at once
        raise MigrationError(f"the schema {schema} is not up to date: run guarantee migrate")
    clock = clock or SystemClock()
    now = clock.now if recorded_from is None else (lambda: recorded_from)
    with (
        Store.open(url, schema, wire=WIRE, now=now, writes_apart=writes_apart) as store,
        Projector.open(url, schema, store) as projector,
    ):
        desk = Desk(store, clock)
        yield Ledger(url, schema, store, projector, desk, Worker(desk, projector, Checkpoints(url, schema)))
