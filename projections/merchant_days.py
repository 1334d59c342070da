"""``merchant_days``: a merchant's metrics by cohort day, so that any window is a sum of days.
Key: merchant_id, day, metric.

| metric | numerator / denominator | cohort day |
| --- | --- | --- |
| on_time 按期交货率 | units arrived before they were due / units due, not excluded | the last day in time |
| dispatch | units dispatched before they were due / units due | the last day in time |
| as_described 货描一致率 | received orders without a conceded fault / received orders | receipt |
| refunds | orders refunded at the merchant's fault / paid orders | placement |
| cancels | orders with units called off by the merchant / paid orders | placement |
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

import msgspec

from ledger.calendar import business_date
from ledger.decider import Story
from ledger.orders.goods import last_receipt_at
from ledger.orders.state import OrderState, PromiseState
from projections.projection import Projection, Row

FAULTS = frozenset({"quality", "wrong_item", "damaged", "quantity", "not_described"})
"""Reasons that, conceded, say that the goods were not as described."""
MERCHANTS_CAUSES = frozenset({"merchant", "stock", "price_error"})
_UNDONE = frozenset({"cancelled", "recovering", "recovered", "reserved", "refused", "withdrawn", "lapsed", "void"})
_METRIC_OF = {"arrive_by": "on_time", "dispatch_by": "dispatch"}
_INSTANT = timedelta(microseconds=1)


class MerchantDay(Row):
    """One bucket.  ``defects`` counts orders; ``defect_buyers`` how many of them by buyer; ``excluded`` units that a
    breach does not count for."""

    merchant_id: str
    day: date
    metric: str
    numerator: int = 0
    denominator: int = 0
    defects: int = 0
    defect_buyers: dict[str, int] = msgspec.field(default_factory=dict)
    excluded: int = 0


class MerchantDayShown(msgspec.Struct):
    """One bucket, with the references of the buyers behind its defects."""

    merchant_id: str
    day: date
    metric: str
    numerator: int
    denominator: int
    defects: int
    defect_buyers: tuple[str, ...]
    excluded: int


def rows(story: Story) -> Iterable[MerchantDay]:
    """What one order adds."""
    s: OrderState = story.state
    if s.placed_on is None or s.paid_at is None:
        return ()
    found = [_promise_day(s, p) for p in s.promises.values() if p.state in ("kept", "breached")]
    received_at = last_receipt_at(s)
    if received_at is not None:
        is_fault = any(c.is_conceded and c.reason in FAULTS for c in s.claims.values())
        found.append(_order_day(s, "as_described", business_date(received_at), is_fault, is_rate_of_good=True))
    is_refunded = any((c.kind == "breach" or c.reason in FAULTS) and c.state not in _UNDONE for c in s.claims.values())
    is_cancelled = any(cause in MERCHANTS_CAUSES for cause in s.cancelled_by.values())
    found.append(_order_day(s, "refunds", s.placed_on, is_refunded, is_rate_of_good=False))
    found.append(_order_day(s, "cancels", s.placed_on, is_cancelled, is_rate_of_good=False))
    return found


def _promise_day(s: OrderState, p: PromiseState) -> MerchantDay:
    row = MerchantDay(s.merchant_id, business_date(p.due_at - _INSTANT), _METRIC_OF[p.kind])
    for x in p.kept:
        row.numerator += x.units
        row.denominator += x.units
    for x in p.breached:
        row.denominator += x.units
        if p.is_overturned:
            row.numerator += x.units
    if p.state == "breached":
        row.defects, row.defect_buyers = 1, {s.buyer_ref: 1}
    return row


def _order_day(s: OrderState, metric: str, day: date, is_defect: bool, *, is_rate_of_good: bool) -> MerchantDay:
    row = MerchantDay(s.merchant_id, day, metric, denominator=1)
    row.numerator = int(is_defect != is_rate_of_good)
    if is_defect:
        row.defects, row.defect_buyers = 1, {s.buyer_ref: 1}
    return row


def read(stored: Iterator[MerchantDay]) -> Iterator[MerchantDayShown]:
    """The buyers by reference."""
    for x in stored:
        yield MerchantDayShown(
            x.merchant_id, x.day, x.metric, x.numerator, x.denominator, x.defects, tuple(x.defect_buyers), x.excluded
        )


projection = Projection(
    "merchant_days", 1, MerchantDay, ("merchant_id", "day", "metric"), frozenset({"order"}), rows=rows, read=read,
    shown=MerchantDayShown,
)  # fmt: skip
