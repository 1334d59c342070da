"""The only list of the kinds of stream: which decider a stream belongs to, and every event and command there is."""

from ledger import budgets, merchants, orders, programme
from ledger.decider import Command, Decider
from ledger.events import Wire

DECIDERS: dict[str, Decider] = {
    x.name: x for x in (orders.DECIDER, merchants.DECIDER, programme.DECIDER, budgets.DECIDER)
}
"""Decider by the prefix of its streams."""

COMMANDS: dict[str, type[Command]] = {c.__name__: c for x in DECIDERS.values() for c in x.commands}
"""Command class by name."""

WIRE = Wire(event for x in DECIDERS.values() for event in x.events)
"""Every event there is, by wire name."""


def decider_of(stream: str) -> Decider:
    """The decider of a stream; ``KeyError`` if there is no such kind."""
    return DECIDERS[stream.partition("-")[0]]
