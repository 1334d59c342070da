"""A merchant's admission and standing: applied, reviewed, active, suspended, and active again."""

from datetime import date

import pytest

from ledger import merchants as m
from tests.spec import (
    RULES,
    SECOND,
    Ask,
    Scenario,
    Step,
    active_merchant,
    admitted_merchant,
    applied,
    approved_merchant,
    cover_refund,
    deposit,
    event,
    fee,
    given,
    guarantees,
    july,
    july_day,
    lift,
    pay_receivable,
    raise_cap,
    review_failed,
    review_passed,
    review_started,
    rules_with,
    suspend,
    tick,
    trustpass,
    when,
)


def approved(*more: Step) -> Scenario:
    return given(approved_merchant(), *more)


def active(*more: Step) -> Scenario:
    return given(active_merchant(), *more)


# --- Applying -----------------------------------------------------------------------------------------------------


def test_a_trustpass_member_may_apply() -> None:
    when(trustpass()).then(event(m.TrustPassRegistered, trustpass_id="tp-1", valid_to_on=date(2016, 12, 31)))
    given(trustpass()).when(applied()).then(
        event(
            m.ApplicationFiled, category="mens_apparel",
            terms=m.ApplicationTerms(rulebook=RULES.rulebook, rulebook_sha256=RULES.sha256, live_at=july(1)),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    "step",
    [applied(), review_started(), review_passed(), review_failed(), guarantees(), fee(), deposit(), suspend(july(2)),
     lift(july(2)), cover_refund(1, july(2)), pay_receivable(1, july(2)), raise_cap(1, july(2))],
    ids=lambda step: type(step.command).__name__,
)  # fmt: skip
def test_nothing_can_be_asked_of_a_merchant_that_is_not_there(step: Ask) -> None:
    when(step).rejected("unknown_stream")


def test_a_merchant_speaks_for_itself_only() -> None:
    given(trustpass()).when(applied().by("merchant", "m-2")).rejected("not_allowed")


def test_a_trustpass_runs_forward() -> None:
    when(trustpass(date(2014, 12, 31))).rejected("dates_out_of_order")
    when(trustpass(date(2015, 1, 1))).then(m.TrustPassRegistered)


def test_a_trustpass_is_registered_once() -> None:
    given(trustpass()).when(trustpass()).then_nothing()
    given(trustpass()).when(trustpass(date(2017, 1, 1))).rejected("id_reused")


def test_nobody_applies_with_a_trustpass_that_has_ended() -> None:
    ends = given(trustpass(july_day(-19)))
    ends.when(applied(at=july(-18))).rejected("trustpass_not_valid")
    given(trustpass(july_day(-19))).when(applied(at=july(-18) - SECOND)).then(m.ApplicationFiled)


def test_nobody_applies_in_a_category_that_there_is_not() -> None:
    given(trustpass()).when(applied("boats")).rejected("unknown_category")
    given(trustpass(july_day(-19))).when(applied("boats", at=july(1))).rejected("unknown_category")


def test_nobody_applies_twice_at_a_time() -> None:
    given(trustpass(), applied()).when(applied()).rejected("wrong_state")
    active().when(applied(at=july(2))).rejected("wrong_state")


# --- Reviewed -----------------------------------------------------------------------------------------------------


def test_an_officer_reviews_the_application() -> None:
    given(trustpass(), applied()).when(review_started("licence")).then(
        event(m.ReviewStarted, officer_id="officer-1", checklist=("licence",))
    )
    given(trustpass()).when(review_started()).rejected("wrong_state")


def test_nobody_reviews_himself() -> None:
    given(trustpass(), applied()).when(review_started().but(officer_id="m-1")).rejected("officer_has_tie")


def test_every_point_has_to_be_proved() -> None:
    reviewing = [trustpass(), applied(), review_started("licence", "factory")]
    given(reviewing).when(review_passed("licence")).rejected("check_missing")
    given(reviewing).when(review_passed("licence", "factory", "more")).then(m.ReviewPassed)
    given(trustpass(), applied()).when(review_passed()).rejected("wrong_state")


@pytest.mark.parametrize(("on_time_bp", "passes"), [(8999, False), (9000, True), (None, True)])
def test_who_was_often_late_does_not_pass(on_time_bp: int | None, passes: bool) -> None:
    story = given(trustpass(), applied(), review_started()).when(review_passed(on_time_bp=on_time_bp))
    story.then(m.ReviewPassed) if passes else story.rejected("gate_not_met")


def test_whose_goods_were_often_not_as_described_does_not_pass() -> None:
    reviewing = given(trustpass(), applied(), review_started())
    reviewing.when(review_passed(as_described_bp=9799)).rejected("gate_not_met")
    reviewing.when(review_passed(as_described_bp=9800)).then(m.ReviewPassed)


def test_what_is_not_proved_is_said_before_what_is_not_met() -> None:
    given(trustpass(), applied(), review_started()).when(review_passed("licence", on_time_bp=0)).rejected(
        "check_missing"
    )


def test_who_fails_may_apply_again_after_ninety_days() -> None:
    story = given(trustpass(), applied(), review_started()).when(review_failed(at=july(-17)))
    story.then(event(m.ReviewFailed, reasons=("factory not found",), reapply_from_on=july_day(73)))
    story.when(review_failed(at=july(-17))).rejected("wrong_state")
    story.when(applied(at=july(73) - SECOND)).rejected("cooldown_running")
    story.when(applied(at=july(73))).then(m.ApplicationFiled)


# --- Active -------------------------------------------------------------------------------------------------------


def test_the_category_says_what_deposit_is_required() -> None:
    approved().when(guarantees()).then(
        event(m.GuaranteesAccepted, exchange_days=7),
        event(m.DepositRequirementSet, required_fen=3_000_000, category="mens_apparel"),
    )


def test_all_guarantees_have_to_be_promised_with_days_that_the_category_offers() -> None:
    approved().when(guarantees("quality", "delivery")).rejected("guarantee_missing")
    approved().when(guarantees(days=10)).rejected("days_not_offered")
    approved().when(guarantees("quality", days=10)).rejected("guarantee_missing")
    given(trustpass(), applied()).when(guarantees()).rejected("wrong_state")
    approved(guarantees()).when(guarantees()).then_nothing()


@pytest.mark.parametrize("last", range(3))
def test_a_merchant_is_active_as_soon_as_the_last_condition_is_met(last: int) -> None:
    conditions = [guarantees(at=july(2)), fee(at=july(2)), deposit(at=july(2))]
    others = [x for i, x in enumerate(conditions) if i != last]
    story = approved(tick(july(1)), *others)
    assert story.told(m.MerchantActivated) == []
    needs_deposit = [deposit(at=july(2), ref="all")] if last == 0 else []
    story = approved(*others, *needs_deposit).when(conditions[last])
    assert story.state.is_active
    assert story.last(m.MerchantActivated).active_from_at == july(2)


def test_nobody_is_active_before_the_programme_is_live() -> None:
    story = given(admitted_merchant())
    assert story.state.stage == "approved"
    assert story.deadlines() == {("go_live", "m-1"): july(1)}
    story.tick(july(1) - SECOND).then_nothing()
    story.tick(july(1)).then(event(m.MerchantActivated, active_from_at=july(1)))
    assert story.state.is_active


def test_who_met_the_conditions_too_late_is_not_active_for_the_time_before() -> None:
    """The TrustPass was good on the day the programme went live, but had ended when the deposit came."""
    story = given(trustpass(july_day(10)), approved_merchant()[1:], guarantees(), fee(), tick(july(1)))
    story.when(deposit(at=july(20))).then(m.DepositPaid)
    assert story.state.stage == "approved"


def test_a_deposit_below_the_requirement_is_not_enough() -> None:
    story = approved(guarantees(), fee()).when(deposit(2_999_999, at=july(2)))
    story.then(m.DepositPaid)
    story.when(deposit(1, "dep-2", at=july(3))).then(m.DepositPaid, m.MerchantActivated)


def test_a_fee_is_the_categorys_and_its_periods_do_not_overlap() -> None:
    approved().when(fee(fee_fen=1)).rejected("wrong_amount")
    approved().when(fee(to_on=date(2015, 6, 30))).rejected("dates_out_of_order")
    approved(fee()).when(fee(from_on=date(2016, 6, 30), to_on=date(2017, 6, 30), ref="fee-2")).rejected(
        "period_overlaps"
    )
    approved(fee()).when(fee(from_on=date(2016, 7, 1), to_on=date(2017, 6, 30), ref="fee-2")).then(m.AnnualFeePaid)
    approved().when(fee(fee_fen=1, to_on=date(2015, 6, 30))).rejected("dates_out_of_order")
    given(trustpass(), applied()).when(fee()).rejected("wrong_state")


def test_a_payment_reference_means_one_payment() -> None:
    approved(fee()).when(fee()).then_nothing()
    approved(fee()).when(fee(to_on=date(2016, 6, 29))).rejected("id_reused")
    approved(deposit()).when(deposit()).then_nothing()
    approved(deposit()).when(deposit(1)).rejected("id_reused")
    approved(fee(ref="same")).when(deposit(ref="same")).rejected("id_reused")


def test_a_fee_reported_again_under_the_next_rulebook_is_the_same_fee() -> None:
    story = approved(fee())
    other = rules_with("rulebook-2")
    story.rules, story.rulebooks = other, {**story.rulebooks, other.rulebook: other}
    story.when(fee()).then_nothing()


def test_a_deposit_is_more_than_nothing_and_comes_after_the_review() -> None:
    approved().when(deposit(0)).rejected("wrong_amount")
    given(trustpass(), applied()).when(deposit()).rejected("wrong_state")


# --- Suspended ----------------------------------------------------------------------------------------------------


def test_an_officer_suspends_and_lifts() -> None:
    story = active().when(suspend(july(5)))
    story.then(event(m.SuspensionOrdered, reason="under review"), event(m.MerchantSuspended, cause="ordered"))
    assert not story.state.is_active
    story.when(lift(july(6))).then(
        m.SuspensionCancelled, event(m.SuspensionLifted, cause="ordered", is_active_again=True)
    )
    assert story.state.is_active


def test_only_an_active_merchant_is_suspended_and_only_what_was_ordered_is_lifted() -> None:
    approved().when(suspend(july(2))).rejected("wrong_state")
    active(suspend(july(5))).when(suspend(july(6))).rejected("wrong_state")
    active().when(lift(july(6))).rejected("wrong_state")
    given(trustpass(july_day(10)), admitted_merchant()[1:], tick(july(11))).when(lift(july(12))).rejected("not_ordered")


def test_a_trustpass_that_ends_suspends_until_it_is_renewed() -> None:
    story = given(trustpass(july_day(10)), admitted_merchant()[1:], tick(july(1)))
    story.tick(july(11) - SECOND).then_nothing()
    story.tick(july(11)).then(event(m.MerchantSuspended, cause="trustpass"))
    story.when(trustpass(july_day(400), "tp-2", at=july(20))).then(
        m.TrustPassRegistered, event(m.SuspensionLifted, cause="trustpass", is_active_again=True)
    )
    assert story.deadlines()["trustpass_expiry", "m-1"] == july(401)


def test_a_trustpass_renewed_in_time_suspends_nobody() -> None:
    story = given(
        trustpass(july_day(10)), admitted_merchant()[1:], tick(july(1)), trustpass(july_day(400), "tp-2", at=july(5))
    )
    story.tick(july(12)).then_nothing()


def test_a_fee_that_ran_out_suspends_until_it_is_paid() -> None:
    story = active().given(trustpass(date(2020, 1, 1), "tp-2", at=july(2))).tick(july(366 + 1))
    story.then(event(m.MerchantSuspended, cause="fee", occurred_at=july(367)))
    story.when(fee(date(2016, 7, 1), date(2017, 6, 30), ref="fee-2", at=july(370))).then(
        m.AnnualFeePaid, event(m.SuspensionLifted, cause="fee", is_active_again=True)
    )


def test_who_is_suspended_for_two_causes_is_active_when_both_have_ended() -> None:
    story = active(suspend(july(5)), trustpass(date(2020, 1, 1), "tp-2", at=july(6)), tick(july(367)))
    assert story.state.suspended_for == ("ordered", "fee")
    story.when(lift(july(368))).then(m.SuspensionCancelled, event(m.SuspensionLifted, is_active_again=False))
    assert not story.state.is_active
    story.when(fee(date(2016, 7, 1), date(2017, 6, 30), ref="fee-2", at=july(370))).then(
        m.AnnualFeePaid, event(m.SuspensionLifted, cause="fee", is_active_again=True)
    )


def test_a_suspended_merchant_may_pay() -> None:
    active(suspend(july(5))).when(deposit(1, "dep-2", at=july(6))).then(m.DepositPaid)
