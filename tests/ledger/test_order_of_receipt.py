"""Facts come late and out of order.  As long as each comes within the grace for late records, the order of their coming
changes nothing: neither what an order has come to, nor what it was at any instant on the clock of occurrence."""

from collections.abc import Set
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ledger import orders
from ledger.decider import Story, fire, fold, handle
from ledger.events import Recorded
from ledger.orders import events as e
from ledger.orders.state import OrderState
from tests.spec import (
    HOUR,
    ORDER,
    RULES,
    Ask,
    arrive_by,
    cancel,
    confirm,
    dispatch_by,
    july,
    line,
    paid,
    parcel,
    placed,
    rate,
    retract,
    scan,
)

RULEBOOKS = {RULES.rulebook: RULES}
START = july(2)


class Late(NamedTuple):
    """A fact, how long after its occurrence we hear of it, and how long it takes when all is shuffled."""

    ask: Ask
    occurred_at: datetime
    delay: timedelta
    other_delay: timedelta


DELAYS = st.integers(0, 23 * 60 + 59).map(lambda minutes: timedelta(minutes=minutes))
SCANS = ("created", "handed", "transit", "out", "attempted", "delivered", "signed", "elsewhere")


class History(NamedTuple):
    """What is in time (placed, paid, shipped), and what is late."""

    punctual: list[Ask]
    late: list[Late]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Two lines in up to four parcels over nine days; some units called off, some scans taken back."""
    a, b = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    lines = (
        line("a", a, draw(st.integers(0, 3000)), is_indivisible=draw(st.booleans())),
        line("b", b, draw(st.integers(1, 3000))),
    )
    due_at = START + draw(st.integers(24, 240)) * HOUR
    wanted = [arrive_by(due_at, "a", "b")]
    if draw(st.booleans()):
        wanted.append(dispatch_by(START + draw(st.integers(24, 120)) * HOUR, "a"))
    step = placed(*lines, promises=wanted, at=july(1, 1), freight_fen=draw(st.integers(0, 500)))
    total_fen = step.command.total_fen  # type: ignore[attr-defined]
    parcels, called_off = draw(_parcels({"a": a, "b": b}))
    punctual = [step, paid(total_fen, at=july(1, 2)), *parcels]
    late = draw(_late_scans([x.command.shipment_id for x in parcels], min(x.due_at for x in wanted)))  # type: ignore[attr-defined]
    late += draw(_cancellations(called_off, before=min(x.due_at for x in wanted)))
    if draw(st.booleans()):
        at = START + draw(st.integers(0, 200)) * HOUR
        late.append(Late(rate(draw(st.integers(1, 5)), at=at), at, draw(DELAYS), draw(DELAYS)))
    return History(punctual, late)


@st.composite
def _parcels(draw: st.DrawFn, ordered: dict[str, int]) -> tuple[list[Ask], dict[str, int]]:
    """Some units travel in parcels of up to two units of a line; of the others, some will be called off."""
    parcels, left = [], dict(ordered)
    for number in range(draw(st.integers(0, 4))):
        parts = [e.Units(line_id=x, units=min(2, n)) for x, n in left.items() if n and draw(st.booleans())]
        if parts:
            for part in parts:
                left[part.line_id] -= part.units
            parcels.append(parcel(f"p{number}", *parts, is_cainiao=draw(st.booleans()), at=july(1, 3)))
    return parcels, {line_id: draw(st.integers(0, n)) for line_id, n in left.items()}


@st.composite
def _late_scans(draw: st.DrawFn, shipment_ids: list[str], due_at: datetime) -> list[Late]:
    facts: list[Late] = []
    for shipment_id in shipment_ids:
        for status in draw(st.lists(st.sampled_from(SCANS), max_size=5, unique=True)):
            at = START + draw(st.integers(0, 200)) * HOUR
            step = scan(status, at, shipment_id, is_carrier_origin=draw(st.booleans()))
            sent = Late(step, at, draw(DELAYS), draw(DELAYS))
            facts.append(sent)
            if draw(st.integers(0, 5)) == 0:
                facts.append(draw(_retraction(sent, due_at)))
    return facts


@st.composite
def _retraction(draw: st.DrawFn, sent: Late, due_at: datetime) -> Late:
    """Nothing can be taken back before it came.  What is taken back after a promise was due comes when it comes: a
    promise that was already broken for other units is not broken a second time."""
    at = sent.occurred_at + draw(st.integers(1, 48)) * HOUR
    step = retract(sent.ask.command.scan_id, at)  # type: ignore[attr-defined]
    heard, other = sent.occurred_at + sent.delay - at, sent.occurred_at + sent.other_delay - at
    delay = max(draw(DELAYS), heard)
    return (
        Late(step, at, delay, max(draw(DELAYS), other))
        if at < due_at
        else Late(step, at, max(delay, other), max(delay, other))
    )


@st.composite
def _cancellations(draw: st.DrawFn, called_off: dict[str, int], before: datetime) -> list[Late]:
    """All cancellations of an order come with one delay: their shares of the freight depend on their order."""
    delay, other = draw(DELAYS), draw(DELAYS)
    latest = int((before - START) / HOUR) - 1
    facts = []
    for line_id, count in called_off.items():
        if count and latest > 0:
            at = START + draw(st.integers(0, latest)) * HOUR
            facts.append(Late(cancel(count, line_id, f"cancel-{line_id}", at), at, delay, other))
    return facts


class Told(NamedTuple):
    """An order after all has come in, and its log."""

    state: OrderState
    log: list[Recorded]


def told(history: History, *, shuffled: bool, ticks: bool = False) -> Told:
    """Everything in the order of its coming, and then the clock runs on until nothing is left to decide."""
    coming = [(x.occurred_at + (x.other_delay if shuffled else x.delay), x.ask) for x in history.late]
    coming.sort(key=lambda x: x[0])
    story = Story(f"order-{ORDER}", orders.DECIDER.initial())
    log: list[Recorded] = []

    def append(events: list[Any]) -> None:
        for new in events:
            log.append(
                Recorded(
                    len(log) + 1,
                    story.stream,
                    len(log) + 1,
                    new.occurred_at,
                    new.received_at,
                    new.received_at,
                    new.data,
                )
            )

    for step in [*history.punctual, *(step.received(at) for at, step in coming)]:
        asked = step.asked(july(1))
        if ticks:
            append(fire(orders.DECIDER, story, asked.received_at - HOUR, RULEBOOKS))
        outcome = handle(orders.DECIDER, story, asked, RULEBOOKS, RULES)
        assert outcome.rejected is None, (step, outcome.rejected)
        append(outcome.events)
    append(fire(orders.DECIDER, story, july(400), RULEBOOKS))
    return Told(story.state, log)


TRACES = {"set_by", "delivered_by", "late_set_by", "conflicts", "contradicted_by"}
"""Which event said it, and what was only noticed on the way: these may differ."""
LATE_GOODS = {"late", "late_parcels", "late_freight_fen", "return_by_at", "claimed"}
"""Goods that came after their refund are met when their delivery is first heard of; an earlier delivery that is heard
of later does not take time from the buyer."""


def plain(value: Any, without: Set[str] = frozenset()) -> Any:
    """A state without versions; what is unordered, in one order."""
    if isinstance(value, msgspec.Struct):
        names = [x for x in value.__struct_fields__ if x not in TRACES and x not in without]
        return {name: plain(getattr(value, name), without) for name in names}
    if isinstance(value, dict):
        return {key: plain(x, without) for key, x in value.items()}
    if isinstance(value, tuple):
        return sorted((plain(x, without) for x in value), key=repr)
    return value


def as_of(log: list[Recorded], at: datetime) -> Any:
    """What the order was at an instant, by what had occurred before it."""
    return plain(fold(orders.DECIDER, f"order-{ORDER}", (x for x in log if x.occurred_at < at)).state, LATE_GOODS)


@given(histories())
def test_the_order_of_receipt_changes_nothing_in_the_end(history: History) -> None:
    one, other = told(history, shuffled=False), told(history, shuffled=True, ticks=True)
    assert plain(one.state) == plain(other.state)


@given(histories())
def test_the_order_of_receipt_changes_nothing_as_of_any_instant(history: History) -> None:
    one, other = told(history, shuffled=False).log, told(history, shuffled=True).log
    for at in sorted({x.occurred_at for x in (*one, *other)}):
        for instant in (at, at + timedelta(microseconds=1)):
            assert as_of(one, instant) == as_of(other, instant), instant


@given(histories(), st.data())
def test_a_buyers_word_in_time_counts_the_same_before_and_after_the_scans(
    history: History, data: st.DataObject
) -> None:
    parcels = [x.command.shipment_id for x in history.punctual[2:]]  # type: ignore[attr-defined]
    due_at = min(x.due_at for x in history.punctual[0].command.promises)  # type: ignore[attr-defined]
    if not parcels or any(type(x.ask.command).__name__ == "CancelUnits" for x in history.late):
        return
    at = START + data.draw(st.integers(1, int((due_at - START) / HOUR) - 1)) * HOUR
    word = Late(confirm(*parcels, at=at), at, data.draw(DELAYS), data.draw(DELAYS))
    history = history._replace(late=[*history.late, word])
    one, other = told(history, shuffled=False), told(history, shuffled=True)
    assert plain(one.state) == plain(other.state)
