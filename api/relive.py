"""History relived: a virtual door whose clock moves from fact to fact, so that years are recorded as if they had been
lived.  Facts are received in order, deadlines fire when they fell due, messages between streams are carried at once.

For imports, demonstrations and benchmarks: one thread decides; large batches are written behind its back if the store
writes apart.  The same log comes out whether it ran through or was killed and run again: what is recorded is read back
first, and a fact whose key is known is passed over.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from api.commands import body_sha256
from ledger import programme
from ledger.decider import POLICY, Asked, Command, Story, fire, fold, handle
from ledger.events import NewEvent, Recorded
from ledger.merchants import MerchantState
from ledger.orders.placing import PlaceOrder
from ledger.policies import SPEAKING, messages
from ledger.programme import RulebookState
from ledger.store import Answer, Append, Store, StoreError
from ledger.streams import decider_of

BATCH = 4_000
"""Appends in one transaction."""


class Timed(msgspec.Struct, frozen=True, gc=False):
    """A command, and when the door receives it."""

    received_at: datetime
    command: Command
    key: str
    actor: str
    role: str
    approved_by: str | None = None
    is_last: bool = False
    """No later fact speaks of its stream, so that its story may be forgotten when it holds no deadline and no answer
    to it is awaited."""


class Tally(msgspec.Struct):
    """What came of it."""

    accepted: int = 0
    known: int = 0
    events: int = 0
    rejected: dict[str, int] = msgspec.field(default_factory=dict)
    """Rejections by ``<Command>: <code>``."""


Responder = Callable[[Recorded], Iterable[Timed]]


class Relive:
    """A virtual door to one ledger.  ``origin`` begins the correlation id of everything it appends.

    ``respond`` is the world outside: what it does when it sees an event, now or later (a payment provider's answer).
    It is told of every event, those that were recorded before included, and has to answer each in the same way again.
    The store's own clock must not be ahead of the facts, else they are recorded at its time."""

    def __init__(self, store: Store, origin: str, respond: Responder | None = None) -> None:
        self.store, self.tally = store, Tally()
        self._origin, self._respond = origin, respond
        self._stories: dict[str, Story] = {}
        self._finished: set[str] = set()
        self._forgotten: set[str] = set()
        self._awaited: Counter[str] = Counter()
        self._due: list[tuple[datetime, str]] = []
        self._noted: dict[str, datetime] = {}
        self._answers: list[tuple[datetime, int, Timed]] = []
        self._count = 0
        self._messages: deque[Recorded] = deque()
        self._batch: list[Append] = []
        self._written: Callable[[], Sequence[Answer]] = list
        self._known: set[str] = set()
        self._rulebooks = RulebookState()

    def __enter__(self) -> "Relive":
        self._read_back()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.flush()
        else:
            self._wait_for_writer()

    # --- what is recorded already -----------------------------------------------------------------------------------

    def _read_back(self) -> None:
        """Tells every story as far as it is recorded; those that are over are forgotten again."""
        for chunk in self.store.scan():
            for event in chunk:
                story = self._story(event.stream)
                fold(decider_of(event.stream), event.stream, (event,), story)
            self._await_answers_again(chunk)
        for story in self._stories.values():
            self._await_deadline(story)
        self._rulebooks = self._story(programme.STREAM).state

    def _await_answers_again(self, events: Sequence[Recorded]) -> None:
        """What the world outside had not answered yet when the run ended."""
        if self._respond is not None:
            answers = [answer for event in events for answer in self._respond(event)]
            known = self.store.find([answer.key for answer in answers])
            for answer in answers:
                if answer.key not in known:
                    self._await_answer(answer)

    def know(self, keys: Iterable[str]) -> None:
        """Looks up which of these keys are recorded; their facts will be passed over."""
        if self.store.head().position == 0:
            return
        chunk: list[str] = []
        for key in keys:
            chunk.append(key)
            if len(chunk) == 10_000:
                self._known.update(self.store.find(chunk))
                chunk = []
        self._known.update(self.store.find(chunk))

    # --- living -----------------------------------------------------------------------------------------------------

    def run(self, facts: Iterable[Timed], until: datetime | None = None) -> Iterator[Timed]:
        """Receives the facts, which come in order of ``received_at``, yielding each when it is done; then the clock
        goes on until ``until``."""
        for fact in facts:
            self._pass_time(fact.received_at)
            self.receive(fact)
            yield fact
        if until is not None:
            self._pass_time(until)

    def receive(self, fact: Timed) -> str | None:
        """Decides one fact now; returns the code if it was rejected."""
        code = None
        if fact.key in self._known:
            self.tally.known += 1
        else:
            code = self._decide(fact, None)
            self._carry(fact.received_at)
        if fact.is_last:
            self._finished.add(fact.command.stream)
        self._forget_if_over(fact.command.stream)
        if len(self._batch) >= BATCH:
            self._flush_behind()
        return code

    def flush(self) -> None:
        """Everything that was decided is on disk when this returns."""
        self._flush_behind()
        self._wait_for_writer()

    def story(self, stream: str) -> Story:
        """The story of a stream as it stands."""
        return self._story(stream)

    def _pass_time(self, now: datetime) -> None:
        """Deadlines fire, and the world outside answers, in the order of their instants; deadlines first."""
        while True:
            due_at = self._due[0][0] if self._due else None
            answer_at = self._answers[0][0] if self._answers else None
            if due_at is not None and due_at <= now and (answer_at is None or due_at <= answer_at):
                self._fire(*heapq.heappop(self._due))
            elif answer_at is not None and answer_at <= now:
                answer = heapq.heappop(self._answers)[2]
                self._awaited[answer.command.stream] -= 1
                self.receive(answer)
            else:
                return

    def _fire(self, at: datetime, stream: str) -> None:
        story = self._stories.get(stream)
        if story is None:
            return
        if self._noted.get(stream) == at:
            del self._noted[stream]
        decider = decider_of(stream)
        deadline = story.next_deadline(decider)
        if deadline is None or deadline.fires_at > at:
            return  # it was met or moved since it was noted
        version = story.version
        self._append(story, version, fire(decider, story, at, self._rulebooks.rules), None, None)
        self._carry(at)
        self._await_deadline(story)
        self._forget_if_over(stream)
        if len(self._batch) >= BATCH:
            self._flush_behind()

    def _decide(self, fact: Timed, source: str | None) -> str | None:
        stream = fact.command.stream
        story, decider = self._story(stream), decider_of(stream)
        version = story.version
        current = self._rulebooks.in_force(fact.received_at)
        asked = Asked(self._filled(fact.command), fact.actor, fact.role, fact.received_at, fact.approved_by, source)
        outcome = handle(decider, story, asked, self._rulebooks.rules, current)
        if outcome.rejected:
            name = f"{type(fact.command).__name__}: {outcome.rejected}"
            self.tally.rejected[name] = self.tally.rejected.get(name, 0) + 1
            if outcome.events:
                self._append(story, version, outcome.events, None, None)
        else:
            self.tally.accepted += 1
            self._append(story, version, outcome.events, fact, source)
        self._await_deadline(story)
        return outcome.rejected

    def _filled(self, command: Command) -> Command:
        if isinstance(command, PlaceOrder):
            state: MerchantState = self._story(f"merchant-{command.merchant_id}").state
            version = self._stories[f"merchant-{command.merchant_id}"].version if state.is_active else None
            return msgspec.structs.replace(command, merchant_version=version)
        return command

    def _carry(self, now: datetime) -> None:
        """Messages between streams are received at the instant of what made them."""
        while self._messages:
            event = self._messages.popleft()
            for message in messages(event):
                if message.key not in self._known:
                    self._decide(Timed(now, message.command, message.key, "ledger", POLICY), event.event_id)

    def _append(
        self, story: Story, version: int, events: list[NewEvent], fact: Timed | None, source: str | None
    ) -> None:
        self.tally.events += len(events)
        self._batch.append(
            Append(
                stream=story.stream,
                expected_version=version,
                events=events,
                actor=fact.actor if fact else "ledger",
                role=fact.role if fact else "clock",
                key=fact.key if fact else None,
                body_sha256=body_sha256(fact.command) if fact else None,
                correlation_id=f"{self._origin}/{story.stream}",
                source=source,
            )
        )
        for number, new in enumerate(events, version + 1):
            if type(new.data) in SPEAKING:
                self._messages.append(_recorded(story.stream, number, new))
            if self._respond is not None:
                for answer in self._respond(_recorded(story.stream, number, new)):
                    self._await_answer(answer)

    def _await_answer(self, answer: Timed) -> None:
        self._count += 1
        self._awaited[answer.command.stream] += 1
        heapq.heappush(self._answers, (answer.received_at, self._count, answer))

    # --- stories ----------------------------------------------------------------------------------------------------

    def _story(self, stream: str) -> Story:
        story = self._stories.get(stream)
        if story is None:
            story = Story(stream, decider_of(stream).initial())
            if stream in self._forgotten:
                self._tell_again(story)
            self._stories[stream] = story
        return story

    def _tell_again(self, story: Story) -> None:
        """A message speaks of a story that was over: it is told from the log, and from what is not written yet."""
        self._wait_for_writer()
        decider, stream = decider_of(story.stream), story.stream
        fold(decider, stream, self.store.read_stream(stream), story)
        for append in self._batch:
            if append.stream == stream:
                events = enumerate(append.events, append.expected_version + 1)
                fold(decider, stream, [_recorded(stream, version, new) for version, new in events], story)
        self._forgotten.discard(stream)
        self._finished.add(stream)

    def _await_deadline(self, story: Story) -> None:
        deadline = story.next_deadline(decider_of(story.stream))
        if deadline is not None and self._noted.get(story.stream) != deadline.fires_at:
            self._noted[story.stream] = deadline.fires_at
            heapq.heappush(self._due, (deadline.fires_at, story.stream))

    def _forget_if_over(self, stream: str) -> None:
        if stream in self._finished and not self._awaited[stream]:
            story = self._stories.get(stream)
            if story is None or story.next_deadline(decider_of(stream)) is None:
                self._stories.pop(stream, None)
                self._noted.pop(stream, None)
                self._awaited.pop(stream, None)
                self._finished.discard(stream)
                self._forgotten.add(stream)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _flush_behind(self) -> None:
        """Writes the batch while the next one is decided."""
        self._wait_for_writer()
        batch, self._batch = self._batch, []
        if batch:
            self._written = self.store.begin(*batch)

    def _wait_for_writer(self) -> None:
        written, self._written = self._written, list
        for answer in written():
            if isinstance(answer, StoreError):
                raise answer


def _recorded(stream: str, version: int, new: NewEvent) -> Recorded:
    """A new event as folds see it; its position is not known yet."""
    return Recorded(0, stream, version, new.occurred_at, new.received_at, new.received_at, new.data)
