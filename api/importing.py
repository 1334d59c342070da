"""Running an import: facts of a history relived into a ledger that holds nothing else of that time."""

from collections.abc import Callable
from datetime import datetime

import psycopg
from psycopg import sql

from api.relive import Relive, Tally, Timed
from api.wiring import Ledger
from projections import PROJECTIONS
from projections.projection import Projection
from projections.rebuild import outdated

ORIGIN = "olist"
_EVERY = 1_000


def run(ledger: Ledger, facts: list[Timed], until: datetime, progress: Callable[[int, int], None]) -> Tally:
    """Receives the facts in order, and lets the clock go on until ``until``."""
    with Relive(ledger.store, ORIGIN) as relive:
        relive.know(fact.key for fact in facts)
        for done, _ in enumerate(relive.run(facts, until), 1):
            if done % _EVERY == 0:
                progress(done, len(facts))
        return relive.tally


def has_strangers(ledger: Ledger, first_at: datetime) -> bool:
    """Whether events of another origin were recorded since the data's first fact.  What the clock and the policies
    decided follows from the data."""
    query = sql.SQL(
        "SELECT EXISTS (SELECT FROM {} WHERE recorded_at >= %s AND role NOT IN ('clock', 'policy') "
        "AND correlation_id NOT LIKE %s)"
    ).format(sql.Identifier(ledger.schema, "ledger_events"))
    with psycopg.connect(ledger.url, autocommit=True) as connection:
        row = connection.execute(query, [first_at, f"{ORIGIN}/%"]).fetchone()
    return bool(row and row[0])


def not_built(ledger: Ledger) -> dict[str, Projection]:
    """The read models that have no table yet: built from the log at once rather than followed event by event."""
    return outdated(ledger.models.status(), PROJECTIONS)
