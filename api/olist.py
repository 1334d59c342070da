"""Real orders of another marketplace, told to the ledger as facts: ``guarantee import olist``.

The data are six gzipped CSV files (orders, items, payments, reviews, sellers, products) with local times without a
zone, which are taken in the business zone.  One *ledger order* is what one seller has in one order, its id
``<order_id>-<seller_id>``; the order's times, status and reviews hold for each.  Whatever cannot become a fact is
counted by kind and reported; nothing is dropped silently.
"""

import csv
import gzip
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from pathlib import Path

import msgspec

from api.relive import Timed
from ledger import calendar, merchants, programme
from ledger.decider import ADMIN, BUYER, CARRIER, MERCHANT, OFFICER, PAYMENT, Command
from ledger.orders import events as e
from ledger.orders import goods, placing
from ledger.rulebook import shipped

RULEBOOK = "rulebook-olist.1"
CATEGORY = "other"
PLATFORM_STATE = "SP"
"""Sellers of this state stand in for those who ship with the platform's own logistics."""
VOID = {"canceled": "buyer", "unavailable": "stock"}
"""Cause by status of the orders that were called off."""
NOTICE = timedelta(days=30)
FEE_TO_ON = date(2030, 12, 31)
SECOND = timedelta(seconds=1)


class Pair(msgspec.Struct, gc=False):
    """A ledger order, with everything that happened to it; instants are UTC."""

    order_id: str
    seller_id: str
    buyer_ref: str
    region: str
    status: str
    carrier: str
    purchased_at: datetime
    paid_at: datetime
    handed_at: datetime | None
    arrived_at: datetime | None
    due_at: datetime
    ship_limit_at: datetime
    items: list[tuple[str, str, int]]
    """Item id, product id, price in fen."""
    freight_fen: int
    reviews: list[tuple[str, datetime, int]]
    """Review id, instant, score."""

    @property
    def id(self) -> str:
        """The id of the ledger order."""
        return f"{self.order_id}-{self.seller_id}"

    @property
    def value_fen(self) -> int:
        """The goods."""
        return sum(price_fen for _, _, price_fen in self.items)


class Data(msgspec.Struct):
    """What the files hold, as ledger orders in order of purchase, and what had to be left out or bent, by kind."""

    pairs: list[Pair]
    report: Counter[str]

    @property
    def first_at(self) -> datetime:
        """When the history begins: the rulebook is published."""
        return min(pair.purchased_at for pair in self.pairs) - NOTICE


# --- Reading ------------------------------------------------------------------------------------------------------


def read(directory: Path) -> Data:
    """Reads the files; ``FileNotFoundError`` and ``ValueError`` (naming file and line) if they are not what they
    should be."""
    report: Counter[str] = Counter()
    with _table(directory, "sellers") as rows:
        states = {row["seller_id"]: row["seller_state"] for row in rows}
    items = _items(directory)
    reviews = _reviews(directory)
    pairs = []
    with _table(directory, "orders") as rows:
        for row in rows:
            order_id = row["order_id"]
            by_seller = items.pop(order_id, None)
            order_reviews = reviews.pop(order_id, [])
            if by_seller is None:
                report["orders without items: no ledger order"] += 1
                report["reviews of orders without items: left out"] += len(order_reviews)
                continue
            for seller_id, lines in by_seller.items():
                pairs.append(_pair(row, seller_id, states.get(seller_id, ""), lines, order_reviews, report))
    if not pairs:
        raise ValueError("orders.csv.gz: not one order has items")
    report["items without an order: left out"] += len(items)
    report["reviews without an order: left out"] += sum(len(x) for x in reviews.values())
    _compare_payments(directory, pairs, report)
    pairs.sort(key=lambda pair: (pair.purchased_at, pair.id))
    return Data(pairs, Counter({kind: count for kind, count in report.items() if count}))


COLUMNS = {
    "sellers": {"seller_id", "seller_state"},
    "orders": {
        "order_id", "customer_unique_id", "customer_state", "order_status", "order_purchase_timestamp",
        "order_approved_at", "order_delivered_carrier_date", "order_delivered_customer_date",
        "order_estimated_delivery_date",
    },
    "order_items": {
        "order_id", "order_item_id", "product_id", "seller_id", "shipping_limit_date", "price", "freight_value",
    },
    "reviews": {"review_id", "order_id", "review_score", "review_creation_date", "review_answer_timestamp"},
    "payments": {"order_id", "payment_value"},
}  # fmt: skip
"""What is read of each file."""


@contextmanager
def _table(directory: Path, name: str) -> Iterator[Iterator[dict[str, str]]]:
    """The rows of a file.  Whatever is wrong with one while it is in hand is said of its line."""
    path = directory / f"{name}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            missing = COLUMNS[name] - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"there is no column {', '.join(sorted(missing))}")
            yield _rows(reader)
        except (ValueError, EOFError, csv.Error, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path.name}, line {reader.reader.line_num}: {error}") from error


def _rows(reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    for row in reader:
        if None in row or None in row.values():
            raise ValueError("not as many fields as columns")
        yield row


class _Item(msgspec.Struct, gc=False):
    item_id: str
    product_id: str
    limit_at: datetime
    price_fen: int
    freight_fen: int


def _items(directory: Path) -> dict[str, dict[str, list[_Item]]]:
    found: dict[str, dict[str, list[_Item]]] = defaultdict(lambda: defaultdict(list))
    with _table(directory, "order_items") as rows:
        for row in rows:
            limit_at = _instant(row["shipping_limit_date"])
            if limit_at is None:
                raise ValueError(f"the item of order {row['order_id']} has no shipping limit")
            item = _Item(
                row["order_item_id"], row["product_id"], limit_at, _fen(row["price"]), _fen(row["freight_value"])
            )
            found[row["order_id"]][row["seller_id"]].append(item)
    return found


class _Review(msgspec.Struct, gc=False):
    review_id: str
    created_at: datetime | None
    answered_at: datetime | None
    score: int


def _reviews(directory: Path) -> dict[str, list[_Review]]:
    found: dict[str, list[_Review]] = defaultdict(list)
    with _table(directory, "reviews") as rows:
        for row in rows:
            created_at, answered_at = _instant(row["review_creation_date"]), _instant(row["review_answer_timestamp"])
            review = _Review(row["review_id"], created_at, answered_at, int(row["review_score"]))
            found[row["order_id"]].append(review)
    return found


def _pair(
    row: dict[str, str], seller_id: str, state: str, lines: list[_Item], reviews: list[_Review], report: Counter[str]
) -> Pair:
    purchased_at, due_at = _instant(row["order_purchase_timestamp"]), _instant(row["order_estimated_delivery_date"])
    if purchased_at is None or due_at is None:
        raise ValueError(f"order {row['order_id']} has no purchase or no due date")
    handed_at, arrived_at = (
        _instant(row["order_delivered_carrier_date"]), _instant(row["order_delivered_customer_date"])
    )  # fmt: skip
    ship_limit_at = max(x.limit_at for x in lines)
    is_void = row["order_status"] in VOID
    if is_void:
        report["carrier facts of called-off orders: left out"] += sum(x is not None for x in (handed_at, arrived_at))
        handed_at = arrived_at = None
    _report_gaps(row["order_status"], handed_at, arrived_at, purchased_at, report)
    return Pair(
        order_id=row["order_id"], seller_id=seller_id, buyer_ref=row["customer_unique_id"],
        region=row["customer_state"], status=row["order_status"],
        carrier="cainiao" if state == PLATFORM_STATE else "other", purchased_at=purchased_at,
        paid_at=_paid_at(
            row, is_void, purchased_at, (handed_at, arrived_at), min(due_at, ship_limit_at + SECOND), report
        ),
        handed_at=handed_at, arrived_at=arrived_at, due_at=due_at, ship_limit_at=ship_limit_at,
        items=[(x.item_id, x.product_id, x.price_fen) for x in lines],
        freight_fen=sum(x.freight_fen for x in lines),
        reviews=[_review(x, arrived_at, purchased_at, report) for x in reviews],
    )  # fmt: skip


def _report_gaps(
    status: str, handed_at: datetime | None, arrived_at: datetime | None, purchased_at: datetime, report: Counter[str]
) -> None:
    if arrived_at and not handed_at:
        report["arrived without a carrier date: dispatched at the arrival"] += 1
    if status == "delivered" and not arrived_at:
        report["delivered without an arrival date: not arrived"] += 1
    if any(at and at < purchased_at for at in (handed_at, arrived_at)):
        report["carrier facts before the purchase: received right after the placement"] += 1
    if handed_at and arrived_at and arrived_at < handed_at:
        report["arrived before the hand-over: dispatched at the arrival"] += 1


def _paid_at(
    row: dict[str, str],
    is_void: bool,
    purchased_at: datetime,
    carried: tuple[datetime | None, datetime | None],
    first_due_at: datetime,
    report: Counter[str],
) -> datetime:
    """At the approval, unless that cannot be: then at the purchase."""
    if is_void:
        return purchased_at
    approved_at = _instant(row["order_approved_at"])
    if approved_at is None:
        report["approval missing: paid at the purchase"] += 1
        return purchased_at
    if any(at and at < approved_at for at in carried):
        report["approved after the first carrier fact: paid at the purchase"] += 1
        return purchased_at
    if approved_at >= first_due_at:
        report["approved after a due date: paid at the purchase"] += 1
        return purchased_at
    return max(approved_at, purchased_at)


def _review(
    review: _Review, arrived_at: datetime | None, purchased_at: datetime, report: Counter[str]
) -> tuple[str, datetime, int]:
    at = review.created_at
    if at is None:
        at = review.answered_at or arrived_at or purchased_at
        report["reviews without a creation date: at the answer, the arrival or the purchase"] += 1
    if at < purchased_at:
        report["reviews before the purchase: received right after the placement"] += 1
    return review.review_id, at, review.score


def _compare_payments(directory: Path, pairs: list[Pair], report: Counter[str]) -> None:
    """The ledger captures goods and freight; what buyers really paid may differ, and is only counted."""
    paid: Counter[str] = Counter()
    with _table(directory, "payments") as rows:
        for row in rows:
            paid[row["order_id"]] += _fen(row["payment_value"])
    owed: Counter[str] = Counter()
    for pair in pairs:
        owed[pair.order_id] += pair.value_fen + pair.freight_fen
    report["orders whose payments differ from goods and freight: goods and freight are captured"] += sum(
        paid[order_id] != owed_fen for order_id, owed_fen in owed.items()
    )


def _fen(text: str) -> int:
    whole, _, cents = text.partition(".")
    if len(cents) > 2 or not (whole.isdecimal() and (cents + "0").isdecimal()):
        raise ValueError(f"not an amount of money: {text!r}")
    return int(whole) * 100 + int(cents.ljust(2, "0"))


@lru_cache(maxsize=4096)
def _midnight(day: str) -> datetime:
    return calendar.parse(day)


def _instant(text: str) -> datetime | None:
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return _midnight(text[:10]) + timedelta(
        hours=time.hour, minutes=time.minute, seconds=time.second, microseconds=time.microsecond
    )


# --- Facts --------------------------------------------------------------------------------------------------------


def facts(data: Data, *, shuffle_seed: int | None = None, grace: timedelta = timedelta(hours=24)) -> list[Timed]:
    """Every fact in the order in which the door receives it: when it happened, but never before what it needs.

    With ``shuffle_seed``, every fact but the placement, the payment and the creation of the shipment is received late
    by a random delay below ``grace`` (one delay for all cancellations of an order)."""
    delays = None if shuffle_seed is None else random.Random(shuffle_seed)
    found = _opening(data)
    for pair in data.pairs:
        found.extend(_facts_of(pair, delays, grace))
    found.sort(key=attrgetter("received_at"))
    return found


def _opening(data: Data) -> list[Timed]:
    """The rulebook is published, and every merchant is admitted the day before its first order."""
    body = shipped(RULEBOOK)
    publish = programme.PublishRulebook(body=body)
    found = [Timed(data.first_at, publish, "olist/rulebook", "olist-import", ADMIN, approved_by="olist-supervisor")]
    first: dict[str, datetime] = {}
    for pair in data.pairs:
        first.setdefault(pair.seller_id, pair.purchased_at)
    for seller_id, first_at in first.items():
        found.extend(_admission(seller_id, calendar.start_of(calendar.business_date(first_at - timedelta(days=1)))))
    return found


def _admission(seller_id: str, at: datetime) -> Iterator[Timed]:
    day = calendar.business_date(at)
    steps: tuple[tuple[Command, str, str], ...] = (
        (
            merchants.RegisterTrustPass(
                merchant_id=seller_id, trustpass_id="imported", valid_from_on=day, valid_to_on=FEE_TO_ON
            ),
            "olist-import", OFFICER,
        ),
        (
            merchants.ApplyForProgramme(merchant_id=seller_id, category=CATEGORY, contact_ref="unknown"),
            seller_id, MERCHANT,
        ),
        (
            merchants.StartReview(merchant_id=seller_id, officer_id="olist-import", checklist=()),
            "olist-import", OFFICER,
        ),
        (
            merchants.PassReview(
                merchant_id=seller_id, checks=(), on_time_bp=None, as_described_bp=None, score_position=0
            ),
            "olist-import", OFFICER,
        ),
        (
            merchants.AcceptGuarantees(
                merchant_id=seller_id, guarantees=("quality", "delivery", "exchange"), exchange_days=7,
                return_address_ref="unknown",
            ),
            seller_id, MERCHANT,
        ),
        (
            merchants.RecordAnnualFee(
                merchant_id=seller_id, fee_fen=0, period_from_on=day, period_to_on=FEE_TO_ON, payment_ref="imported"
            ),
            "olist-payments", PAYMENT,
        ),
    )  # fmt: skip
    for command, actor, role in steps:
        yield Timed(at, command, f"olist/{seller_id}/{type(command).__name__}", actor, role)


def _facts_of(pair: Pair, delays: random.Random | None, grace: timedelta) -> list[Timed]:
    """Everything that happened to one order, each not received before the order was placed."""
    order_id, key = pair.id, f"olist/{pair.id}"

    def late(at: datetime) -> datetime:
        received_at = max(at, pair.purchased_at)
        return received_at if delays is None else received_at + grace * delays.random()

    found = [
        Timed(pair.purchased_at, _placement(pair), f"{key}/placed", pair.buyer_ref, BUYER),
        Timed(
            pair.paid_at,
            placing.CapturePayment(
                order_id=order_id, amount_fen=pair.value_fen + pair.freight_fen, payment_ref=pair.order_id
            ),
            f"{key}/paid", "olist-payments", PAYMENT,
        ),
    ]  # fmt: skip
    if pair.status in VOID:
        found += _cancellations(pair, late(pair.purchased_at))
    else:
        found.append(Timed(pair.paid_at, _shipment(pair), f"{key}/shipment", pair.seller_id, MERCHANT))
        for status, at in (("handed", pair.handed_at), ("delivered", pair.arrived_at)):
            if at is not None:
                scan = goods.RecordScan(
                    order_id=order_id, scan_id=status, shipment_id="1", status=status, occurred_at=at
                )
                found.append(Timed(late(at), scan, f"{key}/{status}", pair.carrier, CARRIER))
    for review_id, at, score in pair.reviews:
        rating = placing.RateOrder(order_id=order_id, rating_id=review_id, as_described=score, occurred_at=at)
        found.append(Timed(late(at), rating, f"{key}/{review_id}", pair.buyer_ref, BUYER))
    last = max(range(len(found)), key=lambda index: (found[index].received_at, index))
    found[last] = msgspec.structs.replace(found[last], is_last=True)
    return found


def _placement(pair: Pair) -> placing.PlaceOrder:
    line_ids = tuple(item_id for item_id, _, _ in pair.items)
    return placing.PlaceOrder(
        order_id=pair.id, merchant_id=pair.seller_id, buyer_ref=pair.buyer_ref, checkout_id=pair.order_id,
        category=CATEGORY, address_ref="unknown", region=pair.region,
        lines=tuple(
            e.Line(line_id=item_id, sku=product_id, units=1, line_fen=price_fen, is_indivisible=True)
            for item_id, product_id, price_fen in pair.items
        ),
        freight_fen=pair.freight_fen, total_fen=pair.value_fen + pair.freight_fen,
        promises=(
            placing.PromiseWanted(
                promise_id="arrival", kind="arrive_by", line_ids=line_ids, due_at=pair.due_at, remedy="full_refund"
            ),
            placing.PromiseWanted(
                promise_id="dispatch", kind="dispatch_by", line_ids=line_ids, due_at=pair.ship_limit_at + SECOND,
                remedy="damages",
            ),
        ),
    )  # fmt: skip


def _shipment(pair: Pair) -> goods.CreateShipment:
    return goods.CreateShipment(
        order_id=pair.id, shipment_id="1", lines=tuple(e.Units(line_id=x, units=1) for x, _, _ in pair.items),
        carrier=pair.carrier, waybill=pair.order_id, is_cainiao=pair.carrier == "cainiao",
    )  # fmt: skip


def _cancellations(pair: Pair, received_at: datetime) -> Iterator[Timed]:
    cause = VOID[pair.status]
    for item_id, _, _ in pair.items:
        command = placing.CancelUnits(
            order_id=pair.id, refund_id=f"cancelled-{item_id}", line_id=item_id, units=1,
            cause=cause, occurred_at=pair.purchased_at,  # type: ignore[arg-type]
        )  # fmt: skip
        yield Timed(received_at, command, f"olist/{pair.id}/cancelled-{item_id}", pair.buyer_ref, BUYER)
