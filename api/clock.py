"""The door's clock: the only place from which time enters the ledger."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the instant at which something is received."""

    def now(self) -> datetime:
        """The present instant, UTC; it never goes back."""
        ...


class SystemClock:
    """The clock in service."""

    def now(self) -> datetime:
        """The computer's time, UTC."""
        return datetime.now(UTC)


class VirtualClock:
    """A clock that is told the time, so that years of history are recorded as if they had been lived: in imports,
    demonstrations and tests."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """The instant it was last moved to."""
        return self._now

    def move_to(self, instant: datetime) -> None:
        """Moves on; an earlier instant leaves it where it is."""
        self._now = max(self._now, instant)
