"""``budget-<name>-<year>``: what the programme may spend on quality, marketing and logistics in a year.

    none → open ⇄ exhausted

Spending is granted whole and strictly in the order of request; the first item that does not fit blocks those behind
it until a top-up.  Nothing is ever denied for lack of budget: it waits in the queue.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import msgspec

from ledger.decider import FINANCE, POLICY, SUPERVISOR, Asked, Command, Deadline, Decider, Decisions, Rejected
from ledger.events import Decision, Fact, Recorded
from ledger.merchants import RulebookRef
from ledger.rulebook import Rulebook

Budget = Literal["quality", "marketing", "logistics"]
Purpose = Literal["inspection", "statement", "marketing"]


class BudgetFact(Fact, frozen=True, kw_only=True):
    budget: Budget
    year: int


class BudgetDecision(Decision, frozen=True, kw_only=True):
    budget: Budget
    year: int


class BudgetAuthorised(BudgetFact, frozen=True, kw_only=True):
    """The year's money is there."""

    authorised_fen: int
    approved_by: str
    terms: RulebookRef


class BudgetToppedUp(BudgetFact, frozen=True, kw_only=True):
    """More money for the year; the queue moves."""

    amount_fen: int
    reason: str
    approved_by: str


class SpendRequested(BudgetFact, frozen=True, kw_only=True):
    """Somebody needs money of the budget."""

    spend_id: str
    purpose: Purpose
    ref: str
    amount_fen: int


class SpendReturned(BudgetFact, frozen=True, kw_only=True):
    """Money that was spent comes back."""

    spend_id: str
    amount_fen: int
    reason: str


class BudgetSpent(BudgetDecision, frozen=True, kw_only=True):
    """The item is granted."""

    rule: ClassVar[str] = "budgets"
    spend_id: str
    purpose: Purpose
    ref: str
    amount_fen: int


class SpendQueued(BudgetDecision, frozen=True, kw_only=True):
    """The item does not fit, or waits behind one that does not."""

    rule: ClassVar[str] = "budgets"
    spend_id: str
    purpose: Purpose
    ref: str
    amount_fen: int


FACTS: tuple[type[Fact], ...] = (BudgetAuthorised, BudgetToppedUp, SpendRequested, SpendReturned)
DECISIONS: tuple[type[Decision], ...] = (BudgetSpent, SpendQueued)


class BudgetState(msgspec.Struct):
    """A year's budget: ``authorised_fen`` with top-ups, ``spent_fen`` less returns, and what waits, in order."""

    rulebook: str | None = None
    budget: str = ""
    year: int = 0
    authorised_fen: int = 0
    spent_fen: int = 0
    spent: dict[str, int] = msgspec.field(default_factory=dict)
    queue: dict[str, SpendRequested] = msgspec.field(default_factory=dict)
    asked: dict[str, Fact] = msgspec.field(default_factory=dict)

    @property
    def available_fen(self) -> int:
        """What can still be spent."""
        return self.authorised_fen - self.spent_fen

    @property
    def queued_fen(self) -> int:
        """What waits."""
        return sum(x.amount_fen for x in self.queue.values())


class BudgetCommand(Command, frozen=True, kw_only=True):
    """A command to one budget."""

    budget: Budget
    year: int

    @property
    def stream(self) -> str:
        """``budget-<name>-<year>``."""
        return f"budget-{self.budget}-{self.year}"


class AuthoriseBudget(BudgetCommand, frozen=True, kw_only=True):
    """Authorise a year's budget; a supervisor approves.  Refused: ``wrong_state``, ``wrong_amount``,
    ``same_approver``."""

    roles = frozenset({FINANCE})
    opens_term = True
    approver = SUPERVISOR
    authorised_fen: int


class TopUpBudget(BudgetCommand, frozen=True, kw_only=True):
    """Add to a budget; a supervisor approves.  Refused: ``unknown_stream``, ``wrong_amount``, ``same_approver``."""

    roles = frozenset({FINANCE})
    approver = SUPERVISOR
    amount_fen: int
    reason: str


class RequestSpend(BudgetCommand, frozen=True, kw_only=True):
    """Ask for money of a budget.  Refused: ``unknown_stream``, ``wrong_amount``, ``id_reused``."""

    roles = frozenset({POLICY, FINANCE})
    spend_id: str
    purpose: Purpose
    ref: str
    amount_fen: int


class ReturnSpend(BudgetCommand, frozen=True, kw_only=True):
    """Give money back to a budget.  Refused: ``unknown_stream``, ``more_than_spent``."""

    roles = frozenset({POLICY, FINANCE})
    spend_id: str
    amount_fen: int
    reason: str


def decide(s: BudgetState, asked: Asked, rules: Rulebook) -> list[Fact]:
    """May this actor assert this?"""
    c = asked.command
    if isinstance(c, AuthoriseBudget):
        return _authorise(s, c, asked, rules)
    if not s.budget:
        raise Rejected("unknown_stream")
    if c.amount_fen <= 0:
        raise Rejected("wrong_amount")
    if isinstance(c, TopUpBudget):
        return [
            BudgetToppedUp(
                budget=c.budget, year=c.year, amount_fen=c.amount_fen, reason=c.reason,
                approved_by=asked.approved_by or "",
            )
        ]  # fmt: skip
    if isinstance(c, RequestSpend):
        return _request(s, c)
    if c.amount_fen > s.spent.get(c.spend_id, 0):
        raise Rejected("more_than_spent")
    return [SpendReturned(budget=c.budget, year=c.year, spend_id=c.spend_id, amount_fen=c.amount_fen, reason=c.reason)]


def _authorise(s: BudgetState, c: AuthoriseBudget, asked: Asked, rules: Rulebook) -> list[Fact]:
    if s.budget:
        raise Rejected("wrong_state")
    if c.authorised_fen <= 0:
        raise Rejected("wrong_amount")
    terms = RulebookRef(rulebook=rules.rulebook, rulebook_sha256=rules.sha256)
    return [
        BudgetAuthorised(
            budget=c.budget, year=c.year, authorised_fen=c.authorised_fen, approved_by=asked.approved_by or "",
            terms=terms,
        )
    ]  # fmt: skip


def _request(s: BudgetState, c: RequestSpend) -> list[Fact]:
    fact = SpendRequested(
        budget=c.budget, year=c.year, spend_id=c.spend_id, purpose=c.purpose, ref=c.ref, amount_fen=c.amount_fen
    )
    before = s.asked.get(c.spend_id)
    if before is not None and before != fact:
        raise Rejected("id_reused")
    return [] if before else [fact]


def react(s: BudgetState, event: Recorded, rules: Rulebook) -> Decisions:
    """Grants what fits, in order; what does not fit waits."""
    d = event.data
    if isinstance(d, SpendRequested) and (len(s.queue) > 1 or d.amount_fen > s.available_fen):
        yield SpendQueued(
            budget=d.budget, year=d.year, spend_id=d.spend_id, purpose=d.purpose, ref=d.ref, amount_fen=d.amount_fen
        )
    for item in list(s.queue.values()):
        if item.amount_fen > s.available_fen:
            return
        yield BudgetSpent(
            budget=item.budget, year=item.year, spend_id=item.spend_id, purpose=item.purpose, ref=item.ref,
            amount_fen=item.amount_fen,
        )  # fmt: skip


def due(s: BudgetState, deadline: Deadline, rules: Rulebook) -> Decisions:
    """No deadline stands here."""
    yield from ()


def deadlines(s: BudgetState) -> Iterable[Deadline]:
    """None."""
    return ()


def evolve(s: BudgetState, event: Recorded) -> BudgetState:
    """The state after an event."""
    _EVOLVE[type(event.data)](s, event, event.data)
    return s


def _authorised(s: BudgetState, event: Recorded, d: BudgetAuthorised) -> None:
    s.budget, s.year, s.rulebook = d.budget, d.year, d.terms.rulebook
    s.authorised_fen += d.authorised_fen


def _topped_up(s: BudgetState, event: Recorded, d: BudgetToppedUp) -> None:
    s.authorised_fen += d.amount_fen


def _requested(s: BudgetState, event: Recorded, d: SpendRequested) -> None:
    s.asked[d.spend_id] = d
    s.queue[d.spend_id] = d


def _returned(s: BudgetState, event: Recorded, d: SpendReturned) -> None:
    s.spent_fen -= d.amount_fen
    s.spent[d.spend_id] = s.spent.get(d.spend_id, 0) - d.amount_fen


def _spent(s: BudgetState, event: Recorded, d: BudgetSpent) -> None:
    s.spent_fen += d.amount_fen
    s.spent[d.spend_id] = s.spent.get(d.spend_id, 0) + d.amount_fen
    s.queue.pop(d.spend_id, None)


def _queued(s: BudgetState, event: Recorded, d: SpendQueued) -> None:
    pass


_EVOLVE: dict[type, Callable[[BudgetState, Recorded, Any], None]] = {
    BudgetAuthorised: _authorised,
    BudgetToppedUp: _topped_up,
    SpendRequested: _requested,
    SpendReturned: _returned,
    BudgetSpent: _spent,
    SpendQueued: _queued,
}


def owner(s: BudgetState, role: str) -> str | None:
    """Any finance person."""
    return None


DECIDER = Decider(
    name="budget",
    initial=BudgetState,
    decide=decide,
    react=react,
    due=due,
    evolve=evolve,
    deadlines=deadlines,
    owner=owner,
    commands=(AuthoriseBudget, TopUpBudget, RequestSpend, ReturnSpend),
    events=FACTS + DECISIONS,
)
