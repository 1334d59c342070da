"""Double entry: what each event posts to the accounts.  ``postings(event)`` is a function of the event alone, so the
journal is itself a fold of the log; an entry's id is its event's id, and its postings sum to zero.

Accounts read like beancount's; the last segment is the sub-ledger (``liabilities:deposit:m-17``).  Debit is positive.
There is no merchant payable: released escrow goes to the merchant at once.  Value added tax is the general ledger's.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ledger import budgets, merchants
from ledger.events import Event
from ledger.orders import events as e

CASH_ESCROW, CASH_DEPOSIT, CASH_OPERATING = "assets:cash:escrow", "assets:cash:deposit", "assets:cash:operating"
ESCROW, COVER = "liabilities:escrow", "liabilities:cover"
REFUND_ESCROW, REFUND_DEPOSIT = "liabilities:refund:escrow", "liabilities:refund:deposit"
REFUND_PLATFORM = "liabilities:refund:platform"
BUYER = "assets:receivable:buyer"
COMMISSION, REBATE = "income:commission", "expenses:rebate"
GUARANTEE, BAD_DEBT, MARKETING = "expenses:guarantee", "expenses:bad-debt", "expenses:marketing"


def deposit(merchant_id: str) -> str:
    """What the platform holds of a merchant's deposit."""
    return f"liabilities:deposit:{merchant_id}"


def receivable(merchant_id: str) -> str:
    """What the merchant owes for advances."""
    return f"assets:receivable:merchant:{merchant_id}"


def subsidy(merchant_id: str) -> str:
    """Rebates owed to the merchant; a debit balance is owed by it."""
    return f"liabilities:subsidy:{merchant_id}"


def deferred_fee(merchant_id: str) -> str:
    """Annual fee that is paid and not yet earned."""
    return f"liabilities:deferred-fee:{merchant_id}"


def suspense(ref: str) -> str:
    """Money whose owner has to be found."""
    return f"liabilities:suspense:{ref}"


class Posting(msgspec.Struct, frozen=True, gc=False):
    """So many fen to an account, debit positive."""

    account: str
    amount_fen: int


class Unbalanced(AssertionError):
    """The postings of an event do not sum to zero; this is a defect of the ledger."""


def postings(event: Event) -> list[Posting]:
    """The entry of an event; empty if it moves no money.  Postings of 0 are left out."""
    post = _POSTINGS.get(type(event))
    if post is None:
        return []
    entry, total_fen = [], 0
    for posting in post(event):
        if posting.amount_fen:
            entry.append(posting)
            total_fen += posting.amount_fen
    if total_fen:
        raise Unbalanced(f"{event!r} posts {entry!r}")
    return entry


def _move(debit: str, credit: str, amount_fen: int) -> tuple[Posting, Posting]:
    return Posting(debit, amount_fen), Posting(credit, -amount_fen)


def _captured(d: e.PaymentCaptured) -> Iterable[Posting]:
    return _move(CASH_ESCROW, ESCROW, d.amount_fen)


def _stray(d: e.StrayPaymentRecorded) -> Iterable[Posting]:
    return _move(CASH_ESCROW, suspense(d.payment_ref), d.amount_fen)


def _stray_returned(d: e.StrayPaymentReturned) -> Iterable[Posting]:
    return _move(suspense(d.stray_ref), CASH_ESCROW, d.amount_fen)


def _released(d: e.EscrowReleased) -> Iterable[Posting]:
    return _move(ESCROW, CASH_ESCROW, d.paid_out_fen)


def _commission_charged(d: e.CommissionCharged) -> Iterable[Posting]:
    fen = d.commission_fen
    return *_move(ESCROW, COMMISSION, fen), *_move(CASH_OPERATING, CASH_ESCROW, fen)


def _commission_returned(d: e.CommissionReturned) -> Iterable[Posting]:
    return _move(COMMISSION, REFUND_PLATFORM, d.commission_fen)


def _rebate_accrued(d: e.RebateAccrued) -> Iterable[Posting]:
    return _move(REBATE, subsidy(d.merchant_id), d.rebate_fen)


def _rebate_clawed_back(d: e.RebateClawedBack) -> Iterable[Posting]:
    return _move(subsidy(d.merchant_id), REBATE, d.rebate_fen)


def _refund_approved(d: e.RefundApproved) -> Iterable[Posting]:
    return *_move(ESCROW, REFUND_ESCROW, d.escrow_fen), *_move(GUARANTEE, REFUND_PLATFORM, d.programme_fen)


def _refund_covered(d: merchants.RefundCovered) -> Iterable[Posting]:
    yield from _move(deposit(d.merchant_id), REFUND_DEPOSIT, d.drawn_fen)
    yield from _move(receivable(d.merchant_id), REFUND_PLATFORM, d.advanced_fen)


def _refund_paid(d: e.RefundPaid) -> Iterable[Posting]:
    yield from _move(REFUND_ESCROW, CASH_ESCROW, d.escrow_fen)
    yield from _move(REFUND_DEPOSIT, CASH_DEPOSIT, d.deposit_fen)
    yield from _move(REFUND_PLATFORM, CASH_OPERATING, d.platform_fen)


def _refund_cancelled(d: e.RefundCancelled) -> Iterable[Posting]:
    yield Posting(REFUND_ESCROW, d.was_escrow_fen)
    yield Posting(REFUND_DEPOSIT, d.was_deposit_fen)
    yield Posting(REFUND_PLATFORM, d.was_platform_fen)
    yield from _undone(d)
    yield Posting(CASH_ESCROW, d.to_escrow_fen - d.was_escrow_fen)
    yield Posting(CASH_DEPOSIT, -d.was_deposit_fen)
    yield Posting(CASH_OPERATING, d.was_deposit_fen - (d.to_escrow_fen - d.was_escrow_fen))


def _recovery_opened(d: e.RefundRecoveryOpened) -> Iterable[Posting]:
    yield Posting(BUYER, d.refund_fen)
    yield from _undone(d)
    yield from _move(CASH_ESCROW, CASH_OPERATING, d.to_escrow_fen)


def _undone(d: e.RefundCancelled | e.RefundRecoveryOpened) -> Iterable[Posting]:
    yield Posting(ESCROW, -d.to_escrow_fen)
    yield Posting(COVER, -d.to_cover_fen)
    yield Posting(GUARANTEE, -d.to_programme_fen)


def _cover_reversed(d: merchants.CoverReversed) -> Iterable[Posting]:
    yield Posting(COVER, d.receivable_fen + d.deposit_fen)
    yield Posting(receivable(d.merchant_id), -d.receivable_fen)
    yield Posting(deposit(d.merchant_id), -d.deposit_fen)
    yield from _move(CASH_DEPOSIT, CASH_OPERATING, d.deposit_fen)


def _recovered(d: e.RefundRecovered) -> Iterable[Posting]:
    return _move(CASH_OPERATING, BUYER, d.amount_fen)


def _written_off(d: e.RecoveryWrittenOff) -> Iterable[Posting]:
    return _move(BAD_DEBT, BUYER, d.amount_fen)


def _repaid(d: e.UnitsRepaid) -> Iterable[Posting]:
    return _move(CASH_ESCROW, ESCROW, d.goods_fen + d.freight_fen)


def _deposit_paid(d: merchants.DepositPaid) -> Iterable[Posting]:
    return _move(CASH_DEPOSIT, deposit(d.merchant_id), d.amount_fen)


def _receivable_recovered(d: merchants.ReceivableRecovered) -> Iterable[Posting]:
    yield from _move(deposit(d.merchant_id), receivable(d.merchant_id), d.amount_fen)
    yield from _move(CASH_OPERATING, CASH_DEPOSIT, d.amount_fen)


def _receivable_paid(d: merchants.ReceivablePaid) -> Iterable[Posting]:
    return _move(CASH_OPERATING, receivable(d.merchant_id), d.amount_fen)


def _fee_paid(d: merchants.AnnualFeePaid) -> Iterable[Posting]:
    return _move(CASH_OPERATING, deferred_fee(d.merchant_id), d.fee_fen)


def _budget_authorised(d: budgets.BudgetAuthorised) -> Iterable[Posting]:
    return _move(f"budget:available:{d.budget}", f"budget:authorised:{d.budget}", d.authorised_fen)


def _budget_topped_up(d: budgets.BudgetToppedUp) -> Iterable[Posting]:
    return _move(f"budget:available:{d.budget}", f"budget:authorised:{d.budget}", d.amount_fen)


def _budget_spent(d: budgets.BudgetSpent) -> Iterable[Posting]:
    yield from _move(f"budget:spent:{d.budget}", f"budget:available:{d.budget}", d.amount_fen)
    if d.purpose == "marketing":
        yield from _move(MARKETING, f"liabilities:supplier:{d.ref}", d.amount_fen)


def _spend_returned(d: budgets.SpendReturned) -> Iterable[Posting]:
    return _move(f"budget:available:{d.budget}", f"budget:spent:{d.budget}", d.amount_fen)


_POSTINGS: dict[type, Callable[[Any], Iterable[Posting]]] = {
    e.PaymentCaptured: _captured,
    e.StrayPaymentRecorded: _stray,
    e.StrayPaymentReturned: _stray_returned,
    e.EscrowReleased: _released,
    e.CommissionCharged: _commission_charged,
    e.CommissionReturned: _commission_returned,
    e.RebateAccrued: _rebate_accrued,
    e.RebateClawedBack: _rebate_clawed_back,
    e.RefundApproved: _refund_approved,
    merchants.RefundCovered: _refund_covered,
    e.RefundPaid: _refund_paid,
    e.RefundCancelled: _refund_cancelled,
    e.RefundRecoveryOpened: _recovery_opened,
    merchants.CoverReversed: _cover_reversed,
    e.RefundRecovered: _recovered,
    e.RecoveryWrittenOff: _written_off,
    e.UnitsRepaid: _repaid,
    merchants.DepositPaid: _deposit_paid,
    merchants.ReceivableRecovered: _receivable_recovered,
    merchants.ReceivablePaid: _receivable_paid,
    merchants.AnnualFeePaid: _fee_paid,
    budgets.BudgetAuthorised: _budget_authorised,
    budgets.BudgetToppedUp: _budget_topped_up,
    budgets.BudgetSpent: _budget_spent,
    budgets.SpendReturned: _spend_returned,
}

POSTED = frozenset(_POSTINGS)
"""The types of event that move money."""
