"""Fixtures for everybody. With GUARANTEE_TEST_PG_BIN=/usr/lib/postgresql/15/bin the tests run on that PostgreSQL."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.postgres import chosen_binaries, drop_database, fresh_database, server_url

NUMBERS = count(1)


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    """The directory of initdb and postgres that this run tests with."""
    return chosen_binaries()


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[str]:
    """The administrator's URL of a running PostgreSQL."""
    with server_url(postgres_binaries) as url:
        yield url


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The URL of a fresh, empty database, dropped after the test."""
    name = f"test_{os.getpid()}_{next(NUMBERS)}"
    yield fresh_database(postgres, name)
    drop_database(postgres, name)
