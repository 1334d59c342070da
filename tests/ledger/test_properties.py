"""Random histories: what holds after every step, whatever happens and in whatever order it is heard of."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.events import NewEvent
from ledger.orders import events as e
from tests.ledger.checks import check_world
from tests.ledger.histories import MOVES, ORDERS, POOR_RULES, Move, Story
from tests.spec import (
    RULES,
    Scenario,
    confirm,
    cover,
    july,
    line,
    paid,
    parcel,
    placed,
    rederived,
    request,
    rules_with,
    scan,
    units,
)

SHAPES, PROMISES = st.integers(0, 4), st.integers(0, 7)
HISTORIES = st.lists(MOVES, max_size=40)


def told(shape: int, promises: int, moves: list[Move], *, checked: bool = False) -> Story:
    """An order is placed and paid, and then anything happens."""
    story = Story()
    story.play(Move(what=0, order=0, a=shape, b=5, c=promises, hours=1))
    story.play(Move(what=2, order=0, a=1, b=0, c=0, hours=1))
    for move in moves:
        story.play(move)
        if checked:
            check_world(story.world)
    story.settle()
    return story


@given(SHAPES, PROMISES, HISTORIES)
def test_money_and_units_add_up_after_every_step_of_every_history(shape: int, promises: int, moves: list[Move]) -> None:
    story = told(shape, promises, moves, checked=True)
    check_world(story.world)
    assert not story.world.has_messages


@given(SHAPES, PROMISES, HISTORIES)
def test_every_stream_folds_to_the_state_that_deciding_left(shape: int, promises: int, moves: list[Move]) -> None:
    world = told(shape, promises, moves).world
    for stream, story in world.stories.items():
        assert world.folded(stream) == story


@given(SHAPES, PROMISES, HISTORIES)
def test_the_facts_of_a_stream_make_its_decisions_again(shape: int, promises: int, moves: list[Move]) -> None:
    world = told(shape, promises, moves).world
    for stream in ("merchant-m-1", *(f"order-{order_id}" for order_id in ORDERS)):
        assert rederived(stream, world.of(stream), POOR_RULES) == world.told(stream)


OPENED_AGAIN = (
    e.DispatchRevised, e.ArrivalRevised, e.PromiseAmended, e.RefundCancelled, e.RefundRecoveryOpened,
    e.RefundedUnitsArrived, e.UnitsRepaid,
)  # fmt: skip
"""What sets a deadline once more."""


@given(SHAPES, PROMISES, HISTORIES)
def test_each_deadline_fires_once(shape: int, promises: int, moves: list[Move]) -> None:
    story = told(shape, promises, moves)
    for order_id in ORDERS:
        fired: set[str] = set()
        for causation, new in firings(story.world.told(f"order-{order_id}")):
            if isinstance(new.data, OPENED_AGAIN):
                fired.clear()
            elif causation:
                assert causation not in fired, causation
                fired.add(causation)
    story.world.tick(july(9999))
    before = len(story.world.log)
    story.world.tick(july(20_000))
    assert len(story.world.log) == before, "nothing is left for the clock to decide"


def firings(events: list[NewEvent]) -> list[tuple[str | None, NewEvent]]:
    """Each event, with the deadline that made it if it is the first that this deadline made."""
    found: list[tuple[str | None, NewEvent]] = []
    before: str | None = None
    for new in events:
        causation = new.causation if new.causation and "/due:" in new.causation else None
        found.append((causation if causation != before else None, new))
        before = causation
    return found


# --- A full refund ------------------------------------------------------------------------------------------------

AT_ONCE = rules_with(refund={"answer": [{"answer_hours": 0}]})
LINES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5000)), min_size=1, max_size=3)


@given(
    LINES, st.integers(0, 300), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), max_size=12), st.booleans()
)
def test_nothing_of_escrow_commission_and_rebate_is_left_after_a_full_refund(
    shape: list[tuple[int, int]], freight_fen: int, refunds: list[tuple[int, int]], is_cainiao: bool
) -> None:
    """Some of it received and released first, then everything comes back in pieces of any size."""
    lines = [line(f"l{n}", count, line_fen) for n, (count, line_fen) in enumerate(shape)]
    total_fen = sum(x.line_fen for x in lines) + freight_fen
    if total_fen == 0:
        return
    story = Scenario(AT_ONCE).given(placed(*lines, freight_fen=freight_fen, promises=[]), paid(total_fen))
    for n, x in enumerate(lines[:2]):
        story.given(parcel(f"p{n}", units(x.line_id, x.units), is_cainiao=is_cainiao or n == 0))
        story.given(scan("delivered", july(3), f"p{n}"), confirm(f"p{n}", at=july(4)))
    everything = [(n % len(lines), count) for n, count in refunds] + [(n, 99) for n in range(len(lines))]
    for number, (n, count) in enumerate(everything):
        free = story.state.lines[f"l{n}"].free_units
        if free:
            refund_id = f"r{number}"
            story.given(request(units(f"l{n}", min(count, free)), at=july(5), refund_id=refund_id))
            cover_fen = story.last(e.RefundApproved).cover_fen
            if cover_fen:
                story.given(cover(cover_fen, july(5), refund_id=refund_id))
    state = story.state
    assert (state.escrow_fen, state.commission_fen, state.rebate_fen) == (0, 0, 0)
    assert state.refunded_fen == total_fen
    left = {account for account in story.balances() if "refund" not in account and "cash" not in account}
    assert left == set(), "only cash, and what is owed to the buyer, is left"


@given(st.integers(1, 9), st.integers(0, 10**6), st.lists(st.integers(1, 4), max_size=9))
def test_releasing_parcel_by_parcel_pays_the_same_as_releasing_at_once(
    count: int, line_fen: int, cuts: list[int]
) -> None:
    story = Scenario(RULES).given(placed(line("a", count, line_fen), freight_fen=7, promises=[]), paid(line_fen + 7))
    left = count
    for number, cut in enumerate([*cuts, count]):
        size = min(cut, left)
        if size:
            left -= size
            story.given(parcel(f"p{number}", units("a", size)), confirm(f"p{number}", at=july(3)))
    assert story.state.escrow_fen == 0
    assert story.state.released_fen == line_fen + 7
    assert sum(x.paid_out_fen for x in story.told(e.EscrowReleased)) == line_fen + 7 - story.state.commission_fen
