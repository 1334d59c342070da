"""A migrated ledger, and a store that is open on it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ledger.store import Store
from migrations import migrate
from tests.store.bank import WIRE

InThreads = Callable[[Callable[[int], object], int], None]


@pytest.fixture
def ledger(database: str) -> str:
    """The URL of a database with an empty ledger in it."""
    migrate(database)
    return database


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
