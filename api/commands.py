"""The door for commands: what came in is looked up, decided and appended, whoever asked by whatever way.

One command, in order: fill in what only the door can know; load the story of its stream; fire, decide and react (pure,
see ``ledger.decider``); append all of it in one transaction under the command's key.  After a version conflict: load
and decide again.  A key that is known already is answered as the first time.
"""

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from datetime import datetime
from typing import Literal

import msgspec

from api.clock import Clock
from ledger import merchants, programme
from ledger.decider import Asked, Command, Story, fire, fold, handle
from ledger.events import NewEvent
from ledger.orders.placing import PlaceOrder
from ledger.programme import RulebookState
from ledger.store import Append, Appended, Conflict, KeyReused, Store, StoreError
from ledger.streams import decider_of

CACHED_STORIES = 50_000
"""How many streams a desk keeps folded in memory."""
STALE_AFTER_SECONDS = 1.0
"""What other processes may have written is looked for again after so long: a merchant's standing, new rulebooks."""
ATTEMPTS = 50
"""Conflicts in a row before a caller is told to try later."""


class Request(msgspec.Struct, frozen=True):
    """A command with everything its caller said about it.  ``received_at`` is for virtual clocks only."""

    command: Command
    key: str
    actor: str
    role: str
    approved_by: str | None = None
    correlation_id: str = ""
    source: str | None = None
    received_at: datetime | None = None


class Answer(msgspec.Struct, frozen=True):
    """What came of a request: its events if it was accepted (or had been before), else the code it was rejected with.

    ``events`` are the ids of all that was appended with it, deadlines that had fallen due included."""

    result: Literal["accepted", "repeated", "rejected"]
    stream: str
    code: str | None = None
    version: int | None = None
    position: int | None = None
    events: tuple[str, ...] = ()


class TryLater(StoreError):
    """Others kept writing to the same stream; nothing was written."""


class _Entry:
    """A cached story, and the lock under which this process decides for its stream."""

    __slots__ = ("checked_at", "lock", "story")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.story: Story | None = None
        self.checked_at = 0.0


class Desk:
    """Takes requests for one ledger, many at a time, in one event loop."""

    def __init__(self, store: Store, clock: Clock, *, cached_stories: int = CACHED_STORIES) -> None:
        self.store, self.clock = store, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._cached_stories = cached_stories
        self._rulebooks = RulebookState()
        self._rules_checked_at = -math.inf
        self._reading_rules = asyncio.Lock()

    async def execute(self, request: Request) -> Answer:
        """Decides a request and appends what came of it.

        Raises ``KeyReused`` (same key, other body), ``TryLater`` and ``Overloaded`` (nothing was written), and the
        library's errors if the database is out of reach."""
        stream = request.command.stream
        entry = self._entry(stream)
        async with entry.lock:
            for _ in range(ATTEMPTS):
                try:
                    return await self._attempt(entry, stream, request)
                except Conflict:
                    entry.story = await self._loaded(stream)
                except BaseException:
                    entry.story = None
                    raise
        raise TryLater(f"others keep writing to {stream}")

    async def fire(self, stream: str, now: datetime) -> tuple[int, datetime | None]:
        """Fires what has fallen due in a stream by ``now``; returns the number of decisions, and when the stream's
        next deadline comes."""
        entry = self._entry(stream)
        async with entry.lock:
            for _ in range(ATTEMPTS):
                try:
                    return await self._fire(entry, stream, now)
                except Conflict:
                    entry.story = await self._loaded(stream)
                except BaseException:
                    entry.story = None
                    raise
        raise TryLater(f"others keep writing to {stream}")

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _attempt(self, entry: _Entry, stream: str, request: Request) -> Answer:
        received_at = request.received_at or self.clock.now()
        if self._are_rules_stale:
            await self._refresh_rules()
        current = self._rulebooks.in_force(received_at)
        command = request.command
        if isinstance(command, PlaceOrder):
            command = await self._filled(command, received_at)
        is_unread = entry.story is not None or command.creates
        is_first_try = entry.story is None and command.creates
        story = entry.story or (
            Story(stream, decider_of(stream).initial()) if is_first_try else await self._loaded(stream)
        )
        version = story.version
        entry.story = None  # until what is decided now is known to be written
        asked = Asked(command, request.actor, request.role, received_at, request.approved_by, request.source)
        if self._is_unknown(story.state.rulebook):
            await self._refresh_rules(story.state.rulebook)
        outcome = handle(decider_of(stream), story, asked, self._rulebooks.rules, current)
        if outcome.rejected:
            return await self._rejected(entry, story, version, request, outcome.rejected, outcome.events, is_unread)
        appended = await self.store.submit(_append(request, stream, version, outcome.events))
        if appended.is_repeated:
            return _answer("repeated", stream, appended)
        entry.story = story
        entry.checked_at = time.monotonic()
        if stream == programme.STREAM:
            self._rules_checked_at = -math.inf
        return _answer("accepted", stream, appended)

    async def _rejected(
        self,
        entry: _Entry,
        story: Story,
        version: int,
        request: Request,
        code: str,
        fired: list[NewEvent],
        is_unread: bool,
    ) -> Answer:
        """A known key is answered as the first time.  Deadlines that had fallen due are appended all the same.

        ``is_unread``: the story was not read for this request, so others may have taken it further."""
        record = (await self.store.find_async([request.key])).get(request.key)
        if record is not None:
            if record.body_sha256 != body_sha256(request.command):
                raise KeyReused(request.key)
            first = Appended(
                record.stream, record.first_version, record.version, record.position, record.recorded_at, True
            )
            return _answer("repeated", record.stream, first)
        if is_unread:
            existing = await self._loaded(story.stream)
            if existing.version != version:
                raise Conflict(story.stream, version, existing.version)
        if fired:
            await self.store.submit(_clock_append(story.stream, version, fired))
        entry.story = story if story.version else None
        return Answer("rejected", story.stream, code=code)

    async def _fire(self, entry: _Entry, stream: str, now: datetime) -> tuple[int, datetime | None]:
        is_unread = entry.story is not None
        story = entry.story or await self._loaded(stream)
        version = story.version
        entry.story = None
        if self._are_rules_stale or self._is_unknown(story.state.rulebook):
            await self._refresh_rules(story.state.rulebook)
        fired = fire(decider_of(stream), story, now, self._rulebooks.rules)
        if is_unread and not fired:  # somebody else may have set the deadline that is looked for here
            return await self._fire(entry, stream, now)
        if fired:
            await self.store.submit(_clock_append(stream, version, fired))
        entry.story = story
        upcoming = story.next_deadline(decider_of(stream))
        return len(fired), upcoming.fires_at if upcoming else None

    # --- looking things up ----------------------------------------------------------------------------------------

    def _entry(self, stream: str) -> _Entry:
        entry = self._entries.get(stream)
        if entry is None:
            entry = self._entries[stream] = _Entry()
            while len(self._entries) > self._cached_stories:
                oldest = next(iter(self._entries))
                if self._entries[oldest].lock.locked():
                    break
                del self._entries[oldest]
        else:
            self._entries.move_to_end(stream)
        return entry

    async def _loaded(self, stream: str) -> Story:
        events = (await self.store.load([stream]))[stream]
        return fold(decider_of(stream), stream, events)

    async def _filled(self, command: PlaceOrder, received_at: datetime) -> PlaceOrder:
        """What only the door can know: a merchant's standing."""
        version = await self._standing(command.merchant_id, received_at)
        return msgspec.structs.replace(command, merchant_version=version)

    async def _standing(self, merchant_id: str, now: datetime) -> int | None:
        """The version at which the merchant was found active; ``None`` if it is not.  A deadline of its that has
        come is fired first."""
        stream = f"merchant-{merchant_id}"
        entry = self._entry(stream)
        async with entry.lock:
            if entry.story is None or time.monotonic() - entry.checked_at > STALE_AFTER_SECONDS:
                entry.story = await self._loaded(stream)
                entry.checked_at = time.monotonic()
            story = entry.story
        deadline = story.next_deadline(decider_of(stream))
        if deadline and deadline.fires_at <= now:
            await self.fire(stream, now)
            return await self._standing(merchant_id, now)
        state: merchants.MerchantState = story.state
        return story.version if state.is_active else None

    @property
    def _are_rules_stale(self) -> bool:
        """None are known, or they were read so long ago that another process may have published some since."""
        return not self._rulebooks.rules or time.monotonic() > self._rules_checked_at + STALE_AFTER_SECONDS

    def _is_unknown(self, rulebook: str | None) -> bool:
        """A stream names a rulebook that was published after the rules were read."""
        return rulebook is not None and rulebook not in self._rulebooks.rules

    async def _refresh_rules(self, needed: str | None = None) -> None:
        """Reads the rules again, once for all who find at the same time that it has to be done."""
        async with self._reading_rules:
            if self._are_rules_stale or self._is_unknown(needed):
                self._rulebooks = (await self._loaded(programme.STREAM)).state
                self._rules_checked_at = time.monotonic()


def body_sha256(command: Command) -> bytes:
    """What a key stands for: the name and the content of the command as its caller sent it."""
    return hashlib.sha256(type(command).__name__.encode() + b"\0" + msgspec.json.encode(command)).digest()


def _append(request: Request, stream: str, version: int, events: list[NewEvent]) -> Append:
    return Append(
        stream=stream, expected_version=version, events=events, actor=request.actor, role=request.role,
        key=request.key, body_sha256=body_sha256(request.command),
        correlation_id=request.correlation_id or request.key, source=request.source,
    )  # fmt: skip


def _clock_append(stream: str, version: int, events: list[NewEvent]) -> Append:
    """What the clock decided: no caller, no key."""
    return Append(
        stream=stream, expected_version=version, events=events, actor="ledger", role="clock", key=None,
        body_sha256=None, correlation_id=f"clock/{events[0].received_at:%Y-%m-%dT%H:%M:%SZ}", source=None,
    )  # fmt: skip


def _answer(result: Literal["accepted", "repeated"], stream: str, appended: Appended) -> Answer:
    ids = tuple(f"{stream}@{version}" for version in range(appended.first_version, appended.version + 1))
    return Answer(result, stream, None, appended.version, appended.position, ids)
