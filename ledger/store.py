"""The seam to PostgreSQL: the one place where events are appended and read.

Three promises, tested by trying to break them: a reader that follows positions sees every event once, in the order of
commits; positions have no gaps; what was acknowledged is never lost.

The work is done by its neighbours: ``log`` (what an append is, and the chain), ``log_writer`` (one transaction for many
appends), ``log_apart`` (the same in another process), ``log_reader`` (events as lines), ``log_tail`` (waiting for
news), ``log_check`` (is all as it should be?) and ``log_library`` (the eventsourcing package around it).
"""

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import psycopg
from psycopg.rows import tuple_row

from ledger import log_check, log_reader
from ledger.events import Recorded, Wire
from ledger.log import (
    Answer,
    Append,
    Appended,
    CommandRecord,
    Conflict,
    Encoded,
    Head,
    KeyReused,
    Overloaded,
    StoreError,
    Unwritable,
    encode,
    is_name,
)
from ledger.log_check import Check
from ledger.log_library import SCHEMA, LedgerDatastore, LedgerRecorder, system_clock, writer_role
from ledger.log_reader import Entry
from ledger.log_tail import Tail
from ledger.log_writer import Connection, library_error, patiently

__all__ = [
    "Answer",
    "Append",
    "Appended",
    "Check",
    "CommandRecord",
    "Conflict",
    "Entry",
    "Head",
    "KeyReused",
    "Overloaded",
    "Store",
    "StoreError",
    "Tail",
    "Unwritable",
]

T = TypeVar("T")
R = TypeVar("R")

_LAST = 2**63 - 1
_AHEAD = 2


class Store:
    """One ledger's log."""

    def __init__(self, recorder: LedgerRecorder, wire: Wire, *, queue_limit: int, retry_seconds: float) -> None:
        self.recorder, self.wire = recorder, wire
        self._datastore = recorder.datastore
        self._retry_seconds = retry_seconds
        self._threads = ThreadPoolExecutor(8, "ledger-store")
        self._submitting = _PerLoop(lambda: _Gathering(self._write_gathered, queue_limit, 1_000))
        self._loading = _PerLoop(lambda: _Gathering(self._in_thread(self._load_gathered), queue_limit, 1_000))
        self._finding = _PerLoop(lambda: _Gathering(self._in_thread(self._find_gathered), queue_limit, 1_000))

    @classmethod
    def open(
        cls,
        url: str,
        schema: str = SCHEMA,
        *,
        wire: Wire,
        now: Callable[[], datetime] = system_clock,
        writer_role: bool = True,
        queue_limit: int = 10_000,
        retry_seconds: float = 30.0,
        writes_apart: bool = False,
    ) -> Self:
        """Opens the ledger in ``schema`` of the database at ``url``, which was migrated before.

        ``now`` is the writer's clock, virtual in imports.  ``writer_role``: take the role that can only add, if there.
        ``queue_limit``: how many submitted appends may wait before the next one is ``Overloaded``.  ``retry_seconds``:
        for how long a lost connection is sought again before callers get the error.  ``writes_apart``: append in a
        process of its own, for doors where much is decided.
        """
        datastore = LedgerDatastore(url, schema, writer_role=writer_role)
        recorder = LedgerRecorder(datastore, now=now, retry_seconds=retry_seconds, writes_apart=writes_apart)
        return cls(recorder, wire, queue_limit=queue_limit, retry_seconds=retry_seconds)

    def close(self) -> None:
        """Closes every connection; what is under way is finished first."""
        self._threads.shutdown(wait=True)
        self.recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- writing ---------------------------------------------------------------------------------------------------

    def append(self, *appends: Append) -> list[Answer]:
        """Writes many appends in one transaction, in order, each judged on its own; from any thread.

        A later append to a stream sees the earlier ones of the same call; after a ``Conflict``, later ones to that
        stream conflict too.  Raises the library's errors if the database is out of reach.
        """
        return self.begin(*appends)()

    def begin(self, *appends: Append) -> Callable[[], list[Answer]]:
        """The same behind the caller's back, if the log is written by another process.  What is returned waits for the
        answers; it has to be called before anything else is appended."""
        encoded = [self._encoded(append) for append in appends]
        good = [one for one in encoded if isinstance(one, Encoded)]
        written = self.recorder.writer.begin(good, "sequence") if good else list

        def answers() -> list[Answer]:
            found = iter(written())
            return [next(found) if isinstance(one, Encoded) else one for one in encoded]

        return answers

    async def submit(self, append: Append) -> Appended:
        """Writes one append, together with all that are submitted at the same time; raises ``StoreError``.

        The order of submission is kept.  A caller that is cancelled harms no other; its append is dropped if it still
        waits, and written if it is under way.
        """
        return await self._submitting.here().ask(encode(append, self.wire))

    def _encoded(self, append: Append) -> Encoded | Unwritable:
        try:
            return encode(append, self.wire)
        except Unwritable as error:
            return error

    async def _write_gathered(self, batch: Sequence[Encoded]) -> Sequence[Answer]:
        return await self.recorder.writer.write_soon(batch, "each")

    def _in_thread(
        self, serve: Callable[[Sequence[T]], Sequence[R]]
    ) -> Callable[[Sequence[T]], Awaitable[Sequence[R]]]:
        return lambda batch: asyncio.get_running_loop().run_in_executor(self._threads, serve, batch)

    # --- reading ---------------------------------------------------------------------------------------------------

    def read_stream(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[Recorded]:
        """The events of a stream with versions after ``after`` up to and including ``upto``, in order."""
        bounds = {"stream": stream, "after": after, "upto": _LAST if upto is None else upto}
        return list(self._lines(log_reader.READ_STREAM, bounds)) if is_name(stream) else []

    def load_streams(self, streams: Sequence[str]) -> dict[str, list[Recorded]]:
        """The events of many streams in one query: stream -> its events in order; a new stream has none."""
        found: dict[str, list[Recorded]] = {stream: [] for stream in streams}
        for event in self._lines(log_reader.READ_STREAMS, {"streams": list(filter(is_name, found))}):
            found[event.stream].append(event)
        return found

    async def load(self, streams: Sequence[str]) -> dict[str, list[Recorded]]:
        """The same; what is asked for at the same time is read in one query."""
        return await self._loading.here().ask(streams)

    def _load_gathered(self, batch: Sequence[Sequence[str]]) -> Sequence[dict[str, list[Recorded]] | Exception]:
        try:
            found = self.load_streams([stream for streams in batch for stream in streams])
        except msgspec.ValidationError as error:
            # Somebody's stream has an event in a shape that no one knows; the others are to get theirs.
            return [self._load_alone(streams) for streams in batch] if len(batch) > 1 else [error]
        return [{stream: found[stream] for stream in streams} for streams in batch]

    def _load_alone(self, streams: Sequence[str]) -> dict[str, list[Recorded]] | Exception:
        [found] = self._load_gathered([streams])
        return found

    def read(self, after: int, limit: int, upto: int | None = None) -> list[Recorded]:
        """At most ``limit`` events with positions after ``after`` up to and including ``upto``, in order."""
        last = after + limit if upto is None else min(after + limit, upto)
        return list(self._lines(log_reader.READ_POSITIONS, {"after": after, "upto": last}))

    def scan(
        self, *, after: int = 0, upto: int | None = None, chunk: int = 20_000, partition: tuple[int, int] | None = None
    ) -> Iterator[Sequence[Recorded]]:
        """All events after ``after`` up to ``upto`` (or the present end), in order and in chunks: the fast way.

        ``partition=(i, n)`` reads only every n-th part of the streams, whole streams, so that n processes can share
        the work.  While one chunk is used, the next ones are fetched.
        """
        statement, parameters = log_reader.READ_POSITIONS, dict[str, Any]()
        if partition is not None:
            statement, parameters = log_reader.READ_PARTITION, _part(partition)
            chunk *= partition[1]
        end = self.head().position if upto is None else upto
        starts = range(after, end, chunk)
        fetch = functools.partial(self._fetch, statement)
        ranges = [parameters | {"after": start, "upto": min(start + chunk, end)} for start in starts]
        for lines in _ahead(fetch, ranges):
            yield log_reader.decode_lines(self.wire, lines)

    def versions(self, *, partition: tuple[int, int] | None = None) -> dict[str, int]:
        """The last version of every stream; of a part of the streams as in ``scan``."""
        statement, parameters = log_reader.READ_VERSIONS, dict[str, Any]()
        if partition is not None:
            statement, parameters = log_reader.READ_VERSIONS_OF_PARTITION, _part(partition)
        found = self._fetch(statement, parameters)
        return msgspec.json.decode(found, type=dict[str, int]) if found else {}

    def head(self) -> Head:
        """The end of the log."""
        [row] = self._rows(log_reader.READ_HEAD, {})
        return Head(*row)

    def find(self, keys: Sequence[str]) -> dict[str, CommandRecord]:
        """The records of those commands among ``keys`` that were accepted."""
        rows = self._rows(log_reader.FIND_COMMANDS, {"keys": list(filter(is_name, keys))})
        return {row[0]: CommandRecord(*row) for row in rows}

    async def find_async(self, keys: Sequence[str]) -> dict[str, CommandRecord]:
        """The same; what is asked for at the same time is looked up in one query."""
        return await self._finding.here().ask(keys)

    def _find_gathered(self, batch: Sequence[Sequence[str]]) -> Sequence[dict[str, CommandRecord]]:
        found = self.find([key for keys in batch for key in keys])
        return [{key: found[key] for key in keys if key in found} for keys in batch]

    def history(
        self,
        stream: str,
        *,
        upto_position: int | None = None,
        recorded_before: datetime | None = None,
        occurred_before: datetime | None = None,
    ) -> list[Entry]:
        """The events of a stream with all their columns: up to a position, or strictly before an instant."""
        bounds = {
            "stream": stream,
            "upto_position": upto_position,
            "recorded_before": recorded_before,
            "occurred_before": occurred_before,
        }
        if not is_name(stream):
            return []
        return self._query(
            lambda connection: log_reader.read_entries(connection, self.wire, log_reader.ENTRIES_OF_STREAM, bounds)
        )

    def entries(self, after: int, limit: int) -> list[Entry]:
        """At most ``limit`` events after position ``after`` with all their columns, in order."""
        bounds = {"after": after, "limit": limit}
        return self._query(
            lambda connection: log_reader.read_entries(connection, self.wire, log_reader.ENTRIES_AFTER, bounds)
        )

    def listen(self) -> Tail:
        """Waits for news on a connection of its own; close it."""
        return Tail(self._datastore.connect, self.recorder.channel_name)

    def verify_log(self) -> list[Check]:
        """Whether the log is what it was: every promise that can be checked, with the number of differences."""
        return self._query(lambda connection: log_check.check(connection, writer_role(self._datastore.schema)))

    def _lines(self, statement: str, parameters: dict[str, Any]) -> Sequence[Recorded]:
        return log_reader.decode_lines(self.wire, self._fetch(statement, parameters))

    def _fetch(self, statement: str, parameters: dict[str, Any]) -> bytes:
        return self._query(lambda connection: log_reader.read_lines(connection, statement, parameters))

    def _rows(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        def query(connection: Connection) -> list[tuple[Any, ...]]:
            with connection.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(statement, parameters, prepare=True).fetchall()

        return self._query(query)

    def _query(self, query: Callable[[Connection], T]) -> T:
        """The answer to ``query`` on a connection of the pool, asked again for a while if the connection is lost."""

        def attempt() -> T:
            pool = self._datastore.pool
            pool.open()
            try:
                with pool.connection() as connection:
                    return query(connection)
            except psycopg.OperationalError:
                pool.check()  # after a restart of the server all its connections are dead, not only this one
                raise

        try:
            return patiently(attempt, self._retry_seconds)
        except psycopg.Error as error:
            raise library_error(error) from error


def _part(partition: tuple[int, int]) -> dict[str, Any]:
    return {"part": partition[0], "parts": partition[1]}


def _ahead(fetch: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """``fetch`` of each item, in order; while one result is used, the next two are fetched by other threads."""
    with ThreadPoolExecutor(_AHEAD, "ledger-scan") as threads:
        fetching: deque[Future[R]] = deque()
        for item in items:
            fetching.append(threads.submit(fetch, item))
            if len(fetching) > _AHEAD:
                yield fetching.popleft().result()
        while fetching:
            yield fetching.popleft().result()


class _Gathering(Generic[T, R]):
    """Serves what many tasks of one event loop ask for: while one batch is under way, the next one gathers."""

    def __init__(
        self, serve: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], limit: int, most: int
    ) -> None:
        self._serve, self._limit, self._most = serve, limit, most
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def ask(self, item: T) -> asyncio.Future[R]:
        """The answer to come; in the order of asking.  Raises ``Overloaded``."""
        if len(self._waiting) >= self._limit:
            raise Overloaded(f"{len(self._waiting)} are waiting already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, answer))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return answer

    async def _run(self) -> None:
        try:
            while batch := self._next_batch():
                items = [item for item, _ in batch]
                try:
                    answers = await self._serve(items)
                except Exception as error:
                    _hand_out(batch, [error] * len(batch))
                else:
                    _hand_out(batch, answers)
        finally:
            self._task = None

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        """Those who wait, in order, but for those who went away."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._most:
            asked = self._waiting.popleft()
            if not asked[1].done():
                batch.append(asked)
        return batch


def _hand_out(batch: Sequence[tuple[Any, asyncio.Future[R]]], answers: Sequence[R | Exception]) -> None:
    for (_, waiting), answer in zip(batch, answers, strict=True):
        if waiting.done():
            continue
        if isinstance(answer, Exception):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)


class _PerLoop(Generic[T]):
    """One of a kind for each event loop."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def here(self) -> T:
        """The one of the running loop."""
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            made = self._made[loop] = self._make()
        return made
