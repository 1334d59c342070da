"""The deposit: it covers refunds that escrow does not, then the platform advances, and what is left is short."""

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger import merchants as m
from tests.spec import (
    ORDER,
    SECOND,
    Scenario,
    Step,
    active_merchant,
    cover_refund,
    deposit,
    event,
    given,
    guarantees,
    july,
    lift,
    pay_receivable,
    raise_cap,
    reverse_cover,
    rules_with,
    suspend,
)

DEPOSIT, CAP = 3_000_000, 10_000_000


def active(*more: Step) -> Scenario:
    return given(active_merchant(), *more)


def money(story: Scenario) -> tuple[int, int]:
    return story.state.balance_fen, story.state.receivable_fen


# --- Covered ------------------------------------------------------------------------------------------------------


def test_a_refund_is_drawn_from_the_free_deposit() -> None:
    story = (
        active()
        .when(cover_refund(1000, july(5)))
        .then(
            event(m.RefundCoverRequested, refund_id="r1", order_id=ORDER, requested_fen=1000),
            event(m.RefundCovered, attempt=1, drawn_fen=1000, advanced_fen=0, short_fen=0),
            event(m.TopUpDemanded, top_up_fen=1000, due_at=july(12)),
        )
    )
    assert money(story) == (DEPOSIT - 1000, 0)


def test_what_the_deposit_does_not_hold_the_platform_advances() -> None:
    story = active().when(cover_refund(DEPOSIT + 7, july(5)))
    story.then(
        m.RefundCoverRequested, event(m.RefundCovered, drawn_fen=DEPOSIT, advanced_fen=7, short_fen=0), m.TopUpDemanded
    )
    assert money(story) == (0, 7)


def test_what_is_beyond_the_cap_is_short() -> None:
    story = active().when(cover_refund(DEPOSIT + CAP + 9, july(5)))
    story.then(
        m.RefundCoverRequested,
        event(m.RefundCovered, drawn_fen=DEPOSIT, advanced_fen=CAP, short_fen=9),
        m.TopUpDemanded,
    )
    assert money(story) == (0, CAP)


def test_a_refund_is_covered_once() -> None:
    story = active(cover_refund(1000, july(5)))
    story.when(cover_refund(1000, july(5))).then_nothing()
    story.when(cover_refund(1001, july(5))).rejected("id_reused")
    story.when(cover_refund(1000, july(5), order_id="o-2")).then(
        m.RefundCoverRequested, event(m.RefundCovered, order_id="o-2")
    )


def test_only_a_policy_asks_for_cover() -> None:
    active().when(cover_refund(1, july(5)).by("finance")).rejected("not_allowed")
    active().when(reverse_cover(1, july(5)).by("finance")).rejected("not_allowed")


# --- Tried again --------------------------------------------------------------------------------------------------


def short() -> Scenario:
    """Deposit and advance are used up; two refunds wait for 9 and 5 fen."""
    return active(cover_refund(DEPOSIT + CAP + 9, july(5)), cover_refund(5, july(6), "r2"))


def test_money_that_comes_in_clears_the_receivable_first() -> None:
    story = short().when(deposit(100, "dep-2", at=july(7)))
    story.then(
        m.DepositPaid, event(m.ReceivableRecovered, amount_fen=100),
        event(m.RefundCovered, refund_id="r1", attempt=2, advanced_fen=9, drawn_fen=0, short_fen=0),
        event(m.RefundCovered, refund_id="r2", attempt=2, advanced_fen=5, drawn_fen=0, short_fen=0),
    )  # fmt: skip
    assert money(story) == (0, CAP - 100 + 14)


def test_short_refunds_are_tried_again_in_the_order_of_request_as_far_as_it_goes() -> None:
    story = short().when(pay_receivable(10, july(7)))
    story.then(
        event(m.ReceivablePaid, amount_fen=10),
        event(m.RefundCovered, refund_id="r1", advanced_fen=9, short_fen=0),
        event(m.RefundCovered, refund_id="r2", advanced_fen=1, short_fen=4),
    )
    story.when(deposit(2, "dep-2", at=july(8))).then(
        m.DepositPaid, m.ReceivableRecovered, event(m.RefundCovered, refund_id="r2", attempt=3, short_fen=2)
    )


def test_a_raised_cap_helps_at_once() -> None:
    short().when(raise_cap(CAP + 14, july(7))).then(
        event(m.AdvanceCapRaised, cap_fen=CAP + 14, approved_by="supervisor-2"),
        event(m.RefundCovered, refund_id="r1", advanced_fen=9),
        event(m.RefundCovered, refund_id="r2", advanced_fen=5),
    )


def test_a_large_deposit_pays_everything_and_fills_up_the_rest() -> None:
    story = short().when(deposit(CAP + 14 + DEPOSIT, "dep-2", at=july(7)))
    story.then(
        m.DepositPaid,
        event(m.ReceivableRecovered, amount_fen=CAP),
        event(m.RefundCovered, refund_id="r1", drawn_fen=9),
        event(m.RefundCovered, refund_id="r2", drawn_fen=5),
    )
    assert money(story) == (DEPOSIT, 0)


def test_a_cap_only_rises_and_takes_two_people() -> None:
    active().when(raise_cap(CAP - 1, july(7))).rejected("lower_than_before")
    active().when(raise_cap(CAP, july(7))).then_nothing()
    active().when(raise_cap(CAP + 1, july(7)).by("finance", "fay").approved("fay")).rejected("same_approver")
    active(raise_cap(CAP + 5, july(7))).when(raise_cap(CAP + 4, july(8))).rejected("lower_than_before")


def test_nobody_pays_more_than_is_owed() -> None:
    active().when(pay_receivable(1, july(7))).rejected("more_than_owed")
    story = active(cover_refund(DEPOSIT + 7, july(5)))
    story.when(pay_receivable(8, july(7))).rejected("more_than_owed")
    story.when(pay_receivable(0, july(7))).rejected("more_than_owed")
    story.when(pay_receivable(7, july(7))).then(m.ReceivablePaid)
    story.when(pay_receivable(7, july(7))).then_nothing()
    story.when(pay_receivable(6, july(7))).rejected("id_reused")


# --- Given back ---------------------------------------------------------------------------------------------------


def test_what_comes_back_clears_the_receivable_and_refills_the_deposit() -> None:
    story = active(cover_refund(DEPOSIT + 7, july(5))).when(reverse_cover(1000, july(6)))
    story.then(
        event(m.CoverReversalRequested, refund_id="r1", reversal_fen=1000),
        event(m.CoverReversed, receivable_fen=7, deposit_fen=993),
    )
    assert money(story) == (993, 0)


def test_what_comes_back_helps_who_waits() -> None:
    story = short().when(reverse_cover(20, july(7), order_id="o-0", refund_id="r0"))
    story.then(
        m.CoverReversalRequested, event(m.CoverReversed, receivable_fen=20, deposit_fen=0),
        event(m.RefundCovered, refund_id="r1", advanced_fen=9), event(m.RefundCovered, refund_id="r2", advanced_fen=5),
    )  # fmt: skip


def test_a_refund_that_was_undone_waits_no_more() -> None:
    story = short().when(reverse_cover(CAP, july(7)))
    story.then(
        m.CoverReversalRequested, event(m.CoverReversed, receivable_fen=CAP), event(m.RefundCovered, refund_id="r2")
    )


def test_nothing_cannot_come_back() -> None:
    active(cover_refund(5, july(5))).when(reverse_cover(0, july(6))).rejected("wrong_amount")


# --- Topped up ----------------------------------------------------------------------------------------------------


def test_a_merchant_has_seven_days_to_refill_the_deposit() -> None:
    story = active(cover_refund(1000, july(5)))
    assert story.deadlines()["top_up", "m-1"] == july(12)
    story.tick(july(12) - SECOND).then_nothing()
    story.tick(july(12)).then(event(m.MerchantSuspended, cause="deposit"))
    story.when(deposit(999, "dep-2", at=july(13))).then(m.DepositPaid)
    story.when(deposit(1, "dep-3", at=july(14))).then(
        m.DepositPaid, event(m.SuspensionLifted, cause="deposit", is_active_again=True)
    )


def test_who_refills_in_time_is_not_suspended() -> None:
    story = active(cover_refund(1000, july(5)), deposit(1000, "dep-2", at=july(11)))
    assert ("top_up", "m-1") not in story.deadlines()
    story.tick(july(40)).then_nothing()


def test_a_second_refund_does_not_give_more_time() -> None:
    story = active(cover_refund(1000, july(5))).when(cover_refund(1, july(8), "r2"))
    story.then(m.RefundCoverRequested, m.RefundCovered)
    assert story.deadlines()["top_up", "m-1"] == july(12)


def test_money_that_comes_back_can_refill_it() -> None:
    story = active(cover_refund(1000, july(5)), reverse_cover(1000, july(6)))
    assert ("top_up", "m-1") not in story.deadlines()


def test_a_suspended_merchant_is_asked_to_refill_when_it_is_active_again() -> None:
    story = active(suspend(july(4)), cover_refund(1000, july(5)))
    assert story.told(m.TopUpDemanded) == []
    story.when(lift(july(6))).then(m.SuspensionCancelled, m.SuspensionLifted, event(m.TopUpDemanded, due_at=july(13)))


@pytest.mark.parametrize(("deposit_fen", "demanded"), [(4_000_000, True), (2_000_000, False)])
def test_a_new_requirement_is_demanded_and_a_lower_one_ends_the_demand(deposit_fen: int, demanded: bool) -> None:
    story = active(cover_refund(1000, july(5)))
    categories = {
        "mens_apparel": {"deposit_fen": deposit_fen, "commission_bp": 250, "exchange_days": [15], "fee": "other_fen"}
    }
    other = rules_with("rulebook-2", categories=categories)
    story.rules, story.rulebooks = other, {**story.rulebooks, other.rulebook: other}
    story.when(guarantees(days=15, at=july(6))).then(
        m.GuaranteesAccepted, event(m.DepositRequirementSet, required_fen=deposit_fen)
    )
    assert (("top_up", "m-1") in story.deadlines()) == demanded


# --- Always -------------------------------------------------------------------------------------------------------


STEPS = st.lists(
    st.tuples(st.sampled_from(["cover", "reverse", "deposit", "pay", "cap"]), st.integers(1, 2000)), max_size=30
)


@for_all(STEPS)
def test_the_deposit_is_never_below_zero_and_no_fen_is_lost(steps: list[tuple[str, int]]) -> None:
    rules = rules_with(deposit={"advance_cap_fen": 500})
    story = given(active_merchant(), rules=rules)
    story.given(cover_refund(DEPOSIT, july(2), "all"))
    for number, (what, amount_fen) in enumerate(steps):
        name, at = f"x{number}", july(3)
        step = {
            "cover": cover_refund(amount_fen, at, name), "reverse": reverse_cover(amount_fen, at, f"x{amount_fen % 9}"),
            "deposit": deposit(amount_fen, name, at=at), "pay": pay_receivable(amount_fen, at, name),
            "cap": raise_cap(amount_fen, at),
        }[what]  # fmt: skip
        story.take(step)
        state = story.state
        assert state.balance_fen >= 0
        assert state.receivable_fen >= 0
        covered = story.told(m.RefundCovered)
        assert all(min(x.drawn_fen, x.advanced_fen, x.short_fen) >= 0 for x in covered)
        assert state.receivable_fen <= m.advance_cap_fen(state, rules)
        short_fen = sum(x.short_fen for x in state.covers.values())
        assert not short_fen or (state.free_fen == 0 and state.receivable_fen == m.advance_cap_fen(state, rules))
    balances = story.balances()
    assert -balances.get("liabilities:deposit:m-1", 0) == story.state.balance_fen
    assert balances.get("assets:receivable:merchant:m-1", 0) == story.state.receivable_fen
