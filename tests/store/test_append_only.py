"""History is protected in depth: by triggers, by the role the application writes under, and by constraints."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from ledger.log import COLUMNS
from ledger.store import Store
from migrations import migrate
from tests.store.bank import NOON, WIRE, accepted, append, deposits

CHANGES = [
    "UPDATE ledger_events SET state = state",
    "DELETE FROM ledger_events",
    "TRUNCATE ledger_events",
    "UPDATE commands SET position = position",
    "DELETE FROM commands",
    "TRUNCATE commands",
    "DELETE FROM head",
    "TRUNCATE head",
    "INSERT INTO head SELECT 2, position, recorded_at, chain_sha256 FROM head",
]


@pytest.fixture
def filled(store: Store) -> Store:
    store.append(append("a", 0, *deposits(1, 2), key="key-1"))
    return store


@pytest.mark.parametrize("change", CHANGES)
def test_triggers_refuse_changes_even_to_the_owner(filled: Store, owner: psycopg.Connection, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(change)


@pytest.mark.parametrize("change", CHANGES)
def test_triggers_refuse_changes_by_a_session_that_plays_replica(
    filled: Store, owner: psycopg.Connection, change: str
) -> None:
    owner.execute("SET session_replication_role TO replica")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(change)


@pytest.mark.parametrize(
    "change", [*CHANGES, "UPDATE head SET id = 2", "ALTER TABLE ledger_events DISABLE TRIGGER ALL", "DROP TABLE head"]
)
def test_the_writers_role_was_never_granted_changes(filled: Store, owner: psycopg.Connection, change: str) -> None:
    owner.execute("SET ROLE guarantee_ledger_writer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"permission denied|must be owner"):
        owner.execute(change)


def test_the_application_writes_under_that_role(filled: Store) -> None:
    with filled.recorder.datastore.get_connection() as connection:
        row = connection.execute("SELECT current_user AS name").fetchone()

    assert row == {"name": "guarantee_ledger_writer"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("notification_id", "0"),
        ("originator_version", "0"),
        ("recorded_at", f"'{NOON - timedelta(seconds=1)}'"),
        ("chain_sha256", "'short'"),
        ("originator_version", "2"),
        ("notification_id", "2"),
        *[(column, "NULL") for column in ("topic", "state", "actor", "role", "correlation_id", "occurred_at")],
    ],
)
def test_constraints_refuse_what_no_event_can_be(
    filled: Store, owner: psycopg.Connection, column: str, value: str
) -> None:
    owner.execute(copy_of_event_2({"notification_id": "3", "originator_version": "3"}))

    with pytest.raises(psycopg.IntegrityError):
        owner.execute(copy_of_event_2({"notification_id": "4", "originator_version": "4", column: value}))


def copy_of_event_2(changes: dict[str, str]) -> str:
    columns = {name: name for name in COLUMNS.split(", ")} | changes
    names, values = ", ".join(columns), ", ".join(columns.values())
    return f"INSERT INTO ledger_events ({names}) SELECT {values} FROM ledger_events WHERE notification_id = 2"


@pytest.fixture
def modest(database: str) -> Iterator[str]:
    """The URL of a database whose owner may create schemas, but no roles."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    role = f"modest_{name}"
    with psycopg.connect(database, autocommit=True) as administrator:
        administrator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'modest'")
        administrator.execute(f"GRANT CREATE ON DATABASE {name} TO {role}")
        try:
            yield psycopg.conninfo.make_conninfo(database, user=role, password="modest")
        finally:
            administrator.execute(f"DROP OWNED BY {role} CASCADE")
            administrator.execute(f"DROP ROLE {role}")


def test_a_database_that_lets_us_create_no_role_works_and_the_check_says_so(modest: str) -> None:
    migrate(modest, "modest")

    with Store.open(modest, "modest", wire=WIRE) as store:
        accepted(store.append(append("a", 0, *deposits(1)))[0])
        checks = {check.name: check for check in store.verify_log()}

    role = checks["the writer can only add"]
    assert (role.differences, role.note) == (0, "the application does not write as modest_writer")
