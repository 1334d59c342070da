"""Folding in memory: all at once, piece by piece, as it was; and rows as lines."""

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.decider import fold
from ledger.events import Recorded
from ledger.streams import decider_of
from projections import PROJECTIONS, replay
from projections.projection import Projection
from projections.replay import FoldFailed, Singles, Telling, as_of, digest, fold_rows, lines
from projections.sums import Sums
from tests.ledger.histories import MOVES, Move
from tests.ledger.histories import Story as History
from tests.projections import toys
from tests.projections.toys import EVERYTHING, LENGTHS, PLACED, Everything, Part, Placed, named

HISTORIES = st.lists(MOVES, max_size=60)
T = datetime(2015, 7, 15, 16, tzinfo=UTC)


def log_of(moves: Sequence[Move]) -> list[Recorded]:
    history = History()
    for move in moves:
        history.play(move)
    return history.world.log


def cut(events: Sequence[Recorded], chance: Random) -> list[Sequence[Recorded]]:
    """The same events in pieces of any size."""
    cuts = sorted(chance.sample(range(len(events) + 1), min(len(events), 7)))
    return [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]


def digests(events: Sequence[Sequence[Recorded]], projections: dict[str, Projection]) -> dict[str, str]:
    rows = fold_rows(events, projections)
    return {name: digest(x, replay.shown(x, rows[name])) for name, x in projections.items()}


@given(HISTORIES, st.randoms(use_true_random=False))
def test_the_pieces_in_which_events_come_do_not_matter(moves: list[Move], chance: Random) -> None:
    events = log_of(moves)
    assert digests(cut(events, chance), PROJECTIONS) == digests([events], PROJECTIONS)


@given(HISTORIES, st.randoms(use_true_random=False))
def test_the_order_of_read_models_does_not_matter(moves: list[Move], chance: Random) -> None:
    events = log_of(moves)
    names = list(PROJECTIONS)
    chance.shuffle(names)
    assert digests([events], {name: PROJECTIONS[name] for name in names}) == digests([events], PROJECTIONS)


@given(HISTORIES)
def test_stories_that_are_ended_early_give_the_same_rows(moves: list[Move]) -> None:
    events = log_of(moves)
    telling = Telling(PROJECTIONS, {event.stream: event.version for event in events})
    telling.tell(events)
    assert not telling.stories
    assert telling.rows() == fold_rows([events], PROJECTIONS)


@given(HISTORIES, st.data())
def test_as_of_a_position_is_the_beginning_of_the_log(moves: list[Move], data: st.DataObject) -> None:
    events = log_of(moves)
    position = data.draw(st.integers(0, len(events) + 1))
    [left] = as_of([events], position=position)
    assert list(left) == events[:position]
    assert fold_rows([left], PROJECTIONS) == fold_rows([events[:position]], PROJECTIONS)


@given(HISTORIES, st.data())
def test_as_recorded_is_a_beginning_of_the_log_strictly_before_the_instant(
    moves: list[Move], data: st.DataObject
) -> None:
    events = log_of(moves)
    instant = data.draw(st.sampled_from(events)).recorded_at
    [left] = as_of([events], recorded_before=instant)
    assert list(left) == events[: len(left)]
    assert all(event.recorded_at >= instant for event in events[len(left) :])


@given(HISTORIES, st.data())
def test_as_occurred_every_fold_accepts_a_log_with_events_missing(moves: list[Move], data: st.DataObject) -> None:
    events = log_of(moves)
    instant = data.draw(st.sampled_from(events)).occurred_at
    kept = [event for event in events if event.occurred_at < instant]
    assert digests(list(as_of([events], occurred_before=instant)), PROJECTIONS) == digests([kept], PROJECTIONS)


@given(HISTORIES)
@settings(max_examples=30)
def test_rows_hold_no_part_of_the_state_that_changes_later(moves: list[Move]) -> None:
    stories = {}
    for event in log_of(moves):
        decider = decider_of(event.stream)
        story = stories.get(event.stream) or fold(decider, event.stream, ())
        readers = [x for x in PROJECTIONS.values() if x.rows and decider.name in x.streams and story.version]
        before = [list(x.rows(story)) for x in readers if x.rows]
        written = msgspec.json.encode(before)
        stories[event.stream] = fold(decider, event.stream, (event,), story)
        assert msgspec.json.encode(before) == written


def test_a_fold_that_raises_names_its_read_model_and_the_event() -> None:
    events = log_of([])
    first = next(event for event in events if event.stream.startswith("merchant"))
    broken = msgspec.structs.replace(LENGTHS, name="broken", rows=lambda story: 1 // 0)
    with pytest.raises(FoldFailed, match=r"broken at merchant-m-1@\d+: ZeroDivisionError"):
        fold_rows([events], named(broken, PLACED))
    raising = msgspec.structs.replace(
        LENGTHS, name="raising", rows=None, is_sum=True, contributions=lambda event: 1 // 0, row=Placed
    )
    with pytest.raises(FoldFailed) as failed:
        fold_rows([events], named(PLACED, raising))
    assert failed.value.names == ["raising"]
    assert (failed.value.stream, failed.value.version) == (first.stream, first.version)


# --- adding up --------------------------------------------------------------------------------------------------------

PLACED_ROWS = st.lists(
    st.builds(
        Placed, st.sampled_from(["m-1", "m-2"]), st.integers(-2, 2),
        st.dictionaries(st.sampled_from("abc"), st.integers(-2, 2)),
    )
)  # fmt: skip


@given(PLACED_ROWS, PLACED_ROWS)
def test_what_is_added_and_taken_away_again_is_not_there(rows: list[Placed], more: list[Placed]) -> None:
    sums, expected = Sums(PLACED), Sums(PLACED)
    expected.add(more)
    sums.add(rows)
    sums.add(more)
    sums.subtract(rows)
    assert sums.rows() == expected.rows()
    assert set(sums.keys()) == set(sums.rows())


@given(PLACED_ROWS, PLACED_ROWS)
def test_sums_of_sums_are_the_sums_of_all(rows: list[Placed], more: list[Placed]) -> None:
    one, other, both = Sums(PLACED), Sums(PLACED), Sums(PLACED)
    one.add(rows)
    other.add(more)
    one.merge(other)
    both.add([*rows, *more])
    assert msgspec.json.encode(list(one.rows().items())) == msgspec.json.encode(list(both.rows().items()))


def test_mappings_are_added_entry_by_entry_and_lose_their_zeros() -> None:
    sums = Sums(PLACED)
    sums.add([Placed("m-1", 1, {"b": 2, "a": 1}), Placed("m-1", 1, {"b": -2, "c": 5})])
    assert list(sums.rows()[("m-1",)].by_region.items()) == [("a", 1), ("c", 5)]  # type: ignore[attr-defined]


def test_a_row_of_zeros_alone_does_not_exist() -> None:
    sums = Sums(PLACED)
    sums.add([Placed("m-1", 1, {"a": 1}), Placed("m-1", -1, {"a": -1}), Placed("m-2", 0, {})])
    assert sums.rows() == {}


def test_what_is_no_number_cannot_be_added_up() -> None:
    with pytest.raises(TypeError, match="word"):
        Sums(msgspec.structs.replace(EVERYTHING, key=()))


# --- lines ------------------------------------------------------------------------------------------------------------

ROW = Everything(
    "包换/é", -5, date(2015, 7, 16), T, True, None, None, None, datetime(2015, 7, 15, 16, 0, 0, 120, UTC),
    (Part(T, ("x", '"')), Part(None)), None, {"2015-07": 3},
)  # fmt: skip
LINE = (
    '{"word":"包换/é","number":-5,"day":"2015-07-16","at":"2015-07-15T16:00:00.000000Z","is_true":true,'
    '"maybe_word":null,"maybe_number":null,"maybe_day":null,"maybe_at":"2015-07-15T16:00:00.000120Z",'
    '"parts":[{"at":"2015-07-15T16:00:00.000000Z","words":["x","\\""]},{"at":null,"words":[]}],"part":null,'
    '"amounts":{"2015-07":3}}\n'
)


def test_a_row_is_one_line_of_json() -> None:
    assert b"".join(lines(EVERYTHING, [ROW])).decode() == LINE


def test_text_that_looks_like_an_instant_is_left_alone() -> None:
    [line] = lines(EVERYTHING, [msgspec.structs.replace(ROW, word="2015-07-15T16:00:00Z")])
    assert line.startswith(b'{"word":"2015-07-15T16:00:00Z",')


def test_rows_are_ordered_by_their_keys_and_text_by_its_bytes() -> None:
    words = ["z", "a", "é", "Z", "ab", "a-", "𝄞", "\uffee", ""]
    rows = {(word, n): msgspec.structs.replace(ROW, word=word, number=n) for word in words for n in (10, 9)}
    shown = [(x.word, x.number) for x in replay.shown(EVERYTHING, rows)]  # type: ignore[attr-defined]
    assert shown == sorted(shown, key=lambda key: (key[0].encode(), key[1]))


def test_years_have_four_digits() -> None:
    assert replay.instant(datetime(1, 2, 3, tzinfo=UTC)) == "0001-02-03T00:00:00.000000Z"
    assert replay.instant(datetime(1000, 1, 1, 1, 1, 1, 1, UTC)) == "1000-01-01T01:01:01.000001Z"


def test_a_digest_is_that_of_the_lines() -> None:
    import hashlib

    assert digest(EVERYTHING, [ROW]) == hashlib.sha256(LINE.encode()).hexdigest()
    assert digest(EVERYTHING, []) == hashlib.sha256(b"").hexdigest()


DIGESTS = """
from benchmarks.orders_log import OrdersLog
from ledger.events import Recorded
from projections import PROJECTIONS, replay
from tests.projections.logs import orders
events = []
for append in orders(1_500):
    for version, new in enumerate(append.events, append.expected_version + 1):
        events.append(Recorded(len(events) + 1, append.stream, version, new.occurred_at, new.received_at,
                               new.received_at, new.data))
rows = replay.fold_rows([events], PROJECTIONS)
print({name: replay.digest(x, replay.shown(x, rows[name])) for name, x in PROJECTIONS.items()})
"""


def test_digests_do_not_depend_on_the_seed_of_hashes() -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", DIGESTS], env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(toys.HERE.parent.parent)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }  # fmt: skip
    assert len(answers) == 1
    assert "order_status" in answers.pop()


def test_rows_that_belong_to_one_stream_are_handed_over_once() -> None:
    singles = Singles(LENGTHS)
    singles.add([toys.Length("order-1", 3)])
    assert len(singles) == 1
    assert singles.take() == [toys.Length("order-1", 3)]
    assert singles.rows() == {}
