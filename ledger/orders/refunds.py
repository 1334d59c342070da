"""Refunds: claims reserve, approvals fund, the provider pays; and the same way back when one is undone.

*Share of what is left*: a claim on k of the u units of a line that are not yet refunded or reserved gets
half_even(left_fen * k / u); the last unit takes the rest.  Freight follows the goods in the same way.  So the refunds
of an order can never exceed what was paid, per line and in total.

*Funding*, in this order: escrow that the claim reserved; commission that falls due back; the merchant's deposit and
the platform's advance (asked of the merchant's stream).  What is left is short, and the buyer waits, visibly.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from typing import Any

from ledger.calendar import BEGINNING, add_days, add_hours
from ledger.decider import (
    BUYER,
    FINANCE,
    MERCHANT,
    PAYMENT,
    POLICY,
    SUPERVISOR,
    Asked,
    At,
    Decisions,
    Rejected,
)  # fmt: skip
from ledger.money import allot, share
from ledger.orders import escrow
from ledger.orders import events as e
from ledger.orders.asking import OrderCommand, ids, known_claim, once, require_placed
from ledger.orders.state import REFUNDED, ClaimState, LineState, OrderState, ShipmentState, was_delivered
from ledger.rulebook import Rulebook

# --- Commands -----------------------------------------------------------------------------------------------------


class RequestRefund(OrderCommand, frozen=True, kw_only=True):
    """Ask for money back without returning goods: for units, or (``reduction_fen`` > 0) as a price reduction on the
    lines named.  The merchant answers; silence agrees.

    Refused: ``wrong_state``, ``bad_lines``, ``id_reused``.  What the rules do not allow is recorded as
    ``RefundDenied`` with ``window_closed``, ``nothing_left`` or ``units_not_free``."""

    roles = frozenset({BUYER})
    refund_id: str
    lines: tuple[e.Units, ...]
    reason: e.Reason
    reduction_fen: int = 0
    evidence_sha256: str | None = None


class AgreeRefund(OrderCommand, frozen=True, kw_only=True):
    """Agree to a refund.  Refused: ``unknown_refund``, ``too_late``."""

    roles = frozenset({MERCHANT})
    refund_id: str


class RefuseRefund(OrderCommand, frozen=True, kw_only=True):
    """Refuse a refund; the money stays reserved for the time a dispute may be opened.

    Refused: ``unknown_refund``, ``too_late``."""

    roles = frozenset({MERCHANT})
    refund_id: str
    reason: str
    evidence_sha256: str | None = None


class WithdrawRefund(OrderCommand, frozen=True, kw_only=True):
    """Withdraw a request that is not decided yet.  Refused: ``unknown_refund``, ``already_approved``."""

    roles = frozenset({BUYER})
    refund_id: str


class ReportCover(OrderCommand, frozen=True, kw_only=True):
    """Carried from the merchant's stream: what deposit and advance gave.  Refused: ``unknown_refund``."""

    roles = frozenset({POLICY})
    refund_id: str
    attempt: int
    drawn_fen: int
    advanced_fen: int
    short_fen: int


class InstructRefund(OrderCommand, frozen=True, kw_only=True):
    """Ask the payment provider to pay; the same payment key in every attempt, so that it pays once.

    Refused: ``unknown_refund``, ``instruction_open``, ``not_funded``."""

    roles = frozenset({POLICY})
    refund_id: str
    attempt: int
    payment_key: str


class ConfirmRefund(OrderCommand, frozen=True, kw_only=True):
    """The provider paid the refund.  Refused: ``unknown_refund``, ``not_instructed``, ``id_reused``."""

    roles = frozenset({PAYMENT})
    refund_id: str
    payment_ref: str
    value_on: date


class FailRefund(OrderCommand, frozen=True, kw_only=True):
    """The provider could not pay; it is asked again.  Refused: ``unknown_refund``, ``not_instructed``."""

    roles = frozenset({PAYMENT})
    refund_id: str
    attempt: int
    code: str


class RecordRecovery(OrderCommand, frozen=True, kw_only=True):
    """The buyer paid back a refund that was undone.  Refused: ``unknown_refund``, ``more_than_owed``, ``id_reused``."""

    roles = frozenset({PAYMENT})
    refund_id: str
    amount_fen: int
    payment_ref: str


class WriteOffRecovery(OrderCommand, frozen=True, kw_only=True):
    """Give up what a buyer owes; a supervisor approves.

    Refused: ``unknown_refund``, ``more_than_owed``, ``same_approver``."""

    roles = frozenset({FINANCE})
    approver = SUPERVISOR
    refund_id: str
    amount_fen: int
    reason: str


class RepayUnits(OrderCommand, frozen=True, kw_only=True):
    """The buyer keeps goods that came after their refund and pays for them.

    Refused: ``unknown_refund``, ``not_late_units``, ``wrong_amount``, ``id_reused``."""

    roles = frozenset({PAYMENT})
    refund_id: str
    goods_fen: int
    freight_fen: int
    payment_ref: str


# --- Decide -------------------------------------------------------------------------------------------------------


def request_refund(s: OrderState, c: RequestRefund, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """The request is a fact whatever the rules make of it."""
    require_placed(s)
    fact = e.RefundRequested(
        **ids(s), refund_id=c.refund_id, lines=c.lines, reduction_fen=c.reduction_fen, reason=c.reason,
        evidence_sha256=c.evidence_sha256,
    )  # fmt: skip
    if once(s, "refund/" + c.refund_id, fact):
        return []
    if s.status not in ("paid", "partly_shipped", "shipped", "partly_received", "received"):
        raise Rejected("wrong_state")
    wants_units = c.reduction_fen == 0
    if (
        c.reduction_fen < 0
        or not c.lines
        or len({x.line_id for x in c.lines}) < len(c.lines)
        or c.refund_id in s.promises
        or any(x.line_id not in s.lines or (x.units < 1 if wants_units else x.units != 0) for x in c.lines)
    ):
        raise Rejected("bad_lines")
    return [fact]


def agree_refund(s: OrderState, c: AgreeRefund, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Also after a refusal, while the money is still reserved."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    if claim.state == "approved" or claim.state in _GRANTED:
        return []
    if not claim.is_open:
        raise Rejected("too_late")
    return [e.RefundAgreed(**ids(s), refund_id=c.refund_id)]


_GRANTED = frozenset({"short", "funded", "instructed", "payout_failed", "paid"})


def refuse_refund(s: OrderState, c: RefuseRefund, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Until it is agreed or presumed to be."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    if claim.state == "refused":
        return []
    if claim.state != "reserved":
        raise Rejected("too_late")
    dispute_by_at = add_days(asked.received_at, rules.refund.dispute_days)
    return [
        e.RefundRefused(
            **ids(s), refund_id=c.refund_id, reason=c.reason, evidence_sha256=c.evidence_sha256,
            dispute_by_at=dispute_by_at,
        )
    ]  # fmt: skip


def withdraw_refund(s: OrderState, c: WithdrawRefund, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Until it is approved."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    if claim.state in ("withdrawn", "lapsed"):
        return []
    if not claim.is_open:
        raise Rejected("already_approved")
    return [e.RefundWithdrawn(**ids(s), refund_id=c.refund_id)]


def report_cover(s: OrderState, c: ReportCover, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Once per attempt."""
    require_placed(s)
    if c.attempt <= known_claim(s, c.refund_id).cover_attempt:
        return []
    return [
        e.RefundCoverReported(
            **ids(s), refund_id=c.refund_id, attempt=c.attempt, drawn_fen=c.drawn_fen, advanced_fen=c.advanced_fen,
            short_fen=c.short_fen,
        )
    ]  # fmt: skip


def instruct_refund(s: OrderState, c: InstructRefund, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Once per attempt; never two instructions at a time, never for money that is not there."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    if c.attempt <= claim.payout_attempt:
        return []
    if claim.state == "instructed":
        raise Rejected("instruction_open")
    if claim.state not in ("funded", "payout_failed"):
        raise Rejected("not_funded")
    return [e.RefundInstructed(**ids(s), refund_id=c.refund_id, attempt=c.attempt, payment_key=c.payment_key)]


def confirm_refund(s: OrderState, c: ConfirmRefund, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Only what was instructed can be paid."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    fact = e.RefundPaid(
        **ids(s), refund_id=c.refund_id, payment_ref=c.payment_ref, value_on=c.value_on, escrow_fen=claim.escrow_fen,
        deposit_fen=claim.drawn_fen, platform_fen=claim.commission_fen + claim.advanced_fen,
    )  # fmt: skip
    if once(s, "payout/" + c.payment_ref, fact):
        return []
    if claim.state != "instructed":
        raise Rejected("not_instructed")
    return [fact]


def fail_refund(s: OrderState, c: FailRefund, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Only the open attempt can fail."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    if claim.state == "payout_failed" and c.attempt == claim.payout_attempt:
        return []
    if claim.state != "instructed" or c.attempt != claim.payout_attempt:
        raise Rejected("not_instructed")
    return [e.RefundPayoutFailed(**ids(s), refund_id=c.refund_id, attempt=c.attempt, code=c.code)]


def record_recovery(s: OrderState, c: RecordRecovery, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Never more than is owed."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    fact = e.RefundRecovered(**ids(s), refund_id=c.refund_id, amount_fen=c.amount_fen, payment_ref=c.payment_ref)
    if once(s, "recovery/" + c.payment_ref, fact):
        return []
    if not 0 < c.amount_fen <= claim.owed_back_fen:
        raise Rejected("more_than_owed")
    return [fact]


def write_off_recovery(s: OrderState, c: WriteOffRecovery, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Never more than is owed."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    if not 0 < c.amount_fen <= claim.owed_back_fen:
        raise Rejected("more_than_owed")
    return [
        e.RecoveryWrittenOff(
            **ids(s), refund_id=c.refund_id, amount_fen=c.amount_fen, reason=c.reason,
            approved_by=asked.approved_by or "",
        )
    ]  # fmt: skip


def repay_units(s: OrderState, c: RepayUnits, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """All that came late of one refund, at its price."""
    require_placed(s)
    claim = known_claim(s, c.refund_id)
    if (before := s.asked.get("repayment/" + c.payment_ref)) is not None:
        assert isinstance(before, e.UnitsRepaid)
        if (before.refund_id, before.goods_fen, before.freight_fen) != (c.refund_id, c.goods_fen, c.freight_fen):
            raise Rejected("id_reused")
        return []
    late = tuple(claim.late.values())
    if not late:
        raise Rejected("not_late_units")
    if (c.goods_fen, c.freight_fen) != (sum(x.goods_fen for x in late), claim.late_freight_fen):
        raise Rejected("wrong_amount")
    return [
        e.UnitsRepaid(
            **ids(s), refund_id=c.refund_id, lines=late, goods_fen=c.goods_fen, freight_fen=c.freight_fen,
            payment_ref=c.payment_ref,
        )
    ]  # fmt: skip


# --- React: a claim is reserved, answered, approved ----------------------------------------------------------------


def answer_request(s: OrderState, d: e.RefundRequested, asked_at: datetime, rules: Rulebook) -> Decisions:
    """RefundRequested: denied by the rules, or reserved and put to the merchant."""
    code = _denial(s, d, asked_at, rules)
    if code:
        yield e.RefundDenied(**ids(s), refund_id=d.refund_id, code=code)  # type: ignore[arg-type]
        return
    lines = _reduction(s, d) if d.reduction_fen else claim_lines(s, d.lines)
    freight_fen = 0 if d.reduction_fen else _freight(s, lines, d.reason, rules)
    amount_fen = sum(x.goods_fen for x in lines) + freight_fen
    answer_at = add_hours(asked_at, _answer_hours(s, amount_fen, asked_at, rules))
    yield _reserved(s, d.refund_id, "refund", d.reason, lines, freight_fen, 0, answer_at)


def _denial(s: OrderState, d: e.RefundRequested, asked_at: datetime, rules: Rulebook) -> str | None:
    received_at = max((x.received_at for x in s.shipments.values() if x.received_at), default=None)
    if s.is_received and received_at and asked_at > add_days(received_at, rules.windows.claim_days):
        return "window_closed"
    wanted = [(s.lines[x.line_id], x.units) for x in d.lines]
    if d.reduction_fen > sum(line.left_fen for line, _ in wanted):
        return "nothing_left"
    if all(line.free_units == 0 for line, _ in wanted):
        return "nothing_left"
    if any(units > line.free_units or is_last_under_reduction(s, line, units) for line, units in wanted):
        return "units_not_free"
    return None


def _answer_hours(s: OrderState, amount_fen: int, asked_at: datetime, rules: Rulebook) -> int:
    paid_for = asked_at - (s.paid_at or asked_at)
    for row in rules.refund.answer:
        soon = row.paid_within_minutes is None or paid_for <= timedelta(minutes=row.paid_within_minutes)
        small = row.max_fen is None or amount_fen <= row.max_fen
        if soon and small:
            return row.answer_hours
    raise AssertionError("the last row of refund.answer fits every request")


def cancel_units(s: OrderState, d: e.UnitsCancelled, rules: Rulebook) -> Decisions:
    """UnitsCancelled: refunded at once; before payment they only lower what is owed."""
    lines = claim_lines(s, [e.Units(line_id=d.line_id, units=d.units)])
    freight_fen = _freight(s, lines, "cancelled", rules)
    yield _reserved(s, d.refund_id, "cancellation", "cancelled", lines, freight_fen, 0, None)
    if s.paid_at is not None:
        yield from approve(s, d.refund_id, "rule", rules)


def refund_breach(s: OrderState, refund_id: str, wanted: list[e.Units], rules: Rulebook) -> Decisions:
    """An arrival promise was broken: the refund needs no request and no approval."""
    if not wanted:
        return
    lines = claim_lines(s, wanted)
    freight_fen = _freight(s, lines, "not_arrived", rules)
    yield _reserved(s, refund_id, "breach", "not_arrived", lines, freight_fen, 0, None)
    yield from approve(s, refund_id, "rule", rules)
    yield from meet_late_units(s, rules)


def supersede(s: OrderState, late: Iterable[e.Units] | None) -> Decisions:
    """Open claims give way to the refund of a broken promise, which needs no agreement: those on units that have not
    come, and on the price of lines of which nothing is left.  ``None``: all units of the order are refunded."""
    gone = {x.line_id: x.units for x in late} if late is not None else None
    for claim in list(s.claims.values()):
        if claim.is_open and (gone is None or any(_is_superseded(s, claim, x, gone) for x in claim.lines)):
            yield e.ClaimReleased(**ids(s), claim_id=claim.claim_id, cause="superseded")


def _is_superseded(s: OrderState, claim: ClaimState, x: e.ClaimLine, gone: dict[str, int]) -> bool:
    if x.line_id not in gone:
        return False
    if x.units:
        return x.units > sum(y.units for y in claim.parcels if y.line_id == x.line_id)
    return gone[x.line_id] >= s.lines[x.line_id].free_units + s.undecided_units(x.line_id)


def pay_damages(s: OrderState, refund_id: str, damages_fen: int, rules: Rulebook) -> Decisions:
    """A dispatch promise was broken: the merchant pays damages, never out of escrow."""
    if damages_fen:
        yield _reserved(s, refund_id, "damages", "late_dispatch", (), 0, damages_fen, None)
        yield from approve(s, refund_id, "rule", rules)


def approve(s: OrderState, refund_id: str, authority: e.Authority, rules: Rulebook) -> Decisions:
    """The claim becomes a refund, and its sources are worked out."""
    claim = s.claims[refund_id]
    escrow_fen = sum(x.escrow_fen for x in claim.lines) + claim.freight_escrow_fen
    taken_back_fen = sum(x.goods_fen - x.escrow_fen for x in claim.lines)
    returned_fen = s.commission_fen - escrow.commission_target(s, s.kept_fen - taken_back_fen)
    commission_fen = max(0, min(returned_fen, claim.amount_fen - escrow_fen))
    cover_fen = claim.amount_fen - escrow_fen - commission_fen
    yield e.RefundApproved(
        **ids(s), refund_id=refund_id, authority=authority, lines=claim.lines, freight_fen=claim.freight_fen,
        damages_fen=claim.damages_fen, refund_fen=claim.amount_fen, escrow_fen=escrow_fen,
        commission_fen=commission_fen, programme_fen=0, agency_fen=0, carrier_fen=0, cover_fen=cover_fen,
    )  # fmt: skip
    if commission_fen:
        yield e.CommissionReturned(**ids(s), refund_id=refund_id, commission_fen=commission_fen)
    if cover_fen == 0:
        yield _funded(s, claim)


def follow_cover(s: OrderState, d: e.RefundCoverReported, now: datetime, rules: Rulebook) -> Decisions:
    """RefundCoverReported: funded, or short; if it was undone meanwhile, what came is sent back."""
    claim = s.claims[d.refund_id]
    if claim.state == "cancelled":
        if came_fen := d.drawn_fen + d.advanced_fen:
            yield _cancelled(s, claim, came_fen, 0, d.drawn_fen, d.advanced_fen, 0)
    elif claim.undone_by:
        yield from undo(s, claim.claim_id, now, rules)
    elif d.short_fen:
        yield e.RefundFundingShort(**ids(s), refund_id=d.refund_id, short_fen=d.short_fen)
    else:
        yield _funded(s, claim)


def _funded(s: OrderState, claim: ClaimState) -> e.RefundFunded:
    key = f"{s.order_id}/{claim.claim_id}"
    return e.RefundFunded(**ids(s), refund_id=claim.claim_id, refund_fen=claim.refund_fen, payment_key=key)


# --- React: a refund is undone -------------------------------------------------------------------------------------


def undo(s: OrderState, refund_id: str, now: datetime, rules: Rulebook) -> Decisions:
    """The breach was none, or the buyer waived it.  Before payment the refund is cancelled, after it the buyer owes
    the whole.  While money is on its way (cover asked, payout instructed) the answer decides."""
    claim = s.claims.get(refund_id)
    if claim is None or claim.is_repaid or claim.state in ("cancelled", "recovering", "recovered", "instructed"):
        return
    if claim.is_waiting_for_cover and claim.cover_attempt == 0:
        return
    was_platform_fen = claim.commission_fen + claim.advanced_fen
    was_fen = claim.escrow_fen + claim.drawn_fen + was_platform_fen
    kept_again_fen = sum(x.goods_fen - x.escrow_fen for x in claim.lines)
    owed_fen = max(0, escrow.commission_target(s, s.kept_fen + kept_again_fen) - s.commission_fen)
    to_escrow_fen = claim.escrow_fen + min(owed_fen, was_fen - claim.escrow_fen)
    if claim.state == "paid":
        yield e.RefundRecoveryOpened(
            **ids(s), refund_id=refund_id, cause="breach_overturned", refund_fen=was_fen,
            was_escrow_fen=claim.escrow_fen, was_deposit_fen=claim.drawn_fen, was_platform_fen=was_platform_fen,
            to_escrow_fen=to_escrow_fen, to_cover_fen=was_fen - to_escrow_fen,
            to_programme_fen=0, to_agency_fen=0, to_carrier_fen=0,
            due_at=add_days(now, rules.refund.recovery_days),
        )  # fmt: skip
    else:
        yield _cancelled(s, claim, was_fen, claim.escrow_fen, claim.drawn_fen, was_platform_fen, to_escrow_fen)


def _cancelled(
    s: OrderState, claim: ClaimState, was_fen: int, escrow_fen: int, deposit_fen: int, platform_fen: int, to_escrow: int
) -> e.RefundCancelled:
    return e.RefundCancelled(
        **ids(s), refund_id=claim.claim_id, cause=claim.undone_by, refund_fen=was_fen,  # type: ignore[arg-type]
        was_escrow_fen=escrow_fen, was_deposit_fen=deposit_fen, was_platform_fen=platform_fen,
        to_escrow_fen=to_escrow, to_cover_fen=was_fen - to_escrow,
        to_programme_fen=0, to_agency_fen=0, to_carrier_fen=0,
    )  # fmt: skip


# --- React: goods that come although their money went back ----------------------------------------------------------


def meet_late_units(s: OrderState, rules: Rulebook) -> Decisions:
    """Units at the buyer beyond those that are free or claimed as delivered were refunded as not arrived: the buyer
    returns them or pays again.  It holds from their delivery, or from the breach if they were there before it."""
    surplus = {x: _delivered_unclaimed(s, x) - line.free_units for x, line in s.lines.items()}
    if not any(units > 0 for units in surplus.values()):
        return
    came_at = [
        x.delivered_at
        for x in s.shipments.values()
        if x.delivered_at and any(surplus[part.line_id] > 0 for part in x.lines)
    ]
    for claim in sorted(s.claims.values(), key=_cancelled_last):
        if claim.undone_by or claim.state not in REFUNDED:
            continue
        lines = tuple(_late_part(claim, x, surplus) for x in claim.lines)
        lines = tuple(x for x in lines if x.units)
        if lines:
            promise = s.promises.get(claim.claim_id)
            at = max([*came_at, promise.due_at] if promise else came_at)
            goods_fen = sum(x.goods_fen for x in lines)
            came_fen = goods_fen + sum(x.goods_fen for x in claim.late.values())
            freight_fen = 0
            if claim.goods_fen:
                freight_fen = share(claim.freight_fen, came_fen, claim.goods_fen) - claim.late_freight_fen
            yield At(
                at,
                e.RefundedUnitsArrived(
                    **ids(s), refund_id=claim.claim_id, lines=lines, parcels=_parcels(s, lines, _latest_first),
                    goods_fen=goods_fen, freight_fen=freight_fen,
                    return_by_at=add_days(at, rules.refund.refunded_units_return_days),
                ),
            )  # fmt: skip


def _cancelled_last(claim: ClaimState) -> bool:
    """Units that were called off were in no parcel, or in one that was given up."""
    return claim.kind == "cancellation"


def _delivered_unclaimed(s: OrderState, line_id: str) -> int:
    return s.units(line_id, was_delivered) - s.claimed_units(line_id, was_delivered)


def _late_part(claim: ClaimState, x: e.ClaimLine, surplus: dict[str, int]) -> e.PaidUnits:
    before = claim.late.get(x.line_id)
    came = before.units if before else 0
    in_parcels = sum(y.units for y in claim.parcels if y.line_id == x.line_id)
    units = max(0, min(surplus.get(x.line_id, 0), x.units - in_parcels - came))
    surplus[x.line_id] = surplus.get(x.line_id, 0) - units
    goods_fen = 0
    if units:
        already_fen = before.goods_fen if before else 0
        goods_fen = share(x.goods_fen, came + units, x.units) - already_fen
    return e.PaidUnits(line_id=x.line_id, units=units, goods_fen=goods_fen)


# --- The clock ----------------------------------------------------------------------------------------------------


def presume_agreed(s: OrderState, refund_id: str, rules: Rulebook) -> Decisions:
    """refund_answer: silence agrees."""
    yield e.RefundAgreedBySilence(**ids(s), refund_id=refund_id)
    yield from approve(s, refund_id, "silence", rules)


def lapse(s: OrderState, refund_id: str) -> Decisions:
    """refund_dispute: refused, and nobody disputed it."""
    yield e.ClaimReleased(**ids(s), claim_id=refund_id, cause="lapsed")


def keep_refunded(s: OrderState, refund_id: str) -> Decisions:
    """refunded_units: the buyer kept goods that were refunded."""
    late = tuple(s.claims[refund_id].late.values())
    yield e.RefundedUnitsKept(**ids(s), refund_id=refund_id, lines=late, goods_fen=sum(x.goods_fen for x in late))


# --- Shares of what is left ---------------------------------------------------------------------------------------


def all_free_units(s: OrderState) -> list[e.Units]:
    """Every unit that is neither cancelled, refunded nor reserved."""
    return [e.Units(line_id=x.line_id, units=x.free_units) for x in s.lines.values() if x.free_units]


def free_part(s: OrderState, wanted: Iterable[e.Units]) -> list[e.Units]:
    """As many of the units as are free."""
    parts = [e.Units(line_id=x.line_id, units=min(x.units, s.lines[x.line_id].free_units)) for x in wanted]
    return [x for x in parts if x.units]


def is_last_under_reduction(s: OrderState, line: LineState, units: int) -> bool:
    """The last units of a line do not go while its price is in question: that money would belong to no unit."""
    return units > 0 and units == line.free_units and s.has_open_reduction(line.line_id)


def claim_lines(s: OrderState, wanted: Iterable[e.Units]) -> tuple[e.ClaimLine, ...]:
    """What a claim on these units takes of each line."""
    return tuple(_claim_line(s.lines[x.line_id], x.units) for x in wanted)


def _claim_line(line: LineState, units: int) -> e.ClaimLine:
    goods_fen = share(line.left_fen, units, line.free_units)
    escrow_fen = min(goods_fen, line.escrow_fen)
    return e.ClaimLine(line_id=line.line_id, units=units, goods_fen=goods_fen, escrow_fen=escrow_fen)


def _parcels(
    s: OrderState, wanted: Iterable[e.Units | e.PaidUnits], order: Callable[[ShipmentState], Any]
) -> tuple[e.ParcelUnits, ...]:
    """Which delivered parcels the units came in, as far as they came."""
    parcels = []
    delivered = sorted(filter(was_delivered, s.shipments.values()), key=order)
    for x in wanted:
        missing = x.units
        for shipment in delivered:
            there = sum(y.units for y in shipment.lines if y.line_id == x.line_id) - shipment.claimed.get(x.line_id, 0)
            units = min(missing, there)
            if units > 0:
                missing -= units
                parcels.append(e.ParcelUnits(shipment_id=shipment.shipment_id, line_id=x.line_id, units=units))
    return tuple(parcels)


def _delivered_part(s: OrderState, lines: tuple[e.ClaimLine, ...], reason: str) -> Iterable[e.Units]:
    """A request speaks first of units that were delivered; one for goods that did not arrive, of the others."""
    for x in lines:
        line = s.lines[x.line_id]
        elsewhere = line.free_units - s.live_units(line, was_delivered) if reason == "not_arrived" else 0
        yield e.Units(line_id=x.line_id, units=max(0, x.units - elsewhere))


def _not_received_first(shipment: ShipmentState) -> bool:
    return shipment.received_at is not None


def _latest_first(shipment: ShipmentState) -> timedelta:
    assert shipment.delivered_at is not None
    return BEGINNING - shipment.delivered_at


def _reduction(s: OrderState, d: e.RefundRequested) -> tuple[e.ClaimLine, ...]:
    lines = [s.lines[x.line_id] for x in d.lines]
    parts = allot(d.reduction_fen, [line.left_fen for line in lines])
    return tuple(
        e.ClaimLine(line_id=line.line_id, units=0, goods_fen=part, escrow_fen=min(part, line.escrow_fen))
        for line, part in zip(lines, parts, strict=True)
    )


def _freight(s: OrderState, lines: tuple[e.ClaimLine, ...], reason: str, rules: Rulebook) -> int:
    """The freight that goes back with these goods; all of it with the last ones."""
    if reason not in rules.refund.freight_returned_for:
        return 0
    taken = {x.line_id: x.units for x in lines}
    if all(taken.get(x.line_id, 0) == x.free_units for x in s.lines.values()):
        return s.freight_left_fen
    goods_left_fen = s.goods_left_fen
    return share(s.freight_left_fen, sum(x.goods_fen for x in lines), goods_left_fen) if goods_left_fen else 0


def _reserved(
    s: OrderState,
    claim_id: str,
    kind: str,
    reason: str,
    lines: tuple[e.ClaimLine, ...],
    freight_fen: int,
    damages_fen: int,
    answer_at: datetime | None,
) -> e.ClaimReserved:
    parcels = _parcels(s, _delivered_part(s, lines, reason), _not_received_first) if kind == "refund" else ()
    return e.ClaimReserved(
        **ids(s), claim_id=claim_id, kind=kind, reason=reason, lines=lines, parcels=parcels, freight_fen=freight_fen,  # type: ignore[arg-type]
        freight_escrow_fen=min(freight_fen, s.freight_escrow_fen), damages_fen=damages_fen, answer_at=answer_at,
    )  # fmt: skip
