"""History is protected in depth: by triggers, by the role the application writes under, and by constraints."""

from datetime import timedelta

import psycopg
import pytest

from ledger.store import Store
from tests.store.bank import NOON, append, deposits

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
    columns = {
        name: name
        for name in (
            "originator_id topic actor role correlation_id occurred_at received_at recorded_at chain_sha256 state"
        ).split()
    } | {"notification_id": "3", "originator_version": "3"}
    owner.execute(insert_copy_of_event_2(columns))
    later = columns | {"notification_id": "4", "originator_version": "4"}

    with pytest.raises(psycopg.IntegrityError):
        owner.execute(insert_copy_of_event_2(later | {column: value}))


def insert_copy_of_event_2(columns: dict[str, str]) -> str:
    names, values = ", ".join(columns), ", ".join(columns.values())
    return f"INSERT INTO ledger_events ({names}) SELECT {values} FROM ledger_events WHERE notification_id = 2"


def test_a_database_that_lets_us_create_no_role_works_and_the_check_says_so(postgres: str, database: str) -> None:
    """The schema's owner here may neither create roles nor take the writer's."""
    from migrations import migrate
    from tests.store.bank import WIRE, accepted

    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS modest_owner")
        admin.execute("CREATE ROLE modest_owner LOGIN PASSWORD 'modest'")
        admin.execute("GRANT CREATE ON DATABASE " + psycopg.conninfo.conninfo_to_dict(database)["dbname"] + " TO modest_owner")
    modest = psycopg.conninfo.make_conninfo(database, user="modest_owner", password="modest")
    try:
        migrate(modest, "modest")
        with Store.open(modest, "modest", wire=WIRE) as store:
            accepted(store.append(append("a", 0, *deposits(1)))[0])
            role = next(check for check in store.verify_log() if check.name == "the writer can only add")
        assert role.differences == 0
        assert role.note == "the application does not write as modest_writer"
    finally:
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("DROP OWNED BY modest_owner CASCADE")
            admin.execute("DROP ROLE modest_owner")
