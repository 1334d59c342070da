"""Reading: by stream, by position, in bulk, and as it was known at some time."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from ledger.events import Recorded, Wire
from ledger.store import Store
from tests.store.bank import NOON, WIRE, AccountOpened, MoneyDeposited, append, cut_connections, deposits
from tests.store.conftest import InThreads


@pytest.fixture
def filled(store: Store) -> Store:
    """50 accounts with 3 events each; the first events of all come before the second ones."""
    store.append(*[append(f"account-{n}", 0, AccountOpened(owner=f"owner {n}")) for n in range(50)])
    store.append(*[append(f"account-{n}", version, *deposits(n)) for version in (1, 2) for n in range(50)])
    return store


def test_a_stream_is_read_between_two_versions(filled: Store) -> None:
    assert [event.version for event in filled.read_stream("account-7")] == [1, 2, 3]
    assert [event.version for event in filled.read_stream("account-7", after=1)] == [2, 3]
    assert [event.version for event in filled.read_stream("account-7", upto=2)] == [1, 2]
    assert filled.read_stream("account-77") == []


def test_many_streams_are_loaded_in_one_query(filled: Store) -> None:
    loaded = filled.load_streams(["account-7", "account-3", "account-77"])

    assert {stream: [event.version for event in events] for stream, events in loaded.items()} == {
        "account-7": [1, 2, 3],
        "account-3": [1, 2, 3],
        "account-77": [],
    }
    assert loaded["account-3"][1].data == MoneyDeposited(amount_fen=3)


def test_tasks_load_at_the_same_time_and_each_gets_its_own(filled: Store) -> None:
    async def main() -> list[dict[str, list[Recorded]]]:
        return list(await asyncio.gather(*[filled.load([f"account-{n}", f"account-{n + 1}"]) for n in range(40)]))

    for number, loaded in enumerate(asyncio.run(main())):
        assert list(loaded) == [f"account-{number}", f"account-{number + 1}"]
        assert [len(events) for events in loaded.values()] == [3, 3]


def test_events_are_read_by_position(filled: Store) -> None:
    assert [event.position for event in filled.read(147, 100)] == [148, 149, 150]
    assert [event.position for event in filled.read(10, 2)] == [11, 12]
    assert [event.position for event in filled.read(10, 100, upto=13)] == [11, 12, 13]
    assert filled.read(150, 10) == []


@pytest.mark.parametrize("chunk", [1, 7, 150, 20_000])
def test_a_scan_gives_every_event_once_in_order(filled: Store, chunk: int) -> None:
    scanned = [event for events in filled.scan(chunk=chunk) for event in events]

    assert scanned == filled.read(0, 1000)


def test_a_scan_ends_where_it_is_told(filled: Store) -> None:
    scanned = [event.position for events in filled.scan(after=10, upto=99, chunk=20) for event in events]

    assert scanned == list(range(11, 100))


def test_the_parts_of_a_scan_hold_whole_streams_and_together_everything(filled: Store) -> None:
    parts = [[event for events in filled.scan(chunk=20, partition=(part, 3)) for event in events] for part in range(3)]

    streams = [{event.stream for event in part} for part in parts]
    assert all(streams)
    assert sum(map(len, streams)) == len(set.union(*streams)) == 50
    assert sorted(event.position for part in parts for event in part) == list(range(1, 151))
    assert all([event.position for event in part] == sorted(event.position for event in part) for part in parts)


def test_the_last_versions_of_all_streams_are_known(filled: Store) -> None:
    assert filled.versions() == {f"account-{n}": 3 for n in range(50)}
    parts = [filled.versions(partition=(part, 3)) for part in range(3)]
    assert parts[0] | parts[1] | parts[2] == filled.versions()
    assert sum(map(len, parts)) == 50


def test_a_scan_of_an_empty_log_is_empty(store: Store) -> None:
    assert store.versions() == {}
    assert list(store.scan()) == []


def test_a_scan_that_is_given_up_leaves_the_store_usable(filled: Store) -> None:
    for _ in filled.scan(chunk=10):
        break

    assert filled.head().position == 150


def test_the_head_of_an_empty_log_is_at_zero(store: Store) -> None:
    head = store.head()

    assert (head.position, head.chain) == (0, bytes(32))


def test_entries_have_every_column_in_order_of_position(filled: Store) -> None:
    entries = filled.entries(148, 10)

    assert [(entry.position, entry.stream, entry.data.amount_fen) for entry in entries] == [
        (149, "account-48", 48),
        (150, "account-49", 49),
    ]


def test_history_stops_before_an_instant_on_either_clock_or_at_a_position(ledger: str) -> None:
    hours = iter(range(3))
    with Store.open(ledger, wire=WIRE, now=lambda: NOON + timedelta(hours=next(hours))) as store:
        for version in range(3):
            occurred_at = NOON - timedelta(hours=version)
            store.append(append("a", version, *deposits(version), occurred_at=occurred_at))
        one_o_clock = NOON + timedelta(hours=1)

        assert [e.version for e in store.history("a")] == [1, 2, 3]
        assert [e.version for e in store.history("a", upto_position=2)] == [1, 2]
        assert [e.version for e in store.history("a", recorded_before=one_o_clock)] == [1]
        assert [e.version for e in store.history("a", occurred_before=NOON)] == [2, 3]


def test_what_cannot_be_a_name_is_not_found_and_harms_no_other(filled: Store) -> None:
    bad = ["", "account-\0", "account-\ud800", "x" * 501]

    async def main() -> list[Any]:
        loads = [filled.load([stream]) for stream in (*bad, "account-7")]
        return [*await asyncio.gather(*loads), await filled.find_async(bad)]

    *loaded, found = asyncio.run(main())

    assert [len(events) for streams in loaded for events in streams.values()] == [0, 0, 0, 0, 3]
    assert found == {}
    assert [filled.read_stream(stream) + filled.history(stream) for stream in bad] == [[]] * 4


def test_a_stream_that_cannot_be_read_harms_none_that_can(ledger: str) -> None:
    with Store.open(ledger, wire=WIRE) as store:
        store.append(append("a", 0, AccountOpened(owner="Ada")), append("b", 0, *deposits(1)))

    async def main(store: Store) -> list[Any]:
        return list(await asyncio.gather(store.load(["a"]), store.load(["b"]), return_exceptions=True))

    with Store.open(ledger, wire=Wire([MoneyDeposited])) as store:
        unreadable, readable = asyncio.run(main(store))

    assert isinstance(unreadable, msgspec.ValidationError)
    assert len(readable["b"]) == 1


def test_reading_survives_broken_connections(filled: Store, owner: psycopg.Connection, in_threads: InThreads) -> None:
    for _ in range(3):
        in_threads(lambda _: filled.head(), 8)
        cut_connections(owner)
        began = time.monotonic()
        assert filled.head().position == 150
        assert time.monotonic() - began < 3  # were they tried one by one, it would take longer
