"""A migrated ledger, and a store that is open on it."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ledger.store import Store
from migrations import migrate
from tests.postgres import drop_database, fresh_database
from tests.store.bank import WIRE

NIGHTLY = os.environ.get("GUARANTEE_NIGHTLY") == "1"
"""Full size instead of a few seconds."""

InThreads = Callable[[Callable[[int], object], int], None]


@pytest.fixture(scope="session")
def ledgers(postgres: str) -> Iterator[str]:
    """The URL of a database in which one ledger after the other is made."""
    name = f"test_store_{os.getpid()}"
    yield fresh_database(postgres, name)
    drop_database(postgres, name)


@pytest.fixture
def ledger(ledgers: str) -> str:
    """The URL of a database with an empty ledger in it."""
    with psycopg.connect(ledgers, autocommit=True) as connection:
        connection.execute("SET client_min_messages TO warning")
        connection.execute("DROP SCHEMA IF EXISTS guarantee_ledger CASCADE")
    migrate(ledgers)
    return ledgers


@pytest.fixture
def store(ledger: str) -> Iterator[Store]:
    with Store.open(ledger, wire=WIRE) as opened:
        yield opened


@pytest.fixture
def owner(ledger: str) -> Iterator[psycopg.Connection]:
    """A connection of the ledger's owner, who may do what the application may not."""
    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute("SET search_path TO guarantee_ledger")
        yield connection


@pytest.fixture
def in_threads() -> InThreads:
    """Does something in so many threads at once, and raises what any of them raised."""

    def run(work: Callable[[int], object], count: int) -> None:
        with ThreadPoolExecutor(count) as threads:
            for future in [threads.submit(work, number) for number in range(count)]:
                future.result()

    return run
