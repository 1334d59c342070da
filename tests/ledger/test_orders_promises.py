"""Promises of arrival and dispatch: kept, breached, contradicted, waived, amended, overturned, void."""

import pytest

from ledger.orders import events as e
from tests.spec import (
    DUE,
    HOUR,
    SECOND,
    Scenario,
    Step,
    agree,
    amend,
    arrive_by,
    cancel,
    confirm,
    cover,
    dispatch_by,
    event,
    fail_payout,
    given,
    instruct,
    instructed_and_paid,
    july,
    line,
    move_to,
    overturn,
    paid,
    parcel,
    pay_out,
    placed,
    refuse,
    request,
    retract,
    scan,
    scan_id,
    tick,
    units,
    waive,
    when,
    withdraw,
)

JUDGED = july(16)
SHIPPED: list[Step] = [placed(), paid(), parcel(), scan("handed", july(3))]
BREACHED: list[Step] = [*SHIPPED, tick(JUDGED)]


def shipped(*more: Step) -> Scenario:
    return given(SHIPPED, *more)


def breached(*more: Step) -> Scenario:
    return given(BREACHED, *more)


def promise(story: Scenario, promise_id: str = "arrive") -> str:
    state: str = story.state.promises[promise_id].state
    return state


# --- Kept ---------------------------------------------------------------------------------------------------------


def test_a_promise_is_kept_when_the_last_unit_arrives() -> None:
    story = given(
        placed(), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2)), scan("delivered", july(5), "p1")
    )
    assert promise(story) == "open"
    story.when(scan("delivered", july(9), "p2")).then(
        ..., event(e.PromiseKept, lines=(units("a", 3),), due_at=DUE, kept_at=july(9), occurred_at=july(9))
    )
    assert story.deadlines().get(("promise", "arrive")) is None


def test_a_promise_is_kept_from_the_instant_the_last_unit_came_whenever_that_was_heard_of() -> None:
    story = given(
        placed(), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2)), scan("delivered", july(9), "p2")
    )
    story.when(scan("delivered", july(5), "p1", received=july(9, 5))).then(
        ..., event(e.PromiseKept, kept_at=july(9), occurred_at=july(9))
    )


def test_a_timely_scan_that_comes_within_the_grace_keeps_the_promise() -> None:
    story = shipped().when(scan("delivered", DUE - SECOND, received=JUDGED - SECOND))
    story.then(..., event(e.PromiseKept, kept_at=DUE - SECOND))
    assert promise(story) == "kept"


def test_lines_under_different_promises_are_judged_each_by_its_own() -> None:
    order = placed(
        line("a", 1, 500), line("b", 1, 500), freight_fen=0,
        promises=[arrive_by(july(10), "a", promise_id="a-by"), arrive_by(july(20), "b", promise_id="b-by")],
    )  # fmt: skip
    story = given(order, paid(1000), parcel("p1", units("a"), units("b")), scan("delivered", july(12)))
    assert (promise(story, "a-by"), promise(story, "b-by")) == ("breached", "kept")
    assert story.state.refunded_fen == 500


# --- Breached -----------------------------------------------------------------------------------------------------


def test_goods_that_have_not_come_are_refunded_in_full() -> None:
    story = shipped().tick(JUDGED).then(
        event(
            e.PromiseBreached, promise_id="arrive", kind="arrive_by", lines=(units("a", 3),), due_at=DUE,
            is_excluded=False,
        ),
        event(e.ClaimReserved, claim_id="arrive", kind="breach", reason="not_arrived", freight_fen=100, parcels=()),
        event(e.RefundApproved, refund_id="arrive", authority="rule", refund_fen=1101, escrow_fen=1101, cover_fen=0),
        event(e.RefundFunded, refund_fen=1101),
    )  # fmt: skip
    assert story.state.escrow_fen == 0


def test_the_equal_instant_is_late() -> None:
    story = shipped(scan("delivered", DUE)).tick(JUDGED).then(e.PromiseBreached, ...)
    assert promise(story) == "breached"
    assert promise(shipped(scan("delivered", DUE - SECOND), tick(JUDGED))) == "kept"


def test_a_scan_received_at_the_instant_of_judgement_is_too_late_to_count() -> None:
    shipped().when(scan("delivered", DUE - SECOND, received=JUDGED)).then(
        e.PromiseBreached, ..., e.BreachContradicted, ...
    )


def test_only_the_units_that_were_late_are_refunded() -> None:
    story = given(
        placed(), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2)), scan("delivered", july(5), "p1")
    ).tick(JUDGED)  # fmt: skip
    story.then(
        event(e.ReceiptPresumed, shipment_id="p1"), ...,
        event(e.PromiseKept, lines=(units("a", 1),), kept_at=july(5), occurred_at=DUE),
        event(e.PromiseBreached, lines=(units("a", 2),), occurred_at=DUE),
        e.ClaimReserved,
        event(e.RefundApproved, refund_fen=734),
        e.RefundFunded,
    )  # fmt: skip


def test_an_indivisible_line_that_is_late_in_part_refunds_the_whole_order() -> None:
    order = placed(line("a", 2, 1000, is_indivisible=True), line("b", 1, 500), freight_fen=0, promises=[arrive_by()])
    story = given(order, paid(1500), parcel("p1", units("a", 1)), parcel("p2", units("b", 1)))
    story.given(scan("delivered", july(9), "p1"), scan("delivered", july(9), "p2")).tick(JUDGED)
    story.then(
        event(e.PromiseKept, lines=(units("a", 1),)),
        event(e.PromiseBreached, lines=(units("a", 1),)),
        e.ClaimReserved,
        event(e.RefundApproved, refund_fen=1500),
        e.RefundFunded,
        event(e.RefundedUnitsArrived, goods_fen=1000, occurred_at=DUE),
    )


def test_units_called_off_are_not_late() -> None:
    story = given(placed(), paid(), cancel(1), parcel("p1", units("a", 2))).tick(JUDGED)
    story.then(event(e.PromiseBreached, lines=(units("a", 2),)), ...)


def test_units_refunded_before_they_came_are_not_late() -> None:
    story = shipped(request(units("a", 1), at=july(4), reason="no_reason"), agree(july(4))).tick(JUDGED)
    story.then(event(e.PromiseBreached, lines=(units("a", 2),)), ...)


def test_a_promise_about_nothing_is_void() -> None:
    story = shipped(request(units("a", 3), at=july(4)), agree(july(4))).tick(JUDGED)
    story.then(event(e.PromiseVoided, promise_id="arrive", cause="cancelled"))


def test_the_breach_waits_neither_for_the_merchants_answer_nor_for_the_buyers_patience() -> None:
    """A request on units that have not come gives way to the refund that needs no agreement."""
    story = shipped(request(units("a", 2), at=july(14)), refuse(july(14, 2))).tick(JUDGED)
    story.then(
        event(e.PromiseBreached, lines=(units("a", 3),)),
        event(e.ClaimReleased, claim_id="r1", cause="superseded"),
        event(e.ClaimReserved, claim_id="arrive"),
        event(e.RefundApproved, refund_fen=1101),
        e.RefundFunded,
    )
    story.tick(july(30)).then_nothing()


def test_a_price_reduction_gives_way_when_nothing_is_left_of_its_line() -> None:
    story = shipped(request(units("a", 0), reduction_fen=400, at=july(15))).tick(JUDGED)
    story.then(
        ..., event(e.ClaimReleased, cause="superseded"), ..., event(e.RefundApproved, refund_fen=1101), e.RefundFunded
    )


def test_every_open_claim_gives_way_when_the_whole_order_is_refunded() -> None:
    order = placed(line("a", 1, 1000, is_indivisible=True), line("b", 2, 500), freight_fen=0, promises=[arrive_by()])
    story = given(order, paid(1500), request(units("b", 1), at=july(15, 12))).tick(JUDGED)
    story.then(
        e.PromiseBreached,
        event(e.ClaimReleased, claim_id="r1", cause="superseded"),
        e.ClaimReserved,
        event(e.RefundApproved, refund_fen=1500),
        e.RefundFunded,
    )


def test_a_claim_on_delivered_units_goes_its_own_way() -> None:
    story = given(placed(), paid(), parcel("p1", units("a", 1)), scan("delivered", july(14), "p1"))
    story.given(request(units("a", 1), at=july(15, 12))).tick(JUDGED)
    story.then(
        e.PromiseKept,
        event(e.PromiseBreached, lines=(units("a", 2),)),
        e.ClaimReserved,
        e.RefundApproved,
        e.RefundFunded,
    )
    assert story.state.claims["r1"].state == "reserved"


def test_a_withdrawn_request_leaves_its_units_under_the_promise() -> None:
    story = given(
        placed(), paid(), parcel("p1", units("a", 2)), request(units("a", 1), at=july(3, 12), reason="not_arrived")
    )
    story.given(scan("delivered", july(4), "p1"), withdraw(july(4, 1)))
    assert promise(story) == "open"
    story.tick(JUDGED).then(..., event(e.PromiseBreached, lines=(units("a", 1),)), ...)


# --- Dispatch -----------------------------------------------------------------------------------------------------


def late_dispatch(line_fen: int = 100_000) -> Scenario:
    order = placed(line("a", 2, line_fen), promises=[arrive_by(), dispatch_by(july(4))], freight_fen=0)
    return given(order, paid(line_fen), parcel("p1", units("a", 1)), scan("handed", july(3)))


def test_late_dispatch_costs_the_merchant_damages_that_never_come_out_of_escrow() -> None:
    story = late_dispatch().tick(july(5)).then(
        event(e.PromiseKept, kind="dispatch_by", lines=(units("a", 1),)),
        event(e.PromiseBreached, kind="dispatch_by", lines=(units("a", 1),)),
        event(e.ClaimReserved, claim_id="dispatch", kind="damages", damages_fen=2500, lines=()),
        event(e.RefundApproved, refund_fen=2500, escrow_fen=0, commission_fen=0, damages_fen=2500, cover_fen=2500),
    )  # fmt: skip
    assert story.state.escrow_fen == 100_000


@pytest.mark.parametrize(("line_fen", "damages_fen"), [(100, 500), (20_000, 500), (20_040, 501), (800_000, 10_000)])
def test_damages_are_a_share_of_the_late_goods_between_a_floor_and_a_cap(line_fen: int, damages_fen: int) -> None:
    assert late_dispatch(line_fen).tick(july(5)).last(e.RefundApproved).damages_fen == damages_fen


def test_a_dispatch_in_time_that_is_heard_of_later_contradicts() -> None:
    story = late_dispatch().given(parcel("p2", units("a", 1)), tick(july(5)))
    story.when(scan("handed", july(3), "p2", received=july(6))).then(
        e.CarrierScanRecorded,
        e.UnitsDispatched,
        event(e.BreachContradicted, promise_id="dispatch", lines=(units("a", 1),)),
    )


def test_damages_for_a_breach_that_was_none_are_given_back() -> None:
    story = late_dispatch().given(tick(july(5)), cover(2500, july(5), refund_id="dispatch"))
    story.when(overturn(july(6), "dispatch")).then(
        e.BreachOverturned,
        event(
            e.RefundCancelled,
            refund_id="dispatch",
            refund_fen=2500,
            was_deposit_fen=2500,
            to_cover_fen=2500,
            to_escrow_fen=0,
        ),
    )


# --- Contradicted -------------------------------------------------------------------------------------------------


def test_a_timely_scan_heard_of_after_the_breach_contradicts_it() -> None:
    story = breached().when(scan("delivered", july(10), received=july(17)))
    story.then(
        e.CarrierScanRecorded, e.UnitsArrived, e.UnitsDelivered,
        event(e.BreachContradicted, lines=(units("a", 3),), scan_id=scan_id("delivered", july(10))),
        e.RefundedUnitsArrived,
    )  # fmt: skip
    assert promise(story) == "breached"


def test_an_overturned_breach_needs_no_contradiction() -> None:
    story = breached(overturn(july(17))).when(scan("delivered", july(10), received=july(18)))
    story.then(e.CarrierScanRecorded, e.UnitsArrived, e.UnitsDelivered)


def test_a_late_arrival_contradicts_nothing() -> None:
    breached().when(scan("delivered", july(17))).then(
        e.CarrierScanRecorded, e.UnitsArrived, e.UnitsDelivered, e.RefundedUnitsArrived
    )


# --- Taken back ---------------------------------------------------------------------------------------------------


def test_a_delivery_taken_back_before_the_promise_is_due_leaves_time_to_keep_it() -> None:
    story = shipped(scan("delivered", july(9)), retract(scan_id("delivered", july(9)), july(10)))
    assert promise(story) == "open"
    story.when(scan("delivered", july(14))).then(..., event(e.PromiseKept, kept_at=july(14)))


def test_a_delivery_taken_back_after_the_promise_was_due_breaches_it_at_once() -> None:
    story = shipped(scan("delivered", july(9)))
    story.when(retract(scan_id("delivered", july(9)), july(18))).then(
        e.ScanRetracted,
        event(e.ArrivalRevised, to_at=None),
        event(e.PromiseBreached, lines=(units("a", 3),), occurred_at=DUE),
        e.ClaimReserved,
        event(e.RefundApproved, refund_fen=1101, escrow_fen=1101),
        e.RefundFunded,
    )
    assert {x.received_at for x in story.outcome.events} == {july(18)}


def test_a_delivery_taken_back_after_the_release_is_refunded_from_commission_and_deposit() -> None:
    story = shipped(scan("delivered", july(5)), tick(july(15)))
    assert story.state.escrow_fen == 0
    story.when(retract(scan_id("delivered", july(5)), july(20))).then(
        e.ScanRetracted, e.ArrivalRevised, e.PromiseBreached, e.ClaimReserved,
        event(e.RefundApproved, refund_fen=1101, escrow_fen=0, commission_fen=25, cover_fen=1076),
        event(e.CommissionReturned, commission_fen=25),
        event(e.RebateClawedBack, rebate_fen=12, target_fen=0),
    )  # fmt: skip


def test_a_delivery_taken_back_after_the_order_was_completed_opens_it_again() -> None:
    story = shipped(scan("delivered", july(5)), tick(july(60)))
    assert story.state.status == "completed"
    story.when(retract(scan_id("delivered", july(5)), july(61))).then(
        ..., e.PromiseBreached, ..., e.RefundApproved, ...
    )
    story.given(cover(1076, july(61), refund_id="arrive"), instructed_and_paid(july(62), "arrive"))
    assert (story.state.status, story.state.outcome) == ("completed", "refunded")


def test_an_overturned_breach_is_not_judged_again() -> None:
    story = breached(overturn(july(17)), scan("delivered", july(18)))
    story.when(retract(scan_id("delivered", july(18)), july(19))).then(e.ScanRetracted, e.ArrivalRevised)


# --- Overturned ---------------------------------------------------------------------------------------------------


def test_an_overturned_breach_that_was_not_paid_puts_the_money_back_into_escrow() -> None:
    story = breached().when(overturn(july(17))).then(
        event(e.BreachOverturned, promise_id="arrive", approved_by="supervisor-2"),
        event(
            e.RefundCancelled, refund_id="arrive", cause="breach_overturned", refund_fen=1101, was_escrow_fen=1101,
            to_escrow_fen=1101, to_cover_fen=0,
        ),
    )  # fmt: skip
    assert story.state.escrow_fen == 1101
    assert story.state.lines["a"].free_units == 3
    assert promise(story) == "kept"


def test_an_overturned_breach_is_released_when_the_goods_are_received() -> None:
    story = breached(overturn(july(17)), scan("delivered", july(18))).tick(july(28))
    story.then(
        e.ReceiptPresumed,
        event(e.EscrowReleased, goods_fen=1001, freight_fen=100),
        e.CommissionCharged,
        e.RebateAccrued,
    )


def test_what_was_presumed_meanwhile_happens_at_once() -> None:
    """The goods had come long ago; only the breach stood in the way of the money."""
    story = breached(scan("delivered", july(10), received=july(17)), tick(july(22)))
    story.when(overturn(july(23))).then(
        e.BreachOverturned, e.RefundCancelled, event(e.ReceiptPresumed, occurred_at=july(20)), e.EscrowReleased,
        e.CommissionCharged, e.RebateAccrued,
    )  # fmt: skip


def test_a_breach_overturned_while_the_payment_is_on_its_way_waits_for_the_answer() -> None:
    story = breached(instruct(july(16), "arrive")).when(overturn(july(17)))
    story.then(e.BreachOverturned)
    story.when(fail_payout(july(18), "arrive")).then(e.RefundPayoutFailed, event(e.RefundCancelled, to_escrow_fen=1101))


def test_a_breach_overturned_after_the_payment_is_recovered_from_the_buyer() -> None:
    story = breached(instruct(july(16), "arrive"), overturn(july(17))).when(pay_out(july(18), "arrive"))
    story.then(
        e.RefundPaid,
        event(
            e.RefundRecoveryOpened, refund_id="arrive", cause="breach_overturned", refund_fen=1101, to_escrow_fen=1101,
            due_at=july(48),
        ),
    )  # fmt: skip
    assert story.state.claims["arrive"].owed_back_fen == 1101


def test_a_completed_order_is_open_again_when_its_breach_is_overturned() -> None:
    story = breached(*instructed_and_paid(july(16), "arrive"))
    assert story.state.status == "completed"
    story.when(overturn(july(17))).then(e.BreachOverturned, e.RefundRecoveryOpened)
    assert story.state.status == "shipped"
    story.given(scan("delivered", july(18))).tick(july(28)).then(e.ReceiptPresumed, e.EscrowReleased, ...)


def test_a_breach_is_overturned_once_and_only_if_there_was_one() -> None:
    when(overturn(july(17))).rejected("unknown_stream")
    shipped().when(overturn(july(4), "none")).rejected("unknown_promise")
    shipped().when(overturn(july(4))).rejected("not_breached")
    breached(overturn(july(17))).when(overturn(july(18))).then_nothing()


# --- Waived -------------------------------------------------------------------------------------------------------


def test_a_waived_promise_is_still_judged_but_moves_no_money() -> None:
    story = shipped().when(waive(july(5))).then(event(e.PromiseWaived, promise_id="arrive"))
    story.tick(JUDGED).then(event(e.PromiseBreached, lines=(units("a", 3),)))
    assert story.state.escrow_fen == 1101


def test_a_buyer_may_waive_after_the_breach_until_the_refund_is_instructed() -> None:
    story = breached().when(waive(july(17)))
    story.then(e.PromiseWaived, event(e.RefundCancelled, cause="promise_waived", to_escrow_fen=1101))
    assert promise(story) == "breached"
    breached(instruct(july(16), "arrive")).when(waive(july(17))).rejected("refund_instructed")
    breached(instruct(july(16), "arrive"), fail_payout(july(17), "arrive")).when(waive(july(18))).rejected(
        "refund_instructed"
    )


def test_a_promise_is_waived_once_and_by_who_has_paid() -> None:
    when(waive(july(5))).rejected("unknown_stream")
    given(placed()).when(waive(july(2))).rejected("wrong_state")
    given(placed()).when(waive(july(2), "none")).rejected("unknown_promise")
    shipped(waive(july(5))).when(waive(july(6))).then_nothing()


# --- Amended ------------------------------------------------------------------------------------------------------


def test_another_due_date_is_agreed_on_and_judged_by() -> None:
    story = (
        shipped()
        .when(amend(july(25), july(14)))
        .then(
            event(e.PromiseAmended, promise_id="arrive", due_at=july(25), fires_at=july(26), buyer_consent_sha256="cc")
        )
    )
    story.tick(july(25, 23)).then_nothing()
    story.tick(july(26)).then(event(e.PromiseBreached, due_at=july(25), occurred_at=july(25)), ...)


def test_a_date_is_amended_before_it_is_due_and_only_into_the_future() -> None:
    shipped().when(amend(july(25), DUE)).rejected("too_late")
    shipped().when(amend(july(25), DUE - SECOND)).then(e.PromiseAmended)
    shipped().when(amend(july(5), july(5))).rejected("too_late")
    shipped(scan("delivered", july(9))).when(amend(july(25), july(10))).rejected("too_late")


def test_a_date_is_amended_with_the_buyers_consent_while_goods_are_to_come() -> None:
    when(amend(july(25), july(3))).rejected("unknown_stream")
    shipped().when(amend(july(25), july(4), "none")).rejected("unknown_promise")
    shipped(confirm(at=july(5))).when(amend(july(25), july(6), consent="")).rejected("wrong_state")
    shipped().when(amend(july(25), july(16), consent="")).rejected("no_consent")


def test_amended_to_the_same_date_adds_nothing() -> None:
    shipped(amend(july(25), july(5))).when(amend(july(25), july(6))).then_nothing()


# --- Void ---------------------------------------------------------------------------------------------------------


def test_goods_sent_to_another_region_are_promised_no_arrival() -> None:
    order = placed(promises=[arrive_by(), dispatch_by(july(4))])
    story = (
        given(order, paid())
        .when(move_to("guangdong", july(2)))
        .then(
            event(e.AddressChanged, region="guangdong"),
            event(e.PromiseVoided, promise_id="arrive", cause="address_changed"),
        )
    )
    assert promise(story, "dispatch") == "open"
    assert ("promise", "arrive") not in story.deadlines()


def test_another_address_in_the_same_region_changes_no_promise() -> None:
    given(placed(), paid()).when(move_to("zhejiang", july(2))).then(e.AddressChanged)


def test_an_address_changes_once_and_while_something_is_left_to_ship() -> None:
    when(move_to("guangdong", july(2))).rejected("unknown_stream")
    given(placed(), paid(), move_to("guangdong", july(2))).when(move_to("guangdong", july(2))).then_nothing()
    shipped().when(move_to("guangdong", july(4))).rejected("units_shipped")
    given(placed(), tick(july(9))).when(move_to("guangdong", july(10))).rejected("wrong_state")
    given(placed(), paid(), parcel("p1", units("a", 1)), scan("handed", july(3))).when(move_to("x", july(4))).then(
        e.AddressChanged, e.PromiseVoided
    )


def test_a_promise_gone_with_its_address_does_not_come_back() -> None:
    story = given(placed(), paid(), move_to("guangdong", july(2)), move_to("zhejiang", july(2, 1)))
    assert promise(story) == "voided"
    story.tick(july(16)).then_nothing()


def test_the_grace_delays_the_decision_and_never_the_due_time() -> None:
    story = shipped().tick(july(16))
    assert story.last(e.PromiseBreached).due_at == JUDGED - 24 * HOUR == DUE
