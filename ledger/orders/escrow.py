"""The merchant's money: escrow released on receipt, commission charged on what is kept, half of it rebated.

Everything is a *cumulative target*: each event posts the target less what was posted before, so that increments are
never rounded and a full refund leaves exactly 0 of escrow, commission and rebate.
"""

from ledger.decider import Decisions
from ledger.money import BP, half_even, share
from ledger.orders import events as e
from ledger.orders.asking import ids
from ledger.orders.state import OrderState, ShipmentState, was_dispatched, was_received
from ledger.rulebook import Rulebook


def settle(s: OrderState, rules: Rulebook, refund_id: str | None = None) -> Decisions:
    """What the order's money owes after anything has changed: release, commission, rebate, completion."""
    if s.paid_at is None:
        return
    yield from _release(s)
    yield from _follow_rebate(s, rules, refund_id)
    if s.completed_at is None:
        yield from _complete_if_nothing_is_left(s)


def commission_target(s: OrderState, kept_fen: int) -> int:
    """扣点 on the goods that the merchant keeps."""
    return half_even(s.terms.commission_bp * kept_fen, BP) if s.terms else 0


def _release(s: OrderState) -> Decisions:
    """What the buyer has received and no claim holds goes to the merchant, less commission."""
    has_receipt = s.has_receipt
    lines = _releasable(s) if has_receipt else ()
    goods_fen = sum(x.goods_fen for x in lines)
    is_freight_earned = has_receipt or not any([line.free_units for line in s.lines.values()])
    freight_fen = _releasable_freight(s, goods_fen) if is_freight_earned else 0
    if not (goods_fen or freight_fen or s.commission_escrow_fen):
        return
    commission_fen = commission_target(s, s.kept_fen + goods_fen) - s.commission_fen
    commission_fen = max(0, min(commission_fen, goods_fen + freight_fen + s.commission_escrow_fen))
    paid_out_fen = goods_fen + freight_fen + s.commission_escrow_fen - commission_fen
    if goods_fen or freight_fen or paid_out_fen:
        yield e.EscrowReleased(
            **ids(s), lines=lines, goods_fen=goods_fen, freight_fen=freight_fen, paid_out_fen=paid_out_fen
        )
    if commission_fen:
        yield e.CommissionCharged(**ids(s), target_fen=s.commission_fen + commission_fen, commission_fen=commission_fen)


def _releasable(s: OrderState) -> tuple[e.ReleasedLine, ...]:
    lines = []
    for line in s.lines.values():
        received = s.live_units(line, was_received)
        if received:
            target = share(line.left_fen, received, line.free_units)
            amount = min(line.escrow_fen, target - (line.left_fen - line.escrow_fen))
            if amount > 0:
                lines.append(e.ReleasedLine(line_id=line.line_id, goods_fen=amount))
    return tuple(lines)


def _releasable_freight(s: OrderState, goods_fen: int) -> int:
    """Freight follows the goods; the rest of it goes with the last ones."""
    outstanding = sum(line.free_units - s.live_units(line, was_received) for line in s.lines.values())
    if outstanding == 0 and not s.has_open_claim:
        return s.freight_escrow_fen
    left_fen = s.goods_left_fen
    released_fen = left_fen - sum(line.escrow_fen for line in s.lines.values()) + goods_fen
    target = share(s.freight_left_fen, released_fen, left_fen) if left_fen else 0
    return max(0, min(s.freight_escrow_fen, target - (s.freight_left_fen - s.freight_escrow_fen)))


def _follow_rebate(s: OrderState, rules: Rulebook, refund_id: str | None) -> Decisions:
    """菜鸟物流补贴: the target follows commission and Cainiao's share of the goods; the event posts the difference."""
    if s.terms is None or (s.commission_fen == 0 and s.rebate_fen == 0):
        return
    kept_fen = s.kept_fen
    cainiao_fen = sum(_cainiao_fen(s, line_id, line.kept_fen, rules) for line_id, line in s.lines.items())
    target = 0
    if kept_fen:
        target = half_even(s.commission_fen * s.terms.rebate_share_bp * cainiao_fen, BP * kept_fen)
    if target > s.rebate_fen:
        yield e.RebateAccrued(
            **ids(s), target_fen=target, rebate_fen=target - s.rebate_fen, cainiao_goods_fen=cainiao_fen,
            kept_goods_fen=kept_fen,
        )  # fmt: skip
    elif target < s.rebate_fen:
        yield e.RebateClawedBack(**ids(s), target_fen=target, rebate_fen=s.rebate_fen - target, refund_id=refund_id)
    elif target == 0 and not s.is_rebate_settled and not (cainiao_fen and s.terms.rebate_share_bp):
        yield e.RebateDenied(**ids(s), cause=_denial(s))  # type: ignore[arg-type]


def _cainiao_fen(s: OrderState, line_id: str, kept_fen: int, rules: Rulebook) -> int:
    def travelled(shipment: ShipmentState) -> bool:
        return was_dispatched(shipment) or (
            not rules.rebate.needs_carrier_origin_scan and shipment.arrived_at is not None
        )

    units = s.units(line_id, travelled)
    if units == 0:
        return 0
    return half_even(kept_fen * s.units(line_id, lambda x: x.is_cainiao and travelled(x)), units)


def _denial(s: OrderState) -> str:
    if s.terms and s.terms.rebate_share_bp == 0:
        return "share_zero"
    return "no_carrier_scan" if any(x.is_cainiao for x in s.shipments.values()) else "not_cainiao"


def _complete_if_nothing_is_left(s: OrderState) -> Decisions:
    """Every unit was cancelled or refunded, and every refund is with the buyer."""
    if any([line.free_units for line in s.lines.values()]) or s.has_open_claim or s.has_unpaid_refund:
        return
    if any(claim.return_by_at for claim in s.claims.values()):
        return
    yield e.OrderCompleted(**ids(s), outcome="cancelled" if s.is_cancelled else "refunded")


def close(s: OrderState) -> Decisions:
    """closing: the last window ended and nothing is open."""
    refunded = any(claim.state == "paid" for claim in s.claims.values())
    yield e.OrderCompleted(**ids(s), outcome="partly_refunded" if refunded else "fulfilled")
