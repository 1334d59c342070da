"""Refund claims without return of goods: requested, answered, funded, paid; refused, lapsed, withdrawn, short."""

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.orders import events as e
from tests.spec import (
    HOUR,
    ORDER,
    SECOND,
    Scenario,
    Step,
    agree,
    arrive_by,
    cancel,
    confirm,
    cover,
    deny,
    event,
    fail_payout,
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
    recover,
    refuse,
    repay,
    request,
    retract,
    rules_with,
    scan,
    scan_id,
    tick,
    units,
    waive,
    when,
    withdraw,
    write_off,
)

SHIPPED: list[Step] = [placed(), paid(), parcel(), scan("handed", july(3))]
RECEIVED: list[Step] = [*SHIPPED, scan("delivered", july(5)), confirm(at=july(6))]


def shipped(*more: Step) -> Scenario:
    return given(SHIPPED, *more)


def received(*more: Step) -> Scenario:
    return given(RECEIVED, *more)


# --- Requested ----------------------------------------------------------------------------------------------------


def test_a_request_reserves_units_money_and_freight_for_itself() -> None:
    story = shipped().when(request(units("a", 1), at=july(4)))
    story.then(
        event(e.RefundRequested, refund_id="r1", reason="quality"),
        event(
            e.ClaimReserved, claim_id="r1", kind="refund", freight_fen=33, freight_escrow_fen=33, answer_at=july(5),
            lines=(e.ClaimLine(line_id="a", units=1, goods_fen=334, escrow_fen=334),),
        ),
    )  # fmt: skip
    assert (story.state.reserved_fen, story.state.escrow_fen, story.state.goods_left_fen) == (367, 1101, 667)


def test_a_second_claim_gets_what_is_left_and_the_last_one_takes_the_freight() -> None:
    story = shipped(
        request(units("a", 2), at=july(4)), agree(july(4)), request(units("a", 1), at=july(4), refund_id="r2")
    )
    assert [(x.lines[0].goods_fen, x.freight_fen) for x in story.told(e.ClaimReserved)] == [(667, 67), (334, 33)]


def test_freight_goes_back_only_for_some_reasons() -> None:
    story = shipped().when(request(units("a", 3), at=july(4), reason="no_reason"))
    story.then(e.RefundRequested, event(e.ClaimReserved, freight_fen=0))


def test_a_price_reduction_takes_money_and_no_units() -> None:
    order = placed(line("a", 2, 600), line("b", 1, 300), freight_fen=50)
    story = given(order, paid(950)).when(request(units("a", 0), units("b", 0), at=july(4), reduction_fen=100))
    story.then(
        e.RefundRequested,
        event(
            e.ClaimReserved, freight_fen=0,
            lines=(
                e.ClaimLine(line_id="a", units=0, goods_fen=67, escrow_fen=67),
                e.ClaimLine(line_id="b", units=0, goods_fen=33, escrow_fen=33),
            ),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "reduction_fen"),
    [
        ((units("z", 1),), 0),
        ((units("a", 0),), 0),
        ((units("a", 1), units("a", 1)), 0),
        ((units("a", 1),), 50),
        ((units("a", 0),), -1),
    ],
)
def test_a_request_is_about_lines_that_there_are(parts: tuple[e.Units, ...], reduction_fen: int) -> None:
    shipped().when(request(*parts, at=july(4), reduction_fen=reduction_fen)).rejected("bad_lines")


def test_a_request_takes_an_order_that_is_paid_and_not_over() -> None:
    when(request(at=july(4))).rejected("unknown_stream")
    given(placed()).when(request(at=july(2))).rejected("wrong_state")
    shipped().when(request(at=july(4)).but(lines=())).rejected("bad_lines")
    shipped().when(request(at=july(4), refund_id="arrive")).rejected("bad_lines")
    received(tick(july(80))).when(request(at=july(81))).rejected("wrong_state")


def test_a_request_has_one_id() -> None:
    story = shipped(request(at=july(4)))
    story.when(request(at=july(4))).then_nothing()
    story.when(request(units("a", 2), at=july(4))).rejected("id_reused")
    given(placed(), paid(), cancel(refund_id="r1")).when(request(at=july(4))).rejected("id_reused")


# --- Denied by the rules ------------------------------------------------------------------------------------------


def test_a_request_long_after_receipt_is_denied() -> None:
    assert received(request(at=july(36))).told(e.RefundDenied) == []
    received().when(request(at=july(36) + SECOND)).then(e.RefundRequested, event(e.RefundDenied, code="window_closed"))


def test_no_window_closes_while_goods_are_on_their_way() -> None:
    story = given(placed(promises=[]), paid(), parcel("p1", units("a", 1)), confirm("p1", at=july(6)))
    story.when(request(at=july(80))).then(e.RefundRequested, e.ClaimReserved, ...)


def test_more_than_is_left_is_denied() -> None:
    story = shipped(request(units("a", 2), at=july(4)))
    story.when(request(units("a", 2), at=july(4), refund_id="r2")).then(
        e.RefundRequested, event(e.RefundDenied, refund_id="r2", code="units_not_free")
    )
    story.given(request(units("a", 1), at=july(4), refund_id="r3"))
    story.when(request(units("a", 1), at=july(4), refund_id="r4")).then(
        e.RefundRequested, event(e.RefundDenied, code="nothing_left")
    )


def test_a_reduction_of_more_than_the_price_is_denied() -> None:
    shipped().when(request(units("a", 0), at=july(4), reduction_fen=1002)).then(
        e.RefundRequested, event(e.RefundDenied, code="nothing_left")
    )
    shipped().when(request(units("a", 0), at=july(4), reduction_fen=1001)).then(e.RefundRequested, e.ClaimReserved)


def test_the_last_units_of_a_line_stay_while_its_price_is_in_question() -> None:
    story = shipped(request(units("a", 0), at=july(4), reduction_fen=500))
    story.when(request(units("a", 3), at=july(4), refund_id="r2")).then(
        e.RefundRequested, event(e.RefundDenied, code="units_not_free")
    )
    story.when(request(units("a", 2), at=july(4), refund_id="r3")).then(e.RefundRequested, e.ClaimReserved)


def test_a_denied_request_cannot_be_answered() -> None:
    story = received(request(at=july(40)))
    story.when(agree(july(41))).rejected("unknown_refund")


# --- Answered -----------------------------------------------------------------------------------------------------


def test_an_agreed_refund_is_funded_from_escrow() -> None:
    story = shipped(request(units("a", 1), at=july(4))).when(agree(july(4, 1)))
    story.then(
        event(e.RefundAgreed, refund_id="r1"),
        event(e.RefundApproved, authority="merchant", refund_fen=367, escrow_fen=367, commission_fen=0, cover_fen=0),
        event(e.RefundFunded, refund_fen=367, payment_key=f"{ORDER}/r1"),
    )
    assert (story.state.escrow_fen, story.state.refunded_fen, story.state.reserved_fen) == (734, 367, 0)


def test_silence_agrees() -> None:
    story = shipped(request(at=july(4)))
    story.tick(july(5) - SECOND).then_nothing()
    story.tick(july(5)).then(
        event(e.RefundAgreedBySilence, refund_id="r1"), event(e.RefundApproved, authority="silence"), e.RefundFunded
    )


@pytest.mark.parametrize(
    ("minutes", "amount_fen", "answer_hours"),
    [(30, 30_000, 0), (31, 30_000, 2), (30, 30_001, 2), (1440, 100_000, 2), (1441, 1, 24), (30, 100_001, 24)],
)
def test_a_merchant_has_the_longer_to_answer_the_later_and_dearer_the_request(
    minutes: int, amount_fen: int, answer_hours: int
) -> None:
    order = placed(line("a", 1, amount_fen), freight_fen=0)
    at = july(1, 11) + minutes * HOUR / 60
    story = given(order, paid(amount_fen), request(units("a", 1), at=at))
    assert story.last(e.ClaimReserved).answer_at == at + answer_hours * HOUR
    assert bool(story.told(e.RefundAgreedBySilence)) == (answer_hours == 0)


def test_a_refused_refund_stays_reserved_until_nobody_disputed_it() -> None:
    story = shipped(request(at=july(4))).when(refuse(july(4, 12)))
    story.then(event(e.RefundRefused, refund_id="r1", dispute_by_at=july(9, 12)))
    assert story.state.reserved_fen == 367
    story.tick(july(9, 12)).then(event(e.ClaimReleased, claim_id="r1", cause="lapsed"))
    assert (story.state.reserved_fen, story.state.lines["a"].free_units) == (0, 3)


def test_a_merchant_may_agree_after_all_while_the_money_is_reserved() -> None:
    story = shipped(request(at=july(4)), refuse(july(4, 12)))
    story.when(agree(july(9))).then(e.RefundAgreed, e.RefundApproved, e.RefundFunded)


def test_a_request_is_withdrawn_until_it_is_approved() -> None:
    story = shipped(request(at=july(4))).when(withdraw(july(4, 1)))
    story.then(e.RefundWithdrawn, event(e.ClaimReleased, cause="withdrawn"))
    story.when(withdraw(july(4, 2))).then_nothing()
    shipped(request(at=july(4)), refuse(july(4))).when(withdraw(july(4))).then(e.RefundWithdrawn, e.ClaimReleased)
    shipped(request(at=july(4)), agree(july(4))).when(withdraw(july(4, 1))).rejected("already_approved")


def test_answers_come_once_and_in_time() -> None:
    agreed = shipped(request(at=july(4)), agree(july(4)))
    agreed.when(agree(july(4, 1))).then_nothing()
    agreed.when(refuse(july(4, 1))).rejected("too_late")
    refused = shipped(request(at=july(4)), refuse(july(4)))
    refused.when(refuse(july(4, 1))).then_nothing()
    withdrawn = shipped(request(at=july(4)), withdraw(july(4)))
    withdrawn.when(agree(july(4, 1))).rejected("too_late")
    withdrawn.when(refuse(july(4, 1))).rejected("too_late")
    shipped(request(at=july(4)), refuse(july(4))).when(agree(july(9))).rejected("too_late")


@pytest.mark.parametrize(
    "step",
    [agree(july(4)), refuse(july(4)), withdraw(july(4)), cover(1, july(4)), instruct(july(4)), pay_out(july(4)),
     fail_payout(july(4)), recover(1, july(4), "r1"), write_off(1, july(4), "r1"), repay(1, 0, july(4), "r1")],
    ids=lambda step: type(step.command).__name__,
)  # fmt: skip
def test_there_has_to_be_a_refund_to_speak_of(step: Step) -> None:
    when(step).rejected("unknown_stream")
    shipped().when(step).rejected("unknown_refund")


# --- Funded -------------------------------------------------------------------------------------------------------


def after_release() -> Scenario:
    """Everything was received and released; one unit comes back and the merchant agrees."""
    return received(request(units("a", 1), at=july(7)), agree(july(7, 1)))


def test_after_the_release_commission_comes_back_first_and_the_rest_is_asked_of_the_merchant() -> None:
    story = received(request(units("a", 1), at=july(7))).when(agree(july(7, 1)))
    story.then(
        e.RefundAgreed,
        event(e.RefundApproved, refund_fen=367, escrow_fen=0, commission_fen=8, cover_fen=359, freight_fen=33),
        event(e.CommissionReturned, refund_id="r1", commission_fen=8),
        event(e.RebateClawedBack, refund_id="r1", rebate_fen=4, target_fen=8),
    )
    assert story.state.claims["r1"].is_waiting_for_cover


def test_a_refund_is_funded_when_the_merchant_covers_it() -> None:
    after_release().when(cover(300, july(8), advanced_fen=59)).then(
        event(e.RefundCoverReported, drawn_fen=300, advanced_fen=59, short_fen=0), event(e.RefundFunded, refund_fen=367)
    )


def test_a_refund_that_is_not_covered_is_short_and_tried_again() -> None:
    story = after_release().when(cover(100, july(8), short_fen=259))
    story.then(e.RefundCoverReported, event(e.RefundFundingShort, refund_id="r1", short_fen=259))
    story.when(cover(200, july(9), short_fen=59, attempt=2)).then(
        e.RefundCoverReported, event(e.RefundFundingShort, short_fen=59)
    )
    story.when(cover(0, july(10), advanced_fen=59, attempt=3)).then(e.RefundCoverReported, e.RefundFunded)
    story.when(instruct(july(10)), pay_out(july(11))).then(
        event(e.RefundPaid, escrow_fen=0, deposit_fen=300, platform_fen=59 + 8)
    )


def test_a_cover_is_heard_once_per_attempt() -> None:
    story = after_release().given(cover(100, july(8), short_fen=259))
    story.when(cover(100, july(8), short_fen=259)).then_nothing()


# --- Paid ---------------------------------------------------------------------------------------------------------


def funded() -> Scenario:
    return shipped(request(units("a", 1), at=july(4)), agree(july(4)))


def test_the_provider_is_asked_and_pays() -> None:
    story = funded().when(instruct(july(4))).then(event(e.RefundInstructed, attempt=1, payment_key=f"{ORDER}/r1"))
    story.when(pay_out(july(5))).then(event(e.RefundPaid, escrow_fen=367, deposit_fen=0, platform_fen=0))
    assert story.balances() == {"assets:cash:escrow": 734, "liabilities:escrow": -734}


def test_only_what_is_funded_is_instructed_and_only_one_at_a_time() -> None:
    shipped(request(at=july(4))).when(instruct(july(4))).rejected("not_funded")
    after_release().when(instruct(july(8))).rejected("not_funded")
    funded().given(instruct(july(4))).when(instruct(july(4), attempt=2)).rejected("instruction_open")
    funded().given(instruct(july(4))).when(instruct(july(5))).then_nothing()


def test_only_what_is_instructed_is_paid_and_only_once() -> None:
    funded().when(pay_out(july(5))).rejected("not_instructed")
    story = funded().given(instructed_and_paid(july(5)))
    story.when(pay_out(july(6))).then_nothing()
    story.when(pay_out(july(6), ref="out-2")).rejected("not_instructed")
    story.given(request(refund_id="r2", at=july(6)), agree(july(6), "r2"), instruct(july(6), "r2"))
    story.when(pay_out(july(6), "r2", ref="out-r1")).rejected("id_reused")


def test_a_payment_that_failed_is_asked_for_again() -> None:
    story = funded().given(instruct(july(4))).when(fail_payout(july(5)))
    story.then(event(e.RefundPayoutFailed, attempt=1, code="closed"))
    story.when(fail_payout(july(5))).then_nothing()
    story.when(pay_out(july(5))).rejected("not_instructed")
    story.when(instruct(july(5), attempt=2)).then(event(e.RefundInstructed, attempt=2))
    story.when(fail_payout(july(6), attempt=1)).rejected("not_instructed")
    story.when(pay_out(july(6))).then(e.RefundPaid)


def test_only_what_is_instructed_can_fail() -> None:
    funded().when(fail_payout(july(5))).rejected("not_instructed")


def test_a_silent_provider_leaves_the_refund_instructed() -> None:
    story = funded().given(instruct(july(4)), tick(july(14)))
    assert story.state.claims["r1"].state == "instructed"


# --- Recovered ----------------------------------------------------------------------------------------------------


def recovering() -> Scenario:
    return shipped(tick(july(16)), *instructed_and_paid(july(16), "arrive"), overturn(july(17)))


def test_what_was_undone_after_payment_is_paid_back_in_parts() -> None:
    story = recovering().when(recover(1000, july(20))).then(event(e.RefundRecovered, amount_fen=1000))
    assert story.state.claims["arrive"].state == "recovering"
    story.when(recover(1000, july(20))).then_nothing()
    story.when(recover(999, july(20))).rejected("id_reused")
    story.when(recover(102, july(21), ref="back-2")).rejected("more_than_owed")
    story.when(recover(101, july(21), ref="back-2")).then(e.RefundRecovered)
    assert story.state.claims["arrive"].state == "recovered"


def test_what_a_buyer_does_not_pay_back_is_written_off() -> None:
    recovering().when(write_off(1102, july(20))).rejected("more_than_owed")
    recovering().when(write_off(0, july(20))).rejected("more_than_owed")
    recovering().when(write_off(5, july(20)).by("finance", "fay").approved("fay")).rejected("same_approver")
    recovering().when(write_off(1101, july(20))).then(event(e.RecoveryWrittenOff, approved_by="supervisor-2"))


def test_nobody_owes_anything_for_a_refund_that_stands() -> None:
    story = funded().given(instructed_and_paid(july(5)))
    story.when(recover(1, july(6), "r1")).rejected("more_than_owed")
    story.when(write_off(1, july(6), "r1")).rejected("more_than_owed")


# --- Cover on its way ---------------------------------------------------------------------------------------------


def breached_after_release() -> Scenario:
    """One of two parcels came and was released, the other is late; the refund needs the freight that was released."""
    story = given(placed(), paid(), parcel(), scan("handed", july(3)), scan("delivered", july(4)), tick(july(14)))
    return story.given(retract(scan_id("delivered", july(4)), july(20)))


def test_a_breach_undone_before_the_cover_answered_waits_for_the_answer() -> None:
    story = breached_after_release()
    assert story.state.claims["arrive"].is_waiting_for_cover
    story.when(waive(july(21))).then(e.PromiseWaived)
    story.when(cover(1000, july(21), advanced_fen=76, refund_id="arrive")).then(
        e.RefundCoverReported,
        event(
            e.RefundCancelled, refund_fen=1101, was_escrow_fen=0, was_deposit_fen=1000, was_platform_fen=101,
            to_escrow_fen=25, to_cover_fen=1076,
        ),
        e.CommissionCharged,
        e.RebateAccrued,
    )  # fmt: skip
    assert (story.state.escrow_fen, story.state.commission_fen, story.state.rebate_fen) == (0, 25, 12)


def test_a_short_refund_that_is_undone_sends_back_what_had_come_and_what_still_comes() -> None:
    story = breached_after_release().given(cover(500, july(20), short_fen=576, refund_id="arrive"))
    story.when(waive(july(21))).then(
        e.PromiseWaived, event(e.RefundCancelled, was_deposit_fen=500, to_escrow_fen=25, to_cover_fen=500), ...
    )
    story.when(cover(576, july(22), attempt=2, refund_id="arrive")).then(
        e.RefundCoverReported,
        event(e.RefundCancelled, refund_fen=576, was_deposit_fen=576, to_cover_fen=576, to_escrow_fen=0),
    )


# --- What the money is for ----------------------------------------------------------------------------------------


def test_goods_missing_from_a_delivered_parcel_are_claimed_of_that_parcel() -> None:
    """The buyer says one of three has not arrived although the parcel was delivered; confirming the rest is no proof
    that the missing one came late."""
    story = shipped(scan("delivered", july(5)), request(units("a", 1), at=july(6), reason="not_arrived"))
    assert story.last(e.ClaimReserved).parcels == (e.ParcelUnits(shipment_id="p1", line_id="a", units=1),)
    story.given(agree(july(6, 1))).when(confirm(at=july(7)))
    story.then(e.ReceiptConfirmed, e.EscrowReleased, e.CommissionCharged, e.RebateAccrued)


def test_goods_claimed_as_not_arrived_are_first_those_on_their_way() -> None:
    story = given(
        placed(), paid(), parcel("p1", units("a", 2)), parcel("p2", units("a", 1)), scan("delivered", july(5))
    )
    story.given(request(units("a", 2), at=july(6), reason="not_arrived"))
    assert story.last(e.ClaimReserved).parcels == (e.ParcelUnits(shipment_id="p1", line_id="a", units=1),)


def test_a_claim_for_quality_speaks_of_goods_that_are_there_and_not_yet_paid_for() -> None:
    story = given(placed(), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2)))
    story.given(confirm("p1", at=july(5)), scan("delivered", july(6), "p2"), request(units("a", 1), at=july(7)))
    (part,) = story.last(e.ClaimReserved).parcels
    assert part.shipment_id == "p2"


def test_freight_that_nobody_returns_is_the_merchants_when_all_goods_are_refunded() -> None:
    story = shipped(
        scan("delivered", july(5)), deny(at=july(5, 1)), request(units("a", 3), at=july(6), reason="delivery_denied")
    )
    story.when(agree(july(6, 1))).then(
        e.RefundAgreed, event(e.RefundApproved, refund_fen=1001), e.RefundFunded,
        event(e.EscrowReleased, goods_fen=0, freight_fen=100, paid_out_fen=100),
    )  # fmt: skip
    assert story.state.escrow_fen == 0


@for_all(
    st.integers(0, 5000), st.integers(1, 9), st.integers(0, 500),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["cancel", "request", "reduce"])), max_size=9),
)  # fmt: skip
def test_refunds_never_exceed_what_was_paid_however_they_are_cut(
    line_fen: int, count: int, freight_fen: int, claims: list[tuple[int, str]]
) -> None:
    total_fen = line_fen + freight_fen
    rules = rules_with(refund={"answer": [{"answer_hours": 0}]})
    story = given(placed(line("a", count, line_fen), freight_fen=freight_fen, promises=[arrive_by()]), rules=rules)
    if total_fen == 0:
        return
    story.given(paid(total_fen))
    for number, (taken, how) in enumerate(claims):
        refund_id = f"r{number}"
        if how == "cancel":
            story.take(cancel(taken, refund_id=refund_id, at=july(2)))
        elif how == "request":
            story.take(request(units("a", taken), at=july(2), refund_id=refund_id))
        else:
            story.take(request(units("a", 0), at=july(2), refund_id=refund_id, reduction_fen=taken * 100))
    refunded = story.told(e.RefundApproved)
    assert sum(x.freight_fen for x in refunded) <= freight_fen
    assert sum(y.goods_fen for x in refunded for y in x.lines) <= line_fen
    assert story.state.escrow_fen == total_fen - sum(x.refund_fen for x in refunded)
    story.tick(july(16))
    assert sum(x.refund_fen for x in story.told(e.RefundApproved)) == total_fen
    assert story.state.escrow_fen == 0
