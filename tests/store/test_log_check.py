"""Tampering is found, and the first bad event is named: here the owner edits history with the triggers switched off."""

import hashlib
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from ledger.store import Check, Store
from tests.store.bank import NOON, WIRE, FeeCharged, append, deposits

POSITIONS = "positions have no gap"
VERSIONS = "versions of a stream have no gap"
CLOCK = "recorded_at never decreases"
TYPES = "the type is that of the data"
HEAD = "the head is the last event"
COMMANDS = "commands point at their events"
KEYS = "keys of events have a command"
APPEND_ONLY = "the log is append-only"
CHAIN = "every event is chained to the one before"

Tamper = Callable[[str], None]


@pytest.fixture
def filled(store: Store) -> Store:
    """10 streams of 3 events: 2 by a command with a key, 1 by the clock; and a command that changed nothing."""
    store.append(*[append(f"a-{n}", 0, *deposits(n, n), key=f"key-{n}") for n in range(10)])
    store.append(*[append(f"a-{n}", 2, *deposits(n)) for n in range(10)])
    store.append(append("a-0", 3, key="nothing"), append("a-99", 0, key="nothing at all"))
    return store


@pytest.fixture
def tamper(owner: psycopg.Connection) -> Tamper:
    def change(statement: str) -> None:
        for table in ("ledger_events", "commands", "head"):
            owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
        owner.execute(statement)
        for table in ("ledger_events", "commands", "head"):
            owner.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only")

    return change


def broken(store: Store) -> dict[str, Check]:
    return {check.name: check for check in store.verify_log() if check.differences}


def first(check: Check) -> dict[str, Any]:
    assert check.first is not None
    return check.first


def test_an_untouched_log_is_whole(filled: Store) -> None:
    assert broken(filled) == {}


def test_an_empty_log_is_whole(store: Store) -> None:
    assert broken(store) == {}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", """convert_to('{"type":"MoneyDeposited","amount_fen":9}', 'UTF8')"""),
        ("occurred_at", "occurred_at + interval '1 microsecond'"),
        ("received_at", "received_at - interval '1 microsecond'"),
        ("actor", "'teller-2'"),
        ("role", "'owner'"),
        ("correlation_id", "''"),
        ("causation", "''"),
        ("source", "'b@1'"),
        ("rule", "'rulebook-2/fee'"),
    ],
)
def test_an_edited_column_breaks_the_chain_there(filled: Store, tamper: Tamper, column: str, value: str) -> None:
    tamper(f"UPDATE ledger_events SET {column} = {value} WHERE notification_id = 6")

    found = broken(filled)

    assert set(found) == {CHAIN}
    assert (found[CHAIN].differences, found[CHAIN].first) == (1, {"position": 6})


def test_one_edited_byte_breaks_the_chain_there(filled: Store, tamper: Tamper) -> None:
    tamper("UPDATE ledger_events SET state = set_byte(state, 38, 49) WHERE notification_id = 8")

    assert broken(filled)[CHAIN].first == {"position": 8}


def test_a_removed_event_leaves_a_gap(filled: Store, tamper: Tamper) -> None:
    tamper("DELETE FROM ledger_events WHERE notification_id = 5")

    found = broken(filled)

    assert found[POSITIONS].first == {"position": 5, "found": 6}
    assert found[VERSIONS].first == {"stream": "a-2", "version": 1, "found": 2, "position": 6}
    assert found[CHAIN].first == {"position": 6}
    assert first(found[COMMANDS])["key"] == "key-2"


def test_removed_events_at_the_end_are_missed_by_the_head(filled: Store, tamper: Tamper) -> None:
    tamper("DELETE FROM ledger_events WHERE notification_id > 28")

    found = broken(filled)

    assert set(found) == {HEAD}
    assert (first(found[HEAD])["position"], first(found[HEAD])["last_position"]) == (30, 28)


def test_swapped_events_are_found(filled: Store, tamper: Tamper) -> None:
    tamper("UPDATE ledger_events SET notification_id = 1000 WHERE notification_id = 21")
    tamper("UPDATE ledger_events SET notification_id = 21 WHERE notification_id = 22")
    tamper("UPDATE ledger_events SET notification_id = 22 WHERE notification_id = 1000")

    found = broken(filled)

    assert set(found) == {CHAIN}
    assert found[CHAIN].first == {"position": 21}


def test_an_event_whose_column_belies_its_data_is_found(filled: Store, tamper: Tamper) -> None:
    tamper("UPDATE ledger_events SET topic = 'AccountOpened' WHERE notification_id = 3")

    found = broken(filled)

    assert found[TYPES].first == {"position": 3, "type": "AccountOpened"}
    assert found[CHAIN].first == {"position": 3}


def test_a_clock_that_ran_backwards_is_found(filled: Store, tamper: Tamper) -> None:
    tamper("UPDATE ledger_events SET recorded_at = recorded_at + interval '1 day' WHERE notification_id = 4")

    found = broken(filled)

    assert found[CLOCK].differences == 1
    assert first(found[CLOCK])["position"] == 5


def test_a_command_record_that_was_moved_is_found(filled: Store, tamper: Tamper) -> None:
    tamper("UPDATE commands SET stream = 'a-4' WHERE key = 'key-3'")

    found = broken(filled)

    assert found[COMMANDS].differences == 1
    assert found[KEYS].first == {"position": 7, "key": "key-3"}


def test_a_command_record_that_was_removed_is_found(filled: Store, tamper: Tamper) -> None:
    tamper("DELETE FROM commands WHERE key = 'key-3'")

    found = broken(filled)

    assert set(found) == {KEYS}
    assert (found[KEYS].differences, found[KEYS].first) == (2, {"position": 7, "key": "key-3"})


def test_a_protection_that_was_switched_off_is_found(filled: Store, owner: psycopg.Connection) -> None:
    owner.execute("ALTER TABLE commands DISABLE TRIGGER append_only")

    assert broken(filled)[APPEND_ONLY].first == {"table": "commands"}


def test_the_chain_of_a_known_event_is_known_for_ever(ledger: str) -> None:
    """Worked out by hand from the definition in ``ledger/log.py``; it must never change."""
    with Store.open(ledger, wire=WIRE, now=lambda: NOON) as store:
        store.append(append("a", 0, FeeCharged(fee_fen=7), key="key-1", source="b@3"))
        chain = store.head().chain

    noon = (1_437_048_000_000_000).to_bytes(8, "big")
    fields = [
        (1).to_bytes(8, "big"), (1).to_bytes(8, "big"), noon, noon, noon, b"a", b"FeeCharged", b"teller-1", b"teller",
        b"key-1", b"about a", None, b"b@3", b"rulebook-1/fee", b'{"type":"FeeCharged","fee_fen":7}',
    ]  # fmt: skip
    prefixed = [b"\xff\xff\xff\xff" if f is None else len(f).to_bytes(4, "big") + f for f in fields]
    assert chain == hashlib.sha256(bytes(32) + b"".join(prefixed)).digest()
    assert chain.hex() == "368b7c486de952e70c1c8d21eb38406b232da52c96545b452968ed0d071a3a31"
