"""``merchant_months``: what became of the orders that a merchant took in a month.
Key: merchant_id, month of placement.

An order counts once, as the first that fits: cancelled (every unit called off, not for lack of stock), unavailable
(every unit, for lack of stock), on_time, late, undelivered (breach decided, not arrived), open.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from ledger.calendar import business_date
from ledger.decider import Story
from ledger.money import BP, half_up
from ledger.orders.state import OrderState, PromiseState
from projections.projection import Projection, Row


class MerchantMonth(Row):
    """Sums over the orders.  ``*_by_day`` compares dates instead of instants; ``refund_fen`` is goods and freight of
    late and undelivered orders; a review is low at 1 or 2 (as described)."""

    merchant_id: str
    month: str
    orders: int = 0
    items: int = 0
    arrived: int = 0
    on_time: int = 0
    late: int = 0
    undelivered: int = 0
    open: int = 0
    cancelled: int = 0
    unavailable: int = 0
    breaches: int = 0
    on_time_by_day: int = 0
    late_by_day: int = 0
    shipped_on_time: int = 0
    shipped_late: int = 0
    not_shipped: int = 0
    value_fen: int = 0
    freight_fen: int = 0
    refund_fen: int = 0
    cancelled_fen: int = 0
    reviews: int = 0
    review_score_sum: int = 0
    low_reviews: int = 0
    orders_with_low_review: int = 0
    commission_fen: int = 0
    rebate_fen: int = 0


class MerchantMonthShown(msgspec.Struct):
    """The sums with their ratios: basis points, and a thousandth for the mean; half up, null over zero."""

    merchant_id: str
    month: str
    orders: int
    items: int
    arrived: int
    on_time: int
    late: int
    undelivered: int
    open: int
    cancelled: int
    unavailable: int
    breaches: int
    on_time_bp: int | None
    on_time_by_day: int
    late_by_day: int
    shipped_on_time: int
    shipped_late: int
    not_shipped: int
    value_fen: int
    freight_fen: int
    refund_fen: int
    cancelled_fen: int
    reviews: int
    review_score_sum: int
    low_reviews: int
    orders_with_low_review: int
    review_mean_milli: int | None
    low_review_bp: int | None
    commission_fen: int
    rebate_fen: int


def rows(story: Story) -> Iterable[MerchantMonth]:
    """What one order adds to its month."""
    s: OrderState = story.state
    if s.placed_on is None:
        return ()
    row = MerchantMonth(s.merchant_id, f"{s.placed_on.year:04d}-{s.placed_on.month:02d}", orders=1)
    for line in s.lines.values():
        row.items += line.units
        row.value_fen += line.line_fen
    row.freight_fen = s.freight_fen
    row.commission_fen, row.rebate_fen = s.commission_fen, s.rebate_fen
    if s.is_cancelled:
        _count_cancelled(s, row)
    else:
        _count_arrival(s, row)
        _count_dispatch(s, row)
    _count_reviews(s, row)
    return (row,)


def _count_cancelled(s: OrderState, row: MerchantMonth) -> None:
    row.cancelled_fen = row.value_fen + row.freight_fen
    if s.cancelled_by and set(s.cancelled_by.values()) == {"stock"}:
        row.unavailable = 1
    else:
        row.cancelled = 1


def _count_arrival(s: OrderState, row: MerchantMonth) -> None:
    arrived_at = last_arrival_at(s)
    promises = [p for p in s.promises.values() if p.kind == "arrive_by"]
    if arrived_at is not None:
        row.arrived = 1
    if any(p.state == "breached" for p in promises):
        row.breaches = 1
        row.refund_fen = row.value_fen + row.freight_fen
        if arrived_at is None:
            row.undelivered = 1
        else:
            row.late = 1
    elif arrived_at is not None and all(p.state != "open" for p in promises):
        row.on_time = 1
    else:
        row.open = 1
    if arrived_at is not None and promises:
        if _is_on_day(arrived_at, promises):
            row.on_time_by_day = 1
        else:
            row.late_by_day = 1


def _is_on_day(arrived_at: datetime, promises: list[PromiseState]) -> bool:
    return business_date(arrived_at) <= business_date(max(p.due_at for p in promises))


def last_arrival_at(s: OrderState) -> datetime | None:
    """When the last unit that was not called off arrived; ``None`` while one is missing."""
    return _last(s, "arrived_at")


def last_dispatch_at(s: OrderState) -> datetime | None:
    """When the last unit that was not called off was dispatched; ``None`` while one is missing."""
    return _last(s, "dispatched_at")


def _last(s: OrderState, instant: str) -> datetime | None:
    """The latest of an instant of the parcels, if every unit that was not called off is in a parcel that has it."""
    missing = sum([line.units - line.cancelled_units for line in s.lines.values()])
    last: datetime | None = None
    for shipment in s.shipments.values():
        at: datetime | None = getattr(shipment, instant)
        if at is not None:
            missing -= sum([part.units for part in shipment.lines])
            last = at if last is None or at > last else last
    return last if missing <= 0 else None


def _count_dispatch(s: OrderState, row: MerchantMonth) -> None:
    due_at = max((p.due_at for p in s.promises.values() if p.kind == "dispatch_by"), default=None)
    if due_at is None:
        return
    dispatched_at = last_dispatch_at(s)
    if dispatched_at is None:
        row.not_shipped = 1
    elif dispatched_at < due_at:
        row.shipped_on_time = 1
    else:
        row.shipped_late = 1


def _count_reviews(s: OrderState, row: MerchantMonth) -> None:
    for rating in s.ratings.values():
        if rating.as_described is not None:
            row.reviews += 1
            row.review_score_sum += rating.as_described
            if rating.as_described <= 2:
                row.low_reviews += 1
    row.orders_with_low_review = 1 if row.low_reviews else 0


def read(stored: Iterator[MerchantMonth]) -> Iterator[MerchantMonthShown]:
    """The sums with their ratios."""
    for x in stored:
        yield MerchantMonthShown(
            x.merchant_id, x.month, x.orders, x.items, x.arrived, x.on_time, x.late, x.undelivered, x.open,
            x.cancelled, x.unavailable, x.breaches, half_up(BP * x.on_time, x.on_time + x.late + x.undelivered),
            x.on_time_by_day, x.late_by_day, x.shipped_on_time, x.shipped_late, x.not_shipped, x.value_fen,
            x.freight_fen, x.refund_fen, x.cancelled_fen, x.reviews, x.review_score_sum, x.low_reviews,
            x.orders_with_low_review, half_up(1000 * x.review_score_sum, x.reviews),
            half_up(BP * x.low_reviews, x.reviews), x.commission_fen, x.rebate_fen,
        )  # fmt: skip


projection = Projection(
    "merchant_months", 1, MerchantMonth, ("merchant_id", "month"), frozenset({"order"}), rows=rows, read=read,
    shown=MerchantMonthShown,
)  # fmt: skip
