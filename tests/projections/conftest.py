"""A migrated ledger with an empty log, its store, and its read models."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ledger.store import Store
from ledger.streams import WIRE
from migrations import migrate
from projections.runner import Projector
from tests.postgres import drop_database, fresh_database
from tests.projections.logs import AT_ONCE

InThreads = Callable[..., None]


@pytest.fixture(scope="session")
def ledgers(postgres: str) -> Iterator[str]:
    """The URL of a database in which one ledger after the other is made."""
    name = f"test_projections_{os.getpid()}"
    yield fresh_database(postgres, name)
    drop_database(postgres, name)


@pytest.fixture
def ledger(ledgers: str) -> str:
    """The URL of a database with an empty ledger in it."""
    return empty_ledger(ledgers)


def empty_ledger(url: str) -> str:
    """Throws the ledger away that is there, and makes a new one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages TO warning")
        connection.execute("DROP SCHEMA IF EXISTS guarantee_ledger CASCADE")
    migrate(url)
    return url


@pytest.fixture
def store(ledger: str) -> Iterator[Store]:
    with Store.open(ledger, wire=WIRE, now=AT_ONCE) as opened:
        yield opened


@pytest.fixture
def projector(ledger: str, store: Store) -> Iterator[Projector]:
    """Of the real read models."""
    with Projector.open(ledger, store=store) as opened:
        yield opened


@pytest.fixture
def owner(ledger: str) -> Iterator[psycopg.Connection]:
    """A connection of the ledger's owner, who may do anything to a table."""
    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute("SET search_path TO guarantee_ledger")
        yield connection


@pytest.fixture
def in_threads() -> InThreads:
    """Does several things at once, and raises what any of them raised."""

    def run(*works: Callable[[], object]) -> None:
        with ThreadPoolExecutor(len(works)) as threads:
            for future in [threads.submit(work) for work in works]:
                future.result()

    return run
