"""Rows in PostgreSQL: every kind of column keeps its value, nested ones byte for byte."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import PROJECTIONS, tables
from projections.projection import Row
from projections.tables import Query, Table, columns_of
from tests.projections.toys import EVERYTHING, LENGTHS, Everything, Length, Part

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
DAYS = st.dates()
PARTS = st.builds(Part, st.none() | INSTANTS, st.lists(TEXTS, max_size=3).map(tuple))
ROWS = st.builds(
    Everything, TEXTS, NUMBERS, DAYS, INSTANTS, st.booleans(), st.none() | TEXTS, st.none() | NUMBERS,
    st.none() | DAYS, st.none() | INSTANTS, st.lists(PARTS, max_size=3).map(tuple), st.none() | PARTS,
    st.dictionaries(TEXTS, NUMBERS, max_size=3),
)  # fmt: skip
MANY = st.lists(ROWS, max_size=8, unique_by=lambda row: (row.word, row.number))
EVERY = Table(msgspec.structs.replace(EVERYTHING, key=("word", "number")), 1)


@pytest.fixture
def connection(ledger: str) -> Iterator[tables.Connection]:
    with tables.connect(ledger, "guarantee_ledger") as opened:
        EVERY.create(opened)
        EVERY.finish(opened)
        yield opened


def stored(connection: tables.Connection, query: Query = Query()) -> list[Row]:  # noqa: B008 - it is immutable
    with connection.transaction():
        return list(EVERY.read(connection, query))


def in_order(rows: list[Everything]) -> list[Everything]:
    return sorted(rows, key=lambda row: (row.word.encode(), row.number))


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@relaxed
@given(MANY, MANY)
def test_rows_are_read_as_they_were_copied_in_and_put(
    connection: tables.Connection, copied: list[Everything], put: list[Everything]
) -> None:
    connection.execute("TRUNCATE everything__1")
    EVERY.copy_in(connection, copied)
    assert stored(connection) == in_order(copied)
    EVERY.put(connection, put)
    expected = {(x.word, x.number): x for x in [*copied, *put]}
    assert stored(connection) == in_order(list(expected.values()))
    assert EVERY.find(connection, list(expected)) == expected
    EVERY.delete(connection, list(expected)[::2])
    assert EVERY.find(connection, list(expected)) == {key: expected[key] for key in list(expected)[1::2]}


@relaxed
@given(MANY)
def test_nested_values_keep_their_bytes(connection: tables.Connection, rows: list[Everything]) -> None:
    connection.execute("TRUNCATE everything__1")
    EVERY.put(connection, rows)
    found = connection.execute("SELECT amounts::text FROM everything__1 ORDER BY word, number").fetchall()
    assert [text for (text,) in found] == [msgspec.json.encode(row.amounts).decode() for row in in_order(rows)]


@relaxed
@given(MANY)
def test_copied_and_put_rows_are_equal_bytes(connection: tables.Connection, rows: list[Everything]) -> None:
    connection.execute("TRUNCATE everything__1")
    EVERY.put(connection, rows)
    put = list(EVERY.raw(connection))
    connection.execute("TRUNCATE everything__1")
    EVERY.copy_in(connection, rows)
    assert list(EVERY.raw(connection)) == put
    assert len(put) == len(rows)


def test_a_column_is_not_null_unless_it_may_be_none(connection: tables.Connection) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        connection.execute("INSERT INTO everything__1 (word, number) VALUES ('a', 1)")


def test_columns_have_the_types_of_the_rows() -> None:
    assert [(x.name, x.sql_type, x.is_optional) for x in columns_of(Everything)] == [
        ("word", 'text COLLATE "C"', False),
        ("number", "bigint", False),
        ("day", "date", False),
        ("at", "timestamptz", False),
        ("is_true", "boolean", False),
        ("maybe_word", 'text COLLATE "C"', True),
        ("maybe_number", "bigint", True),
        ("maybe_day", "date", True),
        ("maybe_at", "timestamptz", True),
        ("parts", "json", False),
        ("part", "json", True),
        ("amounts", "json", False),
    ]


def test_a_fold_may_not_hold_a_float() -> None:
    with pytest.raises(TypeError, match="rate"):
        columns_of(msgspec.defstruct("Floating", [("rate", float)], bases=(Row,)))


def test_every_read_model_has_a_table(connection: tables.Connection) -> None:
    for projection in PROJECTIONS.values():
        table = Table(projection, 1)
        table.create(connection)
        table.finish(connection)
        assert tables.is_shaped_like(connection, table)
        indexes = connection.execute(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND tablename = %s", [table.name]
        ).fetchone()
        assert indexes == (1 + len(projection.indexes),)


def test_a_table_of_another_shape_is_recognised(connection: tables.Connection) -> None:
    wider = msgspec.defstruct("Wider", [("more", int)], bases=(Length,))
    table = Table(LENGTHS, 1)
    table.create(connection)
    assert tables.is_shaped_like(connection, table)
    assert not tables.is_shaped_like(connection, Table(msgspec.structs.replace(LENGTHS, row=wider), 1))


def test_rows_are_found_by_conditions_and_ordered_by_columns(connection: tables.Connection) -> None:
    at = datetime(2015, 7, 1, tzinfo=UTC)
    rows = [
        Everything(word, n, date(2015, 7, 1), at.replace(hour=9 - n), True, None, n, None, None, (), None, {})
        for word in "ab"
        for n in range(5)
    ]
    EVERY.copy_in(connection, rows)
    query = Query(key_prefix=("b",), where=[tables.Where("at", "<", at.replace(hour=8))], order_by=["at"], limit=2)
    assert [(x.word, x.number) for x in stored(connection, query)] == [("b", 4), ("b", 3)]  # type: ignore[attr-defined]
    for bad in (Query(order_by=["mistake"]), Query(where=[tables.Where("number", "<>", 1)])):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="cannot be"):
            stored(connection, bad)


def test_text_is_ordered_by_its_bytes(connection: tables.Connection) -> None:
    words = ["b", "B", "é", "z", "a-b", "ab", "包", "𝄞", "\uffee"]
    rows = [
        Everything(w, 1, date(1, 1, 1), datetime(1, 1, 2, tzinfo=UTC), False, *[None] * 4, (), None, {}) for w in words
    ]
    EVERY.copy_in(connection, rows)
    assert [x.word for x in stored(connection)] == sorted(words, key=str.encode)  # type: ignore[attr-defined]
