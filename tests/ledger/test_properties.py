"""Random histories: what holds after every step, whatever happens and in whatever order it is heard of."""

from hypothesis import given
from hypothesis import strategies as st

from tests.ledger.checks import check_world
from tests.ledger.histories import MOVES, ORDERS, POOR_RULES, Move, Story
from tests.spec import rederived

BEGIN = [Move(0, 0, a=0, b=5, c=5, hours=1), Move(2, 0, a=1, b=0, c=0, hours=1)]


@given(shape=st.integers(0, 4), promises=st.integers(0, 7), moves=st.lists(MOVES, max_size=40))
def test_money_and_units_add_up_after_every_step_of_every_history(shape: int, promises: int, moves: list[Move]) -> None:
    story = Story()
    story.play(BEGIN[0]._replace(a=shape, c=promises))
    story.play(BEGIN[1])
    for move in moves:
        story.play(move)
        check_world(story.world)
    story.settle()
    check_world(story.world)
    assert not story.world.has_messages
    for stream in story.world.stories:
        events = story.world.of(stream)
        assert story.world.folded(stream) == story.world.stories[stream], "folding again gives the same state"
        if not stream.startswith("programme"):
            assert rederived(stream, events, POOR_RULES) == story.world.told(stream), "the rules make it again"
