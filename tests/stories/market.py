"""A small marketplace over a real ledger: people ask, time passes, and what comes of it is read back.

The clock is virtual.  Whatever falls due, and whatever one stream has to tell another, happens at its instant, as it
would with workers that never sleep.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from typing import Any

import msgspec

from api import asof, audit
from api.clock import VirtualClock
from api.commands import Answer, Request
from api.settings import Settings
from api.wiring import Ledger, opened
from ledger.calendar import BEGINNING
from ledger.events import Event, Recorded
from ledger.programme import PublishRulebook
from projections import PROJECTIONS, replay
from tests import spec
from tests.spec import Ask, Step, Tick, flat, july

RULEBOOK = spec.ask(PublishRulebook(body=spec.BODY, occurred_at=july(-10)))


def admission(deposit_fen: int = 3_000_000) -> list[Ask]:
    """On the morning of 1 July merchant m-1 goes through everything it takes to sell men's apparel."""
    return [
        spec.trustpass(at=july(1, 1)),
        spec.applied(at=july(1, 2)),
        spec.review_started(at=july(1, 3)),
        spec.review_passed(at=july(1, 4)),
        spec.guarantees(at=july(1, 5)),
        spec.fee(at=july(1, 6)),
        spec.deposit(deposit_fen, at=july(1, 7)),
    ]


class Market:
    """People and time, over one open ledger."""

    def __init__(self, ledger: Ledger, clock: VirtualClock, runner: asyncio.Runner) -> None:
        self.ledger, self.clock = ledger, clock
        self._run, self._numbers = runner.run, count(ledger.store.head().position)

    # --- what happens -------------------------------------------------------------------------------------------------

    def given(self, *steps: Step | Iterable[Step]) -> "Market":
        """All of this happens; nothing of it is refused."""
        for step in flat(steps):
            answer = self.take(step)
            assert answer is None or answer.code is None, f"{step} was refused: {answer and answer.code}"
        return self

    when = given

    def refused(self, step: Ask) -> str:
        """Somebody asks for something that makes no sense; returns the code."""
        answer = self.take(step)
        assert answer is not None
        assert answer.code is not None, f"{step} was accepted"
        return answer.code

    def take(self, step: Step) -> Answer | None:
        """One step, whatever comes of it."""
        if isinstance(step, Tick):
            self.pass_time(step.at)
            return None
        request = request_of(step, self.clock.now(), f"ask-{next(self._numbers)}")
        assert request.received_at is not None
        self.pass_time(request.received_at)
        answer = self._run(self.ledger.desk.execute(request))
        self._run(self.ledger.worker.catch_up())
        return answer

    def pass_time(self, until: datetime) -> None:
        """Time goes on, from one thing that falls due to the next."""
        while (due_at := self._next_due()) is not None and due_at <= until:
            self.clock.move_to(due_at)
            self._run(self.ledger.worker.tick(due_at))
        self.clock.move_to(until)

    def _next_due(self) -> datetime | None:
        with self.ledger.models.snapshot("due_tasks") as snapshot:
            return min((row.fires_at for row in snapshot.rows("due_tasks")), default=None)

    # --- what there is to be seen -------------------------------------------------------------------------------------

    def row(self, read_model: str, *key: object, occurred_before: datetime | None = None) -> Any:
        """A row of a read model: as it is, or as it had truly been before an instant."""
        projection = PROJECTIONS[read_model]
        if occurred_before is not None:
            return asof.row(self.ledger.store, projection, key, asof.Moment(occurred_before=occurred_before))
        with self.ledger.models.snapshot(read_model) as snapshot:
            return next(snapshot.rows(read_model, key_prefix=key), None)

    def order(self, order_id: str = spec.ORDER, **more: Any) -> Any:
        """The order's row in order_status."""
        return self.row("order_status", order_id, **more)

    def promise(self, promise_id: str = "arrive") -> str:
        """How a promise of the order stands."""
        return str(next(x.state for x in self.order().promises if x.promise_id == promise_id))

    def claim(self, claim_id: str) -> str:
        """How a claim of the order stands."""
        return str(next(x.state for x in self.order().claims if x.claim_id == claim_id))

    def balance(self, account: str) -> int:
        """What lies in an account: positive for cash and expenses, for what is owed and earned, too."""
        with self.ledger.models.snapshot("account_balance") as snapshot:
            rows = list(snapshot.rows("account_balance", key_prefix=(account,)))
        debit_fen = sum(row.debit_fen - row.credit_fen for row in rows)
        return debit_fen if account.startswith(("assets:", "expenses:", "budget:")) else -debit_fen

    def told(self, *classes: type[Event], stream: str = f"order-{spec.ORDER}") -> list[Any]:
        """The events of these classes in a stream, in order."""
        return [event.data for event in self.events(stream) if isinstance(event.data, classes)]

    def events(self, stream: str) -> Sequence[Recorded]:
        """A stream."""
        return self.ledger.store.read_stream(stream)

    def state(self, stream: str) -> Any:
        """What a stream has come to."""
        return asof.history(self.ledger.store, stream, asof.Moment())[1].state

    def is_in_order(self) -> bool:
        """The log, the read models and the money are as they should be."""
        self._run(self.ledger.worker.catch_up())
        found = {
            check.name: check.first
            for check in audit.verify(self.ledger.store, self.ledger.models)[1]
            if check.differences
        }
        assert found == {}
        return True


@contextmanager
def open_market(url: str, at: datetime = BEGINNING) -> Iterator[Market]:
    """The marketplace of a migrated ledger."""
    clock = VirtualClock(at)
    with opened(Settings(database_url=url), clock) as ledger, asyncio.Runner() as runner:
        clock.move_to(ledger.store.head().recorded_at)
        ledger.projector.build()
        yield Market(ledger, clock, runner)


# --- steps as others write them ---------------------------------------------------------------------------------------


def request_of(step: Ask, now: datetime, key: str) -> Request:
    """A step as the door takes it."""
    asked = step.asked(now)
    return Request(
        plain_command(asked.command), key, asked.actor, asked.role, asked.approved_by, received_at=asked.received_at
    )


def line_of(step: Ask, key: str, now: datetime = BEGINNING) -> dict[str, Any]:
    """A step as ``guarantee command`` takes it."""
    asked = step.asked(now)
    defaults = {x.name: x.default for x in msgspec.structs.fields(asked.command)}
    fields: Mapping[str, Any] = msgspec.structs.asdict(plain_command(asked.command))
    body = {name: msgspec.to_builtins(value) for name, value in fields.items() if value != defaults[name]}
    return {
        "command": type(asked.command).__name__, "key": key, "actor": asked.actor, "role": asked.role,
        "received_at": replay.instant(asked.received_at), "body": body,
    }  # fmt: skip


def plain_command(command: Any) -> Any:
    """A command without what only the door may fill in."""
    defaults = {x.name: x.default for x in msgspec.structs.fields(type(command))}
    return msgspec.structs.replace(command, **{name: defaults[name] for name in command.filled_by_door})
