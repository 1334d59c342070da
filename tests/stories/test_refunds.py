"""Stories of money that goes back: out of escrow, out of the deposit, out of the platform's pocket."""

from ledger import merchants
from ledger.orders import events as e
from tests.spec import (
    agree,
    confirm,
    deposit,
    fail_payout,
    july,
    line,
    paid,
    parcel,
    pay_out,
    placed,
    refuse,
    request,
    scan,
    tick,
    units,
)  # fmt: skip
from tests.stories.market import Market

DELIVERED = [placed(), paid(), parcel(), scan("handed", july(3)), scan("delivered", july(9))]
DEAR_FEN = 14_000_000
DEAR = [
    placed(line(line_fen=DEAR_FEN), freight_fen=0),
    paid(DEAR_FEN),
    parcel(),
    scan("delivered", july(9)),
    confirm(at=july(10)),
]
"""Three machines for 140 000 yuan, received: the money has left escrow."""


def test_a_refund_before_the_money_is_released_comes_out_of_escrow(market: Market) -> None:
    # Given delivered goods that the buyer has not confirmed, one of them torn
    market.given(DELIVERED)

    # When the buyer asks for the price of one, and the merchant agrees within the day it has
    market.when(request(units("a", 1), at=july(10)))
    assert market.row("due_tasks", "order-o-1", "refund_answer", "r1").fires_at == july(11)
    assert market.order().reserved_fen == 367
    market.when(agree(july(10, 5)))

    # Then escrow pays, and neither commission nor deposit is touched
    [approved] = market.told(e.RefundApproved)
    assert (approved.refund_fen, approved.escrow_fen, approved.cover_fen) == (367, 367, 0)
    market.when(pay_out(july(11)))
    assert market.balance("liabilities:deposit:m-1") == 3_000_000

    # And ten days after delivery the rest is released, with commission and rebate on what was kept
    market.when(tick(july(19)))
    order = market.order()
    assert (order.refunded_fen, order.released_fen, order.escrow_fen) == (367, 734, 0)
    assert (order.commission_fen, order.rebate_fen) == (17, 8)
    assert market.is_in_order()


def test_who_says_nothing_agrees(market: Market) -> None:
    # Given a claim that the merchant does not answer
    market.given(DELIVERED, request(units("a", 3), at=july(10)))

    # When its day is over, then all is refunded, and nothing was sold
    market.when(tick(july(11)))
    assert market.told(e.RefundAgreedBySilence)
    assert market.told(e.RefundApproved)[0].authority == "silence"
    market.when(pay_out(july(12)))
    order = market.order()
    assert (order.refunded_fen, order.commission_fen, order.rebate_fen, order.escrow_fen) == (1101, 0, 0, 0)
    assert market.is_in_order()


def test_a_refused_claim_keeps_its_money_reserved_while_a_dispute_may_be_opened(market: Market) -> None:
    # Given a claim that the merchant refuses
    market.given(DELIVERED, request(units("a", 1), at=july(10)), refuse(july(10, 8)))

    # When the buyer is taken to have received the goods, all but the disputed part is released
    market.when(confirm(at=july(11)))
    assert (market.claim("r1"), market.order().released_fen, market.order().escrow_fen) == ("refused", 734, 367)

    # And when five days have passed without a dispute, so is that
    market.when(tick(july(15, 8)))
    assert (market.claim("r1"), market.order().released_fen, market.order().escrow_fen) == ("lapsed", 1101, 0)
    assert market.is_in_order()


def test_a_refund_after_release_is_drawn_from_the_deposit_and_advanced_until_the_merchant_pays(market: Market) -> None:
    # Given goods for 140 000 yuan, received and paid out; the merchant's deposit is 30 000, and the platform advances
    # no more than 100 000
    market.given(DEAR)
    assert market.order().paid_out_fen == DEAR_FEN - 350_000

    # When the merchant agrees to take all of it back
    market.when(request(units("a", 3), at=july(12)), agree(july(12, 5)))

    # Then the commission comes back, the deposit is drawn, the platform advances, and it is still not enough: the
    # buyer waits, visibly
    [approved] = market.told(e.RefundApproved)
    assert (approved.refund_fen, approved.escrow_fen, approved.commission_fen) == (DEAR_FEN, 0, 350_000)
    assert approved.cover_fen == 13_650_000
    [cover] = market.told(merchants.RefundCovered, stream="merchant-m-1")
    assert (cover.drawn_fen, cover.advanced_fen, cover.short_fen) == (3_000_000, 10_000_000, 650_000)
    assert market.claim("r1") == "short"
    assert market.told(e.RefundInstructed) == []
    assert market.balance("assets:receivable:merchant:m-1") == 10_000_000
    assert market.balance("liabilities:deposit:m-1") == 0

    # When the merchant tops up 20 000, that goes to the platform first, which can advance again now
    market.when(deposit(2_000_000, "top-up-1", at=july(14)))
    assert market.told(merchants.ReceivableRecovered, stream="merchant-m-1")[0].amount_fen == 2_000_000
    assert market.told(e.RefundCoverReported)[1].short_fen == 0
    assert market.balance("assets:receivable:merchant:m-1") == 8_650_000

    # Then the buyer is paid, in one sum
    assert market.claim("r1") == "instructed"
    market.when(pay_out(july(15)))
    [out] = market.told(e.RefundPaid)
    assert (out.escrow_fen, out.deposit_fen, out.platform_fen) == (0, 3_000_000, 11_000_000)
    order = market.order()
    assert (order.refunded_fen, order.commission_fen, order.rebate_fen) == (DEAR_FEN, 0, 0)

    # And when the merchant has paid the rest, everybody is quits
    market.when(deposit(11_650_000, "top-up-2", at=july(16)))
    assert market.balance("assets:receivable:merchant:m-1") == 0
    assert market.balance("liabilities:deposit:m-1") == 3_000_000
    assert market.is_in_order()


def test_a_price_reduction_pays_back_money_and_leaves_the_goods(market: Market) -> None:
    # Given a received order with a fault that the buyer can live with
    market.given(DELIVERED, confirm(at=july(10)))
    assert (market.order().commission_fen, market.order().rebate_fen) == (25, 12)

    # When the two agree on 200 fen less
    market.when(request(units("a", 0), reduction_fen=200, at=july(11)), agree(july(11, 5)))

    # Then commission and rebate follow what the merchant keeps, and the deposit pays the difference
    [approved] = market.told(e.RefundApproved)
    assert (approved.refund_fen, approved.commission_fen, approved.cover_fen, approved.freight_fen) == (200, 5, 195, 0)
    [clawed_back] = market.told(e.RebateClawedBack)
    assert (clawed_back.rebate_fen, clawed_back.target_fen) == (2, 10)
    assert market.balance("liabilities:deposit:m-1") == 3_000_000 - 195

    # And the subsidy of the month shows both ways
    month = market.row("subsidy_balance", "m-1", "2015-07")
    assert (month.accrued_fen, month.clawed_back_fen, month.closing_fen) == (12, 2, 10)

    # When the provider cannot pay at first, it is asked again with the same payment key, so that it pays once
    market.when(fail_payout(july(12)), pay_out(july(13)))
    assert [(x.attempt, x.payment_key) for x in market.told(e.RefundInstructed)] == [(1, "o-1/r1"), (2, "o-1/r1")]

    # And when all windows are closed, the order is
    market.when(tick(july(50)))
    assert (market.order().state, market.order().refunded_fen) == ("completed", 200)
    assert market.is_in_order()
