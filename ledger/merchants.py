"""``merchant-<merchant_id>``: a merchant's admission and standing, and its deposit.

    none → member → applied → reviewing → approved → active ⇄ suspended
                              reviewing → rejected → applied

Active means: review passed, TrustPass (诚信通) valid, fee paid, guarantees accepted, deposit paid in full or a top-up
running, the programme live, and no cause of suspension.

The deposit (保证金) covers refunds that escrow does not: first the free deposit, then the platform advances (垫付) up
to a cap, and what is left is short.  A short refund is tried again, in the order of request, whenever money comes in
or the cap is raised.  Balance = paid - drawn - recovered + reversed, never below 0.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any, ClassVar, Literal

import msgspec

from ledger.calendar import BEGINNING, add_days, business_date, day_after, start_of
from ledger.decider import (
    FINANCE,
    MERCHANT,
    OFFICER,
    PAYMENT,
    POLICY,
    SUPERVISOR,
    Asked,
    Command,
    Deadline,
    Decider,
    Decisions,
    Rejected,
)  # fmt: skip
from ledger.events import Decision, Fact, Recorded
from ledger.rulebook import Rulebook

SuspensionCause = Literal["ordered", "deposit", "trustpass", "fee"]

# --- Facts --------------------------------------------------------------------------------------------------------


class Value(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A value inside an event or command."""


class RulebookRef(Value, frozen=True, kw_only=True):
    """The rulebook in force when a term was opened: it governs the stream until the next one."""

    rulebook: str
    rulebook_sha256: str


class ApplicationTerms(RulebookRef, frozen=True, kw_only=True):
    """What holds for an application; nobody is active before ``live_at``."""

    live_at: datetime


class Check(Value, frozen=True, kw_only=True):
    """A point of the qualification review and the evidence for it."""

    name: str
    evidence_sha256: str


class MerchantFact(Fact, frozen=True, kw_only=True):
    merchant_id: str


class MerchantDecision(Decision, frozen=True, kw_only=True):
    merchant_id: str


class TrustPassRegistered(MerchantFact, frozen=True, kw_only=True):
    """诚信通: the paid membership without which nobody may apply."""

    trustpass_id: str
    valid_from_on: date
    valid_to_on: date


class ApplicationFiled(MerchantFact, frozen=True, kw_only=True):
    """The merchant wants to become a power merchant (实力商家) in a category."""

    category: str
    contact_ref: str
    terms: ApplicationTerms


class ReviewStarted(MerchantFact, frozen=True, kw_only=True):
    """资质审核: an officer reviews the application against a checklist."""

    officer_id: str
    checklist: tuple[str, ...]


class ReviewPassed(MerchantFact, frozen=True, kw_only=True):
    """Every point is proved; the score was read at ``score_position``."""

    checks: tuple[Check, ...]
    on_time_bp: int | None
    as_described_bp: int | None
    score_position: int


class ReviewFailed(MerchantFact, frozen=True, kw_only=True):
    """The merchant may apply again from ``reapply_from_on``."""

    reasons: tuple[str, ...]
    reapply_from_on: date


class GuaranteesAccepted(MerchantFact, frozen=True, kw_only=True):
    """The merchant promises quality, delivery and exchange."""

    guarantees: tuple[str, ...]
    exchange_days: int
    return_address_ref: str
    terms: RulebookRef


class AnnualFeePaid(MerchantFact, frozen=True, kw_only=True):
    """服务年费 for a period, its last day included."""

    fee_fen: int
    period_from_on: date
    period_to_on: date
    payment_ref: str
    terms: RulebookRef


class DepositPaid(MerchantFact, frozen=True, kw_only=True):
    """保证金, or its top-up (补缴)."""

    amount_fen: int
    payment_ref: str


class SuspensionOrdered(MerchantFact, frozen=True, kw_only=True):
    """An officer suspends the merchant."""

    reason: str


class SuspensionCancelled(MerchantFact, frozen=True, kw_only=True):
    """The officer's suspension ends."""

    reason: str


class RefundCoverRequested(MerchantFact, frozen=True, kw_only=True):
    """An order asks for money that its escrow does not hold."""

    refund_id: str
    order_id: str
    dispute_id: str | None
    requested_fen: int


class CoverReversalRequested(MerchantFact, frozen=True, kw_only=True):
    """A covered refund was undone: the money comes back."""

    refund_id: str
    order_id: str
    reversal_fen: int


class ReceivablePaid(MerchantFact, frozen=True, kw_only=True):
    """The merchant paid what the platform had advanced."""

    amount_fen: int
    payment_ref: str


class AdvanceCapRaised(MerchantFact, frozen=True, kw_only=True):
    """The platform is ready to advance more."""

    cap_fen: int
    reason: str
    approved_by: str


# --- Decisions ----------------------------------------------------------------------------------------------------


class DepositRequirementSet(MerchantDecision, frozen=True, kw_only=True):
    """What the category requires."""

    rule: ClassVar[str] = "categories.deposit_fen"
    required_fen: int
    category: str


class MerchantActivated(MerchantDecision, frozen=True, kw_only=True):
    """Every condition holds: a power merchant from here on."""

    rule: ClassVar[str] = "programme"
    active_from_at: datetime


class MerchantSuspended(MerchantDecision, frozen=True, kw_only=True):
    """A condition fails."""

    rule: ClassVar[str] = "programme"
    cause: SuspensionCause


class SuspensionLifted(MerchantDecision, frozen=True, kw_only=True):
    """A cause of suspension ended; ``is_active_again``: it was the last one."""

    rule: ClassVar[str] = "programme"
    cause: SuspensionCause
    is_active_again: bool


class RefundCovered(MerchantDecision, frozen=True, kw_only=True):
    """What deposit and advance give towards a refund in this attempt, and what is still short."""

    rule: ClassVar[str] = "deposit"
    refund_id: str
    order_id: str
    attempt: int
    drawn_fen: int
    advanced_fen: int
    short_fen: int


class CoverReversed(MerchantDecision, frozen=True, kw_only=True):
    """Of what came back, so much cleared the receivable; the rest refilled the deposit."""

    rule: ClassVar[str] = "deposit"
    refund_id: str
    order_id: str
    receivable_fen: int
    deposit_fen: int


class TopUpDemanded(MerchantDecision, frozen=True, kw_only=True):
    """The deposit is below what is required: refill it by ``due_at`` or be suspended."""

    rule: ClassVar[str] = "deposit.top_up_days"
    top_up_fen: int
    due_at: datetime


class ReceivableRecovered(MerchantDecision, frozen=True, kw_only=True):
    """What the platform had advanced is taken from money that came into the deposit."""

    rule: ClassVar[str] = "deposit"
    amount_fen: int


FACTS: tuple[type[Fact], ...] = (
    TrustPassRegistered, ApplicationFiled, ReviewStarted, ReviewPassed, ReviewFailed, GuaranteesAccepted,
    AnnualFeePaid, DepositPaid, SuspensionOrdered, SuspensionCancelled, RefundCoverRequested, CoverReversalRequested,
    ReceivablePaid, AdvanceCapRaised,
)  # fmt: skip
DECISIONS: tuple[type[Decision], ...] = (
    DepositRequirementSet, MerchantActivated, MerchantSuspended, SuspensionLifted, RefundCovered, CoverReversed,
    TopUpDemanded, ReceivableRecovered,
)  # fmt: skip


# --- State --------------------------------------------------------------------------------------------------------


class Cover(msgspec.Struct):
    """What a refund asked for and got."""

    refund_id: str
    order_id: str
    attempt: int = 0
    short_fen: int = 0


class MerchantState(msgspec.Struct):
    """A merchant: its standing and its deposit."""

    rulebook: str | None = None
    merchant_id: str = ""
    told_at: datetime = BEGINNING
    """The latest instant that anything was received at."""
    stage: str = "none"
    category: str = ""
    trustpass_to_on: date | None = None
    trustpass_set_by: int = 0
    review: ReviewStarted | None = None
    reapply_from_on: date | None = None
    live_at: datetime | None = None
    live_set_by: int = 0
    guarantees: GuaranteesAccepted | None = None
    fees: list[AnnualFeePaid] = msgspec.field(default_factory=list)
    fee_set_by: int = 0
    required_fen: int = 0
    balance_fen: int = 0
    receivable_fen: int = 0
    cap_fen: int | None = None
    top_up_due_at: datetime | None = None
    top_up_set_by: int = 0
    suspended_for: tuple[SuspensionCause, ...] = ()
    covers: dict[str, Cover] = msgspec.field(default_factory=dict)
    asked: dict[str, Fact] = msgspec.field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        """A power merchant with whom orders can be placed."""
        return self.stage == "active"

    @property
    def fee_paid_to_on(self) -> date | None:
        """The last day the annual fee is paid for."""
        return max((x.period_to_on for x in self.fees), default=None)

    @property
    def free_fen(self) -> int:
        """The part of the deposit that nothing holds."""
        return self.balance_fen

    @property
    def shortfall_fen(self) -> int:
        """How far the deposit is below what is required."""
        return max(0, self.required_fen - self.balance_fen)


def evolve(s: MerchantState, event: Recorded) -> MerchantState:
    """The state after an event."""
    d = event.data
    s.merchant_id, s.told_at = d.merchant_id, event.received_at
    _EVOLVE[type(d)](s, event, d)
    return s


def _trustpass_registered(s: MerchantState, event: Recorded, d: TrustPassRegistered) -> None:
    s.trustpass_to_on = max(s.trustpass_to_on or d.valid_to_on, d.valid_to_on)
    s.trustpass_set_by = event.version
    s.asked["trustpass/" + d.trustpass_id] = d
    if s.stage == "none":
        s.stage = "member"


def _application_filed(s: MerchantState, event: Recorded, d: ApplicationFiled) -> None:
    s.stage, s.category, s.rulebook = "applied", d.category, d.terms.rulebook
    s.live_at, s.live_set_by = d.terms.live_at, event.version


def _review_started(s: MerchantState, event: Recorded, d: ReviewStarted) -> None:
    s.stage, s.review = "reviewing", d


def _review_passed(s: MerchantState, event: Recorded, d: ReviewPassed) -> None:
    s.stage = "approved"


def _review_failed(s: MerchantState, event: Recorded, d: ReviewFailed) -> None:
    s.stage, s.reapply_from_on = "rejected", d.reapply_from_on


def _guarantees_accepted(s: MerchantState, event: Recorded, d: GuaranteesAccepted) -> None:
    s.guarantees, s.rulebook = d, d.terms.rulebook


def _annual_fee_paid(s: MerchantState, event: Recorded, d: AnnualFeePaid) -> None:
    s.fees.append(d)
    s.fee_set_by, s.rulebook = event.version, d.terms.rulebook
    s.asked["payment/" + d.payment_ref] = d


def _deposit_requirement_set(s: MerchantState, event: Recorded, d: DepositRequirementSet) -> None:
    s.required_fen = d.required_fen
    _end_top_up(s)


def _deposit_paid(s: MerchantState, event: Recorded, d: DepositPaid) -> None:
    s.balance_fen += d.amount_fen
    s.asked["payment/" + d.payment_ref] = d
    _end_top_up(s)


def _end_top_up(s: MerchantState) -> None:
    if s.shortfall_fen == 0:
        s.top_up_due_at = None


def _activated(s: MerchantState, event: Recorded, d: MerchantActivated) -> None:
    s.stage = "active"


def _suspended(s: MerchantState, event: Recorded, d: MerchantSuspended) -> None:
    s.stage = "suspended"
    s.suspended_for = (*s.suspended_for, d.cause)
    if d.cause == "deposit":
        s.top_up_due_at = None


def _lifted(s: MerchantState, event: Recorded, d: SuspensionLifted) -> None:
    s.suspended_for = tuple(x for x in s.suspended_for if x != d.cause)
    if d.is_active_again:
        s.stage = "active"


def _nothing(s: MerchantState, event: Recorded, d: Any) -> None:
    pass


def _cover_requested(s: MerchantState, event: Recorded, d: RefundCoverRequested) -> None:
    key = cover_key(d.order_id, d.refund_id)
    s.asked["cover/" + key] = d
    s.covers[key] = Cover(d.refund_id, d.order_id, 0, d.requested_fen)


def _refund_covered(s: MerchantState, event: Recorded, d: RefundCovered) -> None:
    s.balance_fen -= d.drawn_fen
    s.receivable_fen += d.advanced_fen
    if cover := s.covers.get(cover_key(d.order_id, d.refund_id)):
        cover.attempt, cover.short_fen = d.attempt, d.short_fen


def _reversal_requested(s: MerchantState, event: Recorded, d: CoverReversalRequested) -> None:
    if cover := s.covers.get(cover_key(d.order_id, d.refund_id)):
        cover.short_fen = 0


def _cover_reversed(s: MerchantState, event: Recorded, d: CoverReversed) -> None:
    s.receivable_fen -= d.receivable_fen
    s.balance_fen += d.deposit_fen
    _end_top_up(s)


def _top_up_demanded(s: MerchantState, event: Recorded, d: TopUpDemanded) -> None:
    s.top_up_due_at, s.top_up_set_by = d.due_at, event.version


def _receivable_recovered(s: MerchantState, event: Recorded, d: ReceivableRecovered) -> None:
    s.balance_fen -= d.amount_fen
    s.receivable_fen -= d.amount_fen


def _receivable_paid(s: MerchantState, event: Recorded, d: ReceivablePaid) -> None:
    s.receivable_fen -= d.amount_fen
    s.asked["payment/" + d.payment_ref] = d


def _cap_raised(s: MerchantState, event: Recorded, d: AdvanceCapRaised) -> None:
    s.cap_fen = d.cap_fen


_EVOLVE: dict[type, Callable[[MerchantState, Recorded, Any], None]] = {
    TrustPassRegistered: _trustpass_registered,
    ApplicationFiled: _application_filed,
    ReviewStarted: _review_started,
    ReviewPassed: _review_passed,
    ReviewFailed: _review_failed,
    GuaranteesAccepted: _guarantees_accepted,
    AnnualFeePaid: _annual_fee_paid,
    DepositRequirementSet: _deposit_requirement_set,
    DepositPaid: _deposit_paid,
    MerchantActivated: _activated,
    SuspensionOrdered: _nothing,
    SuspensionCancelled: _nothing,
    MerchantSuspended: _suspended,
    SuspensionLifted: _lifted,
    RefundCoverRequested: _cover_requested,
    RefundCovered: _refund_covered,
    CoverReversalRequested: _reversal_requested,
    CoverReversed: _cover_reversed,
    TopUpDemanded: _top_up_demanded,
    ReceivableRecovered: _receivable_recovered,
    ReceivablePaid: _receivable_paid,
    AdvanceCapRaised: _cap_raised,
}


def cover_key(order_id: str, refund_id: str) -> str:
    """Refund ids are unique within an order only."""
    return f"{order_id}/{refund_id}"


def deadlines(s: MerchantState) -> Iterator[Deadline]:
    """Every instant at which the clock will decide something about this merchant."""
    if s.live_at and s.told_at < s.live_at and _may_be_active(s, s.live_at):
        yield _deadline(s, "go_live", s.live_at, s.live_set_by)
    if s.top_up_due_at and s.stage == "active":
        yield _deadline(s, "top_up", s.top_up_due_at, s.top_up_set_by)
    if s.stage not in ("active", "suspended"):
        return
    if s.trustpass_to_on and "trustpass" not in s.suspended_for:
        yield _deadline(s, "trustpass_expiry", day_after(s.trustpass_to_on), s.trustpass_set_by)
    if s.fee_paid_to_on and "fee" not in s.suspended_for:
        yield _deadline(s, "fee_expiry", day_after(s.fee_paid_to_on), s.fee_set_by)


def _deadline(s: MerchantState, name: str, at: datetime, set_by: int) -> Deadline:
    return Deadline(at, name, s.merchant_id, at, MERCHANT, s.merchant_id, set_by)


# --- Commands -----------------------------------------------------------------------------------------------------


class MerchantCommand(Command, frozen=True, kw_only=True):
    """A command to one merchant's stream."""

    merchant_id: str

    @property
    def stream(self) -> str:
        """``merchant-<merchant_id>``."""
        return f"merchant-{self.merchant_id}"


class RegisterTrustPass(MerchantCommand, frozen=True, kw_only=True):
    """Record a TrustPass membership (诚信通).  Refused: ``dates_out_of_order``, ``id_reused``."""

    roles = frozenset({OFFICER})
    trustpass_id: str
    valid_from_on: date
    valid_to_on: date


class ApplyForProgramme(MerchantCommand, frozen=True, kw_only=True):
    """Apply to become a power merchant.

    Refused: ``wrong_state``, ``unknown_category``, ``trustpass_not_valid``, ``cooldown_running``."""

    roles = frozenset({MERCHANT})
    opens_term = True
    category: str
    contact_ref: str


class StartReview(MerchantCommand, frozen=True, kw_only=True):
    """Start the qualification review.  Refused: ``wrong_state``, ``officer_has_tie`` (the officer is the merchant)."""

    roles = frozenset({OFFICER})
    officer_id: str
    checklist: tuple[str, ...]


class PassReview(MerchantCommand, frozen=True, kw_only=True):
    """Every point of the checklist is proved.

    Refused: ``wrong_state``, ``check_missing``, ``gate_not_met`` (a rate below the programme's failing mark)."""

    roles = frozenset({OFFICER})
    checks: tuple[Check, ...]
    on_time_bp: int | None
    as_described_bp: int | None
    score_position: int


class FailReview(MerchantCommand, frozen=True, kw_only=True):
    """The application fails.  Refused: ``wrong_state``."""

    roles = frozenset({OFFICER})
    reasons: tuple[str, ...]


class AcceptGuarantees(MerchantCommand, frozen=True, kw_only=True):
    """Promise the programme's guarantees.  Refused: ``wrong_state``, ``guarantee_missing``, ``days_not_offered``."""

    roles = frozenset({MERCHANT})
    opens_term = True
    guarantees: tuple[str, ...]
    exchange_days: int
    return_address_ref: str


class RecordAnnualFee(MerchantCommand, frozen=True, kw_only=True):
    """The provider holds the annual fee.

    Refused: ``wrong_state``, ``dates_out_of_order``, ``wrong_amount``, ``period_overlaps``, ``id_reused``."""

    roles = frozenset({PAYMENT})
    opens_term = True
    fee_fen: int
    period_from_on: date
    period_to_on: date
    payment_ref: str


class RecordDeposit(MerchantCommand, frozen=True, kw_only=True):
    """The provider holds a deposit payment.  Refused: ``wrong_state``, ``wrong_amount``, ``id_reused``."""

    roles = frozenset({PAYMENT})
    amount_fen: int
    payment_ref: str


class SuspendMerchant(MerchantCommand, frozen=True, kw_only=True):
    """Suspend the merchant; orders already placed keep their terms.  Refused: ``wrong_state``."""

    roles = frozenset({OFFICER})
    reason: str


class LiftSuspension(MerchantCommand, frozen=True, kw_only=True):
    """End a suspension that an officer ordered.  Refused: ``wrong_state``, ``not_ordered``."""

    roles = frozenset({OFFICER})
    reason: str


class CoverRefund(MerchantCommand, frozen=True, kw_only=True):
    """Carried from an order: its refund needs money that escrow does not hold."""

    roles = frozenset({POLICY})
    refund_id: str
    order_id: str
    requested_fen: int
    dispute_id: str | None = None


class ReverseCover(MerchantCommand, frozen=True, kw_only=True):
    """Carried from an order: a covered refund was undone.  Refused: ``wrong_amount``."""

    roles = frozenset({POLICY})
    refund_id: str
    order_id: str
    reversal_fen: int


class RecordReceivable(MerchantCommand, frozen=True, kw_only=True):
    """The merchant paid back what was advanced.  Refused: ``more_than_owed``, ``id_reused``."""

    roles = frozenset({PAYMENT})
    amount_fen: int
    payment_ref: str


class RaiseAdvanceCap(MerchantCommand, frozen=True, kw_only=True):
    """Let the platform advance more for this merchant; a supervisor approves.

    Refused: ``lower_than_before``, ``same_approver``."""

    roles = frozenset({FINANCE})
    approver = SUPERVISOR
    cap_fen: int
    reason: str


# --- Decide -------------------------------------------------------------------------------------------------------


def decide(s: MerchantState, asked: Asked, rules: Rulebook) -> list[Fact]:
    """May this actor assert this?"""
    c = asked.command
    if s.stage == "none" and not isinstance(c, RegisterTrustPass):
        raise Rejected("unknown_stream")
    if asked.role == MERCHANT and asked.actor != c.merchant_id:
        raise Rejected("not_allowed")
    return _DECIDE[type(c)](s, c, asked, rules)


def _require(s: MerchantState, *stages: str) -> None:
    if s.stage not in stages:
        raise Rejected("wrong_state")


def _once(s: MerchantState, business_id: str, fact: Fact) -> bool:
    before = s.asked.get(business_id)
    if before is not None and before != fact:
        raise Rejected("id_reused")
    return before is not None


def _ref(rules: Rulebook) -> RulebookRef:
    return RulebookRef(rulebook=rules.rulebook, rulebook_sha256=rules.sha256)


def _register_trustpass(s: MerchantState, c: RegisterTrustPass, asked: Asked, rules: Rulebook) -> list[Fact]:
    fact = TrustPassRegistered(
        merchant_id=c.merchant_id, trustpass_id=c.trustpass_id, valid_from_on=c.valid_from_on,
        valid_to_on=c.valid_to_on,
    )  # fmt: skip
    if _once(s, "trustpass/" + c.trustpass_id, fact):
        return []
    if c.valid_to_on < c.valid_from_on:
        raise Rejected("dates_out_of_order")
    return [fact]


def _apply(s: MerchantState, c: ApplyForProgramme, asked: Asked, rules: Rulebook) -> list[Fact]:
    _require(s, "member", "rejected")
    if c.category not in rules.categories:
        raise Rejected("unknown_category")
    if s.trustpass_to_on is None or asked.received_at >= day_after(s.trustpass_to_on):
        raise Rejected("trustpass_not_valid")
    if s.reapply_from_on and asked.received_at < start_of(s.reapply_from_on) and s.stage == "rejected":
        raise Rejected("cooldown_running")
    terms = ApplicationTerms(rulebook=rules.rulebook, rulebook_sha256=rules.sha256, live_at=rules.programme.live_at)
    return [ApplicationFiled(merchant_id=c.merchant_id, category=c.category, contact_ref=c.contact_ref, terms=terms)]


def _start_review(s: MerchantState, c: StartReview, asked: Asked, rules: Rulebook) -> list[Fact]:
    _require(s, "applied")
    if c.officer_id == c.merchant_id:
        raise Rejected("officer_has_tie")
    return [ReviewStarted(merchant_id=c.merchant_id, officer_id=c.officer_id, checklist=c.checklist)]


def _pass_review(s: MerchantState, c: PassReview, asked: Asked, rules: Rulebook) -> list[Fact]:
    _require(s, "reviewing")
    if s.review is None or not {x.name for x in c.checks}.issuperset(s.review.checklist):
        raise Rejected("check_missing")
    metrics = rules.score["metrics"]
    for rate_bp, metric in ((c.on_time_bp, "on_time"), (c.as_described_bp, "as_described")):
        if rate_bp is not None and rate_bp * 100 < metrics[metric]["fail"]:
            raise Rejected("gate_not_met")
    return [
        ReviewPassed(
            merchant_id=c.merchant_id, checks=c.checks, on_time_bp=c.on_time_bp, as_described_bp=c.as_described_bp,
            score_position=c.score_position,
        )
    ]  # fmt: skip


def _fail_review(s: MerchantState, c: FailReview, asked: Asked, rules: Rulebook) -> list[Fact]:
    _require(s, "reviewing")
    from_on = business_date(add_days(asked.received_at, rules.programme.reapply_cooldown_days))
    return [ReviewFailed(merchant_id=c.merchant_id, reasons=c.reasons, reapply_from_on=from_on)]


def _accept_guarantees(s: MerchantState, c: AcceptGuarantees, asked: Asked, rules: Rulebook) -> list[Fact]:
    _require(s, "approved", "active", "suspended")
    if not set(rules.programme.guarantees) <= set(c.guarantees):
        raise Rejected("guarantee_missing")
    if c.exchange_days not in rules.categories[s.category].exchange_days:
        raise Rejected("days_not_offered")
    fact = GuaranteesAccepted(
        merchant_id=c.merchant_id, guarantees=c.guarantees, exchange_days=c.exchange_days,
        return_address_ref=c.return_address_ref, terms=_ref(rules),
    )  # fmt: skip
    return [] if s.guarantees == fact else [fact]


def _record_annual_fee(s: MerchantState, c: RecordAnnualFee, asked: Asked, rules: Rulebook) -> list[Fact]:
    fact = AnnualFeePaid(
        merchant_id=c.merchant_id, fee_fen=c.fee_fen, period_from_on=c.period_from_on, period_to_on=c.period_to_on,
        payment_ref=c.payment_ref, terms=_ref(rules),
    )  # fmt: skip
    before = s.asked.get("payment/" + c.payment_ref)
    if isinstance(before, AnnualFeePaid):  # in its own terms, which may be older than today's
        fact = msgspec.structs.replace(fact, terms=before.terms)
    if _once(s, "payment/" + c.payment_ref, fact):
        return []
    _require(s, "approved", "active", "suspended")
    if c.period_to_on < c.period_from_on:
        raise Rejected("dates_out_of_order")
    if c.fee_fen != getattr(rules.fee, rules.categories[s.category].fee):
        raise Rejected("wrong_amount")
    if any(c.period_from_on <= x.period_to_on and x.period_from_on <= c.period_to_on for x in s.fees):
        raise Rejected("period_overlaps")
    return [fact]


def _record_deposit(s: MerchantState, c: RecordDeposit, asked: Asked, rules: Rulebook) -> list[Fact]:
    fact = DepositPaid(merchant_id=c.merchant_id, amount_fen=c.amount_fen, payment_ref=c.payment_ref)
    if _once(s, "payment/" + c.payment_ref, fact):
        return []
    _require(s, "approved", "active", "suspended")
    if c.amount_fen <= 0:
        raise Rejected("wrong_amount")
    return [fact]


def _suspend(s: MerchantState, c: SuspendMerchant, asked: Asked, rules: Rulebook) -> list[Fact]:
    _require(s, "active")
    return [SuspensionOrdered(merchant_id=c.merchant_id, reason=c.reason)]


def _lift(s: MerchantState, c: LiftSuspension, asked: Asked, rules: Rulebook) -> list[Fact]:
    _require(s, "suspended")
    if "ordered" not in s.suspended_for:
        raise Rejected("not_ordered")
    return [SuspensionCancelled(merchant_id=c.merchant_id, reason=c.reason)]


def _cover_refund(s: MerchantState, c: CoverRefund, asked: Asked, rules: Rulebook) -> list[Fact]:
    fact = RefundCoverRequested(
        merchant_id=c.merchant_id, refund_id=c.refund_id, order_id=c.order_id, dispute_id=c.dispute_id,
        requested_fen=c.requested_fen,
    )  # fmt: skip
    return [] if _once(s, "cover/" + cover_key(c.order_id, c.refund_id), fact) else [fact]


def _reverse_cover(s: MerchantState, c: ReverseCover, asked: Asked, rules: Rulebook) -> list[Fact]:
    if c.reversal_fen <= 0:
        raise Rejected("wrong_amount")
    return [
        CoverReversalRequested(
            merchant_id=c.merchant_id, refund_id=c.refund_id, order_id=c.order_id, reversal_fen=c.reversal_fen
        )
    ]


def _record_receivable(s: MerchantState, c: RecordReceivable, asked: Asked, rules: Rulebook) -> list[Fact]:
    fact = ReceivablePaid(merchant_id=c.merchant_id, amount_fen=c.amount_fen, payment_ref=c.payment_ref)
    if _once(s, "payment/" + c.payment_ref, fact):
        return []
    if not 0 < c.amount_fen <= s.receivable_fen:
        raise Rejected("more_than_owed")
    return [fact]


def _raise_cap(s: MerchantState, c: RaiseAdvanceCap, asked: Asked, rules: Rulebook) -> list[Fact]:
    before_fen = advance_cap_fen(s, rules)
    if c.cap_fen == before_fen:
        return []
    if c.cap_fen < before_fen:
        raise Rejected("lower_than_before")
    return [
        AdvanceCapRaised(
            merchant_id=c.merchant_id, cap_fen=c.cap_fen, reason=c.reason, approved_by=asked.approved_by or ""
        )
    ]


_DECIDE: dict[type, Callable[[MerchantState, Any, Asked, Rulebook], list[Fact]]] = {
    RegisterTrustPass: _register_trustpass,
    ApplyForProgramme: _apply,
    StartReview: _start_review,
    PassReview: _pass_review,
    FailReview: _fail_review,
    AcceptGuarantees: _accept_guarantees,
    RecordAnnualFee: _record_annual_fee,
    RecordDeposit: _record_deposit,
    SuspendMerchant: _suspend,
    LiftSuspension: _lift,
    CoverRefund: _cover_refund,
    ReverseCover: _reverse_cover,
    RecordReceivable: _record_receivable,
    RaiseAdvanceCap: _raise_cap,
}


# --- React --------------------------------------------------------------------------------------------------------


def react(s: MerchantState, event: Recorded, rules: Rulebook) -> Decisions:
    """What the rules make of a fact."""
    d, now = event.data, event.received_at
    match d:
        case GuaranteesAccepted():
            required_fen = rules.categories[s.category].deposit_fen
            if required_fen != s.required_fen:
                yield DepositRequirementSet(merchant_id=s.merchant_id, required_fen=required_fen, category=s.category)
        case DepositPaid() | AdvanceCapRaised():
            yield from _recover(s)
            yield from _retry_short(s, rules)
        case SuspensionOrdered():
            yield MerchantSuspended(merchant_id=s.merchant_id, cause="ordered")
        case SuspensionCancelled():
            yield _lifted_for(s, "ordered")
        case RefundCoverRequested():
            yield from _cover(s, s.covers[cover_key(d.order_id, d.refund_id)], rules)
        case CoverReversalRequested():
            cleared_fen = min(s.receivable_fen, d.reversal_fen)
            yield CoverReversed(
                merchant_id=s.merchant_id, refund_id=d.refund_id, order_id=d.order_id, receivable_fen=cleared_fen,
                deposit_fen=d.reversal_fen - cleared_fen,
            )  # fmt: skip
            yield from _retry_short(s, rules)
        case ReceivablePaid():
            yield from _retry_short(s, rules)
        case _:
            pass
    yield from _follow_standing(s, now, rules)


def _recover(s: MerchantState) -> Decisions:
    amount_fen = min(s.receivable_fen, s.free_fen)
    if amount_fen:
        yield ReceivableRecovered(merchant_id=s.merchant_id, amount_fen=amount_fen)


def _retry_short(s: MerchantState, rules: Rulebook) -> Decisions:
    """Short refunds are tried again in the order of request."""
    for cover in s.covers.values():
        if cover.short_fen and (s.free_fen or s.receivable_fen < advance_cap_fen(s, rules)):
            yield from _cover(s, cover, rules)


def _cover(s: MerchantState, cover: Cover, rules: Rulebook) -> Decisions:
    drawn_fen = min(cover.short_fen, s.free_fen)
    room_fen = max(0, advance_cap_fen(s, rules) - s.receivable_fen)
    advanced_fen = min(cover.short_fen - drawn_fen, room_fen)
    yield RefundCovered(
        merchant_id=s.merchant_id, refund_id=cover.refund_id, order_id=cover.order_id, attempt=cover.attempt + 1,
        drawn_fen=drawn_fen, advanced_fen=advanced_fen, short_fen=cover.short_fen - drawn_fen - advanced_fen,
    )  # fmt: skip


def advance_cap_fen(s: MerchantState, rules: Rulebook) -> int:
    """How much the platform advances for this merchant at most."""
    return rules.deposit.advance_cap_fen if s.cap_fen is None else s.cap_fen


def _follow_standing(s: MerchantState, now: datetime, rules: Rulebook) -> Decisions:
    """Activation, the end of suspensions, and the demand to refill the deposit."""
    if _may_be_active(s, now) and s.live_at and now >= s.live_at:
        yield MerchantActivated(merchant_id=s.merchant_id, active_from_at=now)
    for cause in s.suspended_for:
        if _cause_ended(s, cause, now):
            yield _lifted_for(s, cause)
    if s.stage == "active" and s.shortfall_fen and s.top_up_due_at is None:
        yield TopUpDemanded(
            merchant_id=s.merchant_id, top_up_fen=s.shortfall_fen, due_at=add_days(now, rules.deposit.top_up_days)
        )


def _lifted_for(s: MerchantState, cause: SuspensionCause) -> SuspensionLifted:
    return SuspensionLifted(merchant_id=s.merchant_id, cause=cause, is_active_again=s.suspended_for == (cause,))


def _may_be_active(s: MerchantState, now: datetime) -> bool:
    """Every condition of activation holds at that instant, but for the programme being live."""
    return (
        s.stage == "approved"
        and s.guarantees is not None
        and s.shortfall_fen == 0
        and s.trustpass_to_on is not None
        and now < day_after(s.trustpass_to_on)
        and s.fee_paid_to_on is not None
        and now < day_after(s.fee_paid_to_on)
    )


def _cause_ended(s: MerchantState, cause: str, now: datetime) -> bool:
    match cause:
        case "deposit":
            return s.shortfall_fen == 0
        case "trustpass":
            return s.trustpass_to_on is not None and now < day_after(s.trustpass_to_on)
        case "fee":
            return s.fee_paid_to_on is not None and now < day_after(s.fee_paid_to_on)
    return False


# --- The clock ----------------------------------------------------------------------------------------------------


def due(s: MerchantState, deadline: Deadline, rules: Rulebook) -> Decisions:
    """What the rules make of a deadline that has come: the merchant goes live, or is suspended."""
    if deadline.name == "go_live":
        yield MerchantActivated(merchant_id=s.merchant_id, active_from_at=deadline.fires_at)
        return
    causes: dict[str, SuspensionCause] = {"top_up": "deposit", "trustpass_expiry": "trustpass", "fee_expiry": "fee"}
    yield MerchantSuspended(merchant_id=s.merchant_id, cause=causes[deadline.name])


def owner(s: MerchantState, role: str) -> str | None:
    """A merchant acts for itself only."""
    return s.merchant_id if role == MERCHANT and s.merchant_id else None


DECIDER = Decider(
    name="merchant",
    initial=MerchantState,
    decide=decide,
    react=react,
    due=due,
    evolve=evolve,
    deadlines=deadlines,
    owner=owner,
    commands=tuple(_DECIDE),
    events=FACTS + DECISIONS,
)
