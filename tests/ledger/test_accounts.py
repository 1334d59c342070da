"""Double entry: what each event posts, from the event alone."""

import pytest

from ledger import accounts
from ledger.accounts import Posting, Unbalanced, postings
from ledger.merchants import CoverReversed
from ledger.orders import events as e
from ledger.streams import WIRE
from tests.golden.samples import SAMPLES
from tests.spec import (
    active_merchant,
    agree,
    confirm,
    cover,
    cover_refund,
    deposit,
    given,
    instructed_and_paid,
    july,
    overturn,
    paid,
    parcel,
    placed,
    recover,
    request,
    scan,
    tick,
    write_off,
)

MOVES_MONEY = {
    "PaymentCaptured", "StrayPaymentRecorded", "StrayPaymentReturned", "EscrowReleased", "CommissionCharged",
    "CommissionReturned", "RebateAccrued", "RebateClawedBack", "RefundApproved", "RefundCovered", "RefundPaid",
    "RefundCancelled", "RefundRecoveryOpened", "CoverReversed", "RefundRecovered", "RecoveryWrittenOff", "UnitsRepaid",
    "DepositPaid", "ReceivableRecovered", "ReceivablePaid", "AnnualFeePaid", "BudgetAuthorised", "BudgetToppedUp",
    "BudgetSpent", "SpendReturned",
}  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_every_entry_sums_to_zero_and_only_money_is_posted(sample: e.Value) -> None:
    entry = postings(sample)  # type: ignore[arg-type]
    assert sum(x.amount_fen for x in entry) == 0
    assert bool(entry) == (type(sample).__name__ in MOVES_MONEY)


def test_every_event_that_moves_money_exists() -> None:
    assert set(WIRE.classes) >= MOVES_MONEY


def test_a_payment_goes_into_escrow() -> None:
    assert postings(given(placed(), paid()).last(e.PaymentCaptured)) == [
        Posting("assets:cash:escrow", 1101), Posting("liabilities:escrow", -1101)
    ]  # fmt: skip


def test_commission_moves_from_restricted_to_operating_cash() -> None:
    story = given(placed(), paid(), parcel(), confirm(at=july(5)))
    assert postings(story.last(e.CommissionCharged)) == [
        Posting("liabilities:escrow", 25), Posting("income:commission", -25),
        Posting("assets:cash:operating", 25), Posting("assets:cash:escrow", -25),
    ]  # fmt: skip


def test_nothing_is_posted_of_an_amount_of_zero() -> None:
    story = given(placed(), paid(), request(at=july(4)), agree(july(4)))
    assert postings(story.last(e.RefundApproved)) == [
        Posting("liabilities:escrow", 367), Posting("liabilities:refund:escrow", -367)
    ]  # fmt: skip


def test_a_refund_is_paid_from_the_cash_it_came_from() -> None:
    story = given(
        placed(), paid(), parcel(), scan("handed", july(3)), confirm(at=july(5)), request(at=july(7)), agree(july(7))
    )
    story.given(cover(300, july(8), advanced_fen=59), instructed_and_paid(july(9)))
    assert postings(story.last(e.RefundPaid)) == [
        Posting("liabilities:refund:deposit", 300), Posting("assets:cash:deposit", -300),
        Posting("liabilities:refund:platform", 67), Posting("assets:cash:operating", -67),
    ]  # fmt: skip


def test_a_recovery_leaves_the_buyer_owing_until_it_is_paid_or_written_off() -> None:
    story = given(
        placed(), paid(), parcel(), tick(july(16)), instructed_and_paid(july(16), "arrive"), overturn(july(17))
    )
    assert story.balances()[accounts.BUYER] == 1101
    story.given(recover(1000, july(18)), write_off(101, july(19)))
    balances = story.balances()
    assert accounts.BUYER not in balances
    assert balances[accounts.BAD_DEBT] == 101


def test_the_cover_that_comes_back_is_split_as_the_merchants_stream_says() -> None:
    event = CoverReversed(merchant_id="m-1", refund_id="r", order_id="o", receivable_fen=7, deposit_fen=5)
    assert postings(event) == [
        Posting("liabilities:cover", 12), Posting("assets:receivable:merchant:m-1", -7),
        Posting("liabilities:deposit:m-1", -5), Posting("assets:cash:deposit", 5), Posting("assets:cash:operating", -5),
    ]  # fmt: skip


def test_the_deposit_of_a_merchant_is_what_its_account_says() -> None:
    story = given(active_merchant(), cover_refund(3_000_100, july(5)), deposit(50, "d2", at=july(6)))
    balances = story.balances()
    assert -balances.get(accounts.deposit("m-1"), 0) == story.state.balance_fen
    assert balances[accounts.receivable("m-1")] == story.state.receivable_fen == 50


def test_an_entry_that_does_not_balance_is_a_defect() -> None:
    story = given(placed(), paid(), parcel(), tick(july(16)))
    wrong = e.RefundCancelled(
        **{name: getattr(story.last(e.RefundApproved), name) for name in ("order_id", "merchant_id", "placed_on")},
        refund_id="arrive", cause="promise_waived", refund_fen=5, was_escrow_fen=5, was_deposit_fen=0,
        was_platform_fen=0, to_escrow_fen=4, to_cover_fen=0, to_programme_fen=0, to_agency_fen=0, to_carrier_fen=0,
    )  # fmt: skip
    with pytest.raises(Unbalanced):
        postings(wrong)
