"""``programme-rulebook``: the rules, published as versioned data in the log itself.

A rulebook is published ``programme.notice_days`` before it takes effect (the first one excepted) and never changes;
one that has not taken effect yet can be withdrawn.  Which one is in force at an instant is read from here.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from ledger.calendar import add_days
from ledger.decider import ADMIN, SUPERVISOR, Asked, Command, Deadline, Decider, Decisions, Rejected
from ledger.events import Fact, Recorded
from ledger.rulebook import Rulebook, rulebook_of, sha256_of

STREAM = "programme-rulebook"


class RulebookPublished(Fact, frozen=True, kw_only=True):
    """A rulebook with all its parameters; immutable from here on."""

    rulebook: str
    effective_from_at: datetime
    body: dict[str, Any]
    body_sha256: str
    approved_by: str


class RulebookWithdrawn(Fact, frozen=True, kw_only=True):
    """A rulebook that will not take effect."""

    rulebook: str
    reason: str


FACTS: tuple[type[Fact], ...] = (RulebookPublished, RulebookWithdrawn)


class RulebookState(msgspec.Struct):
    """Every published rulebook by id; withdrawn ones stay known, so that their ids are never taken again."""

    rulebook: str | None = None
    rules: dict[str, Rulebook] = msgspec.field(default_factory=dict)
    withdrawn: set[str] = msgspec.field(default_factory=set)

    def in_force(self, at: datetime) -> Rulebook | None:
        """The rulebook that took effect last, ``None`` before the first."""
        found: Rulebook | None = None
        for name, rules in self.rules.items():
            is_effective = name not in self.withdrawn and rules.effective_from_at <= at
            if is_effective and (found is None or rules.effective_from_at > found.effective_from_at):
                found = rules
        return found


class PublishRulebook(Command, frozen=True, kw_only=True):
    """Publish a rulebook; a supervisor approves.  ``body`` is the whole of it, as in ``rulebooks/*.yaml``.

    Refused: ``bad_rulebook`` (a parameter is missing or of the wrong type), ``notice_too_short``, ``id_taken``,
    ``same_approver``."""

    roles = frozenset({ADMIN})
    approver = SUPERVISOR
    body: dict[str, Any]

    @property
    def stream(self) -> str:
        """``programme-rulebook``."""
        return STREAM


class WithdrawRulebook(Command, frozen=True, kw_only=True):
    """Withdraw a rulebook before it takes effect.  Refused: ``unknown_rulebook``, ``already_effective``."""

    roles = frozenset({ADMIN})
    rulebook: str
    reason: str

    @property
    def stream(self) -> str:
        """``programme-rulebook``."""
        return STREAM


def decide(s: RulebookState, asked: Asked, rules: Rulebook) -> list[Fact]:
    """May this actor assert this?"""
    if isinstance(asked.command, PublishRulebook):
        return _publish(s, asked.command, asked)
    return _withdraw(s, asked.command, asked)


def _publish(s: RulebookState, c: PublishRulebook, asked: Asked) -> list[Fact]:
    try:
        rules = rulebook_of(c.body)
    except msgspec.ValidationError:
        raise Rejected("bad_rulebook") from None
    before = s.rules.get(rules.rulebook)
    if before and before.sha256 == rules.sha256 and rules.rulebook not in s.withdrawn:
        return []
    in_force = s.in_force(asked.received_at)
    if in_force and rules.effective_from_at < add_days(asked.received_at, in_force.programme.notice_days):
        raise Rejected("notice_too_short")
    if before:
        raise Rejected("id_taken")
    return [
        RulebookPublished(
            rulebook=rules.rulebook, effective_from_at=rules.effective_from_at, body=c.body,
            body_sha256=sha256_of(c.body), approved_by=asked.approved_by or "",
        )
    ]  # fmt: skip


def _withdraw(s: RulebookState, c: WithdrawRulebook, asked: Asked) -> list[Fact]:
    published = s.rules.get(c.rulebook)
    if published is None:
        raise Rejected("unknown_rulebook")
    if c.rulebook in s.withdrawn:
        return []
    if published.effective_from_at <= asked.received_at:
        raise Rejected("already_effective")
    return [RulebookWithdrawn(rulebook=c.rulebook, reason=c.reason)]


def react(s: RulebookState, event: Recorded, rules: Rulebook) -> Decisions:
    """Publishing decides nothing by itself."""
    yield from ()


def due(s: RulebookState, deadline: Deadline, rules: Rulebook) -> Decisions:
    """No deadline stands here."""
    yield from ()


def deadlines(s: RulebookState) -> Iterable[Deadline]:
    """None."""
    return ()


def evolve(s: RulebookState, event: Recorded) -> RulebookState:
    """The state after an event."""
    _EVOLVE[type(event.data)](s, event, event.data)
    return s


def _published(s: RulebookState, event: Recorded, d: RulebookPublished) -> None:
    s.rules[d.rulebook] = rulebook_of(d.body)


def _withdrawn(s: RulebookState, event: Recorded, d: RulebookWithdrawn) -> None:
    s.withdrawn.add(d.rulebook)


_EVOLVE: dict[type, Callable[[RulebookState, Recorded, Any], None]] = {
    RulebookPublished: _published,
    RulebookWithdrawn: _withdrawn,
}


def owner(s: RulebookState, role: str) -> str | None:
    """Any administrator."""
    return None


DECIDER = Decider(
    name="programme",
    initial=RulebookState,
    decide=decide,
    react=react,
    due=due,
    evolve=evolve,
    deadlines=deadlines,
    owner=owner,
    commands=(PublishRulebook, WithdrawRulebook),
    events=FACTS,
    needs_rules=False,
)
