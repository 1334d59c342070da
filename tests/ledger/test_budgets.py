"""What the programme may spend in a year: granted whole, strictly in order; nothing is denied, it waits."""

from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.budgets import (
    AuthoriseBudget,
    BudgetAuthorised,
    BudgetSpent,
    BudgetToppedUp,
    RequestSpend,
    ReturnSpend,
    SpendQueued,
    SpendRequested,
    SpendReturned,
    TopUpBudget,
)
from tests.spec import RULES, Ask, Scenario, ask, event, given, july, when


def authorise(authorised_fen: int = 1000) -> Ask:
    return ask(AuthoriseBudget(budget="logistics", year=2015, authorised_fen=authorised_fen, occurred_at=july(1)))


def top_up(amount_fen: int) -> Ask:
    return ask(
        TopUpBudget(budget="logistics", year=2015, amount_fen=amount_fen, reason="a good year", occurred_at=july(3))
    )


def spend(amount_fen: int, spend_id: str = "s-1") -> Ask:
    command = RequestSpend(
        budget="logistics", year=2015, spend_id=spend_id, purpose="statement", ref="m-1", amount_fen=amount_fen,
        occurred_at=july(2),
    )  # fmt: skip
    return ask(command).by("policy")


def give_back(amount_fen: int, spend_id: str = "s-1") -> Ask:
    command = ReturnSpend(
        budget="logistics", year=2015, spend_id=spend_id, amount_fen=amount_fen, reason="charged", occurred_at=july(4)
    )
    return ask(command).by("finance")


def opened() -> Scenario:
    return given(authorise())


def test_a_budget_is_authorised_with_the_rulebook_in_force() -> None:
    story = when(authorise()).then(event(BudgetAuthorised, authorised_fen=1000, approved_by="supervisor-2"))
    assert story.state.rulebook == RULES.rulebook
    assert story.state.available_fen == 1000


def test_a_budget_is_authorised_once() -> None:
    opened().when(authorise(5)).rejected("wrong_state")


def test_no_amount_is_zero_or_less() -> None:
    when(authorise(0)).rejected("wrong_amount")
    opened().when(top_up(0)).rejected("wrong_amount")
    opened().when(spend(-5)).rejected("wrong_amount")
    opened().given(spend(5)).when(give_back(0)).rejected("wrong_amount")


def test_nothing_can_be_asked_of_a_budget_that_is_not_there() -> None:
    for step in (top_up(1), spend(1), give_back(1)):
        when(step).rejected("unknown_stream")


def test_money_takes_two_people() -> None:
    when(authorise().by("finance", "fay").approved("fay")).rejected("same_approver")
    when(authorise().approved("")).rejected("approval_missing")
    opened().when(top_up(1).by("finance", "fay").approved("fay")).rejected("same_approver")


def test_what_fits_is_granted() -> None:
    story = opened().when(spend(1000)).then(SpendRequested, event(BudgetSpent, spend_id="s-1", amount_fen=1000))
    assert (story.state.available_fen, story.state.spent_fen, story.state.queued_fen) == (0, 1000, 0)


def test_what_does_not_fit_waits() -> None:
    story = opened().when(spend(1001)).then(SpendRequested, event(SpendQueued, spend_id="s-1", amount_fen=1001))
    assert (story.state.available_fen, story.state.queued_fen) == (1000, 1001)


def test_the_first_that_waits_blocks_those_behind_it() -> None:
    story = opened().given(spend(1001, "s-1"))
    story.when(spend(1, "s-2")).then(SpendRequested, event(SpendQueued, spend_id="s-2"))


def test_a_top_up_pays_the_queue_in_order_as_far_as_it_goes() -> None:
    story = opened().given(spend(1500, "s-1"), spend(300, "s-2"), spend(200, "s-3"), spend(1, "s-4"))
    story.when(top_up(900)).then(
        event(BudgetToppedUp, amount_fen=900), event(BudgetSpent, spend_id="s-1"), event(BudgetSpent, spend_id="s-2")
    )
    assert list(story.state.queue) == ["s-3", "s-4"]


def test_money_that_comes_back_pays_the_queue() -> None:
    story = opened().given(spend(900, "s-1"), spend(300, "s-2"))
    story.when(give_back(200, "s-1")).then(event(SpendReturned, amount_fen=200), event(BudgetSpent, spend_id="s-2"))


def test_no_more_comes_back_than_was_spent() -> None:
    opened().given(spend(900)).when(give_back(901)).rejected("more_than_spent")
    opened().given(spend(900), give_back(500)).when(give_back(401)).rejected("more_than_spent")
    opened().given(spend(1001)).when(give_back(1)).rejected("more_than_spent")


def test_asked_twice_with_the_same_content_adds_nothing() -> None:
    opened().given(spend(900)).when(spend(900)).then_nothing()
    opened().given(spend(1001)).when(spend(1001)).then_nothing()


def test_an_id_asks_for_one_thing_only() -> None:
    opened().given(spend(900)).when(spend(901)).rejected("id_reused")


def test_a_merchant_spends_no_budget() -> None:
    opened().when(spend(1).by("merchant")).rejected("not_allowed")


@for_all(st.lists(st.tuples(st.sampled_from(("spend", "top up", "give back")), st.integers(1, 900)), max_size=30))
def test_spending_never_exceeds_the_budget_and_keeps_the_order_of_request(steps: list[tuple[str, int]]) -> None:
    story = opened()
    for number, (what, amount_fen) in enumerate(steps):
        step = {"spend": spend(amount_fen, f"s-{number}"), "top up": top_up(amount_fen), "give back": give_back(
            amount_fen, f"s-{amount_fen % (number + 1)}")}[what]  # fmt: skip
        story.take(step)
        assert 0 <= story.state.spent_fen <= story.state.authorised_fen
        waiting = list(story.state.queue.values())
        assert not waiting or waiting[0].amount_fen > story.state.available_fen
    granted = [x.spend_id for x in story.told(BudgetSpent)]
    assert granted == [x.spend_id for x in story.told(SpendRequested)][: len(granted)]
