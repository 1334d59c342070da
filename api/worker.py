"""What goes on without anybody asking: read models follow the log, messages are carried, deadlines fire.

All three may die at any point, run late, or run in many processes at once: checkpoints move by compare-and-set,
messages carry keys, and a deadline that another worker fired is no longer there.
"""

import asyncio
import contextlib
import heapq
import threading
from collections.abc import Iterator
from datetime import datetime

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from api.checkpoints import Checkpoints
from api.commands import Desk, Request
from ledger.decider import POLICY
from ledger.policies import messages
from ledger.store import StoreError
from projections.reader import NotBuilt, Where
from projections.runner import Projector

log = structlog.get_logger()

CARRIER = "policies"
_BATCH = 5_000
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 1.0


class Worker:
    """Projects, carries and ticks for one ledger."""

    def __init__(self, desk: Desk, projector: Projector, checkpoints: Checkpoints) -> None:
        self.desk, self.projector, self.checkpoints = desk, projector, checkpoints

    # --- once -------------------------------------------------------------------------------------------------------

    async def catch_up(self) -> int:
        """Carries every message and folds every event there is; returns the position reached."""
        await self.carry()
        return await asyncio.to_thread(self.projector.catch_up)

    async def carry(self) -> int:
        """Carries the messages of all events since the last time; returns how many commands they became."""
        carried, after = 0, await asyncio.to_thread(self.checkpoints.get, CARRIER)
        while True:
            events = await asyncio.to_thread(self.desk.store.read, after, _BATCH)
            if not events:
                return carried
            requests = [
                Request(message.command, message.key, "ledger", POLICY, source=event.event_id)
                for event in events
                for message in messages(event)
            ]
            for request in requests:
                answer = await self.desk.execute(request)
                carried += answer.result == "accepted"
            after = events[-1].position
            await asyncio.to_thread(self.checkpoints.move, CARRIER, after)

    async def tick(self, now: datetime) -> int:
        """Fires every deadline that is due at ``now``, in the order of their instants, and carries what that has to
        say; returns the number of decisions."""
        fired, reached = 0, -1
        while True:
            before, reached = reached, await self.catch_up()
            due = await asyncio.to_thread(self._due, now)
            if not due or reached == before:  # nothing moves any more: due_tasks itself has stopped
                return fired
            waiting = set(due)
            while due:
                at, stream = heapq.heappop(due)
                decisions, next_at = await self.desk.fire(stream, at)
                fired += decisions
                if next_at is not None and next_at <= now and (next_at, stream) not in waiting:
                    waiting.add((next_at, stream))
                    heapq.heappush(due, (next_at, stream))

    def _due(self, now: datetime) -> list[tuple[datetime, str]]:
        """What the read model says is due, in order; so it is a heap, too."""
        with self.projector.models.snapshot("due_tasks") as snapshot:
            found = {
                (row.fires_at, row.stream) for row in snapshot.rows("due_tasks", where=[Where("fires_at", "<=", now)])
            }
        return sorted(found)

    # --- always -----------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Works until ``stop`` is set; survives a database that goes away and comes back."""
        projecting = threading.Event()
        tasks = [
            asyncio.create_task(asyncio.to_thread(self.projector.follow, projecting)),
            asyncio.create_task(self._carry_on(stop)),
            asyncio.create_task(self._tick_on(stop)),
        ]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when it is cancelled: a thread does not hear of that
            stop.set()
            projecting.set()
        await asyncio.gather(*tasks)

    async def _carry_on(self, stop: asyncio.Event) -> None:
        with self.desk.store.listen() as tail:
            while not stop.is_set():
                with _patience("carrying_paused"):
                    head = self.desk.store.head().position
                    await self.carry()
                    await tail.wait_async(head, _POLL_SECONDS)
                    continue
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _tick_on(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with _patience("ticking_paused"):
                now = self.desk.clock.now()
                for at, stream in await asyncio.to_thread(self._due, now):
                    await self.desk.fire(stream, at)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _POLL_SECONDS)


@contextlib.contextmanager
def _patience(event: str) -> Iterator[None]:
    """A database that is away, others who write to the same stream, and a read model that is being built are waited
    for."""
    try:
        yield
    except (PersistenceError, psycopg.Error, StoreError, NotBuilt) as error:
        log.warning(event, error=str(error), seconds=_PAUSE_SECONDS)
