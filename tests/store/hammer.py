"""Writers that can be killed at any moment and readers that follow the log, and what must be true of them afterwards.

A writer keeps a journal: a line before it submits a command, and a line with the answer after.  When it is started
again it submits once more whatever it has no answer to.  So its journals say, after any number of crashes, what was
promised; ``Findings`` compares that with the log.
"""

import asyncio
import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, Self

import msgspec
import psycopg

from ledger.log_library import LedgerDatastore, LedgerRecorder
from ledger.store import Append, Appended, Conflict, Store
from tests.store.bank import WIRE, accepted, append, deposits

CALLERS = 8
"""Tasks of one writer that submit at the same time."""
SHARED_STREAMS = 4
"""Streams that all writers fight for."""


class Command(msgspec.Struct, frozen=True):
    """What a writer is about to submit."""

    key: str
    stream: str
    events: int

    def append(self, expected_version: int) -> Append:
        return append(self.stream, expected_version, *deposits(*range(self.events)), key=self.key, body=self.key)


class Journal:
    """What one writer set out to do and what it was answered; survives the writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commands: dict[str, Command] = {}
        self.answers: dict[str, Appended] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            entry = json.loads(line)
            if "command" in entry:
                command = msgspec.convert(entry["command"], Command)
                self.commands[command.key] = command
            else:
                self.answers[entry["key"]] = msgspec.convert(entry["answer"], Appended)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def intend(self, command: Command) -> None:
        self.commands[command.key] = command
        self._write({"command": command})

    def acknowledge(self, command: Command, answer: Appended) -> None:
        self.answers[command.key] = answer
        self._write({"key": command.key, "answer": answer})

    def unanswered(self) -> list[Command]:
        return [command for command in self.commands.values() if command.key not in self.answers]

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, msgspec.json.encode(entry) + b"\n")  # one write: a kill leaves all of the line or nothing


# --- processes --------------------------------------------------------------------------------------------------------


def write_until(url: str, folder: str, name: str, most: int, is_over: Any) -> None:
    """A writer: submits commands until it was given ``most`` answers in all its lives, or it is over.

    Every other one writes apart."""
    journal = Journal(Path(folder) / f"{name}.journal")
    writes_apart = int(name.rpartition("-")[2]) % 2 == 1
    with Store.open(url, wire=WIRE, retry_seconds=120, writes_apart=writes_apart) as store:
        asyncio.run(_write(store, journal, name, most, is_over))


async def _write(store: Store, journal: Journal, name: str, most: int, is_over: Any) -> None:
    left = iter(journal.unanswered())
    numbers = iter(range(len(journal.commands), most))

    async def call() -> None:
        while command := next(left, None) or _new_command(
            journal, name, None if is_over.value else next(numbers, None)
        ):
            journal.acknowledge(command, await _submit(store, command))

    await asyncio.gather(*[call() for _ in range(CALLERS)])


def _new_command(journal: Journal, name: str, number: int | None) -> Command | None:
    if number is None:
        return None
    own, shared = f"{name}-{number % CALLERS}", f"shared-{number % SHARED_STREAMS}"
    command = Command(f"{name}/{number}", random.choice([own, own, own, shared]), random.choice([1, 1, 2, 3]))
    journal.intend(command)
    return command


async def _submit(store: Store, command: Command) -> Appended:
    """The command's answer, decided again after every conflict."""
    version = 0
    while True:
        try:
            return await store.submit(command.append(version))
        except Conflict as conflict:
            version = conflict.actual


def follow_with_a_tail(url: str, folder: str, name: str, end: Any) -> None:
    """A reader as our own projections are: waits for news, reads by position."""
    with Store.open(url, wire=WIRE) as store, store.listen() as tail, _seen(folder, name) as see:
        position = 0
        while not 0 < end.value <= position:
            tail.wait(position, timeout=0.1)
            for event in store.read(position, 500):
                see(event.position, event.event_id)
                position = event.position


def follow_by_polling(url: str, folder: str, name: str, end: Any) -> None:
    """A reader that knows nothing but the view: asks again and again for what comes after the last it saw."""
    query = "SELECT position, stream, version FROM guarantee_ledger.events WHERE position > %s ORDER BY 1 LIMIT 500"
    with psycopg.connect(url, autocommit=True) as connection, _seen(folder, name) as see:
        position = 0
        while not 0 < end.value <= position:
            for found, stream, version in connection.execute(query, [position]).fetchall():
                see(found, f"{stream}@{version}")
                position = found
            time.sleep(_POLL_SECONDS)


def follow_with_the_library(url: str, folder: str, name: str, end: Any) -> None:
    """A reader as the eventsourcing package is."""
    recorder = LedgerRecorder(LedgerDatastore(url))
    with recorder.datastore, _seen(folder, name) as see:
        position = 0
        while not 0 < end.value <= position:
            for event in recorder.select_notifications(position, 500, inclusive_of_start=False):
                see(event.id, f"{event.originator_id}@{event.originator_version}")
                position = event.id
            time.sleep(_POLL_SECONDS)


_POLL_SECONDS = 0.002
READERS = (follow_with_a_tail, follow_by_polling, follow_with_the_library)


@contextmanager
def _seen(folder: str, name: str) -> Iterator[Any]:
    with (Path(folder) / f"{name}.seen").open("w") as file:
        yield lambda position, event_id: file.write(f"{position} {event_id}\n")


# --- the master of the processes --------------------------------------------------------------------------------------


class Hammer:
    """Writers on one ledger, to be killed and started again."""

    def __init__(self, url: str, folder: Path, writers: int, most: int = 10**9) -> None:
        self.url, self.folder, self._most = url, folder, most
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.store.hammer"])
        self.is_over = self.context.Value("b", 0)
        self.end = self.context.Value("q", 0)
        self.writers = {f"writer-{number}": self._start_writer(f"writer-{number}") for number in range(writers)}
        self.readers: dict[str, ForkServerProcess] = {}
        self.kills = 0
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves no process behind, however it went."""
        for process in (*self.writers.values(), *self.readers.values()):
            if process.is_alive():  # the number of one that ended may belong to a stranger by now
                process.kill()
                process.join()

    def start_readers(self) -> None:
        for follow in READERS:
            arguments = (self.url, str(self.folder), follow.__name__, self.end)
            self.readers[follow.__name__] = self.context.Process(target=follow, args=arguments)
            self.readers[follow.__name__].start()

    def kill_a_writer(self) -> None:
        """``kill -9`` of one that is at work, and a new life for it; nothing if none is."""
        working = [name for name, process in self.writers.items() if process.is_alive()]
        if working:
            name = random.choice(working)
            self.writers[name].kill()
            self.writers[name].join()
            self.writers[name] = self._start_writer(name)
            self.kills += 1

    def wait_for_load(self) -> None:
        """Until the writers have written something since the last time, so that it is work that is interrupted."""
        give_up_at = time.monotonic() + 60
        while (written := sum(path.stat().st_size for path in self.folder.glob("*.journal"))) <= self._written:
            assert time.monotonic() < give_up_at, "the writers do not work"
            time.sleep(0.01)
        self._written = written

    def wait_for_writers(self) -> None:
        """Until each has all the answers it is to get."""
        _join(self.writers)

    def finish(self) -> None:
        """Lets the writers end what is under way, and the readers catch up with them."""
        self.is_over.value = 1
        _join(self.writers)
        with Store.open(self.url, wire=WIRE) as store:
            self.end.value = store.head().position
        _join(self.readers)

    def journals(self) -> list[Journal]:
        return [Journal(self.folder / f"{name}.journal") for name in self.writers]

    def seen(self) -> dict[str, list[tuple[int, str]]]:
        """What each reader saw, in its order: position and event id."""
        lines = {name: (self.folder / f"{name}.seen").read_text().splitlines() for name in self.readers}
        return {
            name: [(int(position), event_id) for position, event_id in (line.split(" ") for line in of_reader)]
            for name, of_reader in lines.items()
        }

    def _start_writer(self, name: str) -> ForkServerProcess:
        arguments = (self.url, str(self.folder), name, self._most, self.is_over)
        process = self.context.Process(target=write_until, args=arguments)
        process.start()
        return process


def _join(processes: dict[str, ForkServerProcess]) -> None:
    for name, process in processes.items():
        process.join(timeout=120)
        if process.exitcode != 0:
            process.kill()
            raise AssertionError(f"{name} ended with {process.exitcode}")


# --- what must be true afterwards -------------------------------------------------------------------------------------


class Findings(msgspec.Struct):
    """Counts of what was promised, and of every promise that was broken."""

    events: int
    commands: int
    acknowledged: int
    repeated: int
    """Those whose writer or server was killed after the commit and before the answer: found again by their keys."""
    lost: int
    """Acknowledged commands that the log does not hold where the answer said."""
    halves: int
    """Commands of which the log holds a part."""
    answered_otherwise: int
    """Acknowledged commands that get another answer when they are submitted again."""
    gaps: int
    """Positions that are missing."""
    differences: int
    """What ``verify_log`` finds."""

    def are_clean(self) -> bool:
        return not (self.lost or self.halves or self.answered_otherwise or self.gaps or self.differences)


def findings(store: Store, journals: Sequence[Journal]) -> Findings:
    commands = {key: command for journal in journals for key, command in journal.commands.items()}
    answers = {key: answer for journal in journals for key, answer in journal.answers.items()}
    entries = list(_entries(store))
    count_by_key: dict[str | None, int] = {}
    for entry in entries:
        count_by_key[entry.key] = count_by_key.get(entry.key, 0) + 1
    places = {(entry.key, entry.position): (entry.stream, entry.version) for entry in entries}
    return Findings(
        events=len(entries),
        commands=len(commands),
        acknowledged=len(answers),
        repeated=sum(answer.is_repeated for answer in answers.values()),
        lost=sum(places.get((k, a.position)) != (a.stream, a.version) for k, a in answers.items()),
        halves=sum(count_by_key.get(k, 0) not in (0, command.events) for k, command in commands.items()),
        answered_otherwise=_answered_otherwise(store, commands, answers),
        gaps=len(set(range(1, store.head().position + 1)) - {entry.position for entry in entries}),
        differences=sum(check.differences for check in store.verify_log()),
    )


def _entries(store: Store) -> Iterator[Any]:
    position = 0
    while entries := store.entries(position, 10_000):
        yield from entries
        position = entries[-1].position


def _answered_otherwise(store: Store, commands: dict[str, Command], answers: dict[str, Appended]) -> int:
    keys = list(answers)
    again = store.append(*[commands[key].append(0) for key in keys])
    return sum(
        msgspec.structs.replace(accepted(answer), is_repeated=True)
        != msgspec.structs.replace(answers[key], is_repeated=True)
        or not accepted(answer).is_repeated
        for key, answer in zip(keys, again, strict=True)
    )
