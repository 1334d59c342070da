"""The promise and the money: placed with frozen terms, paid into escrow, cancelled, rated."""

from typing import Any

import msgspec
import pytest

from ledger.orders import events as e
from ledger.orders.placing import ReturnStrayPayment
from tests.spec import (
    DUE,
    HOUR,
    ORDER,
    RULES,
    SECOND,
    Ask,
    arrive_by,
    ask,
    cancel,
    confirm,
    dispatch_by,
    event,
    given,
    instructed_and_paid,
    july,
    july_day,
    line,
    paid,
    parcel,
    placed,
    rate,
    request,
    rules_with,
    scan,
    tick,
    units,
    when,
)

EXPIRES = july(4, 10)
"""Three days after the order was placed."""


# --- Placed -------------------------------------------------------------------------------------------------------


def test_an_order_is_placed_with_what_was_worked_out_for_it() -> None:
    story = when(placed()).then(
        event(
            e.OrderPlaced, order_id=ORDER, merchant_id="m-1", placed_on=july_day(1), total_fen=1101, merchant_version=9,
            payment_due_at=EXPIRES,
            terms=e.Terms(
                rulebook=RULES.rulebook, rulebook_sha256=RULES.sha256, commission_bp=250, rebate_share_bp=5000
            ),
        )
    )  # fmt: skip
    assert story.state.status == "placed"


def test_a_promise_is_judged_a_day_after_it_is_due() -> None:
    (promise,) = when(placed()).last(e.OrderPlaced).promises
    assert (promise.due_at, promise.fires_at) == (DUE, DUE + 24 * HOUR)


def test_an_order_is_placed_on_its_day_in_shanghai() -> None:
    assert when(placed(at=july(2) - SECOND)).last(e.OrderPlaced).placed_on == july_day(1)
    assert when(placed(at=july(2))).last(e.OrderPlaced).placed_on == july_day(2)


def test_an_id_is_placed_once() -> None:
    given(placed()).when(placed()).rejected("wrong_state")


def test_nobody_orders_for_somebody_else() -> None:
    when(placed().by("buyer", "b-2")).rejected("not_allowed")
    when(placed().by("integrator", "shop")).then(e.OrderPlaced)


def test_the_merchant_has_to_be_active() -> None:
    when(placed(merchant_version=None)).rejected("merchant_not_active")


@pytest.mark.parametrize(
    "wrong",
    [
        {"lines": ()},
        {"lines": (line(), line())},
        {"lines": (line(units=0),)},
        {"lines": (line(line_fen=-1),), "total_fen": 99},
        {"category": "boats"},
        {"promises": (arrive_by(DUE, "b"),)},
        {"promises": (arrive_by(DUE, "a", "a"),)},
        {"promises": (arrive_by(), arrive_by())},
        {"promises": (msgspec.structs.replace(arrive_by(), line_ids=()),)},
        {"promises": (msgspec.structs.replace(arrive_by(), remedy="damages"),)},
        {"promises": (msgspec.structs.replace(dispatch_by(july(3)), remedy="full_refund"),)},
    ],
)
def test_lines_and_promises_have_to_make_sense(wrong: dict[str, Any]) -> None:
    when(placed().but(**wrong)).rejected("bad_lines")


def test_the_total_is_goods_and_freight() -> None:
    when(placed(total_fen=1100)).rejected("total_wrong")
    when(placed(freight_fen=-1, total_fen=1000)).rejected("total_wrong")


def test_no_promise_is_due_already() -> None:
    when(placed(promises=[arrive_by(july(1, 10))])).rejected("due_in_past")
    when(placed(promises=[arrive_by(july(1, 10) + SECOND)])).then(e.OrderPlaced)


def test_what_is_wrong_first_is_said_first() -> None:
    everything = {"merchant_version": None, "lines": (), "total_fen": 5, "promises": (arrive_by(july(1)),)}
    for code, repaired in (
        ("merchant_not_active", {"merchant_version": 9}),
        ("bad_lines", {"lines": (line(),)}),
        ("total_wrong", {"total_fen": 1101}),
        ("due_in_past", {"promises": ()}),
    ):
        when(placed().but(**everything)).rejected(code)
        everything |= repaired
    when(placed().but(**everything)).then(e.OrderPlaced)


# --- Paid ---------------------------------------------------------------------------------------------------------


def test_the_whole_total_goes_into_escrow() -> None:
    story = given(placed()).when(paid()).then(event(e.PaymentCaptured, amount_fen=1101, payment_ref="pay-1"))
    assert (story.state.status, story.state.escrow_fen, story.state.captured_fen) == ("paid", 1101, 1101)


def test_there_is_nothing_to_pay_before_there_is_an_order() -> None:
    when(paid()).rejected("unknown_stream")


def test_a_payment_of_nothing_is_refused() -> None:
    given(placed()).when(paid(0)).rejected("wrong_amount")


def test_the_same_payment_reported_twice_adds_nothing() -> None:
    given(placed(), paid()).when(paid()).then_nothing()
    given(placed(), paid(5)).when(paid(5)).then_nothing()


def test_a_payment_reference_means_one_payment() -> None:
    given(placed(), paid()).when(paid(1100)).rejected("id_reused")
    given(placed(), paid(5)).when(paid(6)).rejected("id_reused")


@pytest.mark.parametrize(
    ("steps", "amount_fen", "cause"),
    [
        ([], 1100, "wrong_amount"),
        ([paid(ref="first")], 1101, "not_awaited"),
        ([tick(EXPIRES)], 1101, "not_awaited"),
        ([cancel(3)], 1101, "not_awaited"),
    ],
)
def test_money_that_the_order_did_not_ask_for_is_stray(steps: list[Any], amount_fen: int, cause: str) -> None:
    story = given(placed(), *steps).when(paid(amount_fen))
    story.then(event(e.StrayPaymentRecorded, amount_fen=amount_fen, cause=cause))
    assert story.state.strays == {"pay-1": amount_fen}


def test_money_that_comes_when_the_goods_should_be_there_is_stray() -> None:
    order = placed(promises=[arrive_by(july(2)), dispatch_by(july(1, 12))])
    given(order).when(paid(at=july(2))).then(event(e.StrayPaymentRecorded, cause="too_late"))
    given(order).when(paid(at=july(2) - SECOND)).then(e.PaymentCaptured, e.PromiseVoided)


def test_nobody_has_to_dispatch_by_a_date_that_had_passed_when_the_buyer_paid() -> None:
    story = given(placed(promises=[arrive_by(), dispatch_by(july(1, 11))])).when(paid(at=july(1, 11)))
    story.then(e.PaymentCaptured, event(e.PromiseVoided, promise_id="dispatch", cause="paid_after_due"))
    assert story.deadlines() == {("promise", "arrive"): july(16)}


def test_an_order_nobody_pays_is_off() -> None:
    story = given(placed()).tick(EXPIRES).then(event(e.PaymentExpired, occurred_at=EXPIRES))
    assert story.state.status == "cancelled"
    assert story.deadlines() == {}


def test_no_promise_is_judged_while_nobody_has_paid() -> None:
    rules = rules_with(windows={"payment_hours": 1000})
    given(placed(), rules=rules).tick(july(30)).then_nothing()


# --- Sent back ----------------------------------------------------------------------------------------------------


def send_back(amount_fen: int = 5, stray_ref: str = "pay-1", ref: str = "back-1") -> Ask:
    command = ReturnStrayPayment(order_id=ORDER, stray_ref=stray_ref, amount_fen=amount_fen, payment_ref=ref)
    return ask(command, july(2))


def test_a_stray_payment_goes_back_whole_and_once() -> None:
    story = given(placed(), paid(5)).when(send_back()).then(event(e.StrayPaymentReturned, amount_fen=5))
    assert story.balances() == {}
    story.when(send_back()).then_nothing()
    story.when(send_back(ref="back-2")).rejected("no_stray_payment")


def test_only_what_is_stray_can_be_sent_back() -> None:
    when(send_back()).rejected("unknown_stream")
    given(placed(), paid()).when(send_back(1101)).rejected("no_stray_payment")
    given(placed(), paid(5)).when(send_back(4)).rejected("no_stray_payment")
    given(placed(), paid(5), send_back()).when(send_back(4)).rejected("id_reused")


# --- Cancelled ----------------------------------------------------------------------------------------------------


def test_what_is_called_off_before_payment_lowers_what_is_owed() -> None:
    story = (
        given(placed())
        .when(cancel(1))
        .then(event(e.UnitsCancelled, units=1, by="buyer"), event(e.ClaimReserved, kind="cancellation", freight_fen=33))
    )
    assert story.state.owed_fen == 1101 - 334 - 33
    story.when(paid(734)).then(e.PaymentCaptured)
    assert story.state.refunded_fen == 0


def test_what_is_called_off_after_payment_is_refunded_at_once() -> None:
    story = given(placed(), paid()).when(cancel(1)).then(
        e.UnitsCancelled,
        event(e.ClaimReserved, claim_id="cancel-1", answer_at=None),
        event(
            e.RefundApproved, authority="rule", refund_fen=367, escrow_fen=367, commission_fen=0, cover_fen=0,
            freight_fen=33,
        ),
        event(e.RefundFunded, refund_fen=367, payment_key=f"{ORDER}/cancel-1"),
    )  # fmt: skip
    assert story.state.escrow_fen == 734


def test_an_order_called_off_before_payment_is_cancelled() -> None:
    story = given(placed()).when(cancel(3))
    assert story.state.status == "cancelled"
    assert story.deadlines() == {}


def test_an_order_called_off_after_payment_is_completed_when_the_buyer_has_the_money() -> None:
    story = given(placed(), paid()).when(cancel(3)).then(
        e.UnitsCancelled, e.ClaimReserved, e.RefundApproved, e.RefundFunded,
        event(e.PromiseVoided, promise_id="arrive", cause="cancelled"),
    )  # fmt: skip
    assert story.state.status == "cancelled"
    story.when(*instructed_and_paid(july(2), "cancel-1")).then(
        e.RefundPaid, event(e.OrderCompleted, outcome="cancelled")
    )


def test_the_last_units_called_off_take_the_rest_of_goods_and_freight() -> None:
    story = given(placed(), paid(), cancel(1, refund_id="x1"), cancel(1, refund_id="x2"), cancel(1, refund_id="x3"))
    assert [(x.lines[0].goods_fen, x.freight_fen) for x in story.told(e.RefundApproved)] == [
        (334, 33),
        (334, 34),
        (333, 33),
    ]
    assert story.state.escrow_fen == 0


def test_calling_off_is_not_for_what_is_unknown_or_nothing() -> None:
    when(cancel()).rejected("unknown_stream")
    given(placed()).when(cancel(line_id="z")).rejected("bad_lines")
    given(placed()).when(cancel(0)).rejected("bad_lines")
    given(placed()).when(cancel(refund_id="arrive")).rejected("bad_lines")


def test_units_in_a_parcel_cannot_be_called_off() -> None:
    story = given(placed(), paid(), parcel("p1", units("a", 2)))
    story.when(cancel(2)).rejected("units_shipped")
    story.when(cancel(1)).then(e.UnitsCancelled, ...)


def test_units_of_a_lost_parcel_can_be_called_off() -> None:
    given(placed(), paid(), parcel(), scan("lost", july(3))).when(cancel(3)).then(e.UnitsCancelled, ...)


def test_units_that_a_claim_holds_cannot_be_called_off() -> None:
    given(placed(), paid(), request(units("a", 2), at=july(3))).when(cancel(2)).rejected("units_not_free")


def test_the_last_units_of_a_line_stay_while_its_price_is_in_question() -> None:
    story = given(placed(), paid(), request(units("a", 0), reduction_fen=100, at=july(3)))
    story.when(cancel(3)).rejected("units_not_free")
    story.when(cancel(2)).then(e.UnitsCancelled, ...)


def test_a_received_order_cannot_be_called_off() -> None:
    story = given(placed(), paid(), parcel("p1", units("a", 2)), confirm(at=july(5)))
    story.when(cancel()).rejected("wrong_state")


def test_called_off_twice_with_one_id_adds_nothing() -> None:
    given(placed(), paid(), cancel()).when(cancel()).then_nothing()
    given(placed(), paid(), cancel()).when(cancel(2)).rejected("id_reused")


def test_what_remains_after_a_cancellation_has_been_in_time_all_along() -> None:
    story = given(placed(), paid(), parcel("p1", units("a", 2)), scan("delivered", july(9)))
    story.when(cancel(1, at=july(10))).then(
        ..., event(e.PromiseKept, lines=(units("a", 2),), kept_at=july(9), occurred_at=july(10))
    )


# --- Rated --------------------------------------------------------------------------------------------------------


def test_an_order_is_rated_any_time_from_its_placement() -> None:
    given(placed()).when(rate(4)).then(event(e.OrderRated, as_described=4, logistics=None, service=None))
    when(rate()).rejected("unknown_stream")


@pytest.mark.parametrize("score", [0, 6, -1])
def test_an_opinion_is_from_one_to_five(score: int) -> None:
    given(placed()).when(rate(score)).rejected("bad_rating")
    given(placed()).when(rate(5, service=score)).rejected("bad_rating")


def test_an_order_is_rated_until_fifteen_days_after_receipt() -> None:
    received = given(placed(), paid(), parcel(), confirm(at=july(5)))
    received.when(rate(at=july(20))).then(e.OrderRated)
    received.when(rate(at=july(20) + SECOND, rating_id="rating-2")).rejected("too_late")


def test_a_rating_has_one_id_and_an_order_may_have_several() -> None:
    story = given(placed(), rate(4))
    story.when(rate(4)).then_nothing()
    story.when(rate(5)).rejected("id_reused")
    story.when(rate(5, rating_id="rating-2")).then(e.OrderRated)
