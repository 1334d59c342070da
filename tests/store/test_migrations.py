"""Migrations: applied once, in order, whoever comes first; and many ledgers in one database."""

import multiprocessing
from pathlib import Path

import psycopg
import pytest

from ledger.store import Store
from migrations import MigrationError, migrate, statements
from tests.store.bank import WIRE, accepted, append, deposits


def test_what_was_applied_is_not_applied_again(database: str) -> None:
    assert migrate(database)[:2] == ["0001_log.sql", "0002_append_only.sql"]
    assert migrate(database) == []


def test_eight_processes_that_start_on_an_empty_database_all_come_up(database: str) -> None:
    with multiprocessing.get_context("spawn").Pool(8) as processes:
        answers = processes.map(start_up, [(database, number) for number in range(8)], chunksize=1)

    assert sorted(answers) == list(range(1, 9))


def start_up(arguments: tuple[str, int]) -> int:
    """What every process of the product does first: migrate, open, append."""
    database, number = arguments
    migrate(database)
    with Store.open(database, wire=WIRE) as store:
        return accepted(store.append(append(f"account-{number}", 0, *deposits(1)))[0]).position


def test_a_file_that_changed_after_it_was_applied_is_an_error(database: str, tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (n int)")
    migrate(database, "changing", tmp_path)
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (n bigint)")

    with pytest.raises(MigrationError, match=r"0001_first\.sql was changed"):
        migrate(database, "changing", tmp_path)


def test_a_file_that_fails_leaves_nothing_of_itself_behind(database: str, tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (n int)")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (n int); CREATE TABLE first (n int)")
    with pytest.raises(psycopg.errors.DuplicateTable):
        migrate(database, "failing", tmp_path)

    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (n int)")

    assert migrate(database, "failing", tmp_path) == ["0002_second.sql"]


def test_many_ledgers_live_in_one_database_and_know_nothing_of_each_other(database: str) -> None:
    for schema in ("north", "south", 'the "far" east'):
        migrate(database, schema)
        with Store.open(database, schema, wire=WIRE) as store:
            accepted(store.append(append("account-1", 0, *deposits(1, 2), key="key-1", body=schema))[0])

    with Store.open(database, "north", wire=WIRE) as store, store.listen() as north:
        assert north.wait(0, timeout=5) == 2
        with Store.open(database, "south", wire=WIRE) as other:
            other.append(append("account-2", 0, *deposits(1)))
        assert north.wait(2, timeout=0.3) == 2
        assert [check for check in store.verify_log() if check.differences] == []


def test_statements_are_split_at_their_ends_only() -> None:
    text = """
        -- a comment; with a semicolon
        CREATE TABLE a (b text DEFAULT 'x;''y'); /* another; one */
        CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN; RETURN 1 - 1; END $body$;
        SELECT ";" FROM c
    """

    assert list(statements(text)) == [
        "CREATE TABLE a (b text DEFAULT 'x;''y')",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN; RETURN 1 - 1; END $body$",
        'SELECT ";" FROM c',
    ]
