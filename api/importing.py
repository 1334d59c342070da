"""Running an import: facts of a history relived into a ledger that holds nothing else of that time."""

from collections.abc import Callable
from datetime import datetime

import psycopg
from psycopg import sql

from api.relive import Relive, Tally, Timed
from api.wiring import Ledger
from api.worker import CARRIER
from projections import PROJECTIONS
from projections.projection import Projection
from projections.rebuild import outdated

ORIGIN = "olist"
_EVERY = 1_000


def run(ledger: Ledger, facts: list[Timed], until: datetime, progress: Callable[[int, int], None]) -> Tally:
    """Receives the facts in order, and lets the clock go on until ``until``.

    ``ValueError`` if the first of them, the rulebook, is refused: nothing is written then."""
    checkpoints, begun_at = ledger.worker.checkpoints, ledger.store.head().position
    with Relive(ledger.store, ORIGIN) as relive:
        relive.know(fact.key for fact in facts)
        for done, _ in enumerate(relive.run(facts, until), 1):
            if done == 1 and relive.tally.rejected:
                raise ValueError(
                    f"other rules are in force in this ledger ({next(iter(relive.tally.rejected))}): import into "
                    "one of its own, for example with GUARANTEE_SCHEMA=olist"
                )
            if done % _EVERY == 0:
                progress(done, len(facts))
    if checkpoints.get(CARRIER) >= begun_at:  # what was relived was carried as well: workers need not look again
        checkpoints.move(CARRIER, ledger.store.head().position)
    return relive.tally


def has_strangers(ledger: Ledger, facts: list[Timed], first_at: datetime) -> bool:
    """Whether something else than these facts was recorded since the data's first one: events of another origin, or of
    other data.  What the clock and the policies decided follows from the data."""
    others = sql.SQL(
        "SELECT EXISTS (SELECT FROM {} WHERE recorded_at >= %s AND role NOT IN ('clock', 'policy') "
        "AND correlation_id NOT LIKE %s)"
    ).format(sql.Identifier(ledger.schema, "ledger_events"))
    imported = sql.SQL("SELECT count(*) FROM {} WHERE recorded_at >= %s AND key LIKE %s").format(
        sql.Identifier(ledger.schema, "commands")
    )
    bounds = [first_at, f"{ORIGIN}/%"]
    with psycopg.connect(ledger.url, autocommit=True) as connection:
        [[has_others]] = connection.execute(others, bounds).fetchall()
        [[recorded]] = connection.execute(imported, bounds).fetchall()
    return bool(has_others) or recorded > _known(ledger, facts)


def _known(ledger: Ledger, facts: list[Timed]) -> int:
    """How many of the facts are recorded."""
    if ledger.store.head().position == 0:
        return 0
    return sum(len(ledger.store.find([x.key for x in facts[i : i + 10_000]])) for i in range(0, len(facts), 10_000))


def not_built(ledger: Ledger) -> dict[str, Projection]:
    """The read models that have no table yet: built from the log at once rather than followed event by event."""
    return outdated(ledger.models.status(), PROJECTIONS)
