"""Quiet logs, and a running door, shared by the tests of one module."""

import io
from collections.abc import Iterator

import pytest

from api import logs
from tests.api.service import NUMBERS, Service, serving
from tests.postgres import drop_database, fresh_database


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Nothing is logged to a stream that pytest may close while a server's thread writes to it."""
    logs.configure("warning", is_json=True, stream=io.StringIO())


@pytest.fixture(scope="module")
def service(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A ledger with a rulebook in force and two active merchants, ``m-1`` and ``m-2``."""
    name = f"http_{tmp_path_factory.getbasetemp().name}_{next(NUMBERS)}".replace("-", "_")
    try:
        with serving(fresh_database(postgres, name)) as running:
            running.publish_rulebook()
            running.admit("m-1")
            running.admit("m-2")
            yield running
    finally:
        drop_database(postgres, name)
