"""Logs to fold: orders as they happen, and random histories, legal and illegal."""

from collections.abc import Iterable, Sequence
from itertools import islice

from benchmarks.orders_log import BEGINNING, OrdersLog
from ledger.events import NewEvent, Recorded
from ledger.store import Append, Appended, Store
from tests.ledger.histories import Move, Story


def AT_ONCE() -> object:  # noqa: N802 - it is a clock that stands
    """A writer's clock so early that everything is recorded when it is received."""
    return BEGINNING


def orders(events: int, seed: int = 1, *, a_day: int = 250, merchants: int = 5) -> list[Append]:
    """About so many events of orders."""
    return list(OrdersLog(seed, merchants=merchants, orders_a_day=a_day).appends(events))


def written(store: Store, appends: Sequence[Append]) -> int:
    """Appends and returns the end of the log."""
    position = store.head().position
    left = iter(appends)
    while batch := list(islice(left, 1_000)):
        for answer in store.append(*batch):
            assert isinstance(answer, Appended), answer
            position = answer.position
    return position


def random_history(moves: Iterable[Move]) -> list[Append]:
    """What comes of moves by a buyer, a merchant, a carrier and the rest, as appends of one event each."""
    story = Story()
    for move in moves:
        story.play(move)
    return [_append(recorded, new) for recorded, new in zip(story.world.log, story.world.envelopes, strict=True)]


def _append(recorded: Recorded, new: NewEvent) -> Append:
    return Append(recorded.stream, recorded.version - 1, [new], "a", "integrator", None, None, recorded.stream)
