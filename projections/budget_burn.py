"""``budget_burn``: how far a year's budget is spent, and what waits for it.  Key: budget (``logistics-2015``)."""

from collections.abc import Iterable

import msgspec

from ledger.budgets import BudgetState
from ledger.decider import Story
from projections.projection import Key, Projection, Row

THRESHOLDS_PERCENT = (80, 95, 100)


class QueuedItem(msgspec.Struct, frozen=True):
    """Spending that waits, first in, first out."""

    spend_id: str
    amount_fen: int


class BudgetBurn(Row):
    """available = authorised - spent.  ``thresholds``: per cent of the authorised money that are spent or promised."""

    budget: str
    authorised_fen: int
    spent_fen: int
    available_fen: int
    queued_fen: int
    queued_items: tuple[QueuedItem, ...]
    thresholds: tuple[int, ...]


def rows(story: Story) -> Iterable[BudgetBurn]:
    """One row, once the budget is authorised."""
    s: BudgetState = story.state
    if s.year == 0:
        return ()
    taken_fen = s.spent_fen + s.queued_fen
    row = BudgetBurn(
        f"{s.budget}-{s.year}", s.authorised_fen, s.spent_fen, s.available_fen, s.queued_fen,
        tuple(QueuedItem(x.spend_id, x.amount_fen) for x in s.queue.values()),
        tuple(x for x in THRESHOLDS_PERCENT if 100 * taken_fen >= x * s.authorised_fen),
    )  # fmt: skip
    return (row,)


def stream_of(key: Key) -> str:
    """The budget's stream."""
    return f"budget-{key[0]}"


projection = Projection(
    "budget_burn", 1, BudgetBurn, ("budget",), frozenset({"budget"}), rows=rows, is_sum=False, stream_of=stream_of
)
