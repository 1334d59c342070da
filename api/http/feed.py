"""The feed: every event in the order of positions, for those who integrate with the ledger.

By pages (``GET /v1/events?after=<position>``) or as Server-Sent Events, which never end.  Positions have no gaps, and
who comes back names the last one seen (``after``, or the browser's ``Last-Event-ID``) and misses nothing.  Roles that
see a part of the log get that part; positions they do not see are passed over.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api import exports
from api.http import access, openapi
from api.http.bodies import MOST_POSITION
from api.http.door import authenticated, problem_of, trace_of
from api.http.problems import problem
from api.http.reads import MOST_ROWS, ROWS, answer, link_to, number, parameters
from api.keys import Holder, Keyring
from api.metrics import Metrics
from ledger.store import Entry, Store, Tail

EVENT_STREAM = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
"""A stream on which nothing happens says so, so that neither side takes the other for gone."""
LOOK_AGAIN_SECONDS = 2.0
"""How often a stream that waits asks whether its key still holds."""
PAGES_A_REQUEST = 20
"""How many pages of the log one request looks through for events that its role may see."""


class EventRead(msgspec.Struct, frozen=True):
    """An event with everything the log holds about it; ``data`` says what happened."""

    position: int
    stream: str
    version: int
    type: str
    occurred_at: datetime
    received_at: datetime
    recorded_at: datetime
    actor: str
    role: str
    key: str | None
    correlation_id: str
    causation: str | None
    source: str | None
    rule: str | None
    data: dict[str, Any]


class Shown:
    """An event, and how it is written down once somebody may see it."""

    __slots__ = ("_line", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._line = b""

    @property
    def line(self) -> bytes:
        """The event as one line of JSON."""
        if not self._line:
            self._line = msgspec.json.encode(exports.entry_dict(self.entry))
        return self._line


class Feed:
    """Serves the log to many followers with one listener, and reads what many of them wait for once."""

    def __init__(self, store: Store, keyring: Keyring, metrics: Metrics, threads: ThreadPoolExecutor) -> None:
        self.store, self.keyring, self.metrics, self._threads = store, keyring, metrics, threads
        self._tail: Tail | None = None
        self._is_closed = False
        self._reading: dict[tuple[int, int, bool], asyncio.Task[list[Shown]]] = {}

    def add_routes(self, app: FastAPI) -> None:
        """One route; what the client accepts says which form it wants."""
        described = openapi.other(
            "Streams and events", "All events", self.events.__doc__, tuple[EventRead, ...], parameters=openapi.FEED,
            errors=(400, 401, 403, 422, 503),
        )  # fmt: skip
        described["responses"]["200"]["content"][EVENT_STREAM] = {"schema": {"type": "string"}}
        openapi.add_route(app, "/v1/events", self.events, described)

    def close(self) -> None:
        """Stops listening; the streams end."""
        self._is_closed = True
        if self._tail is not None:
            self._tail.close()

    @property
    def tail(self) -> Tail:
        """The one listener, opened when it is first needed."""
        if self._tail is None:
            self._tail = self.store.listen()
        return self._tail

    async def events(self, request: Request) -> Response:
        """Events after a position, in order, as ``guarantee export events`` writes them.

        ``Link: rel=next`` leads on, at the end of the log to what is not there yet.  With ``Accept: text/event-stream``
        the same as Server-Sent Events: the id is the position, the event its type, the data the event; an id alone
        says how far the log was looked through."""
        holder = await authenticated(request.scope, self.keyring)
        if not access.may_follow(holder.role):
            raise problem("not_allowed")
        given = parameters(request, {"after", "limit"})
        last_id = request.headers.get("last-event-id")
        if last_id is not None:
            given["after"] = last_id
        after = number(given, "after", 0, MOST_POSITION)
        limit = number(given, "limit", ROWS, MOST_ROWS, least=1)
        if EVENT_STREAM in request.headers.get("accept", ""):
            trace_of(request.scope).event = "feed_followed"
            return StreamingResponse(
                self._follow(request, holder, after),
                media_type=EVENT_STREAM,
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        return await self._page(request, holder, after, limit)

    async def _page(self, request: Request, holder: Holder, after: int, limit: int) -> Response:
        found: list[bytes] = []
        seen = after
        sees_all = access.reads_everything(holder.role)
        at_once = limit if sees_all else MOST_ROWS
        for _ in range(PAGES_A_REQUEST):
            shown = await self._read(seen, at_once, sees_all)
            for one in shown:
                if len(found) == limit:
                    break
                seen = one.entry.position
                if access.may_see(holder.role, holder.actor, one.entry):
                    found.append(one.line)
            if len(shown) < at_once or len(found) == limit:
                break
        trace = trace_of(request.scope)
        trace.event = "feed_read"
        trace.fields |= {"rows": len(found), "position": seen}
        body = b"[" + b",".join(found) + b"]"
        return answer(body, seen, link_to(request, {"after": str(seen)}))

    async def _follow(self, request: Request, holder: Holder, after: int) -> AsyncIterator[bytes]:
        """The stream, until the client goes away, its key is revoked, or the server stops."""
        self.metrics.followers.inc()
        trace, told, told_at = trace_of(request.scope), after, time.monotonic()
        try:
            yield b"retry: 1000\n\n"
            while not self._is_closed and await self._is_still(request, holder):
                if await self.tail.wait_async(after, LOOK_AGAIN_SECONDS) > after:
                    for one in await self._read(after, MOST_ROWS, access.reads_everything(holder.role)):
                        after = one.entry.position
                        if access.may_see(holder.role, holder.actor, one.entry):
                            yield _event(one)
                            told, told_at = after, time.monotonic()
                if after - told >= MOST_ROWS or time.monotonic() - told_at > HEARTBEAT_SECONDS:
                    yield b"id: %d\n\n" % after
                    told, told_at = after, time.monotonic()
                trace.fields["position"] = after
        finally:
            self.metrics.followers.dec()

    async def _is_still(self, request: Request, holder: Holder) -> bool:
        """Whether the key is still its holder's; a database that is away for a moment takes nobody's key."""
        try:
            return await authenticated(request.scope, self.keyring) == holder
        except Exception as error:
            return problem_of(error).status == 503

    async def _read(self, after: int, limit: int, sees_all: bool) -> list[Shown]:
        """Events after a position; those who ask for the same at the same time share the answer."""
        question = (after, limit, sees_all)
        asked = self._reading.get(question)
        if asked is None:
            asked = self._reading[question] = asyncio.get_running_loop().create_task(self._ask(*question))
            asked.add_done_callback(lambda _: self._reading.pop(question, None))
        return await asyncio.shield(asked)

    async def _ask(self, after: int, limit: int, sees_all: bool) -> list[Shown]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._shown, after, limit, sees_all)

    def _shown(self, after: int, limit: int, sees_all: bool) -> list[Shown]:
        """Who sees all has all written down here, in a thread; who sees little has that little written down later."""
        shown = [Shown(entry) for entry in self.store.entries(after, limit)]
        return [one for one in shown if one.line] if sees_all else shown


def _event(one: Shown) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (one.entry.position, one.entry.type.encode(), one.line)
