"""What the ledger must make of a directory of marketplace orders, worked out without the ledger.

    python oracle.py DATA_DIR OUT_DIR [--as-of "2018-12-01 00:00:00"]

reads orders, order_items, payments, reviews, sellers and products (``*.csv.gz``) and writes the tables that an
import has to reproduce: totals, seller_totals, seller_months, months, ledger_orders, asof_totals, category_totals,
payment_differences, subsidies and data_quality. It imports nothing but the standard library, and nothing of this
project, so that the two can only agree by both being right.

A *ledger order* is one (order, seller) pair of the items; an order without items makes none. Money is integer
centavos. Times are the file's own text, ``YYYY-MM-DD HH:MM:SS``, which sorts as time does; the empty text is
"unknown, or never happened".
"""

import argparse
import csv
import gzip
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

Row = Mapping[str, str]
Cell = str | int

AS_OF = "2018-12-01 00:00:00"
COMMISSION_BP = 500
REBATE_STATE = "SP"
LOW_SCORE = 2
OUTCOMES = ("on_time", "late", "undelivered", "open", "cancelled", "unavailable")
FIGURES = (
    "orders", "items", "arrived", *OUTCOMES, "breaches", "on_time_bp", "on_time_by_day", "late_by_day",
    "shipped_on_time", "shipped_late", "not_shipped", "value_cents", "freight_cents", "refund_cents",
    "cancelled_cents", "reviews", "review_score_sum", "low_reviews", "orders_with_low_review", "review_mean_milli",
    "low_review_bp",
)  # fmt: skip
RATIOS = ("on_time_bp", "review_mean_milli", "low_review_bp")
SUMMED = tuple(name for name in FIGURES if name not in RATIOS)
LEDGER_ORDER = (
    "order_id", "seller_id", "status", "outcome", "items", "placed", "approved", "shipped", "arrived", "ship_limit",
    "due", "value_cents", "freight_cents", "refund_cents", "reviews", "review_score_sum", "low_reviews",
)  # fmt: skip


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """One row of the orders under short names, and the two things that are worked out of it alone.

    ``shipped`` is the carrier's date or the arrival, whichever is earlier: what has arrived was handed over by then.
    ``outcome`` says how the promise to arrive ended.
    """

    order_id: str
    status: str
    placed: str
    approved: str
    carrier: str
    arrived: str
    due: str
    shipped: str
    outcome: str

    @property
    def is_void(self) -> bool:
        """Cancelled or unavailable: nothing was promised any more."""
        return self.outcome in ("cancelled", "unavailable")


@dataclass(slots=True)
class LedgerOrder:
    """One (order, seller) pair and the sums over its items and reviews."""

    order: Order
    seller_id: str
    items: int = 0
    value: int = 0
    freight: int = 0
    limits: set[str] = field(default_factory=set)
    scores: list[int] = field(default_factory=list)

    @property
    def ship_limit(self) -> str:
        """The latest shipping limit of the pair's items; the limit itself is still on time."""
        return max(self.limits)

    @property
    def month(self) -> str:
        """The month of the purchase."""
        return self.order.placed[:7]

    @property
    def refund(self) -> int:
        """A breached promise is refunded in full, goods and freight."""
        return self.value + self.freight if self.order.outcome in ("late", "undelivered") else 0

    @property
    def low_reviews(self) -> int:
        """How many of its reviews stand in for "not as described"."""
        return sum(score <= LOW_SCORE for score in self.scores)


@dataclass(frozen=True)
class Data:
    """The six files and, built from them, the ledger orders by key and the figures of each."""

    as_of: str
    orders: dict[str, Order]
    items: list[Row]
    payments: list[Row]
    reviews: list[Row]
    sellers: dict[str, Row]
    products: dict[str, Row]
    ledger: list[LedgerOrder]
    figures: list[tuple[int, ...]]


def cents(amount: str) -> int:
    """The centavos of a decimal text: "12.3" is 1230."""
    whole, _, fraction = amount.partition(".")
    if len(fraction) > 2 or not (whole + fraction).isdigit():
        raise ValueError(f"not an amount of money: {amount!r}")
    return int(whole + fraction.ljust(2, "0"))


def read(directory: Path, name: str) -> list[Row]:
    """All rows of one gzipped CSV file."""
    with gzip.open(directory / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def outcome(row: Row, as_of: str) -> str:
    """How the promise to arrive ended, the first that fits."""
    if row["order_status"] == "canceled":
        return "cancelled"
    if row["order_status"] == "unavailable":
        return "unavailable"
    arrived, due = row["order_delivered_customer_date"], row["order_estimated_delivery_date"]
    if arrived:
        return "on_time" if arrived <= due else "late"
    return "undelivered" if due < as_of else "open"


def order_of(row: Row, as_of: str) -> Order:
    """A row of the orders file under short names."""
    carrier, arrived = row["order_delivered_carrier_date"], row["order_delivered_customer_date"]
    return Order(
        order_id=row["order_id"],
        status=row["order_status"],
        placed=row["order_purchase_timestamp"],
        approved=row["order_approved_at"],
        carrier=carrier,
        arrived=arrived,
        due=row["order_estimated_delivery_date"],
        shipped=min(carrier, arrived) or carrier or arrived,
        outcome=outcome(row, as_of),
    )


def ledger_orders(orders: Mapping[str, Order], items: Iterable[Row], reviews: Iterable[Row]) -> list[LedgerOrder]:
    """The pairs of order and seller, by key; items of unknown orders make none."""
    scores = defaultdict(list)
    for row in reviews:
        scores[row["order_id"]].append(int(row["review_score"]))
    pairs: dict[tuple[str, str], LedgerOrder] = {}
    for row in items:
        key = row["order_id"], row["seller_id"]
        if key[0] not in orders:
            continue
        pair = pairs.get(key)
        if pair is None:
            pair = pairs[key] = LedgerOrder(orders[key[0]], key[1], scores=scores[key[0]])
        pair.items += 1
        pair.value += cents(row["price"])
        pair.freight += cents(row["freight_value"])
        pair.limits.add(row["shipping_limit_date"])
    return [pairs[key] for key in sorted(pairs)]


def load(directory: Path, as_of: str = AS_OF) -> Data:
    """Read a data directory; what has not arrived is judged at ``as_of``."""
    orders = {row["order_id"]: order_of(row, as_of) for row in read(directory, "orders")}
    items, reviews = read(directory, "order_items"), read(directory, "reviews")
    ledger = ledger_orders(orders, items, reviews)
    return Data(
        as_of=as_of,
        orders=orders,
        items=items,
        payments=read(directory, "payments"),
        reviews=reviews,
        sellers={row["seller_id"]: row for row in read(directory, "sellers")},
        products={row["product_id"]: row for row in read(directory, "products")},
        ledger=ledger,
        figures=[figures(pair) for pair in ledger],
    )


# --- one ledger order ------------------------------------------------------------------------------------------------


def shipping(pair: LedgerOrder) -> str:
    """Which shipping figure counts the ledger order; empty where it was cancelled or unavailable."""
    order = pair.order
    if order.is_void:
        return ""
    if not order.shipped:
        return "not_shipped"
    return "shipped_on_time" if order.shipped <= pair.ship_limit else "shipped_late"


def by_day(order: Order) -> str:
    """The other reading of punctuality: a whole due day. Empty where nothing counts as arrived."""
    if order.is_void or not order.arrived:
        return ""
    return "on_time_by_day" if order.arrived[:10] <= order.due[:10] else "late_by_day"


def figures(pair: LedgerOrder) -> tuple[int, ...]:
    """What one ledger order adds to each of the summed figures."""
    order = pair.order
    low = pair.low_reviews
    line = {
        "orders": 1,
        "items": pair.items,
        "arrived": int(order.outcome in ("on_time", "late")),
        order.outcome: 1,
        "breaches": int(order.outcome in ("late", "undelivered")),
        by_day(order): 1,
        shipping(pair): 1,
        "value_cents": pair.value,
        "freight_cents": pair.freight,
        "refund_cents": pair.refund,
        "cancelled_cents": pair.value + pair.freight if order.is_void else 0,
        "reviews": len(pair.scores),
        "review_score_sum": sum(pair.scores),
        "low_reviews": low,
        "orders_with_low_review": int(low > 0),
    }
    return tuple(line.get(name, 0) for name in SUMMED)


# --- arithmetic ------------------------------------------------------------------------------------------------------


def ratio(numerator: int, denominator: int, scale: int) -> Cell:
    """``scale`` times the quotient, half up; empty over zero."""
    return (2 * scale * numerator + denominator) // (2 * denominator) if denominator else ""


def half_even(numerator: int, denominator: int) -> int:
    """The quotient to the nearest integer, ties to the even one."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2))


def commission_cents(value: int) -> int:
    """The commission on goods worth ``value``."""
    return half_even(value * COMMISSION_BP, 10_000)


def summed(lines: Iterable[tuple[int, ...]]) -> list[Cell]:
    """The sums of the figures in their columns, the ratios among them."""
    sums = dict.fromkeys(SUMMED, 0) | dict(zip(SUMMED, map(sum, zip(*lines, strict=True)), strict=False))
    ratios = {
        "on_time_bp": ratio(sums["on_time"], sums["on_time"] + sums["breaches"], 10_000),
        "review_mean_milli": ratio(sums["review_score_sum"], sums["reviews"], 1_000),
        "low_review_bp": ratio(sums["low_reviews"], sums["reviews"], 10_000),
    }
    return [ratios[name] if name in ratios else sums[name] for name in FIGURES]


# --- tables ----------------------------------------------------------------------------------------------------------

Table = Iterator[list[Cell]]


def grouped(data: Data, key: Callable[[LedgerOrder], tuple[str, ...]]) -> Table:
    """A row for each value of the key: the key, then the figures."""
    groups = defaultdict(list)
    for pair, line in zip(data.ledger, data.figures, strict=True):
        groups[key(pair)].append(line)
    for name in sorted(groups):
        yield [*name, *summed(groups[name])]


def seller_totals(data: Data) -> Table:
    """A row for each seller."""
    yield ["seller_id", *FIGURES]
    yield from grouped(data, lambda pair: (pair.seller_id,))


def seller_months(data: Data) -> Table:
    """A row for each seller and month of purchase."""
    yield ["seller_id", "month", *FIGURES]
    yield from grouped(data, lambda pair: (pair.seller_id, pair.month))


def months(data: Data) -> Table:
    """A row for each month of purchase."""
    yield ["month", *FIGURES]
    yield from grouped(data, lambda pair: (pair.month,))


def ledger_order_rows(data: Data) -> Table:
    """A row for each ledger order; shipped and arrived are there whatever the status says."""
    yield list(LEDGER_ORDER)
    for pair in data.ledger:
        order = pair.order
        yield [
            order.order_id, pair.seller_id, order.status, order.outcome, pair.items, order.placed,
            order.approved, order.shipped, order.arrived, pair.ship_limit, order.due, pair.value, pair.freight,
            pair.refund, len(pair.scores), sum(pair.scores), pair.low_reviews,
        ]  # fmt: skip


def totals(data: Data) -> Table:
    """Everything summed."""
    yield ["name", "value"]
    yield ["as_of", data.as_of]
    yield ["orders_rows", len(data.orders)]
    yield ["items_rows", len(data.items)]
    yield ["payments_rows", len(data.payments)]
    yield ["reviews_rows", len(data.reviews)]
    yield ["sellers", len(data.sellers)]
    for status, count in sorted(Counter(order.status for order in data.orders.values()).items()):
        yield [f"order_status_{status}", count]
    for name, value in zip(FIGURES, summed(data.figures), strict=True):
        yield [f"ledger_{name}", value]
    yield from paid(data.payments)


def paid(payments: Iterable[Row]) -> Table:
    """What was paid, in all and by kind of payment."""
    rows: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for row in payments:
        rows[row["payment_type"]] += 1
        sums[row["payment_type"]] += cents(row["payment_value"])
    yield ["paid_cents", sums.total()]
    for kind in sorted(rows):
        yield [f"paid_{kind}_rows", rows[kind]]
        yield [f"paid_{kind}_cents", sums[kind]]


def next_month(month: str) -> str:
    """The month after ``YYYY-MM``."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04}-{number % 12 + 1:02}"


def asof_months(ledger: list[LedgerOrder]) -> Iterator[str]:
    """From the month after the first purchase to the month after the last due date."""
    if not ledger:
        return
    last = next_month(max(pair.order.due for pair in ledger)[:7])
    month = next_month(min(pair.month for pair in ledger))
    while month <= last:
        yield month
        month = next_month(month)


def state_before(ledger: Iterable[LedgerOrder], instant: str) -> list[int]:
    """Placed, shipped, arrived, breaches and refunds of what happened strictly before ``instant``.

    Cancelled and unavailable orders count as placed only: the data has no time of cancellation.
    """
    placed = shipped = arrived = breaches = refunds = 0
    for pair in ledger:
        order = pair.order
        placed += order.placed < instant
        if order.is_void:
            continue
        shipped += "" < order.shipped < instant
        arrived += "" < order.arrived < instant
        if order.due < instant and (not order.arrived or order.arrived > order.due):
            breaches += 1
            refunds += pair.value + pair.freight
    return [placed, shipped, arrived, breaches, refunds]


def asof_totals(data: Data) -> Table:
    """The state just before the first instant of each month."""
    yield ["as_of", "placed", "shipped", "arrived", "breaches", "refund_cents"]
    for month in asof_months(data.ledger):
        day = f"{month}-01"
        yield [day, *state_before(data.ledger, f"{day} 00:00:00")]


def category_totals(data: Data) -> Table:
    """A row for each product category, over all items; the empty one is of products without category."""
    yield ["category", "items", "value_cents", "freight_cents"]
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in data.items:
        sums[category_of(data, row)].update(
            items=1, value_cents=cents(row["price"]), freight_cents=cents(row["freight_value"])
        )
    for category, line in sorted(sums.items()):
        yield [category, line["items"], line["value_cents"], line["freight_cents"]]


def category_of(data: Data, item: Row) -> str:
    """The category of an item's product, empty where there is none."""
    product = data.products.get(item["product_id"])
    return product["product_category_name"] if product else ""


def payment_differences(data: Data) -> Table:
    """A row for each order whose payments differ from items + freight, or that lacks one of the two sides."""
    yield ["order_id", "status", "owed_cents", "paid_cents", "difference_cents"]
    owed, given = owed_by_order(data.items), paid_by_order(data.payments)
    for order_id in sorted(data.orders.keys() & (owed.keys() | given.keys())):
        difference = given[order_id] - owed[order_id]
        if difference or (order_id in owed) != (order_id in given):
            sides = [sums.get(order_id, "") for sums in (owed, given)]
            yield [order_id, data.orders[order_id].status, *sides, difference]


def owed_by_order(items: Iterable[Row]) -> Counter[str]:
    """Items and freight, by order."""
    owed: Counter[str] = Counter()
    for row in items:
        owed[row["order_id"]] += cents(row["price"]) + cents(row["freight_value"])
    return owed


def paid_by_order(payments: Iterable[Row]) -> Counter[str]:
    """Payments, by order."""
    given: Counter[str] = Counter()
    for row in payments:
        given[row["order_id"]] += cents(row["payment_value"])
    return given


def subsidies(data: Data) -> Table:
    """Commission and rebate of the orders on time, a row for each seller and month of purchase that has any.

    A breached order is refunded in full and so pays no commission.
    """
    yield ["seller_id", "month", "orders", "commission_cents", "rebate_cents"]
    sums: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for pair in data.ledger:
        if pair.order.outcome != "on_time":
            continue
        commission = commission_cents(pair.value)
        seller = data.sellers.get(pair.seller_id, {})
        rebate = half_even(commission, 2) if seller.get("seller_state") == REBATE_STATE else 0
        sums[pair.seller_id, pair.month].update(orders=1, commission=commission, rebate=rebate)
    for (seller_id, month), line in sorted(sums.items()):
        yield [seller_id, month, line["orders"], line["commission"], line["rebate"]]


# --- bad input -------------------------------------------------------------------------------------------------------


def data_quality(data: Data) -> Table:
    """A row for each kind of input that is incomplete or at odds with itself, and how often it stands there."""
    yield ["name", "rows"]
    for part in (missing_parts, review_quality, missing_times, contradictory_times, limit_quality, payment_quality):
        for name, count in part(data).items():
            yield [name, count]
    yield ["items_in_products_without_category", sum(not category_of(data, row) for row in data.items)]


def repeated(keys: Iterable[str]) -> int:
    """How many keys stand there more than once."""
    return sum(count > 1 for count in Counter(keys).values())


def missing_parts(data: Data) -> dict[str, int]:
    """Orders that lack a whole side."""
    with_items = {row["order_id"] for row in data.items}
    with_payment = {row["order_id"] for row in data.payments}
    with_review = {row["order_id"] for row in data.reviews}
    return {
        "orders_without_items": len(data.orders.keys() - with_items),
        "items_without_order": sum(row["order_id"] not in data.orders for row in data.items),
        "orders_without_payment": len(data.orders.keys() - with_payment),
        "orders_without_review": len(data.orders.keys() - with_review),
        "orders_with_several_sellers": repeated(pair.order.order_id for pair in data.ledger),
    }


def review_quality(data: Data) -> dict[str, int]:
    """Reviews that share a key or lack a time, or whose times contradict the order's."""
    keys = {(row["review_id"], row["order_id"]) for row in data.reviews}
    dated = [(row["review_creation_date"], row) for row in data.reviews if row["review_creation_date"]]
    ordered = [(when, data.orders[row["order_id"]]) for when, row in dated if row["order_id"] in data.orders]
    return {
        "orders_with_several_reviews": repeated(row["order_id"] for row in data.reviews),
        "review_ids_on_several_orders": repeated(review_id for review_id, _ in keys),
        "reviews_without_creation_date": len(data.reviews) - len(dated),
        "reviews_without_answer_timestamp": sum(not row["review_answer_timestamp"] for row in data.reviews),
        "reviews_answered_before_created": sum("" < row["review_answer_timestamp"] < when for when, row in dated),
        "review_created_before_purchase": sum(when[:10] < order.placed[:10] for when, order in ordered),
        "review_created_before_arrival": sum(when[:10] < order.arrived[:10] for when, order in ordered),
    }


def missing_times(data: Data) -> dict[str, int]:
    """Times that the status asks for and that are not there, or the other way round."""
    orders = data.orders.values()
    delivered = [order for order in orders if order.status == "delivered"]
    cancelled = [order for order in orders if order.status == "canceled"]
    return {
        "approval_missing": sum(not order.approved for order in orders),
        "delivered_without_approval": sum(not order.approved for order in delivered),
        "delivered_without_carrier_date": sum(not order.carrier for order in delivered),
        "delivered_without_arrival_date": sum(not order.arrived for order in delivered),
        "cancelled_with_arrival_date": sum(bool(order.arrived) for order in cancelled),
        "cancelled_with_carrier_date": sum(bool(order.carrier) for order in cancelled),
    }


def contradictory_times(data: Data) -> dict[str, int]:
    """Times of an order in an order that cannot be."""
    orders = data.orders.values()
    return {
        "carrier_before_purchase": sum("" < order.carrier < order.placed for order in orders),
        "carrier_before_approval": sum("" < order.carrier < order.approved for order in orders),
        "arrival_before_carrier": sum("" < order.arrived < order.carrier for order in orders),
        "arrival_before_approval": sum("" < order.arrived < order.approved for order in orders),
        "due_before_purchase": sum(order.due < order.placed for order in orders),
        "due_not_midnight": sum(not order.due.endswith(" 00:00:00") for order in orders),
        "arrived_on_the_due_day_after_midnight": sum(
            order.arrived[:10] == order.due[:10] and order.arrived > order.due for order in orders
        ),
    }


def limit_quality(data: Data) -> dict[str, int]:
    """Shipping limits that cannot be meant, and items that travel free."""
    limits = [(row["shipping_limit_date"], data.orders.get(row["order_id"])) for row in data.items]
    known = [(limit, order) for limit, order in limits if order]
    return {
        "ship_limit_before_purchase": sum(limit < order.placed for limit, order in known),
        "ship_limit_over_a_year_late": sum(limit > year_after(order.placed) for limit, order in known),
        "ship_limit_after_due": sum(limit > order.due for limit, order in known),
        "pairs_with_several_ship_limits": sum(len(pair.limits) > 1 for pair in data.ledger),
        "items_with_free_freight": sum(cents(row["freight_value"]) == 0 for row in data.items),
    }


def year_after(when: str) -> str:
    """The same time of day, 365 days later."""
    return str(datetime.fromisoformat(when) + timedelta(days=365))


def payment_quality(data: Data) -> dict[str, int]:
    """Payments of nothing or of no known kind, and orders whose payments are not numbered 1, 2, 3 ..."""
    numbers = defaultdict(set)
    for row in data.payments:
        numbers[row["order_id"]].add(int(row["payment_sequential"]))
    return {
        "payments_of_zero": sum(cents(row["payment_value"]) == 0 for row in data.payments),
        "payments_not_defined": sum(row["payment_type"] == "not_defined" for row in data.payments),
        "payment_sequence_not_from_1": sum(min(seen) != 1 for seen in numbers.values()),
        "payment_sequence_with_gaps": sum(max(seen) != len(seen) for seen in numbers.values()),
    }


# --- writing ---------------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[Data], Table]] = {
    "totals.csv": totals,
    "seller_totals.csv": seller_totals,
    "seller_months.csv": seller_months,
    "months.csv": months,
    "ledger_orders.csv.gz": ledger_order_rows,
    "asof_totals.csv": asof_totals,
    "category_totals.csv": category_totals,
    "payment_differences.csv": payment_differences,
    "subsidies.csv": subsidies,
    "data_quality.csv": data_quality,
}


def csv_bytes(rows: Iterable[list[Cell]]) -> bytes:
    """The rows as CSV; an empty first field is quoted, so that no line begins with its comma."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        if row[0] == "":
            text.write('""')
        writer.writerow(row)
    return text.getvalue().encode()


def zipped(content: bytes) -> bytes:
    """The content gzipped, without name, time or system in the header."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def write(data: Data, out: Path) -> None:
    """Write every table into ``out``, byte for byte the same for the same data."""
    out.mkdir(parents=True, exist_ok=True)
    for name, table in TABLES.items():
        content = csv_bytes(table(data))
        if name.endswith(".gz"):
            content = zipped(content)
        (out / name).write_bytes(content)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compute the tables that an import must reproduce.")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--as-of", default=AS_OF, metavar="'YYYY-MM-DD HH:MM:SS'")
    arguments = parser.parse_args()
    as_of = str(datetime.fromisoformat(arguments.as_of))
    write(load(arguments.data_dir, as_of), arguments.out_dir)


if __name__ == "__main__":
    main()
