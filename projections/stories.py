"""The stories of streams, remembered from one batch to the next."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ledger.decider import Story, fold
from ledger.events import Recorded
from ledger.streams import decider_of


class Stories:
    """The stories of streams at the versions they were last told to; those not needed for longest are forgotten.

    A version says all: a story at version 7 is the fold of seven events, whoever moves which checkpoint meanwhile."""

    def __init__(self, load: Callable[[Sequence[str]], Mapping[str, Sequence[Recorded]]], limit: int) -> None:
        """``load``: the events of streams, from the log; ``limit``: how many stories are remembered."""
        self._load, self._limit = load, limit
        self._stories: OrderedDict[str, Story] = OrderedDict()

    def before(self, firsts: Mapping[str, int]) -> dict[str, Story | Exception]:
        """Stream and version -> its story just before that version, taken out of here: give it back told on.

        What cannot be told any more is the exception that says why."""
        found: dict[str, Story | Exception] = {}
        missing = []
        for stream, first in firsts.items():
            story = self._stories.get(stream)
            if story is not None and story.version == first - 1:
                found[stream] = self._stories.pop(stream)
            elif first == 1:
                found[stream] = Story(stream, decider_of(stream).initial())
            else:
                missing.append(stream)
        for stream, events in (self._load(missing) if missing else {}).items():
            found[stream] = _told(stream, [event for event in events if event.version < firsts[stream]])
        return found

    def keep(self, stories: Iterable[Story]) -> None:
        """Remembers stories, unless one is known that goes further."""
        for story in stories:
            known = self._stories.get(story.stream)
            if known is None or known.version < story.version:
                self._stories[story.stream] = story
                self._stories.move_to_end(story.stream)
        while len(self._stories) > self._limit:
            self._stories.popitem(last=False)


def _told(stream: str, events: Sequence[Recorded]) -> Story | Exception:
    try:
        return fold(decider_of(stream), stream, events)
    except Exception as error:
        return error
