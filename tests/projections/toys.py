"""Read models of no use but to test with."""

import os
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from pathlib import Path

import msgspec

from ledger.decider import Story
from ledger.events import Recorded
from ledger.orders import events as e
from projections.projection import Projection, Row


class Length(Row):
    """How long a stream is."""

    stream: str
    version: int


def lengths(story: Story) -> Iterable[Length]:
    return (Length(story.stream, story.version),)


class Placed(Row):
    """How many orders a merchant got."""

    merchant_id: str
    orders: int = 0
    by_region: dict[str, int] = msgspec.field(default_factory=dict)


def placed(event: Recorded) -> Iterable[Placed]:
    return (Placed(event.data.merchant_id, 1, {event.data.region: 1}),)


class Spoiled(Exception):
    """An order that a fold cannot stand."""


BAD_ORDERS: set[str] = set()
"""Orders at whose delivery ``fragile`` raises, in this process and those it starts."""


def bad_orders() -> set[str]:
    """Another process cannot be told but through its environment."""
    return BAD_ORDERS | set(filter(None, os.environ.get("BAD_ORDERS", "").split(",")))


def fragile_lengths(story: Story) -> Iterable[Length]:
    if story.stream in bad_orders() and story.state.shipments:
        raise Spoiled(story.stream)
    return lengths(story)


def fragile_placed(event: Recorded) -> Iterable[Placed]:
    if event.stream in bad_orders():
        raise Spoiled(event.stream)
    return placed(event)


class Running(Row):
    """Orders of a merchant by day."""

    merchant_id: str
    day: date
    orders: int = 0


class RunningShown(msgspec.Struct):
    merchant_id: str
    day: date
    orders: int
    so_far: int


def running(event: Recorded) -> Iterable[Running]:
    return (Running(event.data.merchant_id, event.data.placed_on, 1),)


def read_running(stored: Iterator[Running]) -> Iterator[RunningShown]:
    merchant_id, so_far = None, 0
    for x in stored:
        so_far = so_far + x.orders if x.merchant_id == merchant_id else x.orders
        merchant_id = x.merchant_id
        yield RunningShown(x.merchant_id, x.day, x.orders, so_far)


class Part(msgspec.Struct, frozen=True):
    at: datetime | None
    words: tuple[str, ...] = ()


class Everything(Row):
    """A column of every kind."""

    word: str
    number: int
    day: date
    at: datetime
    is_true: bool
    maybe_word: str | None
    maybe_number: int | None
    maybe_day: date | None
    maybe_at: datetime | None
    parts: tuple[Part, ...]
    part: Part | None
    amounts: dict[str, int]


ORDER = frozenset({"order"})
LENGTHS = Projection("lengths", 1, Length, ("stream",), frozenset({"order", "merchant"}), rows=lengths, is_sum=False)
PLACED = Projection(
    "placed", 1, Placed, ("merchant_id",), ORDER, contributions=placed, events=frozenset({e.OrderPlaced})
)
FRAGILE = Projection("fragile", 1, Length, ("stream",), ORDER, rows=fragile_lengths, is_sum=False)
FRAGILE_PLACED = Projection(
    "fragile_placed", 1, Placed, ("merchant_id",), ORDER, contributions=fragile_placed,
    events=frozenset({e.OrderPlaced}),
)  # fmt: skip
RUNNING = Projection(
    "running", 1, Running, ("merchant_id", "day"), ORDER, contributions=running, events=frozenset({e.OrderPlaced}),
    read=read_running, shown=RunningShown, series=1,
)  # fmt: skip
EVERYTHING = Projection("everything", 1, Everything, ("word", "number"), ORDER, rows=lambda story: (), is_sum=False)


def named(*projections: Projection) -> dict[str, Projection]:
    return {x.name: x for x in projections}


HERE = Path(__file__).parent
