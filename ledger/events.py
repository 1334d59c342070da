"""What happened: the two kinds of event, their wire format, and the envelope in which they are recorded.

An event's data are its business fields only.  On the wire they are one JSON object whose ``type`` is the name of
the class (``OrderPlaced``), never a Python path.  Everything else about an event (when, who, why) is metadata and
lies in columns of the log.

A *Fact* is asserted by an actor and may be wrong.  A *Decision* is made by rule from facts.  No name is both.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True, tag_field="type"):
    """Something that happened, in the past tense; immutable, whole, and readable without looking anything up."""


class Fact(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Asserted by an actor, who may be wrong."""


class Decision(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Made by rule from facts, so it can be derived again from them."""

    rule: ClassVar[str]
    """The part of the rulebook that made it, e.g. ``rebate``; recorded as ``rulebook-2015.1/rebate``."""


class NewEvent(msgspec.Struct, gc=False):
    """An event on its way into the log: its data, and the metadata that its maker knows."""

    data: Event
    occurred_at: datetime
    """When it happened, or from when the decision holds."""
    received_at: datetime
    """When the door received the command; for what a deadline decides, the instant it fires."""
    rule: str | None = None
    """Of a decision: ``<rulebook>/<rule>``."""
    causation: str | None = None
    """Of a decision: the event id of the fact that made it, or ``<stream>/due:<deadline>/<key>``."""


class Recorded(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event as the log gives it back, with the metadata that folds need; instants are UTC.

    Folds of a stream use neither ``position`` nor ``recorded_at``: they are unknown while a command is decided.
    """

    position: int
    stream: str
    version: int
    occurred_at: datetime
    received_at: datetime
    recorded_at: datetime
    data: Any

    @property
    def event_id(self) -> str:
        """``<stream>@<version>``, unique in the ledger."""
        return f"{self.stream}@{self.version}"


class Wire:
    """Wire name <-> class, for a closed set of event classes; decodes typed, and fails on anything else."""

    def __init__(self, classes: Iterable[type[Event]]) -> None:
        self.classes = {cls.__name__: cls for cls in classes}
        union: Any = None
        for cls in self.classes.values():
            union = cls if union is None else union | cls
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(union)
        recorded = msgspec.defstruct(
            "Recorded", [("data", union)], bases=(Recorded,), frozen=True, gc=False, array_like=True
        )
        self._lines_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(recorded)

    def encode(self, event: Event) -> bytes:
        """The event's data as one JSON object, ``type`` first, then the fields in declared order."""
        return self._encoder.encode(event)

    def decode(self, state: bytes) -> Event:
        """The event that ``encode`` wrote; ``msgspec.ValidationError`` if it is none of the classes."""
        event: Event = self._decoder.decode(state)
        return event

    def decode_lines(self, lines: bytes | str) -> Sequence[Recorded]:
        """Many recorded events at once, from lines ``[position,"stream",version,"occurred_at","received_at",
        "recorded_at",{data}]``; instants with a UTC offset."""
        decoded: list[Recorded] = self._lines_decoder.decode_lines(lines)
        return decoded
