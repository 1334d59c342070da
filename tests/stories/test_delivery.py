"""Stories of goods that come, come late, come in part, or were only said to have come.

Each order is of three shirts for 1 001 fen and 100 fen freight, promised "by 14 July": due at 15 July 00:00, exclusive.
The clock decides a day later, so that scans which are recorded late still count.
"""

from ledger.orders import events as e
from tests.spec import (
    cancel,
    july,
    july_day,
    overturn,
    paid,
    parcel,
    pay_out,
    placed,
    repay,
    retract,
    scan,
    scan_id,
    tick,
    units,
    waive,
)  # fmt: skip
from tests.stories.market import Market

SHIPPED = [placed(), paid(), parcel(), scan("handed", july(3))]


def test_what_has_not_arrived_by_the_due_date_is_refunded_in_full_and_nobody_has_to_ask(market: Market) -> None:
    # Given a parcel that was handed over in time, and of which nothing was heard since
    market.given(SHIPPED)
    assert market.promise() == "open"
    assert market.balance("liabilities:escrow") == 1101

    # When the due date passes, nothing is decided yet: a scan may still be on its way to us
    market.when(tick(july(15, 23, 59, 59)))
    assert market.promise() == "open"

    # And when the day of grace is over as well
    market.when(tick(july(16)))

    # Then the promise is broken from the instant it was due, and the provider is told to pay back goods and freight
    [breach] = [x for x in market.events("order-o-1") if isinstance(x.data, e.PromiseBreached)]
    assert (breach.occurred_at, breach.received_at) == (july(15), july(16))
    [approved] = market.told(e.RefundApproved)
    assert (approved.authority, approved.refund_fen, approved.escrow_fen) == ("rule", 1101, 1101)
    assert market.claim("arrive") == "instructed"

    # And when it has paid, the order is over, and not a fen of it is left anywhere
    market.when(pay_out(july(17), "arrive"))
    assert (market.order().state, market.order().refundable_fen) == ("completed", 0)
    assert market.balance("liabilities:escrow") == market.balance("assets:cash:escrow") == 0
    month = market.row("merchant_months", "m-1", "2015-07")
    assert (month.undelivered, month.breaches, month.refund_fen, month.on_time_bp) == (1, 1, 1101, 0)
    assert market.is_in_order()


def test_of_a_partial_arrival_only_the_missing_part_is_refunded(market: Market) -> None:
    # Given two shirts in one parcel and the third in another
    market.given(placed(), paid(), parcel("p1", units("a", 2)), parcel("p2", units("a", 1), at=july(3)))

    # When only the first parcel arrives in time
    market.when(scan("delivered", july(9), "p1"), tick(july(16)))

    # Then the promise was kept for two shirts and broken for one, with its share of the freight
    [kept] = market.told(e.PromiseKept)
    [breached] = market.told(e.PromiseBreached)
    assert (kept.lines, breached.lines) == ((units("a", 2),), (units("a", 1),))
    [approved] = market.told(e.RefundApproved)
    assert [x.goods_fen for x in approved.lines] == [334]
    assert approved.freight_fen == 33

    # And the day shows two units in time of three that were due
    day = market.row("merchant_days", "m-1", july_day(14), "on_time")
    assert (day.numerator, day.denominator, day.defects, day.defect_buyers) == (2, 3, 1, ("b-1",))
    assert market.is_in_order()


def test_a_false_delivered_scan_is_taken_back_and_the_promise_is_broken_at_once(market: Market) -> None:
    # Given a courier who scanned the parcel as delivered at noon on the last day, so that the promise was kept
    market.given(SHIPPED, scan("delivered", july(14, 12)), tick(july(17)))
    assert market.promise() == "kept"

    # When the carrier takes the scan back, days after the due date
    market.when(retract(scan_id("delivered", july(14, 12)), july(20)))

    # Then the arrival is revised and the refund follows in the same breath, dated from when the goods were due
    [revised] = market.told(e.ArrivalRevised)
    assert (revised.from_at, revised.to_at) == (july(14, 12), None)
    [breach] = [x for x in market.events("order-o-1") if isinstance(x.data, e.PromiseBreached)]
    assert (breach.occurred_at, breach.received_at) == (july(15), july(20))
    assert market.claim("arrive") == "instructed"

    # And who asks how it truly was on 16 July is told what nobody knew on that day
    assert market.order(occurred_before=july(16)).promises[0].state == "breached"
    assert market.order(occurred_before=july(16)).refunded_fen == 1101
    assert market.is_in_order()


def test_a_timely_scan_that_is_recorded_too_late_lets_a_handler_overturn_the_breach(market: Market) -> None:
    # Given a breach that was decided and refunded
    market.given(SHIPPED, tick(july(16)))

    # When the carrier at last delivers its scan of 14 July
    market.when(scan("delivered", july(14, 12), received=july(18)))

    # Then the contradiction is on record, but a decision stays until somebody takes responsibility for undoing it
    [contradicted] = market.told(e.BreachContradicted)
    assert contradicted.lines == (units("a", 3),)
    assert market.promise() == "breached"

    # And nobody may approve what they asked for themselves
    assert market.refused(overturn(july(19)).approved("handler-1")) == "same_approver"

    # When a handler overturns it, the buyer has been paid already, and owes the money now
    market.given(pay_out(july(18, 12), "arrive"))
    market.when(overturn(july(19)))
    [recovery] = market.told(e.RefundRecoveryOpened)
    assert (recovery.refund_fen, recovery.to_escrow_fen) == (1101, 1101)
    assert (market.promise(), market.claim("arrive")) == ("kept", "recovering")
    assert market.balance("assets:receivable:buyer") == 1101

    # And the merchant's record is clean again
    day = market.row("merchant_days", "m-1", july_day(14), "on_time")
    assert (day.numerator, day.denominator, day.defects) == (3, 3, 0)
    assert market.is_in_order()


def test_a_buyer_may_give_up_the_money_but_not_the_merchants_record(market: Market) -> None:
    # Given a buyer who can wait, and says so before the goods are due
    market.given(SHIPPED, waive(july(13)))

    # When they come three days late
    market.when(scan("delivered", july(18)), tick(july(29)))

    # Then the promise counts as broken, nothing was refunded, and the merchant has its money
    assert market.promise() == "breached"
    assert market.told(e.RefundApproved) == []
    order = market.order()
    assert (order.released_fen, order.commission_fen, order.rebate_fen, order.paid_out_fen) == (1101, 25, 12, 1076)
    assert market.row("merchant_months", "m-1", "2015-07").late == 1
    assert market.is_in_order()


def test_goods_that_come_after_their_refund_are_sent_back_or_paid_for(market: Market) -> None:
    # Given a late order whose refund has been paid
    market.given(SHIPPED, tick(july(16)), pay_out(july(17), "arrive"))

    # When the parcel turns up after all
    market.when(scan("delivered", july(20)))

    # Then the buyer holds goods that nobody has paid for, and has a week
    [arrived] = market.told(e.RefundedUnitsArrived)
    assert (arrived.goods_fen, arrived.freight_fen, arrived.return_by_at) == (1001, 100, july(27))
    assert market.row("due_tasks", "order-o-1", "refunded_units", "arrive").owner_id == "b-1"

    # When the buyer keeps them, another price than theirs is refused
    assert market.refused(repay(1001, 0, july(21))) == "wrong_amount"
    market.when(repay(1001, 100, july(21)))

    # Then it is a sale like any other: money to the merchant, commission and rebate
    order = market.order()
    assert (order.released_fen, order.commission_fen, order.rebate_fen, order.paid_out_fen) == (1101, 25, 12, 1076)
    assert market.balance("liabilities:escrow") == market.balance("assets:cash:escrow") == 0
    assert market.row("due_tasks", "order-o-1", "refunded_units", "arrive") is None
    assert market.is_in_order()


def test_units_that_were_called_off_before_they_left_are_no_part_of_the_promise(market: Market) -> None:
    # Given a buyer who calls one of three shirts off before anything is shipped
    market.given(placed(), paid(), cancel(at=july(1, 12)), parcel("p1", units("a", 2)))

    # When the other two arrive in time
    market.when(scan("delivered", july(9)), tick(july(20)))

    # Then the promise is kept, and the money went two ways
    assert market.promise() == "kept"
    order = market.order()
    assert (order.refunded_fen, order.released_fen, order.captured_fen) == (367, 734, 1101)
    assert market.is_in_order()
