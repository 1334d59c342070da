"""One command, in order: fire what has fallen due, decide, react; and what every stream has in common."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from ledger import orders
from ledger.decider import Asked, Deadline, Decider, Decisions, Outcome, Story, fire, fold, handle
from ledger.events import Recorded
from ledger.orders import events as e
from tests.spec import (
    DUE,
    HOUR,
    ORDER,
    RULES,
    SECOND,
    Ask,
    Scenario,
    Step,
    World,
    active_merchant,
    agree,
    event,
    flat,
    given,
    july,
    overturn,
    paid,
    parcel,
    placed,
    request,
    rules_with,
    scan,
    tick,
    when,
)

FIRES = july(16)
"""A day of grace after 14 July: what comes late within it still counts."""
RULEBOOKS = {RULES.rulebook: RULES}


def recorded(story: Scenario) -> list[Recorded]:
    return [
        Recorded(n, f"order-{ORDER}", n, x.occurred_at, x.received_at, x.received_at, x.data)
        for n, x in enumerate(story.events, 1)
    ]


# --- The clock ----------------------------------------------------------------------------------------------------


def test_what_has_fallen_due_is_decided_before_the_command() -> None:
    given(placed(), paid(), parcel()).when(scan("delivered", FIRES)).then(
        e.PromiseBreached, e.ClaimReserved, e.RefundApproved, e.RefundFunded, e.CarrierScanRecorded, ...
    )


def test_deadlines_come_in_the_order_of_their_instants() -> None:
    story = given(placed(), paid(), parcel(), scan("delivered", july(9)), request(at=july(17)))
    story.tick(july(60)).then(..., e.RefundAgreedBySilence, ..., e.ReceiptPresumed, ...)
    fired = [x.received_at for x in story.outcome.events]
    assert fired == sorted(fired)


def test_what_fell_due_is_kept_even_if_the_command_is_rejected() -> None:
    story = given(placed(), paid(), parcel()).when(overturn(at=FIRES, promise_id="none"))
    story.rejected("unknown_promise").and_also(e.PromiseBreached, e.ClaimReserved, e.RefundApproved, e.RefundFunded)


def test_a_deadline_fires_at_its_instant_and_not_before() -> None:
    story = given(placed(), paid())
    story.tick(FIRES - timedelta(microseconds=1)).then_nothing()
    story.tick(FIRES).then(e.PromiseBreached, ...)


def test_a_deadline_fires_once() -> None:
    given(placed(), paid(), tick(FIRES)).tick(july(400)).then_nothing()


@pytest.mark.parametrize("asleep_until", [FIRES, july(17), july(25)])
def test_a_slow_clock_changes_nothing(asleep_until: Any) -> None:
    """Whether the worker was awake or asleep, the same is decided, as of the same instants."""
    history: list[Step] = [placed(), paid(), parcel(), scan("handed", july(3))]
    awake = given(history, tick(FIRES), tick(july(25)), scan("delivered", july(26)))
    asleep = given(history, *[tick(asleep_until)] * (asleep_until < july(25)), scan("delivered", july(26)))
    assert awake.events == asleep.events
    assert awake.state == asleep.state


def test_a_command_stamped_too_early_is_raised_to_the_latest_instant_of_its_stream() -> None:
    story = given(placed(), paid(), tick(FIRES)).when(paid(ref="pay-2").received(july(3)))
    assert [x.received_at for x in story.outcome.events] == [FIRES]


def test_a_fact_keeps_the_instant_it_claims_to_have_happened_at() -> None:
    story = given(placed(), paid(), parcel(), tick(FIRES)).when(scan("handed", july(3), received=july(18)))
    assert [(x.occurred_at, x.received_at) for x in story.outcome.events][:2] == [(july(3), july(18))] * 2


def test_a_fact_that_claims_no_instant_happened_when_it_was_received() -> None:
    step = paid().but(occurred_at=None).received(july(1, 12))
    story = given(placed()).when(step)
    assert [(x.occurred_at, x.received_at) for x in story.outcome.events] == [(july(1, 12), july(1, 12))]


def test_what_a_late_fact_makes_due_is_decided_at_once() -> None:
    """Paid on the first, but we hear of it after the promise was to be judged."""
    rules = rules_with(windows={"payment_hours": 1000})
    late = given(placed(), rules=rules).when(paid().received(july(20)))
    late.then(e.PaymentCaptured, e.PromiseBreached, e.ClaimReserved, e.RefundApproved, e.RefundFunded)
    assert {x.received_at for x in late.outcome.events} == {july(20)}


# --- What a decision carries ---------------------------------------------------------------------------------------


def test_a_decision_names_the_rule_and_the_fact_that_made_it() -> None:
    story = given(placed(), paid(), parcel()).when(scan("handed", july(3)))
    fact, decision = story.outcome.events
    assert (fact.rule, fact.causation) == (None, None)
    assert (decision.rule, decision.causation) == (f"{RULES.rulebook}/scans", f"order-{ORDER}@4")


def test_a_decision_of_the_clock_names_the_deadline_that_made_it() -> None:
    story = given(placed(), paid()).tick(FIRES)
    assert {x.causation for x in story.outcome.events} == {f"order-{ORDER}/due:promise/arrive"}


def test_what_the_clock_decides_about_a_promise_holds_from_its_due_time() -> None:
    story = given(placed(), paid()).tick(july(20))
    assert {(x.occurred_at, x.received_at) for x in story.outcome.events} == {(DUE, FIRES)}


def test_what_any_other_deadline_decides_holds_from_the_instant_it_fires() -> None:
    story = given(placed()).tick(july(20))
    assert [(x.occurred_at, x.received_at) for x in story.outcome.events] == [(july(4, 10), july(4, 10))]


# --- Who may ask --------------------------------------------------------------------------------------------------


def test_a_role_that_may_not_ask_is_refused_first_of_all() -> None:
    given(placed()).when(paid().by("buyer")).rejected("not_allowed")
    when(paid().by("buyer")).rejected("not_allowed")


def test_a_buyer_and_a_merchant_act_on_their_own_orders_only() -> None:
    given(placed(), paid()).when(request(at=july(3)).by("buyer", "b-2")).rejected("not_allowed")
    given(placed(), paid()).when(parcel().by("merchant", "m-2")).rejected("not_allowed")


def test_the_marketplace_speaks_for_buyers_merchants_and_carriers() -> None:
    story = given(placed().by("integrator", "shop"), paid(), parcel().by("integrator", "shop"))
    story.when(scan("handed", july(3)).by("integrator", "shop")).then(e.CarrierScanRecorded, e.UnitsDispatched)


def test_the_marketplace_does_not_speak_for_the_bank() -> None:
    given(placed()).when(paid().by("integrator", "shop")).rejected("not_allowed")


def test_what_takes_two_people_is_refused_without_the_second() -> None:
    story = given(placed(), paid(), tick(FIRES))
    story.when(overturn(at=july(17)).approved("")).rejected("approval_missing")


def test_nobody_approves_what_he_asks_for() -> None:
    story = given(placed(), paid(), tick(FIRES))
    story.when(overturn(at=july(17)).by("handler", "han").approved("han")).rejected("same_approver")


# --- The rulebook -------------------------------------------------------------------------------------------------


def handled(asked: Asked, current: Any, rulebooks: Any, story: Story | None = None) -> Outcome:
    return handle(orders.DECIDER, story or Story(f"order-{ORDER}", orders.DECIDER.initial()), asked, rulebooks, current)


def test_nothing_is_decided_before_a_rulebook_is_in_force() -> None:
    assert handled(placed().asked(july(1)), None, {}).rejected == "no_rulebook_in_force"


def test_a_stream_is_decided_by_the_rulebook_its_terms_name_for_ever() -> None:
    other = rules_with("rulebook-2", windows={"ingest_grace_hours": 1, "auto_receipt_days": 1})
    rulebooks = {RULES.rulebook: RULES, other.rulebook: other}
    story = Story(f"order-{ORDER}", orders.DECIDER.initial())
    for step in (placed(), paid(), parcel()):
        handled(step.asked(july(1)), RULES, rulebooks, story)
    outcome = handled(scan("delivered", july(9)).asked(july(9)), other, rulebooks, story)
    delivered = next(x for x in outcome.events if isinstance(x.data, e.UnitsDelivered))
    assert delivered.data.auto_receipt_at == july(19)
    assert {x.rule for x in outcome.events[1:]} == {f"{RULES.rulebook}/scans", f"{RULES.rulebook}/promise"}


def test_the_next_order_is_placed_under_the_new_rulebook() -> None:
    other = rules_with("rulebook-2")
    outcome = handled(placed().asked(july(1)), other, {RULES.rulebook: RULES, other.rulebook: other})
    assert outcome.events[0].data.terms.rulebook == "rulebook-2"


# --- Folding ------------------------------------------------------------------------------------------------------


def test_folding_the_events_gives_the_state_that_deciding_left() -> None:
    story = given(placed(), paid(), parcel(), scan("handed", july(3)), scan("delivered", july(9)), tick(july(60)))
    again = fold(orders.DECIDER, f"order-{ORDER}", recorded(story))
    assert again == story.story


def test_a_story_can_be_told_on() -> None:
    story = given(placed(), paid(), parcel(), scan("delivered", july(9)), tick(july(60)))
    events = recorded(story)
    half = fold(orders.DECIDER, f"order-{ORDER}", events[:5])
    assert fold(orders.DECIDER, half.stream, events[5:], half) == story.story


def test_position_and_recording_time_change_no_state() -> None:
    story = given(placed(), paid(), parcel(), scan("delivered", july(9)), tick(july(60)))
    moved = [msgspec.structs.replace(x, position=x.position + 77, recorded_at=july(99)) for x in recorded(story)]
    assert fold(orders.DECIDER, f"order-{ORDER}", moved) == story.story


@pytest.mark.parametrize("missing", range(24))
def test_a_fold_accepts_a_log_with_any_event_missing(missing: int) -> None:
    story = given(
        placed(), paid(), parcel(), scan("handed", july(3)), request(at=july(4)), agree(july(5)),
        scan("delivered", july(9)), request(refund_id="r2", at=july(10)), tick(july(60)),
    )  # fmt: skip
    events = recorded(story)
    assert len(events) > 20
    fold(orders.DECIDER, f"order-{ORDER}", [x for x in events if x.version != missing + 1])
    fold(orders.DECIDER, f"order-{ORDER}", events[missing:])


# --- A deadline must decide ----------------------------------------------------------------------------------------


def test_a_deadline_that_decides_nothing_is_a_defect_and_not_a_loop() -> None:
    class Stuck(msgspec.Struct):
        rulebook: str = RULES.rulebook

    def nothing(*_: Any) -> Decisions:
        yield from ()

    def always(_: Any) -> Iterator[Deadline]:
        yield Deadline(july(2), "never", "k", july(2), "", "", 1)

    decider = Decider("stuck", Stuck, lambda *_: [], nothing, nothing, lambda s, _: s, always, lambda *_: None, (), ())
    with pytest.raises(AssertionError, match="never/k of stuck-1 decided nothing"):
        fire(decider, Story("stuck-1", Stuck()), july(3), RULEBOOKS)


# --- The world of the tests ----------------------------------------------------------------------------------------


def test_a_key_makes_a_command_happen_once() -> None:
    world = World()
    for step in flat(active_merchant()):
        world.ask(step) if isinstance(step, Ask) else world.tick(step.at)
    first = world.ask(placed(), "key-1")
    assert world.ask(placed(order_id="o-2"), "key-1") is first
    assert not world.of("order-o-2")


def test_the_clock_of_a_world_fires_every_stream_in_the_order_of_instants() -> None:
    world = World()
    for step in flat(active_merchant()):
        world.ask(step) if isinstance(step, Ask) else world.tick(step.at)
    world.ask(placed(order_id="o-1", at=july(1, 12)))
    world.ask(placed(order_id="o-2", at=july(1, 10)))
    world.tick(july(10))
    expired = [x for x in world.log if isinstance(x.data, e.PaymentExpired)]
    assert [(x.stream, x.received_at) for x in expired] == [
        ("order-o-2", july(4, 10)), ("order-o-1", july(4, 12))
    ]  # fmt: skip
    assert world.now == july(10)


def test_a_builder_says_what_it_means() -> None:
    story = when(placed()).then(event(e.OrderPlaced, order_id=ORDER, total_fen=1101, occurred_at=july(1, 10)))
    assert (3600 * SECOND, timedelta(seconds=1)) == (HOUR, SECOND)
    assert story.deadlines() == {("payment", ORDER): july(4, 10)}
