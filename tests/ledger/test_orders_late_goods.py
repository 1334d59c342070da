"""Goods that come although their money went back: returned, paid for again, or kept."""

from ledger.orders import events as e
from tests.spec import (
    DUE,
    SECOND,
    Scenario,
    Step,
    agree,
    arrive_by,
    cancel,
    confirm,
    dispatch_by,
    event,
    given,
    instruct,
    instructed_and_paid,
    july,
    line,
    overturn,
    paid,
    parcel,
    pay_out,
    placed,
    repay,
    request,
    scan,
    tick,
    units,
)

REFUNDED: list[Step] = [
    placed(), paid(), parcel(), scan("handed", july(3)), tick(july(16)), *instructed_and_paid(july(16, 1), "arrive")
]  # fmt: skip


def late(*more: Step) -> Scenario:
    return given(REFUNDED, scan("delivered", july(17)), *more)


def test_a_late_order_is_refunded_only_once() -> None:
    story = given(REFUNDED).when(scan("delivered", july(17)))
    story.then(
        e.CarrierScanRecorded, e.UnitsArrived, e.UnitsDelivered,
        event(
            e.RefundedUnitsArrived, refund_id="arrive", goods_fen=1001, freight_fen=100, return_by_at=july(24),
            lines=(e.PaidUnits(line_id="a", units=3, goods_fen=1001),),
            parcels=(e.ParcelUnits(shipment_id="p1", line_id="a", units=3),),
        ),
    )  # fmt: skip
    assert story.state.refunded_fen == 1101


def test_goods_that_were_there_before_the_breach_was_decided_are_met_with_it() -> None:
    story = given(placed(), paid(), parcel(), scan("delivered", DUE)).tick(july(16))
    story.then(
        e.PromiseBreached, e.ClaimReserved, e.RefundApproved, e.RefundFunded,
        event(e.RefundedUnitsArrived, return_by_at=DUE + 7 * 24 * 3600 * SECOND, occurred_at=DUE),
    )  # fmt: skip


def test_the_time_to_return_never_begins_before_the_refund() -> None:
    story = given(REFUNDED).when(scan("delivered", july(10), received=july(17)))
    story.then(..., e.BreachContradicted, event(e.RefundedUnitsArrived, return_by_at=july(22)))


def test_a_late_parcel_belongs_to_the_breach_and_not_to_units_that_were_called_off() -> None:
    story = given(placed(), paid(), cancel(1), parcel("p1", units("a", 2)), tick(july(16)))
    story.when(scan("delivered", july(17))).then(..., event(e.RefundedUnitsArrived, refund_id="arrive", goods_fen=667))


def test_units_called_off_in_a_lost_parcel_may_turn_up_after_all() -> None:
    story = given(placed(), paid(), parcel(), scan("lost", july(3)), cancel(3, at=july(4)))
    story.when(scan("delivered", july(9))).then(..., event(e.RefundedUnitsArrived, refund_id="cancel-1"))


def test_a_buyer_who_neither_returns_nor_pays_kept_them() -> None:
    story = (
        late()
        .tick(july(24))
        .then(
            event(e.RefundedUnitsKept, refund_id="arrive", goods_fen=1001, occurred_at=july(24)),
            event(e.OrderCompleted, outcome="refunded"),
        )
    )
    story.tick(july(100)).then_nothing()


def test_a_completed_order_is_open_again_while_its_goods_are_with_the_buyer() -> None:
    story = given(REFUNDED)
    assert story.state.status == "completed"
    story.given(scan("delivered", july(17)))
    assert story.state.status != "completed"
    assert story.deadlines() == {("refunded_units", "arrive"): july(24)}


def test_paying_again_is_a_sale() -> None:
    story = (
        late()
        .when(repay(1001, 100, july(20)))
        .then(
            event(e.UnitsRepaid, refund_id="arrive", goods_fen=1001, freight_fen=100),
            event(e.EscrowReleased, goods_fen=1001, freight_fen=100, paid_out_fen=1076),
            event(e.CommissionCharged, commission_fen=25),
            event(e.RebateAccrued, rebate_fen=12),
        )
    )
    assert story.state.status == "received"
    assert {k: v for k, v in story.balances().items() if "escrow" in k} == {}
    story.tick(july(60)).then(event(e.OrderCompleted, outcome="partly_refunded"))


def test_what_was_paid_for_again_falls_once_under_a_promise_that_is_judged_later() -> None:
    story = given(placed(promises=[arrive_by(), dispatch_by(july(25))]), paid(), parcel(), tick(july(16)))
    story.given(scan("delivered", july(17), is_carrier_origin=False), repay(1001, 100, july(18)))
    story.tick(july(26)).then(event(e.PromiseBreached, promise_id="dispatch", lines=(units("a", 3),)), ...)


def test_they_are_paid_for_at_the_price_of_their_refund_and_all_of_them() -> None:
    late().when(repay(1000, 100, july(20))).rejected("wrong_amount")
    late().when(repay(1001, 99, july(20))).rejected("wrong_amount")
    given(REFUNDED).when(repay(1001, 100, july(16, 2))).rejected("not_late_units")


def test_they_are_paid_for_once() -> None:
    story = late(repay(1001, 100, july(20)))
    story.when(repay(1001, 100, july(20))).then_nothing()
    story.when(repay(1001, 0, july(20))).rejected("id_reused")
    story.when(repay(1001, 100, july(20), ref="again-2")).rejected("not_late_units")


def test_a_buyer_may_still_pay_for_what_was_kept() -> None:
    late(tick(july(24))).when(repay(1001, 100, july(30))).then(e.UnitsRepaid, e.EscrowReleased, ...)


def test_paying_again_for_one_parcel_does_not_receive_another() -> None:
    story = given(
        placed(), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2)),
        scan("delivered", july(14), "p1"), tick(july(16)), scan("delivered", july(17), "p2"), repay(667, 67, july(18)),
    )  # fmt: skip
    shipments = story.state.shipments
    assert (shipments["p1"].received_at, shipments["p2"].received_at) == (None, july(18))
    assert story.state.released_fen == 734


def test_each_late_parcel_is_met_when_it_comes() -> None:
    story = given(placed(), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2)), tick(july(16)))
    story.when(scan("delivered", july(17), "p1")).then(
        ..., event(e.RefundedUnitsArrived, goods_fen=334, freight_fen=33)
    )
    story.when(scan("delivered", july(18), "p2")).then(
        ..., event(e.RefundedUnitsArrived, goods_fen=667, freight_fen=67)
    )
    story.when(repay(1001, 100, july(19))).then(e.UnitsRepaid, ...)


def test_only_the_units_that_nobody_pays_for_any_more_are_met() -> None:
    order = placed(line("a", 2, 400), line("b", 1, 100), freight_fen=0, promises=[arrive_by(DUE, "a")])
    story = given(order, paid(500), parcel("p1", units("a", 2), units("b", 1)), tick(july(16)))
    story.when(scan("delivered", july(17))).then(
        ..., event(e.RefundedUnitsArrived, lines=(e.PaidUnits(line_id="a", units=2, goods_fen=400),), goods_fen=400)
    )
    story.when(confirm(at=july(18))).then(e.ReceiptConfirmed, event(e.EscrowReleased, goods_fen=100), ...)


def test_goods_refunded_before_they_were_shipped_and_shipped_all_the_same_are_met() -> None:
    story = given(placed(), paid(), parcel(), request(units("a", 1), at=july(3), reason="no_reason"), agree(july(3)))
    story.when(scan("delivered", july(5))).then(..., event(e.RefundedUnitsArrived, refund_id="r1", goods_fen=334))


def test_goods_of_a_breach_that_is_being_undone_are_the_buyers() -> None:
    story = given(*REFUNDED[:5], instruct(july(16), "arrive"), overturn(july(16, 1)))
    story.when(scan("delivered", july(17))).then(e.CarrierScanRecorded, e.UnitsArrived, e.UnitsDelivered)
    story.when(pay_out(july(18), "arrive")).then(e.RefundPaid, e.RefundRecoveryOpened)
    story.when(confirm(at=july(19))).then(e.ReceiptConfirmed, e.EscrowReleased, ...)


def test_goods_that_were_paid_for_again_are_not_paid_for_a_third_time() -> None:
    """The breach turns out to have been none, but buyer and merchant are already even."""
    story = late(repay(1001, 100, july(20))).when(overturn(july(21)))
    story.then(e.BreachOverturned)
    assert story.state.lines["a"].free_units == 3
