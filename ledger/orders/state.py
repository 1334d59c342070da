"""What has become of an order: its state, folded from its events, and the deadlines that the state holds.

Folding never refuses and never computes a rule: every amount and instant stands in the events.  Any event may be
missing (a fold can stop at any instant on the clock of occurrence), so whatever an event refers to may be unknown.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any

import msgspec

from ledger.decider import BUYER, MERCHANT, Deadline
from ledger.events import Fact, Recorded
from ledger.orders import events as e

OPEN_CLAIM = frozenset({"reserved", "refused"})
"""Claims that reserve money and are not decided yet."""
UNPAID_REFUND = frozenset({"approved", "short", "funded", "instructed", "payout_failed"})
"""Refunds that were approved and still have to reach the buyer."""
REFUNDED = UNPAID_REFUND | {"paid"}
"""Claims whose units and money are the buyer's again."""


class LineState(msgspec.Struct):
    """A line of the order.  ``free_units`` and ``left_fen`` are neither cancelled, refunded nor reserved by a claim;
    of ``left_fen``, ``escrow_fen`` still lies in escrow.  ``kept_fen`` is what was released to the merchant, less
    what later refunds took of it."""

    line_id: str
    sku: str
    units: int
    line_fen: int
    is_indivisible: bool
    free_units: int
    left_fen: int
    escrow_fen: int = 0
    kept_fen: int = 0
    cancelled_units: int = 0
    cancelled_at: datetime | None = None
    """When the last of them were called off."""
    reserved_units: int = 0
    reserved_fen: int = 0
    refunded_units: int = 0
    refunded_fen: int = 0
    repaid_units: int = 0
    repaid_fen: int = 0


class PromiseState(msgspec.Struct):
    """A promise and what became of it: open, kept, breached or voided."""

    promise_id: str
    kind: e.PromiseKind
    line_ids: tuple[str, ...]
    due_at: datetime
    fires_at: datetime
    remedy: e.Remedy
    set_by: int
    state: str = "open"
    kept_at: datetime | None = None
    kept: tuple[e.Units, ...] = ()
    breached: tuple[e.Units, ...] = ()
    is_waived: bool = False
    is_overturned: bool = False
    contradicted_by: tuple[str, ...] = ()


class Scan(msgspec.Struct, frozen=True):
    """A carrier scan that stands."""

    scan_id: str
    status: str
    occurred_at: datetime
    precision: e.Precision
    is_carrier_origin: bool
    is_future: bool


class ShipmentState(msgspec.Struct):
    """A parcel: what is in it, how far the scans say it came, and how many units of each line claims took of it."""

    shipment_id: str
    lines: tuple[e.Units, ...]
    carrier: str
    waybill: str
    is_cainiao: bool
    scans: dict[str, Scan] = msgspec.field(default_factory=dict)
    dispatched_at: datetime | None = None
    arrived_at: datetime | None = None
    delivered_at: datetime | None = None
    auto_receipt_at: datetime | None = None
    closes_at: datetime | None = None
    delivered_by: int = 0
    received_at: datetime | None = None
    """When the buyer had it, in its own word or by presumption."""
    confirmed_at: datetime | None = None
    """In its own word."""
    is_denied: bool = False
    ended: str | None = None
    conflicts: tuple[tuple[str, str], ...] = ()
    claimed: dict[str, int] = msgspec.field(default_factory=dict)

    def units(self, line_id: str) -> int:
        """Units of a line in it."""
        units = 0
        for part in self.lines:
            if part.line_id == line_id:
                units += part.units
        return units

    def unclaimed_units(self, line_id: str) -> int:
        """The same without those that claims took of it."""
        return self.units(line_id) - (self.claimed.get(line_id, 0) if self.claimed else 0)


class ClaimState(msgspec.Struct):
    """A claim on the order's money and the refund it may become.

    reserved → approved → funded → instructed → paid; reserved → refused → lapsed; reserved → withdrawn;
    approved → short → funded; instructed → payout_failed → instructed; unpaid → cancelled; paid → recovering →
    recovered.  A cancellation of units nobody has paid for yet is ``void``: there is nothing to refund."""

    claim_id: str
    kind: str
    reason: str
    lines: tuple[e.ClaimLine, ...]
    parcels: tuple[e.ParcelUnits, ...]
    freight_fen: int
    freight_escrow_fen: int
    damages_fen: int
    set_by: int
    answer_at: datetime | None
    state: str = "reserved"
    refund_fen: int = 0
    escrow_fen: int = 0
    commission_fen: int = 0
    cover_fen: int = 0
    drawn_fen: int = 0
    advanced_fen: int = 0
    cover_attempt: int = 0
    payout_attempt: int = 0
    dispute_by_at: datetime | None = None
    is_conceded: bool = False
    """The merchant agreed to it, in so many words."""
    undone_by: str | None = None
    owed_back_fen: int = 0
    late: dict[str, e.PaidUnits] = msgspec.field(default_factory=dict)
    """Units by line that came to the buyer although this claim refunds them."""
    is_repaid: bool = False
    """The buyer paid again for what came late, so there is nothing to undo."""
    late_parcels: tuple[e.ParcelUnits, ...] = ()
    late_freight_fen: int = 0
    late_set_by: int = 0
    return_by_at: datetime | None = None

    @property
    def goods_fen(self) -> int:
        """The goods value of the claim."""
        return sum(line.goods_fen for line in self.lines)

    @property
    def amount_fen(self) -> int:
        """What the buyer gets if it is granted."""
        return self.goods_fen + self.freight_fen + self.damages_fen

    @property
    def is_open(self) -> bool:
        """It still has to be decided."""
        return self.state in OPEN_CLAIM

    @property
    def is_waiting_for_cover(self) -> bool:
        """The merchant stream was asked for money and has not answered yet."""
        return self.state == "approved" and self.cover_fen > 0


class Rating(msgspec.Struct, frozen=True):
    """A buyer's opinion."""

    as_described: int | None
    logistics: int | None
    service: int | None


class OrderState(msgspec.Struct):
    """An order: goods and money of one buyer with one merchant."""

    rulebook: str | None = None
    order_id: str = ""
    merchant_id: str = ""
    placed_on: date | None = None
    placed_at: datetime | None = None
    buyer_ref: str = ""
    category: str = ""
    address_ref: str = ""
    region: str = ""
    promised_region: str = ""
    """Where the goods were to arrive when they were promised."""
    terms: e.Terms | None = None
    total_fen: int = 0
    payment_due_at: datetime | None = None
    is_expired: bool = False
    paid_at: datetime | None = None
    captured_fen: int = 0
    lines: dict[str, LineState] = msgspec.field(default_factory=dict)
    promises: dict[str, PromiseState] = msgspec.field(default_factory=dict)
    shipments: dict[str, ShipmentState] = msgspec.field(default_factory=dict)
    claims: dict[str, ClaimState] = msgspec.field(default_factory=dict)
    denied: dict[str, str] = msgspec.field(default_factory=dict)
    ratings: dict[str, Rating] = msgspec.field(default_factory=dict)
    strays: dict[str, int] = msgspec.field(default_factory=dict)
    cancelled_by: dict[str, str] = msgspec.field(default_factory=dict)
    """Cause by refund id of the cancellations."""
    asked: dict[str, Fact] = msgspec.field(default_factory=dict)
    """Facts by kind and business id: asked twice, same content is nothing new."""
    freight_fen: int = 0
    freight_left_fen: int = 0
    freight_escrow_fen: int = 0
    escrow_fen: int = 0
    commission_escrow_fen: int = 0
    """Commission that came back into escrow with an undone refund and is charged again with the next release."""
    refunded_fen: int = 0
    released_fen: int = 0
    paid_out_fen: int = 0
    commission_fen: int = 0
    rebate_fen: int = 0
    is_rebate_settled: bool = False
    """The first commission was charged, so that the rebate is accrued or denied."""
    rebate_denied_cause: str | None = None
    completed_at: datetime | None = None
    outcome: str | None = None

    @property
    def is_placed(self) -> bool:
        """There is an order at all."""
        return self.placed_at is not None

    @property
    def goods_left_fen(self) -> int:
        """Goods value that is neither refunded nor reserved."""
        return sum([line.left_fen for line in self.lines.values()])

    @property
    def owed_fen(self) -> int:
        """What the buyer has to pay while nothing is captured."""
        return self.goods_left_fen + self.freight_left_fen

    @property
    def reserved_fen(self) -> int:
        """Money of the order that open claims hold, damages not counted."""
        if not self.claims:
            return 0
        return sum([c.goods_fen + c.freight_fen for c in self.claims.values() if c.is_open])

    @property
    def kept_fen(self) -> int:
        """Goods value that the merchant keeps: the base of commission and rebate."""
        return sum([line.kept_fen for line in self.lines.values()])

    def units(self, line_id: str, has: Callable[[ShipmentState], object]) -> int:
        """Units of a line in shipments of which ``has`` is true."""
        units = 0
        for shipment in self.shipments.values():
            if has(shipment):
                units += shipment.units(line_id)
        return units

    def live_units(self, line: LineState, has: Callable[[ShipmentState], object]) -> int:
        """Free units of a line among those in shipments of which ``has`` is true."""
        units = 0
        for shipment in self.shipments.values():
            if has(shipment):
                units += shipment.unclaimed_units(line.line_id)
        return min(line.free_units, units)

    def undecided_units(self, line_id: str) -> int:
        """Units of a line that open claims reserve although no parcel has brought them."""
        if not self.claims:
            return 0
        return sum(
            sum(x.units for x in claim.lines if x.line_id == line_id)
            - sum(x.units for x in claim.parcels if x.line_id == line_id)
            for claim in self.claims.values()
            if claim.is_open
        )

    def broken_units(self, line_id: str) -> int:
        """Units of a line that were refunded for a broken promise and have not come."""
        if not self.claims:
            return 0
        return sum(
            sum(x.units for x in claim.lines if x.line_id == line_id)
            - sum(x.units for x in claim.late_parcels if x.line_id == line_id)
            for claim in self.claims.values()
            if claim.kind == "breach" and claim.state in REFUNDED and not claim.is_repaid
        )

    def has_open_reduction(self, line_id: str) -> bool:
        """The price of a line is not settled: a claim to lower it is open."""
        return any(
            x.line_id == line_id and x.units == 0
            for claim in self.claims.values()
            if claim.is_open
            for x in claim.lines
        )

    def claimed_units(self, line_id: str, has: Callable[[ShipmentState], object]) -> int:
        """Units of a line that claims took of shipments of which ``has`` is true."""
        if not self.claims:
            return 0
        return sum([x.claimed.get(line_id, 0) for x in self.shipments.values() if has(x)])

    @property
    def has_open_claim(self) -> bool:
        """Somebody still has to answer a claim."""
        return bool(self.claims) and any([claim.is_open for claim in self.claims.values()])

    @property
    def has_unpaid_refund(self) -> bool:
        """Money is still on its way to the buyer."""
        return bool(self.claims) and any([claim.state in UNPAID_REFUND for claim in self.claims.values()])

    @property
    def is_cancelled(self) -> bool:
        """Nobody paid, or every unit was called off."""
        return self.is_expired or all([line.cancelled_units == line.units for line in self.lines.values()])

    @property
    def is_received(self) -> bool:
        """The buyer has confirmed, or is presumed to have, every unit that was neither cancelled nor refunded."""
        free = 0
        for line in self.lines.values():
            if line.free_units:
                free += line.free_units
                if self.live_units(line, was_received) < line.free_units:
                    return False
        return free > 0 or (self.has_receipt and not self.is_cancelled)

    @property
    def has_receipt(self) -> bool:
        """Some parcel was received."""
        return any([shipment.received_at for shipment in self.shipments.values()])

    @property
    def status(self) -> str:
        """none → placed → paid → partly_shipped → shipped → partly_received → received → completed; or cancelled."""
        if not self.is_placed:
            return "none"
        if self.completed_at:
            return "completed"
        if self.is_cancelled:
            return "cancelled"
        if self.paid_at is None:
            return "placed"
        if self.has_receipt:
            return "received" if self.is_received else "partly_received"
        shipped = [
            (self.units(line.line_id, was_dispatched), line.units - line.cancelled_units)
            for line in self.lines.values()
        ]
        if all(gone >= ordered for gone, ordered in shipped):
            return "shipped"
        return "partly_shipped" if any(gone for gone, _ in shipped) else "paid"


def was_dispatched(shipment: ShipmentState) -> bool:
    """A carrier has it."""
    return shipment.dispatched_at is not None


def was_delivered(shipment: ShipmentState) -> bool:
    """The buyer has it."""
    return shipment.delivered_at is not None


def was_received(shipment: ShipmentState) -> bool:
    """The buyer said so, or is presumed to have."""
    return shipment.received_at is not None


# --- Deadlines ----------------------------------------------------------------------------------------------------


def deadlines(s: OrderState) -> Iterator[Deadline]:
    """Every instant at which the clock will decide something about this order."""
    if s.completed_at or not s.is_placed:
        return
    if s.paid_at is None:
        if not s.is_cancelled and s.payment_due_at:
            yield _deadline(s, "payment", s.order_id, s.payment_due_at, BUYER, s.buyer_ref, 1)
        return
    for promise in s.promises.values():
        if promise.state == "open":
            yield Deadline(
                promise.fires_at, "promise", promise.promise_id, promise.due_at, MERCHANT, s.merchant_id, promise.set_by
            )
    for shipment in s.shipments.values():
        if shipment.auto_receipt_at and _awaits_receipt(s, shipment):
            at, by = shipment.auto_receipt_at, shipment.delivered_by
            yield _deadline(s, "auto_receipt", shipment.shipment_id, at, BUYER, s.buyer_ref, by)
    for claim in s.claims.values():
        if claim.state == "reserved" and claim.answer_at:
            yield _deadline(s, "refund_answer", claim.claim_id, claim.answer_at, MERCHANT, s.merchant_id, claim.set_by)
        elif claim.state == "refused" and claim.dispute_by_at:
            yield _deadline(s, "refund_dispute", claim.claim_id, claim.dispute_by_at, BUYER, s.buyer_ref, claim.set_by)
        if claim.return_by_at:
            at, by = claim.return_by_at, claim.late_set_by
            yield _deadline(s, "refunded_units", claim.claim_id, at, BUYER, s.buyer_ref, by)
    closing = closes_at(s)
    if closing:
        yield _deadline(s, "closing", s.order_id, closing, "", "", 1)


def closes_at(s: OrderState) -> datetime | None:
    """When the last window ends; ``None`` while goods, claims or refunds are open."""
    if not s.has_receipt or s.has_open_claim or s.has_unpaid_refund or not s.is_received:
        return None
    return max((x.closes_at for x in s.shipments.values() if x.closes_at), default=None)


def _deadline(s: OrderState, name: str, key: str, at: datetime, role: str, owner: str, set_by: int) -> Deadline:
    return Deadline(at, name, key, at, role, owner, set_by)


def _awaits_receipt(s: OrderState, shipment: ShipmentState) -> bool:
    if shipment.received_at or shipment.is_denied:
        return False
    for part in shipment.lines:
        line = s.lines.get(part.line_id)
        if line is not None and min(line.free_units, shipment.unclaimed_units(part.line_id)):
            return True
    return False


# --- Fold ---------------------------------------------------------------------------------------------------------


def evolve(s: OrderState, event: Recorded) -> OrderState:
    """The state after an event."""
    _EVOLVE[type(event.data)](s, event, event.data)
    return s


def _order_placed(s: OrderState, event: Recorded, d: e.OrderPlaced) -> None:
    s.rulebook, s.terms = d.terms.rulebook, d.terms
    s.order_id, s.merchant_id, s.placed_on, s.placed_at = d.order_id, d.merchant_id, d.placed_on, event.occurred_at
    s.buyer_ref, s.category, s.address_ref, s.region = d.buyer_ref, d.category, d.address_ref, d.region
    s.promised_region = d.region
    s.total_fen, s.payment_due_at = d.total_fen, d.payment_due_at
    s.freight_fen = s.freight_left_fen = d.freight_fen
    for x in d.lines:
        s.lines[x.line_id] = LineState(x.line_id, x.sku, x.units, x.line_fen, x.is_indivisible, x.units, x.line_fen)
    for p in d.promises:
        s.promises[p.promise_id] = PromiseState(
            p.promise_id, p.kind, p.line_ids, p.due_at, p.fires_at, p.remedy, event.version
        )


def _payment_captured(s: OrderState, event: Recorded, d: e.PaymentCaptured) -> None:
    s.asked["payment/" + d.payment_ref] = d
    s.paid_at, s.captured_fen = event.occurred_at, s.captured_fen + d.amount_fen
    s.escrow_fen += d.amount_fen
    s.freight_escrow_fen = s.freight_left_fen
    for line in s.lines.values():
        line.escrow_fen = line.left_fen


def _stray_recorded(s: OrderState, event: Recorded, d: e.StrayPaymentRecorded) -> None:
    s.asked["payment/" + d.payment_ref] = d
    s.strays[d.payment_ref] = d.amount_fen


def _stray_returned(s: OrderState, event: Recorded, d: e.StrayPaymentReturned) -> None:
    s.asked["return/" + d.payment_ref] = d
    s.strays.pop(d.stray_ref, None)


def _payment_expired(s: OrderState, event: Recorded, d: e.PaymentExpired) -> None:
    s.is_expired = True


def _units_cancelled(s: OrderState, event: Recorded, d: e.UnitsCancelled) -> None:
    s.asked["refund/" + d.refund_id] = d
    s.cancelled_by[d.refund_id] = d.cause
    if line := s.lines.get(d.line_id):
        line.cancelled_units += d.units
        line.cancelled_at = max(line.cancelled_at or event.occurred_at, event.occurred_at)


def _order_rated(s: OrderState, event: Recorded, d: e.OrderRated) -> None:
    s.asked["rating/" + d.rating_id] = d
    s.ratings[d.rating_id] = Rating(d.as_described, d.logistics, d.service)


def _promise_amended(s: OrderState, event: Recorded, d: e.PromiseAmended) -> None:
    if promise := s.promises.get(d.promise_id):
        promise.due_at, promise.fires_at, promise.set_by = d.due_at, d.fires_at, event.version


def _promise_waived(s: OrderState, event: Recorded, d: e.PromiseWaived) -> None:
    if promise := s.promises.get(d.promise_id):
        promise.is_waived = True
    if claim := s.claims.get(d.promise_id):
        claim.undone_by = "promise_waived"


def _breach_overturned(s: OrderState, event: Recorded, d: e.BreachOverturned) -> None:
    if promise := s.promises.get(d.promise_id):
        promise.is_overturned = True
        promise.state = "kept"
    if claim := s.claims.get(d.promise_id):
        claim.undone_by = "breach_overturned"


def _address_changed(s: OrderState, event: Recorded, d: e.AddressChanged) -> None:
    s.address_ref, s.region = d.address_ref, d.region


def _promise_kept(s: OrderState, event: Recorded, d: e.PromiseKept) -> None:
    if promise := s.promises.get(d.promise_id):
        promise.kept_at, promise.kept = d.kept_at, d.lines
        if promise.state != "breached":
            promise.state = "kept"


def _promise_breached(s: OrderState, event: Recorded, d: e.PromiseBreached) -> None:
    if promise := s.promises.get(d.promise_id):
        promise.state, promise.breached = "breached", d.lines


def _promise_voided(s: OrderState, event: Recorded, d: e.PromiseVoided) -> None:
    if promise := s.promises.get(d.promise_id):
        promise.state = "voided"


def _breach_contradicted(s: OrderState, event: Recorded, d: e.BreachContradicted) -> None:
    if promise := s.promises.get(d.promise_id):
        promise.contradicted_by = (*promise.contradicted_by, d.scan_id)


def _shipment_created(s: OrderState, event: Recorded, d: e.ShipmentCreated) -> None:
    s.asked["shipment/" + d.shipment_id] = d
    s.shipments[d.shipment_id] = ShipmentState(d.shipment_id, d.lines, d.carrier, d.waybill, d.is_cainiao)


def _scan_recorded(s: OrderState, event: Recorded, d: e.CarrierScanRecorded) -> None:
    s.asked["scan/" + d.scan_id] = d
    if shipment := s.shipments.get(d.shipment_id):
        shipment.scans[d.scan_id] = Scan(
            d.scan_id, d.status, event.occurred_at, d.precision, d.is_carrier_origin, d.is_future
        )


def _scan_retracted(s: OrderState, event: Recorded, d: e.ScanRetracted) -> None:
    for shipment in s.shipments.values():
        scan = shipment.scans.pop(d.scan_id, None)
        if scan and scan.status == shipment.ended:
            shipment.ended = None


def _waybill_corrected(s: OrderState, event: Recorded, d: e.WaybillCorrected) -> None:
    if shipment := s.shipments.get(d.shipment_id):
        shipment.carrier, shipment.waybill, shipment.is_cainiao = d.carrier, d.waybill, d.is_cainiao


def _receipt_confirmed(s: OrderState, event: Recorded, d: e.ReceiptConfirmed) -> None:
    for shipment_id in d.shipment_ids:
        if shipment := s.shipments.get(shipment_id):
            shipment.received_at = shipment.confirmed_at = event.occurred_at
            shipment.is_denied = False


def _delivery_denied(s: OrderState, event: Recorded, d: e.DeliveryDenied) -> None:
    if shipment := s.shipments.get(d.shipment_id):
        shipment.is_denied = True


def _receipt_presumed(s: OrderState, event: Recorded, d: e.ReceiptPresumed) -> None:
    if shipment := s.shipments.get(d.shipment_id):
        shipment.received_at = event.occurred_at


def _parcel(s: OrderState, d: e.UnitsDispatched | e.UnitsArrived | e.UnitsDelivered) -> ShipmentState:
    """The parcel, made from the event where its announcement is missing: it moved before the order was placed."""
    shipment = s.shipments.get(d.shipment_id)
    if shipment is None:
        shipment = s.shipments[d.shipment_id] = ShipmentState(d.shipment_id, d.lines, "", "", False)
    return shipment


def _units_dispatched(s: OrderState, event: Recorded, d: e.UnitsDispatched) -> None:
    shipment = _parcel(s, d)
    shipment.dispatched_at = d.dispatched_at


def _dispatch_revised(s: OrderState, event: Recorded, d: e.DispatchRevised) -> None:
    if shipment := s.shipments.get(d.shipment_id):
        shipment.dispatched_at = d.to_at
        _reopen(s, shipment, "dispatch_by")


def _reopen(s: OrderState, shipment: ShipmentState, kind: e.PromiseKind) -> None:
    """A kept promise about a parcel whose instant was revised is open until it is told to be kept again."""
    moved = {x.line_id for x in shipment.lines}
    for promise in s.promises.values():
        is_kept = promise.kind == kind and promise.state == "kept" and not promise.is_overturned
        if is_kept and moved & set(promise.line_ids):
            promise.state, promise.kept_at, promise.kept = "open", None, ()


def _units_arrived(s: OrderState, event: Recorded, d: e.UnitsArrived) -> None:
    shipment = _parcel(s, d)
    shipment.arrived_at = d.arrived_at


def _arrival_revised(s: OrderState, event: Recorded, d: e.ArrivalRevised) -> None:
    if shipment := s.shipments.get(d.shipment_id):
        shipment.arrived_at = d.to_at
        _reopen(s, shipment, "arrive_by")
        if not d.is_delivered:
            shipment.delivered_at = shipment.auto_receipt_at = shipment.closes_at = None
            _open_again(s)
            shipment.received_at = shipment.confirmed_at  # what was presumed had rested on the delivery


def _units_delivered(s: OrderState, event: Recorded, d: e.UnitsDelivered) -> None:
    shipment = _parcel(s, d)
    shipment.delivered_at, shipment.auto_receipt_at = d.delivered_at, d.auto_receipt_at
    shipment.closes_at, shipment.delivered_by = d.closes_at, event.version
    shipment.ended = None


def _shipment_ended(s: OrderState, event: Recorded, d: e.ShipmentEnded) -> None:
    if shipment := s.shipments.get(d.shipment_id):
        shipment.ended = d.outcome


def _scan_conflict_found(s: OrderState, event: Recorded, d: e.ScanConflictFound) -> None:
    if shipment := s.shipments.get(d.shipment_id):
        shipment.conflicts = (*shipment.conflicts, d.scan_ids)


def _refund_requested(s: OrderState, event: Recorded, d: e.RefundRequested) -> None:
    s.asked["refund/" + d.refund_id] = d


def _refund_denied(s: OrderState, event: Recorded, d: e.RefundDenied) -> None:
    s.denied[d.refund_id] = d.code


def _claim_reserved(s: OrderState, event: Recorded, d: e.ClaimReserved) -> None:
    claim = ClaimState(
        d.claim_id, d.kind, d.reason, d.lines, d.parcels, d.freight_fen, d.freight_escrow_fen, d.damages_fen,
        event.version, d.answer_at,
    )  # fmt: skip
    s.claims[d.claim_id] = claim
    _take(s, claim, +1)
    if s.paid_at is None:
        claim.state = "void"


def _take(s: OrderState, claim: ClaimState, sign: int) -> None:
    """Sets the claim's units and money aside (+1), or puts them back (-1)."""
    for x in claim.lines:
        if line := s.lines.get(x.line_id):
            line.free_units -= sign * x.units
            line.left_fen -= sign * x.goods_fen
            line.escrow_fen -= sign * x.escrow_fen
            line.reserved_units += sign * x.units
            line.reserved_fen += sign * x.goods_fen
    _mark(s, claim.parcels, sign)
    s.freight_left_fen -= sign * claim.freight_fen
    s.freight_escrow_fen -= sign * claim.freight_escrow_fen


def _mark(s: OrderState, parcels: tuple[e.ParcelUnits, ...], sign: int) -> None:
    """Takes units out of their parcels for a claim (+1), or puts them back (-1)."""
    for x in parcels:
        if shipment := s.shipments.get(x.shipment_id):
            shipment.claimed[x.line_id] = shipment.claimed.get(x.line_id, 0) + sign * x.units


def _grant(s: OrderState, claim: ClaimState, sign: int) -> None:
    """Turns what the claim reserved into a refund (+1), or back into a reservation (-1)."""
    for x in claim.lines:
        if line := s.lines.get(x.line_id):
            line.reserved_units -= sign * x.units
            line.reserved_fen -= sign * x.goods_fen
            line.refunded_units += sign * x.units
            line.refunded_fen += sign * x.goods_fen
            line.kept_fen -= sign * (x.goods_fen - x.escrow_fen)
    s.refunded_fen += sign * (claim.goods_fen + claim.freight_fen)


def _claim_released(s: OrderState, event: Recorded, d: e.ClaimReleased) -> None:
    if claim := s.claims.get(d.claim_id):
        claim.state = d.cause
        _take(s, claim, -1)


def _refund_agreed(s: OrderState, event: Recorded, d: e.RefundAgreed) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.is_conceded = True


def _nothing(s: OrderState, event: Recorded, d: e.RefundAgreedBySilence | e.RefundWithdrawn) -> None:
    """The decision that follows says it all."""


def _refund_refused(s: OrderState, event: Recorded, d: e.RefundRefused) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.state, claim.dispute_by_at, claim.set_by = "refused", d.dispute_by_at, event.version


def _refund_approved(s: OrderState, event: Recorded, d: e.RefundApproved) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.state = "approved"
        claim.refund_fen, claim.escrow_fen, claim.commission_fen = d.refund_fen, d.escrow_fen, d.commission_fen
        claim.cover_fen = d.cover_fen
        s.escrow_fen -= d.escrow_fen
        _grant(s, claim, +1)


def _commission_returned(s: OrderState, event: Recorded, d: e.CommissionReturned) -> None:
    s.commission_fen -= d.commission_fen


def _refund_cover_reported(s: OrderState, event: Recorded, d: e.RefundCoverReported) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.cover_attempt = d.attempt
        claim.drawn_fen += d.drawn_fen
        claim.advanced_fen += d.advanced_fen
        if claim.state in ("approved", "short"):
            claim.state = "short"


def _refund_funded(s: OrderState, event: Recorded, d: e.RefundFunded) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.state = "funded"


def _refund_funding_short(s: OrderState, event: Recorded, d: e.RefundFundingShort) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.state = "short"


def _refund_instructed(s: OrderState, event: Recorded, d: e.RefundInstructed) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.state, claim.payout_attempt = "instructed", d.attempt


def _refund_paid(s: OrderState, event: Recorded, d: e.RefundPaid) -> None:
    s.asked["payout/" + d.payment_ref] = d
    if claim := s.claims.get(d.refund_id):
        claim.state = "paid"


def _refund_payout_failed(s: OrderState, event: Recorded, d: e.RefundPayoutFailed) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.state = "payout_failed"


def _refund_undone(s: OrderState, event: Recorded, d: e.RefundCancelled | e.RefundRecoveryOpened) -> None:
    s.escrow_fen += d.to_escrow_fen
    claim = s.claims.get(d.refund_id)
    if claim is None or claim.state in ("cancelled", "recovering"):
        return
    commission_fen = d.to_escrow_fen - d.was_escrow_fen
    s.commission_escrow_fen += commission_fen
    _grant(s, claim, -1)
    _take(s, claim, -1)
    _end_late(s, claim)
    _open_again(s)
    claim.state = "cancelled"


def _recovery_opened(s: OrderState, event: Recorded, d: e.RefundRecoveryOpened) -> None:
    _refund_undone(s, event, d)
    if claim := s.claims.get(d.refund_id):
        claim.state, claim.owed_back_fen = "recovering", d.refund_fen


def _refund_recovered(s: OrderState, event: Recorded, d: e.RefundRecovered | e.RecoveryWrittenOff) -> None:
    if isinstance(d, e.RefundRecovered):
        s.asked["recovery/" + d.payment_ref] = d
    if claim := s.claims.get(d.refund_id):
        claim.owed_back_fen -= d.amount_fen
        if claim.owed_back_fen == 0:
            claim.state = "recovered"


def _refunded_units_arrived(s: OrderState, event: Recorded, d: e.RefundedUnitsArrived) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.return_by_at, claim.late_set_by = d.return_by_at, event.version
        claim.late_freight_fen += d.freight_fen
        for x in d.lines:
            before = claim.late.get(x.line_id, e.PaidUnits(line_id=x.line_id, units=0, goods_fen=0))
            claim.late[x.line_id] = e.PaidUnits(
                line_id=x.line_id, units=before.units + x.units, goods_fen=before.goods_fen + x.goods_fen
            )
        claim.late_parcels += d.parcels
        _mark(s, d.parcels, +1)
        _open_again(s)


def _end_late(s: OrderState, claim: ClaimState) -> None:
    """What came late is not the claim's any more."""
    _mark(s, claim.late_parcels, -1)
    claim.late, claim.late_parcels, claim.late_freight_fen, claim.return_by_at = {}, (), 0, None


def _refunded_units_kept(s: OrderState, event: Recorded, d: e.RefundedUnitsKept) -> None:
    if claim := s.claims.get(d.refund_id):
        claim.return_by_at = None


def _units_repaid(s: OrderState, event: Recorded, d: e.UnitsRepaid) -> None:
    s.asked["repayment/" + d.payment_ref] = d
    _open_again(s)
    s.captured_fen += d.goods_fen + d.freight_fen
    s.escrow_fen += d.goods_fen + d.freight_fen
    s.freight_left_fen += d.freight_fen
    s.freight_escrow_fen += d.freight_fen
    for x in d.lines:
        if line := s.lines.get(x.line_id):
            line.free_units += x.units
            line.repaid_units += x.units
            line.repaid_fen += x.goods_fen
            line.left_fen += x.goods_fen
            line.escrow_fen += x.goods_fen
    if claim := s.claims.get(d.refund_id):
        for part in claim.late_parcels:
            if shipment := s.shipments.get(part.shipment_id):
                shipment.received_at = shipment.received_at or event.occurred_at
        _end_late(s, claim)
        claim.is_repaid = True


def _escrow_released(s: OrderState, event: Recorded, d: e.EscrowReleased) -> None:
    s.escrow_fen -= d.paid_out_fen
    s.released_fen += d.goods_fen + d.freight_fen
    s.paid_out_fen += d.paid_out_fen
    s.commission_escrow_fen = 0
    s.freight_escrow_fen -= d.freight_fen
    for x in d.lines:
        if line := s.lines.get(x.line_id):
            line.escrow_fen -= x.goods_fen
            line.kept_fen += x.goods_fen


def _commission_charged(s: OrderState, event: Recorded, d: e.CommissionCharged) -> None:
    s.escrow_fen -= d.commission_fen
    s.commission_fen += d.commission_fen
    s.commission_escrow_fen = 0


def _rebate_accrued(s: OrderState, event: Recorded, d: e.RebateAccrued) -> None:
    s.rebate_fen += d.rebate_fen
    s.is_rebate_settled, s.rebate_denied_cause = True, None


def _rebate_clawed_back(s: OrderState, event: Recorded, d: e.RebateClawedBack) -> None:
    s.rebate_fen -= d.rebate_fen


def _rebate_denied(s: OrderState, event: Recorded, d: e.RebateDenied) -> None:
    s.is_rebate_settled, s.rebate_denied_cause = True, d.cause


def _open_again(s: OrderState) -> None:
    """Goods or money of a completed order move again: it will be completed once more."""
    s.completed_at = s.outcome = None


def _order_completed(s: OrderState, event: Recorded, d: e.OrderCompleted) -> None:
    s.completed_at, s.outcome = event.occurred_at, d.outcome


_EVOLVE: dict[type, Callable[[OrderState, Recorded, Any], None]] = {
    e.OrderPlaced: _order_placed,
    e.PaymentCaptured: _payment_captured,
    e.StrayPaymentRecorded: _stray_recorded,
    e.StrayPaymentReturned: _stray_returned,
    e.PaymentExpired: _payment_expired,
    e.UnitsCancelled: _units_cancelled,
    e.OrderRated: _order_rated,
    e.PromiseAmended: _promise_amended,
    e.PromiseWaived: _promise_waived,
    e.BreachOverturned: _breach_overturned,
    e.AddressChanged: _address_changed,
    e.PromiseKept: _promise_kept,
    e.PromiseBreached: _promise_breached,
    e.PromiseVoided: _promise_voided,
    e.BreachContradicted: _breach_contradicted,
    e.ShipmentCreated: _shipment_created,
    e.CarrierScanRecorded: _scan_recorded,
    e.ScanRetracted: _scan_retracted,
    e.WaybillCorrected: _waybill_corrected,
    e.ReceiptConfirmed: _receipt_confirmed,
    e.DeliveryDenied: _delivery_denied,
    e.ReceiptPresumed: _receipt_presumed,
    e.UnitsDispatched: _units_dispatched,
    e.DispatchRevised: _dispatch_revised,
    e.UnitsArrived: _units_arrived,
    e.ArrivalRevised: _arrival_revised,
    e.UnitsDelivered: _units_delivered,
    e.ShipmentEnded: _shipment_ended,
    e.ScanConflictFound: _scan_conflict_found,
    e.RefundRequested: _refund_requested,
    e.RefundDenied: _refund_denied,
    e.ClaimReserved: _claim_reserved,
    e.ClaimReleased: _claim_released,
    e.RefundAgreed: _refund_agreed,
    e.RefundAgreedBySilence: _nothing,
    e.RefundRefused: _refund_refused,
    e.RefundWithdrawn: _nothing,
    e.RefundApproved: _refund_approved,
    e.CommissionReturned: _commission_returned,
    e.RefundCoverReported: _refund_cover_reported,
    e.RefundFunded: _refund_funded,
    e.RefundFundingShort: _refund_funding_short,
    e.RefundInstructed: _refund_instructed,
    e.RefundPaid: _refund_paid,
    e.RefundPayoutFailed: _refund_payout_failed,
    e.RefundCancelled: _refund_undone,
    e.RefundRecoveryOpened: _recovery_opened,
    e.RefundRecovered: _refund_recovered,
    e.RecoveryWrittenOff: _refund_recovered,
    e.RefundedUnitsArrived: _refunded_units_arrived,
    e.RefundedUnitsKept: _refunded_units_kept,
    e.UnitsRepaid: _units_repaid,
    e.EscrowReleased: _escrow_released,
    e.CommissionCharged: _commission_charged,
    e.RebateAccrued: _rebate_accrued,
    e.RebateClawedBack: _rebate_clawed_back,
    e.RebateDenied: _rebate_denied,
    e.OrderCompleted: _order_completed,
}
