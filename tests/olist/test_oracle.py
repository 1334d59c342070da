"""The oracle on rows small enough to reckon by hand, on the small data set, and on the real one where it is there."""

import csv
import gzip
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import oracle
import pytest
import small

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("GUARANTEE_OLIST") or ROOT.parent / "shared" / "data" / "olist")
DUE = "2017-03-10 00:00:00"
LIMIT = "2017-03-05 12:00:00"

EDGES = {
    "arrived_one_second_before_due": ("on_time", "shipped_on_time"),
    "arrived_one_second_after_due": ("late", "shipped_on_time"),
    "arrived_on_the_due_day_after_midnight": ("late", "shipped_on_time"),
    "shipped_one_second_before_limit": ("on_time", "shipped_on_time"),
    "shipped_at_limit": ("on_time", "shipped_on_time"),
    "shipped_one_second_after_limit": ("on_time", "shipped_late"),
    "several_ship_limits": ("on_time", "shipped_on_time"),
    "arrival_within_ship_limit_before_carrier_after_it": ("on_time", "shipped_on_time"),
    "arrival_in_time_before_carrier_after_due": ("on_time", "shipped_late"),
    "delivered_without_carrier_and_arrival_date": ("undelivered", "not_shipped"),
    "undelivered_shipped": ("undelivered", "shipped_on_time"),
    "cancelled_with_late_arrival_date": ("cancelled", ""),
    "unavailable": ("unavailable", ""),
}
"""Kinds of the small data set, how they end and how they were shipped."""

Row = Mapping[str, object]


def order(order_id: str = "o", **changes: str) -> Row:
    """An order of 1 March 2017, due on the 10th and there on the 8th."""
    return {
        "order_id": order_id,
        "order_status": "delivered",
        "order_purchase_timestamp": "2017-03-01 10:00:00",
        "order_approved_at": "2017-03-01 11:00:00",
        "order_delivered_carrier_date": "2017-03-04 09:00:00",
        "order_delivered_customer_date": "2017-03-08 15:00:00",
        "order_estimated_delivery_date": DUE,
    } | changes


def item(order_id: str = "o", price: str = "100.00", seller: str = "s", limit: str = LIMIT) -> Row:
    """One item, freight 10.00."""
    return {
        "order_id": order_id,
        "order_item_id": 1,
        "product_id": "p",
        "seller_id": seller,
        "shipping_limit_date": limit,
        "price": price,
        "freight_value": "10.00",
    }


def review(review_id: str, score: int, order_id: str = "o") -> Row:
    """One review, created on 9 March 2017."""
    return {
        "review_id": review_id,
        "order_id": order_id,
        "review_score": score,
        "review_creation_date": "2017-03-09 00:00:00",
    }


def given(
    directory: Path,
    orders: Sequence[Row],
    items: Sequence[Row],
    reviews: Sequence[Row] = (),
    *,
    as_of: str = oracle.AS_OF,
) -> oracle.Data:
    """The rows written to files and read back; sellers "s" and "t" are in SP, "u" is not."""
    states = {"s": "SP", "t": "SP", "u": "BA"}
    files: Mapping[str, Sequence[Row]] = {
        "orders": orders,
        "order_items": items,
        "reviews": reviews,
        "payments": (),
        "sellers": [{"seller_id": seller, "seller_state": state} for seller, state in states.items()],
        "products": [{"product_id": "p", "product_category_name": "livros"}],
    }
    for name, rows in files.items():
        with gzip.open(directory / f"{name}.csv.gz", "wt", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, small.COLUMNS[name], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return oracle.load(directory, as_of)


def when(table: oracle.Table) -> list[dict[str, oracle.Cell]]:
    """The rows of a table by column."""
    header, *rows = table
    return [dict(zip(map(str, header), row, strict=True)) for row in rows]


def then(row: Mapping[str, oracle.Cell], **expected: oracle.Cell) -> None:
    """These cells of the row are as expected."""
    assert {name: row[name] for name in expected} == expected


def test_an_arrival_one_second_after_the_due_instant_is_late(tmp_path: Path) -> None:
    arrivals = {"a": "2017-03-09 23:59:59", "b": DUE, "c": "2017-03-10 00:00:01", "d": "2017-03-11 00:00:00"}
    orders = [order(name, order_delivered_customer_date=arrived) for name, arrived in arrivals.items()]
    data = given(tmp_path, orders, [item(name) for name in arrivals])

    [march] = when(oracle.months(data))

    then(march, orders=4, arrived=4, on_time=2, late=2, breaches=2, on_time_bp=5000)
    then(march, on_time_by_day=3, late_by_day=1, value_cents=40_000, freight_cents=4_000, refund_cents=22_000)


def test_what_never_arrived_is_undelivered_once_its_due_date_has_passed(tmp_path: Path) -> None:
    orders = [order(order_status="shipped", order_delivered_customer_date="")]

    before = given(tmp_path, orders, [item()], as_of=DUE)
    after = given(tmp_path, orders, [item()], as_of="2017-03-10 00:00:01")

    then(when(oracle.months(before))[0], open=1, undelivered=0, breaches=0, on_time_bp="", refund_cents=0)
    then(when(oracle.months(after))[0], open=0, undelivered=1, breaches=1, on_time_bp=0, refund_cents=11_000)


def test_a_cancelled_order_counts_as_cancelled_even_if_it_arrived(tmp_path: Path) -> None:
    data = given(tmp_path, [order(order_status="canceled")], [item()])

    then(when(oracle.months(data))[0], orders=1, cancelled=1, arrived=0, on_time_by_day=0, cancelled_cents=11_000)
    then(when(oracle.months(data))[0], shipped_on_time=0, shipped_late=0, not_shipped=0)
    assert not when(oracle.subsidies(data))


def test_commission_and_rebate_go_to_the_even_centavo_at_a_half(tmp_path: Path) -> None:
    # 5 %: 24.5 -> 24, 25.5 -> 26, 25.0, 27.0; half of that: 12, 13, 12.5 -> 12, 13.5 -> 14
    prices = {"a": "4.90", "b": "5.10", "c": "5.00", "d": "5.40"}
    items = [item(name, price) for name, price in prices.items()]
    items += [item("e", "5.30", seller="u")]  # 26.5 -> 26, outside SP
    items += [item("f", "5.05", seller="t"), item("f", "5.05", seller="t")]  # 50.5 -> 50 and 25, on the sum
    data = given(tmp_path, [order(name) for name in "abcdef"], items)

    rows = when(oracle.subsidies(data))

    assert [tuple(row.values()) for row in rows] == [
        ("s", "2017-03", 4, 24 + 26 + 25 + 27, 12 + 13 + 12 + 14),
        ("t", "2017-03", 1, 50, 25),
        ("u", "2017-03", 1, 26, 0),
    ]


def test_the_latest_of_several_shipping_limits_counts_and_is_itself_in_time(tmp_path: Path) -> None:
    carriers = {"a": LIMIT, "b": "2017-03-05 12:00:01"}
    orders = [order(name, order_delivered_carrier_date=carrier) for name, carrier in carriers.items()]
    items = [item(name, limit=limit) for name in carriers for limit in ("2017-03-03 12:00:00", LIMIT)]
    data = given(tmp_path, orders, items)

    then(when(oracle.months(data))[0], orders=2, items=4, shipped_on_time=1, shipped_late=1)
    assert [row["ship_limit"] for row in when(oracle.ledger_order_rows(data))] == [LIMIT, LIMIT]


def test_what_arrived_was_shipped_by_then(tmp_path: Path) -> None:
    arrived = "2017-03-05 11:00:00"
    late_scan = order("a", order_delivered_customer_date=arrived, order_delivered_carrier_date="2017-03-06 00:00:00")
    no_scan = order("b", order_delivered_customer_date=arrived, order_delivered_carrier_date="")
    data = given(tmp_path, [late_scan, no_scan], [item("a"), item("b")])

    assert [row["shipped"] for row in when(oracle.ledger_order_rows(data))] == [arrived, arrived]
    then(when(oracle.months(data))[0], shipped_on_time=2, not_shipped=0)


def test_the_state_at_an_instant_holds_what_happened_strictly_before_it(tmp_path: Path) -> None:
    first = "2017-04-01 00:00:00"
    at_the_instant = order(
        "a",
        order_purchase_timestamp="2017-03-20 10:00:00",
        order_delivered_carrier_date=first,
        order_delivered_customer_date="2017-04-01 00:00:01",
        order_estimated_delivery_date=first,
    )
    placed_at_it = order(
        "b",
        order_purchase_timestamp=first,
        order_delivered_carrier_date="2017-04-20 00:00:00",
        order_delivered_customer_date="2017-04-30 23:59:59",
        order_estimated_delivery_date="2017-05-02 00:00:00",
    )
    data = given(tmp_path, [at_the_instant, placed_at_it], [item("a"), item("b")])

    april, may, june = (tuple(row.values()) for row in when(oracle.asof_totals(data)))

    assert april == ("2017-04-01", 1, 0, 0, 0, 0)
    assert may == ("2017-05-01", 2, 2, 2, 1, 11_000)
    assert june == ("2017-06-01", 2, 2, 2, 1, 11_000)


def test_an_order_belongs_to_the_month_of_its_purchase_for_each_of_its_sellers(tmp_path: Path) -> None:
    orders = [
        order("a", order_purchase_timestamp="2017-02-28 23:59:59"),
        order("b", order_purchase_timestamp="2017-03-01 00:00:00"),
    ]
    items = [item("a", seller="s"), item("a", seller="u"), item("a", seller="u"), item("b", seller="u")]
    data = given(tmp_path, orders, items)

    rows = when(oracle.seller_months(data))

    assert [(row["seller_id"], row["month"], row["orders"], row["items"]) for row in rows] == [
        ("s", "2017-02", 1, 1),
        ("u", "2017-02", 1, 2),
        ("u", "2017-03", 1, 1),
    ]


def test_a_review_counts_once_for_each_seller_of_its_order(tmp_path: Path) -> None:
    items = [item(seller="s"), item(seller="u")]
    data = given(tmp_path, [order()], items, [review("r", 2), review("q", 5), review("p", 4)])

    [march] = when(oracle.months(data))

    then(march, orders=2, reviews=6, review_score_sum=22, low_reviews=2, orders_with_low_review=2)
    then(march, review_mean_milli=3667, low_review_bp=3333)


def test_an_order_without_items_makes_no_ledger_order(tmp_path: Path) -> None:
    data = given(tmp_path, [order()], [])

    assert not data.ledger
    then({str(row["name"]): row["value"] for row in when(oracle.totals(data))}, orders_rows=1, ledger_orders=0)
    then({str(row["name"]): row["rows"] for row in when(oracle.data_quality(data))}, orders_without_items=1)


@pytest.mark.parametrize("amount", ["1.234", "-1.00", "1e3", ""])
def test_an_amount_that_is_not_money_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="not an amount of money"):
        oracle.cents(amount)


def test_the_small_data_set_is_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        small.write(tmp_path / name, seed)

    for name in small.COLUMNS:
        one, again, two = ((tmp_path / run / f"{name}.csv.gz").read_bytes() for run in ("one", "again", "two"))
        assert one == again
        assert one != two


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_small_data_set_holds_every_kind_of_bad_input(tmp_path: Path, seed: int) -> None:
    small.write(tmp_path, seed, with_unseen=True)
    data = oracle.load(tmp_path)

    assert not [row["name"] for row in when(oracle.data_quality(data)) if not row["rows"]]
    totals = {str(row["name"]): row["value"] for row in when(oracle.totals(data))}
    assert {name for name in small.IRREGULAR if small.order_id(seed, name) not in data.orders} == set()
    assert totals["ledger_orders"] == sum(int(totals[f"ledger_{name}"]) for name in oracle.OUTCOMES)
    for outcome in set(oracle.OUTCOMES) - {"open"}:
        assert totals[f"ledger_{outcome}"]


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_small_data_set_asks_no_question_that_has_no_answer(tmp_path: Path, seed: int) -> None:
    small.write(tmp_path, seed)
    data = oracle.load(tmp_path)

    assert not [name for name in data.orders.values() if name.arrived == name.due]
    assert not [row for row in data.reviews if row["review_answer_timestamp"] >= oracle.AS_OF]
    for known in data.orders.values():
        assert max(known.approved, known.carrier, known.arrived, known.due) < oracle.AS_OF
        assert known.placed < min(known.due, known.arrived or known.due)
        assert str(datetime.fromisoformat(known.placed)) == known.placed


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_small_data_set_lies_on_both_sides_of_each_edge(tmp_path: Path, seed: int) -> None:
    small.write(tmp_path, seed)
    pairs = {pair.order.order_id: pair for pair in oracle.load(tmp_path).ledger}

    found = {name: pairs[small.order_id(seed, name)] for name in EDGES}

    assert {name: (pair.order.outcome, oracle.shipping(pair)) for name, pair in found.items()} == EDGES


def test_the_small_data_set_needs_room_for_every_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="orders are needed"):
        small.write(tmp_path, orders=10)


@pytest.mark.skipif(
    not (REAL / "expected").is_dir(),
    reason="no real marketplace orders here: set GUARANTEE_OLIST, or put them in ../shared/data/olist",
)
@pytest.mark.slow
def test_the_oracle_gives_the_expected_tables_of_the_real_data(tmp_path: Path) -> None:
    oracle.write(oracle.load(REAL), tmp_path)

    assert set(oracle.TABLES) == {path.name for path in (REAL / "expected").iterdir()}
    different = [name for name in oracle.TABLES if content(tmp_path / name) != content(REAL / "expected" / name)]
    assert not different


def content(path: Path) -> bytes:
    """The file's bytes, unzipped."""
    found = path.read_bytes()
    return gzip.decompress(found) if path.suffix == ".gz" else found
