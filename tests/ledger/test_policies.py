"""Messages between streams: an event here becomes a command there, once, whoever carries it and however often."""

import pytest

from ledger import merchants as m
from ledger.events import Recorded
from ledger.orders import events as e
from ledger.orders import refunds
from ledger.policies import SPEAKING, messages
from tests.golden.samples import SAMPLES
from tests.ledger.checks import check_world
from tests.spec import (
    ORDER,
    Ask,
    Step,
    World,
    active_merchant,
    agree,
    body_with,
    confirm,
    deposit,
    fail_payout,
    flat,
    july,
    overturn,
    paid,
    parcel,
    pay_out,
    placed,
    raise_cap,
    request,
    retract,
    scan,
    scan_id,
    tick,
    waive,
)

LITTLE_DEPOSIT = body_with(
    deposit={"advance_cap_fen": 100},
    categories={"mens_apparel": {"deposit_fen": 200, "commission_bp": 250, "exchange_days": [7], "fee": "other_fen"}},
)
RELEASED: list[Step] = [placed(), paid(), parcel(), scan("handed", july(3)), confirm(at=july(5))]
"""Everything is released: a refund now needs the merchant's money."""
TAKEN_BACK: list[Step] = [
    placed(), paid(), parcel(), scan("handed", july(3)), scan("delivered", july(4)), tick(july(14)),
    retract(scan_id("delivered", july(4)), july(20)),
]  # fmt: skip
"""Released by presumption, then the delivery is taken back and all of it is refunded."""


def told(world: World, *steps: Step | list[Step]) -> World:
    """Everybody says what he has to say, and every message is carried."""
    for step in flat(steps):
        if isinstance(step, Ask):
            outcome = world.ask(step)
            assert outcome.rejected is None, (step, outcome.rejected)
        else:
            world.tick(step.at)
        check_world(world)
    return world


def world_of(*steps: Step | list[Step], deposit_fen: int = 200, carries: bool = True) -> World:
    world = World(LITTLE_DEPOSIT, carries=carries)
    merchant = [x for x in active_merchant() if not (isinstance(x, Ask) and isinstance(x.command, m.RecordDeposit))]
    return told(world, merchant[:-1], deposit(deposit_fen), merchant[-1], *steps)


def claim(world: World, refund_id: str = "r1") -> str:
    state: str = world.story(f"order-{ORDER}").state.claims[refund_id].state
    return state


def names(world: World, *classes: type) -> list[str]:
    return [type(x.data).__name__ for x in world.log if isinstance(x.data, classes)]


# --- What each event has to say ------------------------------------------------------------------------------------


def recorded(event: object) -> Recorded:
    return Recorded(7, "order-o-1", 5, july(2), july(3), july(3), event)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_only_what_concerns_another_stream_is_carried(sample: object) -> None:
    assert bool(messages(recorded(sample))) == (type(sample) in SPEAKING)


def test_a_refund_that_needs_no_cover_asks_for_none() -> None:
    sample = next(x for x in SAMPLES if isinstance(x, e.RefundApproved))
    world = world_of(RELEASED[:3], request(at=july(2)), agree(july(2)))
    approved = next(x for x in world.log if isinstance(x.data, e.RefundApproved))
    assert approved.data.cover_fen == 0
    assert messages(approved) == []
    assert [x.key for x in messages(recorded(sample))] == [f"P3/{sample.order_id}/{sample.refund_id}"]


def test_a_message_happened_when_its_event_did() -> None:
    for sample in SAMPLES:
        assert all(x.command.occurred_at == july(2) for x in messages(recorded(sample)))


def test_the_keys_of_messages_are_the_ids_they_happen_once_by() -> None:
    keys = {type(x).__name__: messages(recorded(x))[0].key.partition("/")[0] for x in SAMPLES if type(x) in SPEAKING}
    assert keys == {
        "RefundApproved": "P3", "RefundCovered": "P4", "RefundFunded": "P5", "RefundPayoutFailed": "P5",
        "RefundCancelled": "P6", "RefundRecoveryOpened": "P6",
    }  # fmt: skip


# --- The conversation about a refund -------------------------------------------------------------------------------


def test_a_refund_from_escrow_goes_straight_to_the_provider() -> None:
    world = world_of(placed(), paid(), request(at=july(3)), agree(july(3)))
    assert claim(world) == "instructed"
    assert world.story("merchant-m-1").state.balance_fen == 200


def test_a_refund_after_the_release_is_covered_by_the_deposit_and_instructed() -> None:
    world = world_of(RELEASED, request(at=july(7)), agree(july(7)), deposit_fen=5000)
    assert claim(world) == "instructed"
    assert world.story("merchant-m-1").state.balance_fen == 5000 - 359
    told(world, pay_out(july(8)))
    assert world.balances["liabilities:refund:deposit"] == 0


def test_a_short_refund_is_paid_when_the_merchant_tops_up() -> None:
    world = world_of(RELEASED, request(at=july(7)), agree(july(7)))
    assert claim(world) == "short"
    assert world.story(f"order-{ORDER}").state.claims["r1"].drawn_fen == 200
    told(world, deposit(58, "d2", at=july(8)))
    assert claim(world) == "short"
    told(world, deposit(1, "d3", at=july(9)))
    assert claim(world) == "instructed"
    assert names(world, e.RefundFundingShort) == ["RefundFundingShort"] * 2
    told(world, pay_out(july(10)))


def test_a_short_refund_is_paid_when_the_cap_is_raised() -> None:
    world = world_of(RELEASED, request(at=july(7)), agree(july(7)), raise_cap(159, july(8)))
    assert claim(world) == "instructed"
    assert world.story("merchant-m-1").state.receivable_fen == 159


def test_a_payment_that_failed_is_asked_for_again_with_the_same_key() -> None:
    world = world_of(placed(), paid(), request(at=july(3)), agree(july(3)), fail_payout(july(4)))
    instructed = [x.data for x in world.log if isinstance(x.data, e.RefundInstructed)]
    assert [(x.attempt, x.payment_key) for x in instructed] == [(1, f"{ORDER}/r1"), (2, f"{ORDER}/r1")]


# --- The way back --------------------------------------------------------------------------------------------------


def test_the_cover_of_a_refund_that_is_undone_goes_back_to_the_merchant() -> None:
    world = world_of(TAKEN_BACK, deposit_fen=5000)
    assert claim(world, "arrive") == "instructed"
    told(world, overturn(july(21)), fail_payout(july(22), "arrive"))
    merchant = world.story("merchant-m-1").state
    assert (merchant.balance_fen, merchant.receivable_fen) == (5000, 0)
    assert world.balances["liabilities:cover"] == 0
    assert world.story(f"order-{ORDER}").state.commission_fen == 25


def test_a_refund_recovered_from_the_buyer_gives_the_merchant_back_what_it_gave() -> None:
    world = world_of(TAKEN_BACK, pay_out(july(21), "arrive"), overturn(july(22)), deposit_fen=5000)
    assert claim(world, "arrive") == "recovering"
    assert world.story("merchant-m-1").state.balance_fen == 5000
    assert world.balances["assets:receivable:buyer"] == 1101


def test_a_short_refund_that_is_undone_gives_back_what_it_had_and_asks_for_no_more() -> None:
    world = world_of(TAKEN_BACK, waive(july(21)))
    merchant = world.story("merchant-m-1").state
    assert claim(world, "arrive") == "cancelled"
    assert (merchant.balance_fen, merchant.receivable_fen) == (200, 0)
    told(world, deposit(5000, "d2", at=july(22)))
    assert world.story("merchant-m-1").state.balance_fen == 5200


def test_cover_that_comes_for_a_refund_undone_meanwhile_goes_back() -> None:
    """The buyer waives while the merchant's stream is still being asked."""
    world = world_of(TAKEN_BACK, deposit_fen=5000, carries=False)
    world.ask(waive(july(21)))
    assert claim(world, "arrive") == "approved"
    world.carry()
    check_world(world)
    assert claim(world, "arrive") == "cancelled"
    assert world.story("merchant-m-1").state.balance_fen == 5000


# --- Carried twice, carried late -----------------------------------------------------------------------------------


def carried_in_pieces(pieces: int) -> World:
    world = world_of(RELEASED, request(at=july(7)), agree(july(7)), carries=False)
    for _ in range(pieces):
        for event in list(world.log):
            for message in messages(event):
                world.ask(Ask(message.command, world.now, "policy"), message.key)
        check_world(world)
    return world


def test_a_carrier_that_begins_again_at_the_beginning_changes_nothing() -> None:
    once, often = carried_in_pieces(4), carried_in_pieces(9)
    assert once.log == often.log
    assert once.stories == often.stories


def test_the_domain_takes_a_message_once_even_without_its_key() -> None:
    world = world_of(RELEASED, request(at=july(7)), agree(july(7)), deposit_fen=5000)
    before = list(world.log)
    for event in before:
        for message in messages(event):
            assert world.ask(Ask(message.command, world.now, "policy")).events == []
    assert world.log == before


def test_it_does_not_matter_when_messages_are_carried() -> None:
    steps = [*RELEASED, request(at=july(7)), agree(july(7)), deposit(200, "d2", at=july(8))]
    at_once, at_last = world_of(steps), world_of(steps, carries=False)
    at_last.carry()
    check_world(at_last)
    for world in (at_once, at_last):
        assert claim(world) == "instructed"
    merchant = [x.story("merchant-m-1").state for x in (at_once, at_last)]
    assert merchant[0].balance_fen + merchant[1].receivable_fen == merchant[1].balance_fen + merchant[0].receivable_fen


def test_a_message_that_comes_too_late_is_refused_and_does_no_harm() -> None:
    """The refund was undone between its funding and its instruction."""
    world = world_of(placed(), paid(), parcel(), tick(july(16)), carries=False)
    funded = next(x for x in world.log if isinstance(x.data, e.RefundFunded))
    world.ask(waive(july(17)))
    (message,) = messages(funded)
    assert isinstance(message.command, refunds.InstructRefund)
    assert world.ask(Ask(message.command, july(17), "policy")).rejected == "not_funded"
    check_world(world)
