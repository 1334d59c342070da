"""The schema of a ledger, as numbered SQL files that only go forward, and the runner that applies them.

Every ledger lies in one PostgreSQL schema.  The files use unqualified names, so one database may hold many ledgers.
Nothing in here may rewrite events.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import sql

SCHEMA = "guarantee_ledger"

_NUMBERED = re.compile(r"\d{4}_\w+\.sql")
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
      | (?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<end>;)
      | (?P<other>[^-/'"$;]+|.)""",
    re.DOTALL | re.VERBOSE,
)


class MigrationError(Exception):
    """The schema cannot be brought up to date: what was applied is not what the files say."""


class Migration(NamedTuple):
    """One file: its name, its SQL, and the SHA-256 (hex) of its bytes."""

    name: str
    text: str
    sha256: str


def migrate(url: str, schema: str = SCHEMA, folder: Path = Path(__file__).parent) -> list[str]:
    """Brings ``schema`` up to date and returns the names of the files applied just now, in order.

    Each file is applied once, in a transaction of its own, under a lock that all who migrate this schema share; so any
    number of processes may start together.  Raises ``MigrationError`` if a file changed after it was applied.
    """
    applied = []
    with psycopg.connect(url, autocommit=True) as connection:
        for migration in migrations(folder):
            with connection.transaction():
                _lock(connection, schema)
                if _is_due(connection, migration):
                    _apply(connection, migration)
                    applied.append(migration.name)
    return applied


def missing(url: str, schema: str = SCHEMA, folder: Path = Path(__file__).parent) -> list[str]:
    """The names of the files that are still to be applied to ``schema``, in order; raises as ``migrate``."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        _look_into(connection, schema)
        is_new = connection.execute("SELECT to_regclass('migrations')").fetchone() == (None,)
        return [x.name for x in migrations(folder) if is_new or _is_due(connection, x)]


def migrations(folder: Path) -> Sequence[Migration]:
    """The numbered files of ``folder``, in order."""
    paths = sorted(path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name))
    contents = [(path.name, path.read_bytes()) for path in paths]
    return [Migration(name, data.decode(), hashlib.sha256(data).hexdigest()) for name, data in contents]


def statements(text: str) -> Iterator[str]:
    """The SQL statements in ``text``, one by one; semicolons in quotes, function bodies and comments do not count."""
    statement = ""
    for token in _TOKEN.finditer(text):
        if token["end"]:
            yield statement.strip()
            statement = ""
        elif not token["comment"]:
            statement += token[0]
    if statement.strip():
        yield statement.strip()


def _lock(connection: psycopg.Connection, schema: str) -> None:
    """Waits until no one else migrates this schema, then makes it the one that unqualified names mean."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"migrate {schema}"])
    _look_into(connection, schema)
    found = connection.execute("SELECT to_regclass('migrations')").fetchone()
    if found == (None,):
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        connection.execute(
            "CREATE TABLE migrations (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL)"
        )


def _look_into(connection: psycopg.Connection, schema: str) -> None:
    """Unqualified names mean this schema, until the transaction ends."""
    connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))


def _is_due(connection: psycopg.Connection, migration: Migration) -> bool:
    """Whether it is still to be applied; ``MigrationError`` if another text was applied under its name."""
    row = connection.execute("SELECT sha256 FROM migrations WHERE name = %s", [migration.name]).fetchone()
    if row and row[0] != migration.sha256:
        raise MigrationError(f"{migration.name} was changed after it was applied; add a new file instead")
    return row is None


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    for statement in statements(migration.text):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO migrations (name, sha256, applied_at) VALUES (%s, %s, clock_timestamp())",
        [migration.name, migration.sha256],
    )
