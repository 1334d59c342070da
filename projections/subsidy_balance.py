"""``subsidy_balance``: rebates owed to a merchant (菜鸟物流补贴).
Key: merchant_id, month in which they were recorded."""

from collections.abc import Iterable, Iterator

import msgspec

from ledger.calendar import business_month
from ledger.events import Recorded
from ledger.orders.events import RebateAccrued, RebateClawedBack, RebateDenied
from projections.projection import Projection, Row


class SubsidyMonth(Row):
    """What a month added: ``orders`` whose rebate began in it, ``denied_orders`` that got none."""

    merchant_id: str
    month: str
    accrued_fen: int = 0
    clawed_back_fen: int = 0
    orders: int = 0
    denied_orders: int = 0


class SubsidyMonthShown(msgspec.Struct):
    """closing = opening + accrued - clawed back; opening = the last month's closing."""

    merchant_id: str
    month: str
    opening_fen: int
    accrued_fen: int
    clawed_back_fen: int
    closing_fen: int
    orders: int
    denied_orders: int


def contributions(event: Recorded) -> Iterable[SubsidyMonth]:
    """What one event adds."""
    match event.data:
        case RebateAccrued(merchant_id=merchant_id, rebate_fen=rebate_fen, target_fen=target_fen):
            month = business_month(event.recorded_at)
            return (SubsidyMonth(merchant_id, month, accrued_fen=rebate_fen, orders=int(target_fen == rebate_fen)),)
        case RebateClawedBack(merchant_id=merchant_id, rebate_fen=rebate_fen):
            return (SubsidyMonth(merchant_id, business_month(event.recorded_at), clawed_back_fen=rebate_fen),)
        case RebateDenied(merchant_id=merchant_id):
            return (SubsidyMonth(merchant_id, business_month(event.recorded_at), denied_orders=1),)
    return ()


def read(stored: Iterator[SubsidyMonth]) -> Iterator[SubsidyMonthShown]:
    """The months with their running balance."""
    merchant_id, balance_fen = None, 0
    for x in stored:
        opening_fen = balance_fen if x.merchant_id == merchant_id else 0
        merchant_id, balance_fen = x.merchant_id, opening_fen + x.accrued_fen - x.clawed_back_fen
        yield SubsidyMonthShown(
            x.merchant_id, x.month, opening_fen, x.accrued_fen, x.clawed_back_fen, balance_fen, x.orders,
            x.denied_orders,
        )  # fmt: skip


projection = Projection(
    "subsidy_balance", 1, SubsidyMonth, ("merchant_id", "month"), frozenset({"order"}), contributions=contributions,
    events=frozenset({RebateAccrued, RebateClawedBack, RebateDenied}), read=read, shown=SubsidyMonthShown, series=1,
)  # fmt: skip
