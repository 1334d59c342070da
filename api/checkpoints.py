"""How far a follower of the log has come, kept in the ledger's schema."""

import psycopg
from psycopg import sql


class Checkpoints:
    """The checkpoints of one ledger.  A short connection each time: they move a few times a second at most."""

    def __init__(self, url: str, schema: str) -> None:
        self._url, self._schema = url, schema

    def get(self, name: str) -> int:
        """The position up to which the follower has done its work; 0 if it never did."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            row = connection.execute(self._sql("SELECT position FROM {} WHERE name = %s"), [name]).fetchone()
            return int(row[0]) if row else 0

    def move(self, name: str, position: int) -> None:
        """Moves it on; it never moves back."""
        statement = self._sql(
            "INSERT INTO {0} AS f (name, position) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET position = greatest(f.position, excluded.position)"
        )
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement, [name, position])

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(sql.Identifier(self._schema, "followers"))
