"""What happens to an order.  Facts first, then the decisions that the rules make of them.

Every event carries the order, its merchant and the business day it was placed on.  A *claim* is a refund that asks for
units or money of the order; its ``claim_id`` is the refund's id.  ``lines`` are parts of the order's lines.
"""

from datetime import date, datetime
from typing import ClassVar, Literal

import msgspec

from ledger.events import Decision, Fact

PromiseKind = Literal["arrive_by", "dispatch_by"]
Remedy = Literal["full_refund", "damages"]
Reason = Literal[
    "no_reason", "quality", "wrong_item", "damaged", "quantity", "not_described", "not_arrived", "delivery_denied"
]
CancelCause = Literal["buyer", "merchant", "stock", "price_error", "platform"]
Precision = Literal["instant", "minute", "date"]
Authority = Literal["merchant", "silence", "rule", "settlement", "determination"]


class Value(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A value inside an event or command."""


class Line(Value, frozen=True, kw_only=True):
    """What was ordered: ``line_fen`` is the price of all ``units`` together.  An indivisible line, arriving late in
    part, makes the whole order refundable."""

    line_id: str
    sku: str
    units: int
    line_fen: int
    spec_sha256: str | None = None
    is_customised: bool = False
    is_indivisible: bool = False


class Units(Value, frozen=True, kw_only=True):
    """So many units of a line."""

    line_id: str
    units: int


class Promise(Value, frozen=True, kw_only=True):
    """What the merchant promises: its units arrive (or are dispatched) before ``due_at``, which is exclusive.  The
    clock decides at ``fires_at``, when late records have had time to come in."""

    promise_id: str
    kind: PromiseKind
    line_ids: tuple[str, ...]
    due_at: datetime
    fires_at: datetime
    remedy: Remedy


class Terms(Value, frozen=True, kw_only=True):
    """What was worked out for this order when it was placed; all else is read from the rulebook it names."""

    rulebook: str
    rulebook_sha256: str
    commission_bp: int
    rebate_share_bp: int


class ClaimLine(Value, frozen=True, kw_only=True):
    """What a claim takes of a line: units (0 for a price reduction), their goods value, and how much of that still
    lies in escrow."""

    line_id: str
    units: int
    goods_fen: int
    escrow_fen: int


class ParcelUnits(Value, frozen=True, kw_only=True):
    """So many units of a line in a parcel."""

    shipment_id: str
    line_id: str
    units: int


class ReleasedLine(Value, frozen=True, kw_only=True):
    """The goods value of a line that was released."""

    line_id: str
    goods_fen: int


class PaidUnits(Value, frozen=True, kw_only=True):
    """So many units of a line and their goods value."""

    line_id: str
    units: int
    goods_fen: int


class OrderFact(Fact, frozen=True, kw_only=True):
    order_id: str
    merchant_id: str
    placed_on: date


class OrderDecision(Decision, frozen=True, kw_only=True):
    order_id: str
    merchant_id: str
    placed_on: date


# --- Facts: the promise and the money -----------------------------------------------------------------------------


class OrderPlaced(OrderFact, frozen=True, kw_only=True):
    """A buyer ordered from a power merchant; the terms are frozen here.  ``merchant_version`` proves its standing."""

    buyer_ref: str
    checkout_id: str
    category: str
    address_ref: str
    region: str
    lines: tuple[Line, ...]
    freight_fen: int
    total_fen: int
    promises: tuple[Promise, ...]
    payment_due_at: datetime
    merchant_version: int
    terms: Terms


class PaymentCaptured(OrderFact, frozen=True, kw_only=True):
    """The whole total lies in escrow (担保交易)."""

    amount_fen: int
    payment_ref: str


class StrayPaymentRecorded(OrderFact, frozen=True, kw_only=True):
    """Money came that the order did not ask for: late, twice, or of another amount.  It is sent back."""

    amount_fen: int
    payment_ref: str
    cause: Literal["not_awaited", "wrong_amount", "too_late"]


class StrayPaymentReturned(OrderFact, frozen=True, kw_only=True):
    """A stray payment went back to the buyer."""

    stray_ref: str
    amount_fen: int
    payment_ref: str


class UnitsCancelled(OrderFact, frozen=True, kw_only=True):
    """Units were called off before they were shipped."""

    refund_id: str
    line_id: str
    units: int
    cause: CancelCause
    by: str


class OrderRated(OrderFact, frozen=True, kw_only=True):
    """The buyer's opinion, 1 to 5 each; null: not given."""

    rating_id: str
    as_described: int | None
    logistics: int | None
    service: int | None


# --- Facts: promises ----------------------------------------------------------------------------------------------


class PromiseAmended(OrderFact, frozen=True, kw_only=True):
    """Merchant and buyer agreed on another due date."""

    promise_id: str
    due_at: datetime
    fires_at: datetime
    buyer_consent_sha256: str


class PromiseWaived(OrderFact, frozen=True, kw_only=True):
    """The buyer gives up the money of a promise; the metric still counts a breach."""

    promise_id: str


class BreachOverturned(OrderFact, frozen=True, kw_only=True):
    """A handler found that a decided breach was none."""

    promise_id: str
    reason: str
    evidence_sha256: str
    approved_by: str


class AddressChanged(OrderFact, frozen=True, kw_only=True):
    """The goods go elsewhere; in another region the arrival promises no longer hold."""

    address_ref: str
    region: str


# --- Facts: the goods ---------------------------------------------------------------------------------------------


class ShipmentCreated(OrderFact, frozen=True, kw_only=True):
    """The merchant announced a parcel; nothing has moved yet."""

    shipment_id: str
    lines: tuple[Units, ...]
    carrier: str
    waybill: str
    is_cainiao: bool


class CarrierScanRecorded(OrderFact, frozen=True, kw_only=True):
    """One raw carrier scan, never refused for its order.  ``is_future``: dated more than five minutes after it was
    received, kept, and proving nothing.  ``is_carrier_origin``: sent by the carrier, not entered by the merchant."""

    scan_id: str
    shipment_id: str
    code: str
    status: str
    place: str
    raw_sha256: str | None
    is_carrier_origin: bool
    precision: Precision
    is_future: bool


class ScanRetracted(OrderFact, frozen=True, kw_only=True):
    """The carrier took a scan back."""

    scan_id: str
    reason: str


class WaybillCorrected(OrderFact, frozen=True, kw_only=True):
    """A parcel travelled under another waybill than announced."""

    shipment_id: str
    carrier: str
    waybill: str
    is_cainiao: bool
    reason: str
    approved_by: str


class ReceiptConfirmed(OrderFact, frozen=True, kw_only=True):
    """The buyer has the goods and says so."""

    shipment_ids: tuple[str, ...]


class DeliveryDenied(OrderFact, frozen=True, kw_only=True):
    """The carrier says delivered, the buyer says no: nothing is released until that is settled."""

    shipment_id: str
    grounds_sha256: str


# --- Facts: refunds -----------------------------------------------------------------------------------------------


class RefundRequested(OrderFact, frozen=True, kw_only=True):
    """The buyer wants money back: for units, or as a price reduction on lines."""

    refund_id: str
    lines: tuple[Units, ...]
    reduction_fen: int
    reason: Reason
    evidence_sha256: str | None


class RefundAgreed(OrderFact, frozen=True, kw_only=True):
    """The merchant agrees to a refund."""

    refund_id: str


class RefundRefused(OrderFact, frozen=True, kw_only=True):
    """The merchant refuses; the money stays reserved until ``dispute_by_at``."""

    refund_id: str
    reason: str
    evidence_sha256: str | None
    dispute_by_at: datetime


class RefundWithdrawn(OrderFact, frozen=True, kw_only=True):
    """The buyer no longer wants the refund."""

    refund_id: str


class RefundCoverReported(OrderFact, frozen=True, kw_only=True):
    """What the merchant's deposit and the platform's advance gave towards a refund, in this attempt."""

    refund_id: str
    attempt: int
    drawn_fen: int
    advanced_fen: int
    short_fen: int


class RefundInstructed(OrderFact, frozen=True, kw_only=True):
    """The payment provider is asked to pay; it follows the feed and answers."""

    refund_id: str
    attempt: int
    payment_key: str


class RefundPaid(OrderFact, frozen=True, kw_only=True):
    """The buyer has the money.  The three parts say whose cash it was and add up to the refund."""

    refund_id: str
    payment_ref: str
    value_on: date
    escrow_fen: int
    deposit_fen: int
    platform_fen: int


class RefundPayoutFailed(OrderFact, frozen=True, kw_only=True):
    """The provider could not pay; it is asked again with the next attempt."""

    refund_id: str
    attempt: int
    code: str


class RefundRecovered(OrderFact, frozen=True, kw_only=True):
    """The buyer paid back (part of) a refund that was undone after payment."""

    refund_id: str
    amount_fen: int
    payment_ref: str


class RecoveryWrittenOff(OrderFact, frozen=True, kw_only=True):
    """What the buyer owes is given up."""

    refund_id: str
    amount_fen: int
    reason: str
    approved_by: str


class UnitsRepaid(OrderFact, frozen=True, kw_only=True):
    """The buyer keeps goods that arrived after their refund and pays for them again; treated as a sale."""

    refund_id: str
    lines: tuple[PaidUnits, ...]
    goods_fen: int
    freight_fen: int
    payment_ref: str


# --- Decisions: the promise ---------------------------------------------------------------------------------------


class PaymentExpired(OrderDecision, frozen=True, kw_only=True):
    """Nobody paid in time; the order is off."""

    rule: ClassVar[str] = "windows.payment_hours"


class PromiseKept(OrderDecision, frozen=True, kw_only=True):
    """These units came (or left) before ``due_at``.  Told again when an earlier scan moves ``kept_at``."""

    rule: ClassVar[str] = "promise"
    promise_id: str
    kind: PromiseKind
    lines: tuple[Units, ...]
    due_at: datetime
    kept_at: datetime


class PromiseBreached(OrderDecision, frozen=True, kw_only=True):
    """交期未到货: these units had not arrived (or left) before ``due_at``."""

    rule: ClassVar[str] = "promise"
    promise_id: str
    kind: PromiseKind
    lines: tuple[Units, ...]
    due_at: datetime
    is_excluded: bool
    exclusion: str | None


class PromiseVoided(OrderDecision, frozen=True, kw_only=True):
    """The promise no longer binds: the units were cancelled, go elsewhere, or were paid for after it was due."""

    rule: ClassVar[str] = "promise"
    promise_id: str
    line_ids: tuple[str, ...]
    cause: Literal["cancelled", "address_changed", "paid_after_due"]


class BreachContradicted(OrderDecision, frozen=True, kw_only=True):
    """A scan recorded after the breach says that the units were in time; a handler may overturn it."""

    rule: ClassVar[str] = "promise"
    promise_id: str
    lines: tuple[Units, ...]
    scan_id: str


# --- Decisions: the goods -----------------------------------------------------------------------------------------


class UnitsDispatched(OrderDecision, frozen=True, kw_only=True):
    """The carrier has the parcel: the first carrier-origin scan of handed or above."""

    rule: ClassVar[str] = "scans"
    shipment_id: str
    lines: tuple[Units, ...]
    dispatched_at: datetime
    is_cainiao: bool


class UnitsArrived(OrderDecision, frozen=True, kw_only=True):
    """The parcel reached the buyer's door: the first attempt or delivery, or the buyer's own word."""

    rule: ClassVar[str] = "scans"
    shipment_id: str
    lines: tuple[Units, ...]
    arrived_at: datetime
    precision: Precision
    is_attempt: bool


class UnitsDelivered(OrderDecision, frozen=True, kw_only=True):
    """The buyer has the parcel.  Receipt is presumed at ``auto_receipt_at``; the last window ends at ``closes_at``.
    Told again, whole, when an earlier delivery is recorded later."""

    rule: ClassVar[str] = "scans"
    shipment_id: str
    lines: tuple[Units, ...]
    delivered_at: datetime
    precision: Precision
    auto_receipt_at: datetime
    closes_at: datetime


class DispatchRevised(OrderDecision, frozen=True, kw_only=True):
    """The dispatch was at ``to_at`` (null: not dispatched)."""

    rule: ClassVar[str] = "scans"
    shipment_id: str
    from_at: datetime
    to_at: datetime | None


class ArrivalRevised(OrderDecision, frozen=True, kw_only=True):
    """The arrival was at ``to_at`` (null: not arrived); ``is_delivered``: a delivery still stands."""

    rule: ClassVar[str] = "scans"
    shipment_id: str
    from_at: datetime
    to_at: datetime | None
    is_delivered: bool


class ShipmentEnded(OrderDecision, frozen=True, kw_only=True):
    """The parcel will not come."""

    rule: ClassVar[str] = "scans"
    shipment_id: str
    lines: tuple[Units, ...]
    outcome: Literal["lost", "returned_to_sender"]


class ScanConflictFound(OrderDecision, frozen=True, kw_only=True):
    """Two scans of a parcel cannot both be right; both are kept."""

    rule: ClassVar[str] = "scans"
    shipment_id: str
    scan_ids: tuple[str, str]
    kind: Literal["moved_after_delivery", "ended_and_delivered"]


class ReceiptPresumed(OrderDecision, frozen=True, kw_only=True):
    """The buyer said nothing for ``windows.auto_receipt_days`` after the delivery."""

    rule: ClassVar[str] = "windows.auto_receipt_days"
    shipment_id: str


# --- Decisions: refunds -------------------------------------------------------------------------------------------


class ClaimReserved(OrderDecision, frozen=True, kw_only=True):
    """Units and money are set aside for a claim, so that no other claim and no release can take them.
    ``parcels`` says which of the units came in which delivered parcel; ``freight_escrow_fen`` is the part of the
    freight that still lies in escrow; ``answer_at``: by when the merchant has to answer, null if nobody is asked."""

    rule: ClassVar[str] = "refund"
    claim_id: str
    kind: Literal["refund", "cancellation", "breach", "damages"]
    reason: str
    lines: tuple[ClaimLine, ...]
    parcels: tuple[ParcelUnits, ...]
    freight_fen: int
    freight_escrow_fen: int
    damages_fen: int
    answer_at: datetime | None


class ClaimReleased(OrderDecision, frozen=True, kw_only=True):
    """The claim is over without a refund; what it had reserved is free again.  ``superseded``: a broken promise refunds
    the same units anyway."""

    rule: ClassVar[str] = "refund"
    claim_id: str
    cause: Literal["withdrawn", "lapsed", "superseded"]


class RefundDenied(OrderDecision, frozen=True, kw_only=True):
    """The rules do not allow this refund."""

    rule: ClassVar[str] = "refund"
    refund_id: str
    code: Literal["window_closed", "nothing_left", "units_not_free"]


class RefundAgreedBySilence(OrderDecision, frozen=True, kw_only=True):
    """The merchant did not answer in time."""

    rule: ClassVar[str] = "refund.answer"
    refund_id: str


class RefundApproved(OrderDecision, frozen=True, kw_only=True):
    """The buyer gets ``refund_fen``.  The six sources add up to it; ``commission_fen`` is what ``CommissionReturned``
    gives, ``cover_fen`` is asked of the merchant's deposit and, if that is short, of the platform's advance."""

    rule: ClassVar[str] = "refund"
    refund_id: str
    authority: Authority
    lines: tuple[ClaimLine, ...]
    freight_fen: int
    damages_fen: int
    refund_fen: int
    escrow_fen: int
    commission_fen: int
    programme_fen: int
    agency_fen: int
    carrier_fen: int
    cover_fen: int
    dispute_id: str | None = None


class CommissionReturned(OrderDecision, frozen=True, kw_only=True):
    """The commission on goods that the merchant no longer keeps falls due back."""

    rule: ClassVar[str] = "commission"
    refund_id: str
    commission_fen: int


class RefundFunded(OrderDecision, frozen=True, kw_only=True):
    """All the money of the refund is there."""

    rule: ClassVar[str] = "refund"
    refund_id: str
    refund_fen: int
    payment_key: str


class RefundFundingShort(OrderDecision, frozen=True, kw_only=True):
    """Deposit and advance do not reach; the buyer waits, visibly, until a top-up or a raised cap."""

    rule: ClassVar[str] = "deposit"
    refund_id: str
    short_fen: int


class RefundCancelled(OrderDecision, frozen=True, kw_only=True):
    """A refund is undone before it was paid: where its money lay (``was_``) and where it goes (``to_``)."""

    rule: ClassVar[str] = "refund"
    refund_id: str
    cause: Literal["breach_overturned", "promise_waived"]
    refund_fen: int
    was_escrow_fen: int
    was_deposit_fen: int
    was_platform_fen: int
    to_escrow_fen: int
    to_cover_fen: int
    to_programme_fen: int
    to_agency_fen: int
    to_carrier_fen: int


class RefundRecoveryOpened(OrderDecision, frozen=True, kw_only=True):
    """A refund is undone after it was paid: the buyer owes the whole of it until ``due_at``."""

    rule: ClassVar[str] = "refund.recovery_days"
    refund_id: str
    cause: Literal["breach_overturned"]
    refund_fen: int
    was_escrow_fen: int
    was_deposit_fen: int
    was_platform_fen: int
    to_escrow_fen: int
    to_cover_fen: int
    to_programme_fen: int
    to_agency_fen: int
    to_carrier_fen: int
    due_at: datetime


class RefundedUnitsArrived(OrderDecision, frozen=True, kw_only=True):
    """Goods came although their money went back: the buyer returns them by ``return_by_at`` or pays again."""

    rule: ClassVar[str] = "refund.refunded_units_return_days"
    refund_id: str
    lines: tuple[PaidUnits, ...]
    parcels: tuple[ParcelUnits, ...]
    goods_fen: int
    freight_fen: int
    return_by_at: datetime


class RefundedUnitsKept(OrderDecision, frozen=True, kw_only=True):
    """The buyer neither returned them nor paid again; somebody has to look."""

    rule: ClassVar[str] = "refund.refunded_units_return_days"
    refund_id: str
    lines: tuple[PaidUnits, ...]
    goods_fen: int


# --- Decisions: the money -----------------------------------------------------------------------------------------


class EscrowReleased(OrderDecision, frozen=True, kw_only=True):
    """Escrow goes to the merchant: ``paid_out_fen`` to its own account, the rest is commission."""

    rule: ClassVar[str] = "escrow"
    lines: tuple[ReleasedLine, ...]
    goods_fen: int
    freight_fen: int
    paid_out_fen: int


class CommissionCharged(OrderDecision, frozen=True, kw_only=True):
    """扣点: ``target_fen`` is what all charges of this order, less returns, now add up to."""

    rule: ClassVar[str] = "commission"
    target_fen: int
    commission_fen: int


class RebateAccrued(OrderDecision, frozen=True, kw_only=True):
    """Half of the commission is owed back, because the goods travelled with Cainiao (菜鸟物流补贴)."""

    rule: ClassVar[str] = "rebate"
    target_fen: int
    rebate_fen: int
    cainiao_goods_fen: int
    kept_goods_fen: int


class RebateClawedBack(OrderDecision, frozen=True, kw_only=True):
    """The rebate target fell: ``rebate_fen`` is taken back."""

    rule: ClassVar[str] = "rebate"
    target_fen: int
    rebate_fen: int
    refund_id: str | None


class RebateDenied(OrderDecision, frozen=True, kw_only=True):
    """Why there is no rebate although commission was charged."""

    rule: ClassVar[str] = "rebate"
    cause: Literal["not_cainiao", "no_carrier_scan", "share_zero"]


class OrderCompleted(OrderDecision, frozen=True, kw_only=True):
    """Every window is closed and nothing is open."""

    rule: ClassVar[str] = "closing"
    outcome: Literal["fulfilled", "partly_refunded", "refunded", "cancelled"]


FACTS: tuple[type[Fact], ...] = (
    OrderPlaced, PaymentCaptured, StrayPaymentRecorded, StrayPaymentReturned, UnitsCancelled, OrderRated,
    PromiseAmended, PromiseWaived, BreachOverturned, AddressChanged,
    ShipmentCreated, CarrierScanRecorded, ScanRetracted, WaybillCorrected, ReceiptConfirmed, DeliveryDenied,
    RefundRequested, RefundAgreed, RefundRefused, RefundWithdrawn, RefundCoverReported, RefundInstructed, RefundPaid,
    RefundPayoutFailed, RefundRecovered, RecoveryWrittenOff, UnitsRepaid,
)  # fmt: skip
DECISIONS: tuple[type[Decision], ...] = (
    PaymentExpired, PromiseKept, PromiseBreached, PromiseVoided, BreachContradicted,
    UnitsDispatched, UnitsArrived, UnitsDelivered, DispatchRevised, ArrivalRevised, ShipmentEnded, ScanConflictFound,
    ReceiptPresumed, ClaimReserved, ClaimReleased, RefundDenied, RefundAgreedBySilence, RefundApproved,
    CommissionReturned, RefundFunded, RefundFundingShort, RefundCancelled, RefundRecoveryOpened, RefundedUnitsArrived,
    RefundedUnitsKept, EscrowReleased, CommissionCharged, RebateAccrued, RebateClawedBack, RebateDenied,
    OrderCompleted,
)  # fmt: skip
