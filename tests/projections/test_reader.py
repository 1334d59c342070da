"""Reading read models: pages, prefixes, conditions, balances; all of one moment."""

from collections.abc import Iterator

import pytest

from ledger.store import Store
from projections.reader import NotBuilt, Snapshot, Where
from projections.runner import Projector
from tests.projections.logs import orders, written
from tests.projections.toys import LENGTHS, PLACED, RUNNING, named

ALL = named(RUNNING, PLACED, LENGTHS)


@pytest.fixture
def projector(ledger: str, store: Store) -> Iterator[Projector]:
    with Projector.open(ledger, store=store, projections=ALL) as opened:
        written(store, orders(2_500, a_day=20, merchants=6))
        opened.catch_up()
        yield opened


@pytest.fixture
def snapshot(projector: Projector) -> Iterator[Snapshot]:
    with projector.models.snapshot() as opened:
        yield opened


def test_rows_come_in_the_order_of_their_keys(snapshot: Snapshot) -> None:
    keys = [(x.merchant_id, x.day) for x in snapshot.rows("running")]
    assert keys == sorted(keys)
    assert len(keys) > 20


def test_a_prefix_of_the_key_chooses_rows(snapshot: Snapshot) -> None:
    rows = [x for x in snapshot.rows("running") if x.merchant_id == "m-2"]
    assert list(snapshot.rows("running", key_prefix=("m-2",))) == rows
    assert list(snapshot.rows("running", key_prefix=("m-2", rows[3].day))) == [rows[3]]
    assert list(snapshot.rows("running", key_prefix=("nobody",))) == []


def test_pages_put_together_are_the_whole(snapshot: Snapshot) -> None:
    for name in ALL:
        whole, pages = list(snapshot.rows(name)), []
        after = None
        while page := list(snapshot.rows(name, after_key=after, limit=7)):
            pages += page
            after = ALL[name].key_of(page[-1])
        assert pages == whole


def test_a_balance_is_right_on_every_page(snapshot: Snapshot) -> None:
    whole = list(snapshot.rows("running"))
    for at in (5, 17, 23):
        key = RUNNING.key_of(whole[at])
        assert next(iter(snapshot.rows("running", after_key=key, limit=1))) == whole[at + 1]
    assert any(x.so_far > x.orders for x in whole)


def test_pages_may_begin_behind_the_beginning_of_a_key(snapshot: Snapshot) -> None:
    rows = [x for x in snapshot.rows("running") if x.merchant_id > "m-2"]
    assert list(snapshot.rows("running", after_key=("m-2",))) == rows


def test_conditions_hold_on_stored_and_on_shown_columns(snapshot: Snapshot) -> None:
    rows = list(snapshot.rows("running"))
    busy = [x for x in rows if x.orders >= 3]
    late = [x for x in rows if x.so_far > 30]
    assert list(snapshot.rows("running", where=[Where("orders", ">=", 3)])) == busy
    assert list(snapshot.rows("running", where=[Where("so_far", ">", 30)])) == late
    assert list(snapshot.rows("running", where=[Where("so_far", ">", 30)], limit=2)) == late[:2]
    assert list(snapshot.rows("placed", where=[Where("orders", "<", 40)])) == [
        x for x in snapshot.rows("placed") if x.orders < 40
    ]


def test_conditions_and_prefixes_come_together(snapshot: Snapshot) -> None:
    rows = [x for x in snapshot.rows("running", key_prefix=("m-1",)) if x.orders == 2]
    assert list(snapshot.rows("running", key_prefix=("m-1",), where=[Where("orders", "=", 2)], limit=50)) == rows[:50]


def test_unknown_columns_are_refused(snapshot: Snapshot) -> None:
    for name in ("running", "lengths"):
        with pytest.raises(ValueError, match="mistake"):
            list(snapshot.rows(name, where=[Where("mistake", "=", 1)]))


def test_a_snapshot_stands_still(projector: Projector, store: Store) -> None:
    with projector.models.snapshot() as snapshot:
        position, rows = snapshot.position, list(snapshot.rows("lengths"))
        written(store, [x for x in orders(3_000, seed=2) if x.stream not in {row.stream for row in rows}][:1])
        projector.catch_up()
        assert (snapshot.position, list(snapshot.rows("lengths"))) == (position, rows)
    with projector.models.snapshot() as snapshot:
        assert snapshot.position > position


def test_a_read_model_nobody_has_built_says_so(ledger: str, store: Store) -> None:
    with (
        Projector.open(ledger, store=store, projections=ALL) as projector,
        pytest.raises(NotBuilt),
        projector.models.snapshot("placed"),
    ):
        pass


def test_an_unknown_read_model_is_a_key_error(projector: Projector) -> None:
    with pytest.raises(KeyError, match="mistake"), projector.models.snapshot("mistake"):
        pass


def test_a_reader_that_stops_in_the_middle_leaves_its_connection_clean(projector: Projector) -> None:
    for _ in range(20):
        with projector.models.snapshot("lengths") as snapshot:
            next(iter(snapshot.rows("lengths")))
            next(iter(snapshot.rows("lengths")))


def test_the_digest_is_that_of_the_lines(snapshot: Snapshot) -> None:
    import hashlib

    for name in ALL:
        assert snapshot.digest(name) == hashlib.sha256(b"".join(snapshot.lines(name))).hexdigest()
