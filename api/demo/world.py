"""The world around the ledger: what begins by itself, and how everybody acts on what happens.

Whoever sees an event acts on it a little later, as the order's plan says: buyers pay and ask for money back, merchants
ship and answer, carriers scan, the provider pays out, handlers look at contradictions.  Nobody remembers anything; what
an answer is depends on the event and the plan alone.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from heapq import merge
from itertools import pairwise
from random import Random
from typing import Any

from api.demo import admission, cast
from api.demo.journeys import final_scan, journey
from api.demo.plans import Plan, Plans
from api.relive import Timed
from ledger.calendar import business_date
from ledger.decider import BUYER, CARRIER, FINANCE, HANDLER, INTEGRATOR, MERCHANT, PAYMENT, Command
from ledger.events import Recorded
from ledger.merchants import TopUpDemanded
from ledger.orders import events as e
from ledger.orders import goods, placing, promises, refunds

CONFIRMING = frozenset({
    "plain", "paid_twice", "paid_wrong", "part_cancelled", "late_dispatch", "handed_recorded_late", "amended", "waived",
    "moved", "waybill", "typed_scans", "reduction",
})  # fmt: skip
"""Courses in which the buyer confirms receipt, or not, as the plan says."""
SURELY_CONFIRMING = frozenset({"refund_after", "asked_again", "asked_too_late"})
"""Courses in which the buyer confirms receipt before asking for money."""


class World:
    """Everybody but the ledger."""

    def __init__(self, plans: Plans) -> None:
        self.plans = plans
        self._answers: dict[type, Callable[[Plan, Recorded, Any], Iterable[Timed]]] = {
            e.OrderPlaced: self._pay,
            e.StrayPaymentRecorded: self._return_stray,
            e.PaymentCaptured: self._cancel_or_ship,
            e.ShipmentCreated: self._carry,
            e.CarrierScanRecorded: self._receive,
            e.ClaimReserved: self._answer_request,
            e.RefundRefused: self._give_in,
            e.RefundInstructed: self._pay_out,
            e.BreachContradicted: self._overturn,
            e.PromiseBreached: self._waive_when_short,
            e.RefundRecoveryOpened: self._pay_back,
            e.RefundedUnitsArrived: self._pay_again,
        }

    # --- what begins by itself ----------------------------------------------------------------------------------------

    def facts(self) -> Iterator[Timed]:
        """The programme and its merchants, the placement of every order, and last the closing; in order of time."""
        opening = sorted(admission.opening(self.plans.size), key=lambda fact: fact.received_at)
        yield from merge(opening, self._placements(), key=lambda fact: fact.received_at)
        yield admission.closing(self.plans.size)

    def _placements(self) -> Iterator[Timed]:
        for number in range(1, len(self.plans) + 1):
            plan: Plan = self.plans.plan(number)
            key = f"{self.plans.size.prefix}/{plan.order_id}/placed"
            yield Timed(plan.placed_at, placement(plan), key, plan.buyer_ref, BUYER, is_last=True)

    # --- how everybody acts on what happens ---------------------------------------------------------------------------

    def respond(self, event: Recorded) -> Iterable[Timed]:
        """What the world outside does when it sees an event."""
        if isinstance(event.data, TopUpDemanded):
            return admission.topped_up(self.plans.size, event, event.data)
        answer = self._answers.get(type(event.data))
        if answer is None:
            return ()
        plan = self.plans.of(event.data.order_id)
        return answer(plan, event, event.data) if plan else ()

    def _timed(
        self, plan: Plan, at: datetime, what: str, command: Command, actor: str, role: str, approver: str | None = None
    ) -> Timed:
        return Timed(at, command, f"{self.plans.size.prefix}/{plan.order_id}/{what}", actor, role, approved_by=approver)

    def _by_buyer(self, plan: Plan, at: datetime, what: str, command: Command) -> Timed:
        return self._timed(plan, at, what, command, plan.buyer_ref, BUYER)

    def _by_merchant(self, plan: Plan, at: datetime, what: str, command: Command) -> Timed:
        return self._timed(plan, at, what, command, plan.merchant.merchant_id, MERCHANT)

    def _by_provider(self, plan: Plan, at: datetime, what: str, command: Command) -> Timed:
        return self._timed(plan, at, what, command, cast.PROVIDER, PAYMENT)

    def _chance(self, plan: Plan, what: str) -> Random:
        return Random(f"{self.plans.size.seed}/{plan.number}/{what}")

    # --- money in -----------------------------------------------------------------------------------------------------

    def _pay(self, plan: Plan, event: Recorded, d: e.OrderPlaced) -> Iterator[Timed]:
        if plan.course == "unpaid":
            return
        at = event.received_at + timedelta(minutes=self._chance(plan, "pay").choice((1, 2, 3, 5, 8, 20, 45, 240, 600)))
        if plan.course == "paid_wrong":
            yield self._payment(plan, at - timedelta(seconds=30), "wrong", d.total_fen - 100)
        yield self._payment(plan, at, "1", d.total_fen)
        if plan.course == "paid_twice":
            yield self._payment(plan, at + timedelta(minutes=2), "2", d.total_fen)

    def _payment(self, plan: Plan, at: datetime, ref: str, amount_fen: int) -> Timed:
        payment = placing.CapturePayment(
            order_id=plan.order_id, amount_fen=amount_fen, payment_ref=f"pay-{plan.order_id}-{ref}"
        )
        return self._by_provider(plan, at, f"paid-{ref}", payment)

    def _return_stray(self, plan: Plan, event: Recorded, d: e.StrayPaymentRecorded) -> Iterator[Timed]:
        command = placing.ReturnStrayPayment(
            order_id=plan.order_id, stray_ref=d.payment_ref, amount_fen=d.amount_fen,
            payment_ref=f"back-{d.payment_ref}",
        )  # fmt: skip
        yield self._by_provider(plan, event.received_at + timedelta(hours=26), f"returned-{d.payment_ref}", command)

    # --- goods --------------------------------------------------------------------------------------------------------

    def _cancel_or_ship(self, plan: Plan, event: Recorded, d: e.PaymentCaptured) -> Iterator[Timed]:
        chance, at = self._chance(plan, "ship"), event.received_at
        soon = at + timedelta(minutes=chance.randint(20, 120))
        yield from self._change_mind(plan, soon)
        if plan.course in ("buyer_cancels", "stock_cancels"):
            return
        shipped_at = soon + timedelta(minutes=chance.randint(60, 14 * 60))
        if plan.course == "late_dispatch":
            shipped_at = plan.dispatch_due_at + timedelta(minutes=chance.randint(60, 20 * 60))
        for number, parcel in enumerate(plan.parcels, 1):
            yield self._shipment(plan, shipped_at + number * timedelta(minutes=10), number, parcel)

    def _change_mind(self, plan: Plan, at: datetime) -> Iterator[Timed]:
        """What buyer and merchant agree on, or call off, before anything is shipped."""
        match plan.course:
            case "buyer_cancels" | "part_cancelled":
                lines = plan.cancelled or plan.kept
                for x in lines:
                    yield self._by_buyer(plan, at, f"cancelled-{x.line_id}", _cancellation(plan, x, "buyer"))
            case "stock_cancels":
                for x in plan.kept:
                    yield self._by_merchant(plan, at, f"cancelled-{x.line_id}", _cancellation(plan, x, "stock"))
            case "moved":
                region = cast.REGIONS[(cast.REGIONS.index(plan.region) + 1) % len(cast.REGIONS)]
                command: Command = promises.ChangeAddress(
                    order_id=plan.order_id, address_ref=f"address-{plan.buyer_ref}-2", region=region
                )
                yield self._by_buyer(plan, at, "moved", command)
            case "amended":
                command = promises.AmendPromise(
                    order_id=plan.order_id, promise_id="arrival", due_at=plan.arrive_due_at + timedelta(days=4),
                    buyer_consent_sha256=_sha256(plan, "consent"),
                )  # fmt: skip
                yield self._by_merchant(plan, plan.arrive_due_at - timedelta(hours=40), "amended", command)
            case "waived":
                command = promises.WaivePromise(order_id=plan.order_id, promise_id="arrival")
                yield self._by_buyer(plan, plan.arrive_due_at - timedelta(hours=30), "waived", command)

    def _shipment(self, plan: Plan, at: datetime, number: int, parcel: tuple[e.Units, ...]) -> Timed:
        carrier = _announced_carrier(plan)
        command = goods.CreateShipment(
            order_id=plan.order_id, shipment_id=str(number), lines=parcel, carrier=carrier,
            waybill=_waybill(plan, carrier, number), is_cainiao=carrier == cast.CAINIAO,
        )  # fmt: skip
        if plan.merchant.is_spoken_for:
            return self._timed(plan, at, f"shipment-{number}", command, cast.MARKETPLACE, INTEGRATOR)
        return self._by_merchant(plan, at, f"shipment-{number}", command)

    def _carry(self, plan: Plan, event: Recorded, d: e.ShipmentCreated) -> Iterator[Timed]:
        parcel, chance = int(d.shipment_id), self._chance(plan, f"carry/{d.shipment_id}")
        if d.carrier != plan.carrier:
            yield self._correction(plan, event.received_at + timedelta(hours=1), d.shipment_id)
        actor, role = (cast.MARKETPLACE, INTEGRATOR) if plan.course == "typed_scans" else (plan.carrier, CARRIER)
        for scan in journey(plan, parcel, event.received_at, chance):
            command = goods.RecordScan(
                order_id=plan.order_id, scan_id=scan.scan_id, shipment_id=d.shipment_id, status=scan.status,
                place=cast.REGIONS[(plan.number + len(scan.scan_id)) % len(cast.REGIONS)], precision=scan.precision,
                is_carrier_origin=role == CARRIER, occurred_at=scan.at,
            )  # fmt: skip
            what = f"scan-{scan.scan_id}{'-again' if scan.is_again else ''}"
            yield self._timed(plan, scan.received_at, what, command, actor, role)
            if scan.is_retracted_at:
                retraction = goods.RetractScan(
                    order_id=plan.order_id, scan_id=scan.scan_id, reason="scanned at the wrong door"
                )
                yield self._timed(plan, scan.is_retracted_at, f"retracted-{scan.scan_id}", retraction, actor, role)

    def _correction(self, plan: Plan, at: datetime, shipment_id: str) -> Timed:
        command = goods.CorrectWaybill(
            order_id=plan.order_id, shipment_id=shipment_id, carrier=plan.carrier,
            waybill=_waybill(plan, plan.carrier, int(shipment_id)), is_cainiao=plan.carrier == cast.CAINIAO,
            reason="handed to another carrier than announced",
        )  # fmt: skip
        merchant_id = plan.merchant.merchant_id
        return self._timed(plan, at, f"waybill-{shipment_id}", command, merchant_id, MERCHANT, cast.HANDLER)

    # --- the goods are there ------------------------------------------------------------------------------------------

    def _receive(self, plan: Plan, event: Recorded, d: e.CarrierScanRecorded) -> Iterator[Timed]:
        """The buyer confirms, rates, or wants money back."""
        parcel, at = int(d.shipment_id), event.received_at
        if d.scan_id != final_scan(plan, parcel):
            return
        chance = self._chance(plan, f"receive/{parcel}")
        if _confirms(plan, parcel):
            hours = chance.randint(3, 12) if plan.course in SURELY_CONFIRMING else chance.randint(3, 60)
            command = goods.ConfirmReceipt(order_id=plan.order_id, shipment_ids=(d.shipment_id,))
            yield self._by_buyer(plan, at + timedelta(hours=hours), f"confirmed-{parcel}", command)
        if parcel == len(plan.parcels):
            yield from self._rate(plan, at + timedelta(hours=chance.randint(4, 96)))
            yield from self._complain(plan, at, chance)

    def _rate(self, plan: Plan, at: datetime) -> Iterator[Timed]:
        if plan.stars:
            stars = min(plan.stars, 2) if plan.course in ("late", "partial", "false_delivered") else plan.stars
            command = placing.RateOrder(
                order_id=plan.order_id, rating_id="1", as_described=plan.stars, logistics=stars,
                service=None if plan.number % 3 else stars,
            )  # fmt: skip
            yield self._by_buyer(plan, at, "rated", command)

    def _complain(self, plan: Plan, at: datetime, chance: Random) -> Iterator[Timed]:
        if plan.course == "denied":
            command = goods.DenyDelivery(
                order_id=plan.order_id, shipment_id="1", grounds_sha256=_sha256(plan, "nothing came")
            )
            yield self._by_buyer(plan, at + timedelta(hours=10), "denied", command)
            yield self._request(plan, at + timedelta(hours=30), "refund-1", plan.kept, "delivery_denied")
            return
        reason: Any = chance.choice(("quality", "damaged", "wrong_item", "not_described", "no_reason"))
        first = plan.kept[0]
        part = (e.Units(line_id=first.line_id, units=max(1, first.units // 3)),)
        if plan.course == "four_sources":
            yield self._request(plan, plan.asks_at or at, "refund-1", plan.kept, "quality")
        elif plan.asks_at or plan.course == "refund_before":
            asked_at = plan.asks_at or at + timedelta(hours=chance.randint(18, 40))
            yield self._request(plan, asked_at, "refund-1", part, reason)
        elif plan.course == "refund_after":
            yield self._request(plan, at + timedelta(hours=chance.randint(48, 240)), "refund-1", part, reason)
        elif plan.course == "reduction":
            reduction_fen = plan.lines[0].line_fen // 10
            lines = (e.Units(line_id=first.line_id, units=0),)
            asked_at = at + timedelta(hours=chance.randint(20, 100))
            yield self._request(plan, asked_at, "refund-1", lines, "not_described", reduction_fen)
        elif plan.course == "asked_again":
            yield self._request(plan, at + timedelta(days=2), "refund-1", (first,), reason)
            yield self._request(plan, at + timedelta(days=7), "refund-2", (first,), reason)
        elif plan.course == "asked_too_late":
            yield self._request(plan, at + timedelta(days=37), "refund-1", part, reason)

    def _request(
        self, plan: Plan, at: datetime, refund_id: str, lines: tuple[e.Units, ...], reason: Any, reduction_fen: int = 0
    ) -> Timed:
        command = refunds.RequestRefund(
            order_id=plan.order_id, refund_id=refund_id, lines=lines, reason=reason, reduction_fen=reduction_fen,
            evidence_sha256=_sha256(plan, refund_id),
        )  # fmt: skip
        return self._by_buyer(plan, at, refund_id, command)

    # --- refunds ------------------------------------------------------------------------------------------------------

    def _answer_request(self, plan: Plan, event: Recorded, d: e.ClaimReserved) -> Iterator[Timed]:
        """The merchant agrees, refuses or says nothing; or the buyer thinks better of it."""
        if d.answer_at is None or d.answer_at <= event.received_at:
            return
        at = event.received_at + (d.answer_at - event.received_at) * self._chance(plan, d.claim_id).randint(1, 8) / 10
        order_id, refund_id = plan.order_id, d.claim_id
        answer = "agrees" if plan.course == "denied" and plan.answer != "is_silent" else plan.answer
        if answer == "agrees":
            command: Command = refunds.AgreeRefund(order_id=order_id, refund_id=refund_id)
            yield self._by_merchant(plan, at, f"{refund_id}-agreed", command)
        elif answer == "refuses":
            command = refunds.RefuseRefund(order_id=order_id, refund_id=refund_id, reason="the goods left in order")
            yield self._by_merchant(plan, at, f"{refund_id}-refused", command)
        elif answer == "is_withdrawn":
            command = refunds.WithdrawRefund(order_id=order_id, refund_id=refund_id)
            yield self._by_buyer(plan, at, f"{refund_id}-withdrawn", command)

    def _give_in(self, plan: Plan, event: Recorded, d: e.RefundRefused) -> Iterator[Timed]:
        """Of three merchants who refuse, one agrees after all, while the money is still reserved."""
        if plan.number % 3 == 0:
            command = refunds.AgreeRefund(order_id=plan.order_id, refund_id=d.refund_id)
            yield self._by_merchant(plan, event.received_at + timedelta(days=3), f"{d.refund_id}-conceded", command)

    def _pay_out(self, plan: Plan, event: Recorded, d: e.RefundInstructed) -> Iterator[Timed]:
        """The provider follows the feed, and answers the next day."""
        hours = self._chance(plan, f"{d.refund_id}/{d.attempt}").randint(16, 30)
        at, what = event.received_at + timedelta(hours=hours), f"{d.refund_id}-payout-{d.attempt}"
        if plan.payout_fails and d.attempt == 1:
            command: Command = refunds.FailRefund(
                order_id=plan.order_id, refund_id=d.refund_id, attempt=d.attempt, code="account_closed"
            )
        else:
            command = refunds.ConfirmRefund(
                order_id=plan.order_id, refund_id=d.refund_id, payment_ref=f"out-{plan.order_id}-{d.refund_id}",
                value_on=business_date(at),
            )  # fmt: skip
        yield self._by_provider(plan, at, what, command)

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _overturn(self, plan: Plan, event: Recorded, d: e.BreachContradicted) -> Iterator[Timed]:
        command = promises.OverturnBreach(
            order_id=plan.order_id, promise_id=d.promise_id, reason="the carrier's scan came in late; it was in time",
            evidence_sha256=_sha256(plan, d.scan_id),
        )  # fmt: skip
        at, what = event.received_at + timedelta(hours=20), f"overturned-{d.promise_id}-{d.scan_id}"
        yield self._timed(plan, at, what, command, cast.HANDLER, HANDLER, cast.SUPERVISOR)

    def _waive_when_short(self, plan: Plan, event: Recorded, d: e.PromiseBreached) -> Iterator[Timed]:
        """The refund waits for money that the merchant does not have; the buyer would rather keep the goods."""
        if plan.course == "short_waived" and d.kind == "arrive_by":
            command = promises.WaivePromise(order_id=plan.order_id, promise_id=d.promise_id)
            yield self._by_buyer(plan, event.received_at + timedelta(hours=10), "waived", command)

    def _pay_back(self, plan: Plan, event: Recorded, d: e.RefundRecoveryOpened) -> Iterator[Timed]:
        """In two instalments, or never."""
        what, order_id, refund_id = f"{d.refund_id}-recovery", plan.order_id, d.refund_id
        if plan.is_paid_again:
            parts = pairwise((0, d.refund_fen // 2, d.refund_fen))
            for number, (before_fen, after_fen) in enumerate(parts, 1):
                command = refunds.RecordRecovery(
                    order_id=order_id, refund_id=refund_id, amount_fen=after_fen - before_fen,
                    payment_ref=f"recovered-{order_id}-{refund_id}-{number}",
                )  # fmt: skip
                at = event.received_at + timedelta(days=4 * number)
                yield self._by_provider(plan, at, f"{what}-{number}", command)
        else:
            write_off = refunds.WriteOffRecovery(
                order_id=order_id, refund_id=refund_id, amount_fen=d.refund_fen, reason="the buyer cannot be reached"
            )
            at = d.due_at + timedelta(hours=11)
            yield self._timed(plan, at, f"{what}-off", write_off, cast.FINANCE, FINANCE, cast.SUPERVISOR)

    def _pay_again(self, plan: Plan, event: Recorded, d: e.RefundedUnitsArrived) -> Iterator[Timed]:
        if plan.is_paid_again and plan.course in ("late", "partial", "false_delivered"):
            command = refunds.RepayUnits(
                order_id=plan.order_id, refund_id=d.refund_id, goods_fen=d.goods_fen, freight_fen=d.freight_fen,
                payment_ref=f"again-{plan.order_id}-{d.refund_id}",
            )  # fmt: skip
            yield self._by_provider(plan, event.received_at + timedelta(days=3), f"{d.refund_id}-again", command)


def placement(plan: Plan) -> placing.PlaceOrder:
    """The order as its buyer places it."""
    line_ids = tuple(x.line_id for x in plan.lines)
    wanted = [
        placing.PromiseWanted(
            promise_id="arrival", kind="arrive_by", line_ids=line_ids, due_at=plan.arrive_due_at, remedy="full_refund"
        )
    ]
    if plan.course != "typed_scans":  # what the merchant types in itself proves no dispatch
        wanted.append(
            placing.PromiseWanted(
                promise_id="dispatch", kind="dispatch_by", line_ids=line_ids, due_at=plan.dispatch_due_at,
                remedy="damages",
            )
        )  # fmt: skip
    return placing.PlaceOrder(
        order_id=plan.order_id, merchant_id=plan.merchant.merchant_id, buyer_ref=plan.buyer_ref,
        checkout_id=f"c-{plan.order_id}", category=plan.merchant.category, address_ref=f"address-{plan.buyer_ref}",
        region=plan.region, lines=plan.lines, freight_fen=plan.freight_fen, total_fen=plan.total_fen,
        promises=tuple(wanted),
    )  # fmt: skip


def _confirms(plan: Plan, parcel: int) -> bool:
    if plan.course in ("four_sources", "short_waived"):
        return parcel == 1
    if plan.course == "partial":
        return parcel == 1 and plan.is_confirmed
    return plan.course in SURELY_CONFIRMING or (plan.course in CONFIRMING and plan.is_confirmed)


def _cancellation(plan: Plan, x: e.Units, cause: e.CancelCause) -> placing.CancelUnits:
    return placing.CancelUnits(
        order_id=plan.order_id, refund_id=f"cancelled-{x.line_id}", line_id=x.line_id, units=x.units, cause=cause
    )


def _announced_carrier(plan: Plan) -> str:
    """Who the merchant says has the parcel; it errs if the waybill is to be corrected."""
    if plan.course != "waybill":
        return plan.carrier
    return cast.OTHER_CARRIERS[0] if plan.carrier == cast.CAINIAO else cast.CAINIAO


def _waybill(plan: Plan, carrier: str, parcel: int) -> str:
    return f"{carrier[:2].upper()}{plan.number:07}{parcel}"


def _sha256(plan: Plan, what: str) -> str:
    """Of a document that lies in the vault."""
    return hashlib.sha256(f"{plan.order_id}/{what}".encode()).hexdigest()
