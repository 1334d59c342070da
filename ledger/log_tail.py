"""Waiting for news: who follows the log is woken when it grows, and never waits for ever if a wake-up is lost.

One thread listens on a connection of its own and knows the end of the log; any number of threads and tasks wait on it.
It listens first and looks at the head then, so nothing falls between; and it looks again every second, so a lost
notification costs a second, not an event.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from ledger.log_writer import Connection, is_passing

_UNKNOWN = -2
"""Not looked yet: before every position that somebody may have seen, even -1."""
_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 0.2
"""How long a listener that is being closed may still sit on its connection."""
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


class Tail:
    """The end of the log as it moves; closed by ``close`` or as a context manager."""

    def __init__(self, connect: Callable[[], Connection], channel: str) -> None:
        self._connect = connect
        self._listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
        self._position = _UNKNOWN
        self._moved = threading.Condition()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._is_closed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-tail", daemon=True)
        self._thread.start()

    def wait(self, after: int, timeout: float) -> int:
        """The end of the log, once it lies after ``after``; the last one known, when ``timeout`` seconds have passed.

        Raises what stopped the listener for good; a lost connection does not.
        """
        with self._moved:
            self._moved.wait_for(lambda: self._is_over(after), timeout)
            return self._known()

    async def wait_async(self, after: int, timeout: float) -> int:
        """The same for tasks; thousands may wait."""
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        give_up_at = time.monotonic() + timeout
        with self._moved:
            self._waiting.add(waiting)
        try:
            while not self._is_over(after) and (left := give_up_at - time.monotonic()) > 0:
                waiting[1].clear()
                if not self._is_over(after):
                    await _wait_for_event(waiting[1], left)
        finally:
            with self._moved:
                self._waiting.discard(waiting)
        return self._known()

    def close(self) -> None:
        """Stops listening; those who wait get the last position known."""
        self._is_closed = True
        self._wake()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _is_over(self, after: int) -> bool:
        return self._position > after or self._is_closed or self._error is not None

    def _known(self) -> int:
        if self._error is not None:
            raise self._error
        return max(0, self._position)

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._is_closed:
            position = self._position
            try:
                with self._connect() as connection:
                    self._follow(connection)
            except Exception as error:
                if not (isinstance(error, psycopg.Error) and is_passing(error)):
                    self._stop(error)
                    return
            pause = _FIRST_PAUSE_SECONDS if self._position > position else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._sleep(pause)

    def _follow(self, connection: Connection) -> None:
        connection.execute(self._listen)
        while not self._is_closed:
            self._move_to(_head_position(connection))
            self._sit(connection)

    def _sit(self, connection: Connection) -> None:
        """Until a notification comes, it is time to look again, or there is nobody left to listen for."""
        look_again_at = time.monotonic() + _POLL_SECONDS
        while not self._is_closed and time.monotonic() < look_again_at:
            # Anyone in the database may notify, so the payload is not believed.
            for _ in connection.notifies(timeout=_CLOSE_SECONDS, stop_after=1):
                return

    def _move_to(self, position: int) -> None:
        if position > self._position:
            self._position = position
            self._wake()

    def _stop(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        with self._moved:
            self._moved.notify_all()
            for loop, event in self._waiting:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)

    def _sleep(self, seconds: float) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self._is_closed, seconds)


def _head_position(connection: Connection) -> int:
    row = connection.execute("SELECT position FROM head WHERE id = 1").fetchone()
    return row[0] if row else 0


async def _wait_for_event(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
