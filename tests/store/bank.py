"""A toy bank to write events about, and short words for writing them."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

import psycopg

from ledger.events import Decision, Event, Fact, NewEvent, Wire
from ledger.store import Append, Appended, StoreError

T = TypeVar("T")


class AccountOpened(Fact, frozen=True, gc=False, kw_only=True, tag=True):
    """Somebody may pay in."""

    owner: str


class MoneyDeposited(Fact, frozen=True, gc=False, kw_only=True, tag=True):
    """Somebody did."""

    amount_fen: int


class FeeCharged(Decision, frozen=True, gc=False, kw_only=True, tag=True):
    """The bank wants its share."""

    rule = "fee"
    fee_fen: int


WIRE = Wire([AccountOpened, MoneyDeposited, FeeCharged])
NOON = datetime(2015, 7, 16, 12, tzinfo=UTC)


def deposits(*amounts_fen: int) -> list[Event]:
    return [MoneyDeposited(amount_fen=amount_fen) for amount_fen in amounts_fen]


def append(
    stream: str,
    expected_version: int,
    *events: Event,
    key: str | None = None,
    body: str = "",
    occurred_at: datetime = NOON,
    received_at: datetime = NOON,
    source: str | None = None,
) -> Append:
    """What the teller appends; a key makes it a command with that body."""
    return Append(
        stream,
        expected_version,
        [NewEvent(event, occurred_at, received_at, rule=rule_of(event)) for event in events],
        actor="teller-1",
        role="teller",
        key=key,
        body_sha256=None if key is None else hashlib.sha256(body.encode()).digest(),
        correlation_id=f"about {stream}",
        source=source,
    )


def rule_of(event: Event) -> str | None:
    return f"rulebook-1/{event.rule}" if isinstance(event, Decision) else None


def accepted(answer: Appended | StoreError) -> Appended:
    assert isinstance(answer, Appended), answer
    return answer


def refused(answer: Appended | StoreError, kind: type[T]) -> T:
    assert isinstance(answer, kind), answer
    return answer


def positions(answers: Sequence[Appended | StoreError]) -> list[int]:
    return [accepted(answer).position for answer in answers]


def cut_connections(administrator: psycopg.Connection) -> None:
    """Ends every other connection to the database, as a network or a nervous administrator would."""
    administrator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
