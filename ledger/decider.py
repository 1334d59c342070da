"""One command, in order: fire what has fallen due, decide, react.  Pure: no clock, no chance, no look-ups.

Every kind of stream is a ``Decider``, four pure functions and the deadlines that its state holds:

* ``decide`` — may this actor assert this?  Facts, or ``Rejected``; asked twice gives no facts.
* ``react``  — what the rules make of a fact, in the same transaction.
* ``due``    — what the rules make of a deadline that has come.
* ``evolve`` — the state after an event; never refuses, never computes a rule.

``react`` and ``due`` are generators.  Each decision they yield has been folded into the state before they are
resumed, so what stands below a ``yield`` sees it done, and the code reads in the order in which things happen.
``evolve`` owns the state it is given and may change it in place; whoever needs the old one copies it first.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from ledger.calendar import BEGINNING
from ledger.events import Decision, Fact, NewEvent, Recorded
from ledger.rulebook import Rulebook

BUYER, MERCHANT, AGENCY, CARRIER, PAYMENT = "buyer", "merchant", "agency", "carrier", "payment"
HANDLER, SUPERVISOR, OFFICER, FINANCE = "handler", "supervisor", "officer", "finance"
ADMIN, POLICY, AUDITOR, INTEGRATOR = "admin", "policy", "auditor", "integrator"

ROLES = (
    BUYER, MERCHANT, AGENCY, CARRIER, PAYMENT, HANDLER, SUPERVISOR, OFFICER, FINANCE, ADMIN, POLICY, AUDITOR, INTEGRATOR
)  # fmt: skip
"""Who may ask.  ``policy`` is the ledger itself, carrying a message from one stream to another; ``integrator`` is the
marketplace's own system, which speaks for buyers, merchants and carriers; ``auditor`` reads everything."""


class Rejected(Exception):
    """The command makes no sense here; nothing happened.  ``code`` is stable and documented."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Command(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """What an actor asks for, in the imperative.  ``occurred_at`` is when it says it happened, by default now."""

    roles: ClassVar[frozenset[str]]
    """Who may ask for it."""
    creates: ClassVar[bool] = False
    """It begins its stream, so there is no use in reading it first."""
    opens_term: ClassVar[bool] = False
    """Its event names the rulebook in force, which governs the stream from then on."""
    filled_by_door: ClassVar[frozenset[str]] = frozenset()
    """Fields that the door looks up and fills in, and that no caller may send."""
    approver: ClassVar[str | None] = None
    """The role of the second person who has to approve it, if one has to."""

    occurred_at: datetime | None = None

    @property
    def stream(self) -> str:
        """The stream it is asked of."""
        raise NotImplementedError


class Asked(msgspec.Struct, gc=False):
    """A command as it came through the door, with what the door knows about it."""

    command: Any
    actor: str
    role: str
    received_at: datetime
    approved_by: str | None = None
    source: str | None = None

    @property
    def occurred_at(self) -> datetime:
        """When it happened as the source claims, else when the door received it."""
        claimed: datetime | None = self.command.occurred_at
        return claimed or self.received_at


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """An instant at which the clock will decide something.  One that would decide nothing does not exist."""

    fires_at: datetime
    name: str
    key: str
    holds_from: datetime
    """From when its decisions hold: a promise's due time, else ``fires_at``."""
    owner_role: str
    owner_id: str
    set_by: int
    """The version of the event that set it."""


class At(NamedTuple):
    """A decision that holds from another instant than the fact or deadline that made it."""

    occurred_at: datetime
    decision: Decision


Decisions = Generator[Decision | At, None, None]


class State(Protocol):
    """What every state tells whoever handles commands."""

    rulebook: str | None
    """The id of the rulebook in force for the stream; ``None`` before its first term was opened."""


class Decider(msgspec.Struct, frozen=True):
    """One kind of stream: its name (the prefix of its streams), its pure functions, its commands and events."""

    name: str
    initial: Callable[[], Any]
    decide: Callable[[Any, Asked, Rulebook], Sequence[Fact]]
    react: Callable[[Any, Recorded, Rulebook], Decisions]
    due: Callable[[Any, Deadline, Rulebook], Decisions]
    evolve: Callable[[Any, Recorded], Any]
    deadlines: Callable[[Any], Iterable[Deadline]]
    owner: Callable[[Any, str], str | None]
    """Of a state and a role: the only actor of that role who may ask here, or ``None`` if any may."""
    commands: tuple[type[Command], ...]
    events: tuple[type[Any], ...]
    needs_rules: bool = True
    """Nothing can be decided here before a rulebook is in force."""


class Story(msgspec.Struct, eq=False):
    """A stream folded: its state, its last version, and the latest instant the door or a deadline reached in it."""

    stream: str
    state: Any
    version: int = 0
    latest_at: datetime = BEGINNING
    _deadlines: tuple[Deadline, ...] = ()
    _deadlines_version: int = -1
    """For which version they were worked out."""

    def __eq__(self, other: object) -> bool:
        """What was worked out from the rest makes no difference."""
        return isinstance(other, Story) and self._told == other._told

    @property
    def _told(self) -> tuple[str, Any, int, datetime]:
        return self.stream, self.state, self.version, self.latest_at

    def deadlines(self, decider: "Decider") -> tuple[Deadline, ...]:
        """What the clock will decide, in the order in which it will fire; worked out once a version."""
        if self._deadlines_version != self.version:
            found = list(decider.deadlines(self.state))
            if len(found) > 1:
                found.sort(key=_firing_order)
            self._deadlines = tuple(found)
            self._deadlines_version = self.version
        return self._deadlines

    def next_deadline(self, decider: "Decider") -> Deadline | None:
        """The one that fires first."""
        found = self.deadlines(decider)
        return found[0] if found else None


class Outcome(msgspec.Struct):
    """What came of a command: the new events, in order, and the rejection, if it was rejected.

    Deadlines that fell due are among the events even then."""

    events: list[NewEvent]
    rejected: str | None = None


def fold(decider: Decider, stream: str, events: Iterable[Recorded], story: Story | None = None) -> Story:
    """The story of a stream told from its events, or told on."""
    story = story or Story(stream, decider.initial())
    for event in events:
        story.state = decider.evolve(story.state, event)
        story.version = event.version
        if event.received_at > story.latest_at:
            story.latest_at = event.received_at
    return story


def handle(
    decider: Decider, story: Story, asked: Asked, rules: Mapping[str, Rulebook], current: Rulebook | None
) -> Outcome:
    """Fires what has fallen due, decides the command, reacts to it, and fires what that made due; the story moves on
    with every event.

    ``rules`` are all published rulebooks, ``current`` the one in force when the command was received: a command that
    opens a term, and a stream that has opened none yet, are decided by it.  A command stamped earlier than the latest
    instant of its stream is raised to it."""
    asked.received_at = max(asked.received_at, story.latest_at)
    events = fire(decider, story, asked.received_at, rules)
    rulebook = current if asked.command.opens_term else _rules_of(story, rules, current)
    try:
        if rulebook is None and decider.needs_rules:
            raise Rejected("no_rulebook_in_force")
        _check_role(decider, story, asked)
        facts = decider.decide(story.state, asked, rulebook)  # type: ignore[arg-type]
    except Rejected as rejection:
        return Outcome(events, rejection.code)
    for fact in facts:
        recorded = _tell(decider, story, events, NewEvent(fact, asked.occurred_at, asked.received_at))
        rulebook = _rules_of(story, rules, current)
        if rulebook is not None:
            _decided(decider, story, events, decider.react(story.state, recorded, rulebook), rulebook, recorded)
    events += fire(decider, story, asked.received_at, rules)
    return Outcome(events)


def fire(decider: Decider, story: Story, now: datetime, rules: Mapping[str, Rulebook]) -> list[NewEvent]:
    """Fires every deadline of the stream that has come by ``now``, in the order of (instant, name, key).

    One that lies before the latest instant of the stream (a fact recorded late may set it) is decided at that one."""
    events: list[NewEvent] = []
    while (deadline := story.next_deadline(decider)) and deadline.fires_at <= now:
        rulebook = rules[story.state.rulebook]
        before = len(events)
        _decided(decider, story, events, decider.due(story.state, deadline, rulebook), rulebook, deadline)
        if len(events) == before:
            raise AssertionError(f"deadline {deadline.name}/{deadline.key} of {story.stream} decided nothing")
    return events


def _firing_order(deadline: Deadline) -> tuple[datetime, str, str]:
    return deadline.fires_at, deadline.name, deadline.key


def _rules_of(story: Story, rules: Mapping[str, Rulebook], current: Rulebook | None) -> Rulebook | None:
    named: str | None = story.state.rulebook
    return rules[named] if named else current


def _check_role(decider: Decider, story: Story, asked: Asked) -> None:
    command = asked.command
    if asked.role not in command.roles and not (asked.role == INTEGRATOR and command.roles & _SPOKEN_FOR):
        raise Rejected("not_allowed")
    owner = decider.owner(story.state, asked.role)
    if owner is not None and owner != asked.actor:
        raise Rejected("not_allowed")
    if command.approver:
        if asked.approved_by is None:
            raise Rejected("approval_missing")
        if asked.approved_by == asked.actor:
            raise Rejected("same_approver")


_SPOKEN_FOR = frozenset({BUYER, MERCHANT, CARRIER})


def _decided(
    decider: Decider,
    story: Story,
    events: list[NewEvent],
    decisions: Decisions,
    rulebook: Rulebook,
    cause: Recorded | Deadline,
) -> None:
    if isinstance(cause, Deadline):
        holds_from, decided_at = cause.holds_from, max(cause.fires_at, story.latest_at)
        causation = f"{story.stream}/due:{cause.name}/{cause.key}"
    else:
        holds_from, decided_at, causation = cause.occurred_at, cause.received_at, cause.event_id
    for made in decisions:
        occurred_at, decision = made if isinstance(made, At) else (holds_from, made)
        rule = f"{rulebook.rulebook}/{decision.rule}"
        _tell(decider, story, events, NewEvent(decision, occurred_at, decided_at, rule, causation))


def _tell(decider: Decider, story: Story, events: list[NewEvent], new: NewEvent) -> Recorded:
    """Adds an event to the story.  Its position and ``recorded_at`` are not known yet, and no state looks at them."""
    events.append(new)
    story.version += 1
    recorded = Recorded(0, story.stream, story.version, new.occurred_at, new.received_at, new.received_at, new.data)
    story.state = decider.evolve(story.state, recorded)
    if new.received_at > story.latest_at:
        story.latest_at = new.received_at
    return recorded
