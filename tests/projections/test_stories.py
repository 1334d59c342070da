"""Stories remembered between batches."""

from collections.abc import Mapping, Sequence

from ledger.decider import Story, fold
from ledger.events import Recorded
from ledger.streams import decider_of
from projections.stories import Stories
from tests.ledger.histories import Story as History

STREAM = "merchant-m-1"


class Log:
    """Gives out the events of streams, and counts how often it was asked."""

    def __init__(self) -> None:
        self.events = History().world.log
        self.asked: list[list[str]] = []

    def load(self, streams: Sequence[str]) -> Mapping[str, Sequence[Recorded]]:
        self.asked.append(list(streams))
        return {stream: [x for x in self.events if x.stream == stream] for stream in streams}

    def story(self, version: int) -> Story:
        mine = [x for x in self.events if x.stream == STREAM and x.version <= version]
        return fold(decider_of(STREAM), STREAM, mine)


def test_a_new_stream_is_not_looked_up() -> None:
    log = Log()
    found = Stories(log.load, 10).before({STREAM: 1})
    assert found == {STREAM: log.story(0)}
    assert log.asked == []


def test_a_story_is_told_up_to_the_version_before_the_one_asked_for() -> None:
    log = Log()
    assert Stories(log.load, 10).before({STREAM: 4}) == {STREAM: log.story(3)}
    assert log.asked == [[STREAM]]


def test_what_was_kept_is_not_looked_up_again() -> None:
    log = Log()
    stories = Stories(log.load, 10)
    stories.keep([log.story(3)])
    assert stories.before({STREAM: 4}) == {STREAM: log.story(3)}
    assert log.asked == []


def test_a_story_that_is_taken_out_is_not_there_until_it_is_given_back() -> None:
    log = Log()
    stories = Stories(log.load, 10)
    stories.keep([log.story(3)])
    stories.before({STREAM: 4})
    stories.before({STREAM: 4})
    assert log.asked == [[STREAM]]


def test_a_story_at_another_version_is_of_no_use_and_stays() -> None:
    log = Log()
    stories = Stories(log.load, 10)
    stories.keep([log.story(4)])
    assert stories.before({STREAM: 3}) == {STREAM: log.story(2)}
    stories.keep([log.story(3)])
    assert stories.before({STREAM: 5}) == {STREAM: log.story(4)}
    assert log.asked == [[STREAM]]


def test_those_not_needed_for_longest_are_forgotten() -> None:
    log = Log()
    stories = Stories(log.load, 2)
    stories.keep([Story("order-1", None, 1), Story("order-2", None, 1)])
    stories.keep([Story("order-1", None, 2)])
    stories.keep([Story("order-3", None, 1)])
    assert stories.before({"order-1": 3})["order-1"] == Story("order-1", None, 2)
    assert stories.before({"order-3": 2})["order-3"] == Story("order-3", None, 1)
    assert log.asked == []
    stories.before({"order-2": 2})
    assert log.asked == [["order-2"]]


def test_what_cannot_be_told_any_more_is_an_exception() -> None:
    log = Log()
    broken = [x for x in log.events if x.stream == STREAM]
    broken[1] = Recorded(2, STREAM, 2, broken[1].occurred_at, broken[1].received_at, broken[1].recorded_at, object())
    found = Stories(lambda streams: {STREAM: broken}, 10).before({STREAM: 4})
    assert isinstance(found[STREAM], AttributeError)
