"""``order-<order_id>``: the one boundary of goods and money of an order.

Everything that must not exceed what was paid or delivered is here.  One order has one merchant; a basket makes several
orders with one ``checkout_id``.  Its life, top to bottom:

    none → placed → paid → partly_shipped → shipped → partly_received → received → completed
           placed → cancelled

* ``placing``   the promise and the money: placed, paid, cancelled, rated
* ``goods``     shipments and scans: dispatched, arrived, delivered, received
* ``promises``  kept, breached, waived, amended, overturned
* ``refunds``   claims: reserved, answered, approved, funded, paid, undone
* ``escrow``    released, commission charged, rebate accrued, completed
* ``state``     what it all folds to, and the deadlines it holds
"""

from collections.abc import Callable
from typing import Any

from ledger.decider import BUYER, MERCHANT, Asked, Deadline, Decider, Decisions
from ledger.events import Fact, Recorded
from ledger.orders import escrow, goods, placing, promises, refunds
from ledger.orders import events as e
from ledger.orders.asking import ids
from ledger.orders.state import OrderState, deadlines, evolve
from ledger.rulebook import Rulebook

_DECIDE: dict[type, Callable[[OrderState, Any, Asked, Rulebook], list[Any]]] = {
    placing.PlaceOrder: placing.place_order,
    placing.CapturePayment: placing.capture_payment,
    placing.ReturnStrayPayment: placing.return_stray_payment,
    placing.CancelUnits: placing.cancel_units,
    placing.RateOrder: placing.rate_order,
    goods.CreateShipment: goods.create_shipment,
    goods.RecordScan: goods.record_scan,
    goods.RetractScan: goods.retract_scan,
    goods.CorrectWaybill: goods.correct_waybill,
    goods.ConfirmReceipt: goods.confirm_receipt,
    goods.DenyDelivery: goods.deny_delivery,
    promises.AmendPromise: promises.amend_promise,
    promises.WaivePromise: promises.waive_promise,
    promises.OverturnBreach: promises.overturn_breach,
    promises.ChangeAddress: promises.change_address,
    refunds.RequestRefund: refunds.request_refund,
    refunds.AgreeRefund: refunds.agree_refund,
    refunds.RefuseRefund: refunds.refuse_refund,
    refunds.WithdrawRefund: refunds.withdraw_refund,
    refunds.ReportCover: refunds.report_cover,
    refunds.InstructRefund: refunds.instruct_refund,
    refunds.ConfirmRefund: refunds.confirm_refund,
    refunds.FailRefund: refunds.fail_refund,
    refunds.RecordRecovery: refunds.record_recovery,
    refunds.WriteOffRecovery: refunds.write_off_recovery,
    refunds.RepayUnits: refunds.repay_units,
}


def decide(s: OrderState, asked: Asked, rules: Rulebook) -> list[Fact]:
    """May this actor assert this?"""
    return _DECIDE[type(asked.command)](s, asked.command, asked, rules)


def react(s: OrderState, event: Recorded, rules: Rulebook) -> Decisions:
    """What the rules make of a fact; afterwards the order's money is settled."""
    d = event.data
    match d:
        case e.OrderPlaced() | e.OrderRated():
            return  # nothing came, and no money moved
        case e.CarrierScanRecorded():
            yield from _follow_scan(s, d, rules)
        case e.ScanRetracted() | e.WaybillCorrected():
            for shipment in list(s.shipments.values()):
                yield from goods.follow_scans(s, shipment, rules)
            yield from promises.keep(s)
        case e.ReceiptConfirmed():
            for shipment_id in d.shipment_ids:
                yield from goods.follow_scans(s, s.shipments[shipment_id], rules)
            yield from promises.keep(s)
            yield from refunds.meet_late_units(s, rules)
        case e.PaymentCaptured():
            yield from promises.void_paid_late(s)
        case e.UnitsCancelled():
            yield from refunds.cancel_units(s, d, rules)
            yield from promises.keep(s)
        case e.AddressChanged():
            yield from promises.void_elsewhere(s)
        case e.RefundRequested():
            yield from refunds.answer_request(s, d, event.received_at, rules)
        case e.RefundAgreed():
            yield from refunds.approve(s, d.refund_id, "merchant", rules)
        case e.RefundWithdrawn():
            yield e.ClaimReleased(**ids(s), claim_id=d.refund_id, cause="withdrawn")
        case e.RefundCoverReported():
            yield from refunds.follow_cover(s, d, event.received_at, rules)
        case e.PromiseWaived() | e.BreachOverturned():
            yield from refunds.undo(s, d.promise_id, event.received_at, rules)
        case e.RefundPaid() | e.RefundPayoutFailed():
            if s.claims[d.refund_id].undone_by:
                yield from refunds.undo(s, d.refund_id, event.received_at, rules)
        case _:
            pass
    yield from escrow.settle(s, rules, getattr(d, "refund_id", None))


def _follow_scan(s: OrderState, d: e.CarrierScanRecorded, rules: Rulebook) -> Decisions:
    shipment = s.shipments[d.shipment_id]
    before = (shipment.dispatched_at, shipment.arrived_at, shipment.delivered_at)
    yield from goods.follow_scans(s, shipment, rules)
    if (shipment.dispatched_at, shipment.arrived_at, shipment.delivered_at) != before:
        yield from promises.keep(s)
        yield from promises.contradict(s, d.scan_id)
        yield from refunds.meet_late_units(s, rules)


def due(s: OrderState, deadline: Deadline, rules: Rulebook) -> Decisions:
    """What the rules make of a deadline that has come."""
    match deadline.name:
        case "payment":
            yield e.PaymentExpired(**ids(s))
        case "promise":
            yield from promises.judge(s, deadline.key, rules)
        case "auto_receipt":
            yield from goods.presume_receipt(s, deadline.key)
        case "refund_answer":
            yield from refunds.presume_agreed(s, deadline.key, rules)
        case "refund_dispute":
            yield from refunds.lapse(s, deadline.key)
        case "refunded_units":
            yield from refunds.keep_refunded(s, deadline.key)
        case "closing":
            yield from escrow.close(s)
    yield from escrow.settle(s, rules, deadline.key)


def owner(s: OrderState, role: str) -> str | None:
    """A buyer and a merchant act on their own orders only."""
    if not s.is_placed:
        return None
    return {BUYER: s.buyer_ref, MERCHANT: s.merchant_id}.get(role)


DECIDER = Decider(
    name="order",
    initial=OrderState,
    decide=decide,
    react=react,
    due=due,
    evolve=evolve,
    deadlines=deadlines,
    owner=owner,
    commands=tuple(_DECIDE),
    events=e.FACTS + e.DECISIONS,
)
