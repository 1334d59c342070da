"""A merchant's story: admitted, short of its deposit, suspended, and back."""

from ledger import merchants
from ledger.decider import MERCHANT, OFFICER
from tests.spec import (
    agree,
    applied,
    arrive_by,
    confirm,
    deposit,
    fee,
    guarantees,
    july,
    lift,
    paid,
    parcel,
    placed,
    request,
    review_passed,
    review_started,
    scan,
    suspend,
    tick,
    trustpass,
    units,
)  # fmt: skip
from tests.stories.market import Market


def test_a_merchant_is_admitted_step_by_step_and_sells_when_the_last_condition_holds(empty_market: Market) -> None:
    market = empty_market

    # Given a seller without TrustPass, it is not even known
    assert market.refused(applied(at=july(1, 1))) == "unknown_stream"

    # When it has everything but the deposit, nobody can order from it yet
    market.when(
        trustpass(at=july(1, 2)), applied(at=july(1, 3)), review_started(at=july(1, 4)), review_passed(at=july(1, 5)),
        guarantees(at=july(1, 6)), fee(at=july(1, 7)),
    )  # fmt: skip
    assert market.state("merchant-m-1").stage == "approved"
    assert market.refused(placed()) == "merchant_not_active"

    # And half a deposit is none
    market.when(deposit(1_500_000, "half", at=july(1, 11)))
    assert market.refused(placed(at=july(1, 12))) == "merchant_not_active"

    # When the other half comes, it is a power merchant in the same transaction
    market.when(deposit(1_500_000, "other-half", at=july(1, 13)))
    [activated] = market.told(merchants.MerchantActivated, stream="merchant-m-1")
    assert activated.active_from_at == july(1, 13)
    market.when(placed(at=july(1, 14)))

    # And the order holds the rules that were in force, for good
    [first] = market.events("order-o-1")
    assert first.data.terms.rulebook == "rulebook-2015.1"
    assert first.data.merchant_version == market.events("merchant-m-1")[-1].version


def test_a_deposit_that_is_not_refilled_suspends_the_merchant_until_it_is(market: Market) -> None:
    # Given a refund after release, which left the deposit below what the category requires
    market.given(placed(), paid(), parcel(), scan("delivered", july(5)), confirm(at=july(6)))
    market.given(request(units("a", 3), at=july(7)), agree(july(7, 12)))
    [demanded] = market.told(merchants.TopUpDemanded, stream="merchant-m-1")
    assert (demanded.top_up_fen, demanded.due_at) == (1076, july(14, 12))

    # When the merchant does not pay within the week, it still sells until the last second
    market.when(placed(at=july(14, 11), order_id="o-2"))

    # And then no more; orders that were placed keep their terms
    market.when(tick(july(14, 12)))
    assert market.state("merchant-m-1").suspended_for == ("deposit",)
    assert market.refused(placed(at=july(14, 13), order_id="o-3")) == "merchant_not_active"
    market.when(paid(at=july(14, 14), order_id="o-2", ref="pay-2"))

    # When it pays, the suspension is lifted at once
    market.when(deposit(1076, "top-up", at=july(16)))
    [lifted] = market.told(merchants.SuspensionLifted, stream="merchant-m-1")
    assert (lifted.cause, lifted.is_active_again) == ("deposit", True)
    market.when(placed(at=july(16, 1), order_id="o-3", promises=[arrive_by(july(30))]))
    assert market.is_in_order()


def test_an_officers_suspension_ends_only_when_an_officer_ends_it(market: Market) -> None:
    # Given an officer who suspends the merchant, which the merchant itself may not end
    market.given(suspend(july(3)))
    assert market.refused(placed(at=july(4))) == "merchant_not_active"
    assert market.refused(lift(july(5)).by(MERCHANT)) == "not_allowed"

    # When another officer lifts it, then orders are taken again
    market.when(lift(july(6)).by(OFFICER, "officer-2"))
    market.when(placed(at=july(6, 1)))
    assert market.is_in_order()
