"""``guarantee`` as it is typed: the real entry point, in this process or in one of its own, over a real database."""

import io
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import structlog

from api import cli
from migrations import migrate
from tests.postgres import drop_database, fresh_database

GUARANTEE = [sys.executable, "-c", "from api.cli import main; main()"]
NUMBERS = count(1)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.api.console"])


class Ran:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def json(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def ok(self) -> "Ran":
        """It did what it was asked to."""
        assert self.code == 0, f"exit {self.code}: {self.err or self.text}"
        return self

    def refused(self, code: int) -> str:
        """It ended with this code, printed no data, and said why in one line, which is returned."""
        assert self.code == code, f"exit {self.code}: {self.err or self.text}"
        assert self.out == b""
        assert "Traceback" not in self.err
        [line] = self.err.splitlines()
        assert line.startswith("guarantee: ")
        return line.removeprefix("guarantee: ")


class Guarantee:
    """A shell in which ``GUARANTEE_DATABASE_URL`` is set: ``guarantee("digest", "--json")``."""

    def __init__(self, url: str, **environment: str) -> None:
        self.url = url
        self.environment = {"GUARANTEE_DATABASE_URL": url, "COLUMNS": "200", **environment}

    def __call__(self, *arguments: object, stdin: bytes | str = b"") -> Ran:
        """Runs the command in this process."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        out, err = io.BytesIO(), io.BytesIO()
        with pytest.MonkeyPatch.context() as here, _logs_kept():
            here.setattr(sys, "argv", ["guarantee", *map(str, arguments)])
            here.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8"))
            here.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8"))
            here.setattr(sys, "stderr", io.TextIOWrapper(err, "utf-8"))
            for name, value in self.environment.items():
                here.setenv(name, value)
            code = _ended(cli.main)
            sys.stdout.flush()
            sys.stderr.flush()
            return Ran(code, out.getvalue(), err.getvalue().decode())

    def apart(self, *arguments: object, stdin: bytes | str = b"") -> Ran:
        """Runs the command in a process of its own."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*GUARANTEE, *map(str, arguments)], input=given, env=self.everything(), capture_output=True, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr.decode())

    def start(self, *arguments: object, stdin: bytes | str = b"") -> "Started":
        """Starts the command in a process of its own, forked from one that has loaded everything already."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        return Started(self.environment, [*map(str, arguments)], given)

    def everything(self) -> dict[str, str]:
        """The environment of a process of its own."""
        return {**os.environ, **self.environment}

    def sent(self, *lines: Mapping[str, Any], now: bool = False) -> list[Any]:
        """Sends commands that all have to be accepted; by the virtual clock unless ``now``."""
        clock = [] if now else ["--virtual-clock"]
        ran = self("command", *clock, "--file", "-", stdin=jsonl(lines)).ok()
        return ran.lines

    def export(self, what: str, *arguments: object, form: str = "jsonl") -> bytes:
        """What ``export`` writes."""
        return self("export", what, "--format", form, *arguments).ok().out

    def digests(self, *arguments: object) -> dict[str, str]:
        """The digests of the read models."""
        found: dict[str, str] = self("digest", "--json", *arguments).ok().json["read_models"]
        return found

    def chain(self) -> tuple[int, str]:
        """The end of the log, and its chain there."""
        found = self("digest", "--json").ok().json
        return found["position"], found["chain"]


class Started:
    """A command that runs in a process of its own."""

    def __init__(self, environment: Mapping[str, str], arguments: Sequence[str], stdin: bytes) -> None:
        self._answer, theirs = PROCESSES.Pipe(duplex=False)
        self.process = PROCESSES.Process(target=_run_apart, args=(theirs, environment, arguments, stdin))
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        """``kill -9``; returns when it is gone."""
        self.process.kill()
        self.process.join()

    def ran(self) -> Ran:
        """What came of it, once it has ended by itself."""
        ran = Ran(*self._answer.recv())
        self.process.join()
        return ran


def _run_apart(answer: Connection, environment: Mapping[str, str], arguments: Sequence[str], stdin: bytes) -> None:
    ran = Guarantee(environment["GUARANTEE_DATABASE_URL"], **environment)(*arguments, stdin=stdin)
    answer.send((ran.code, ran.out, ran.err))


def killed_at(stops: Sequence[int], processes: int, work: Callable[..., None], url: str, *more: Any) -> None:
    """Processes do the same work at once and are killed (``kill -9``) when the log has come to each of these positions;
    then others do it to the end."""
    sweep = PROCESSES.Process(target=_sweep, args=(stops, processes, work, url, more))
    sweep.start()
    sweep.join()
    assert sweep.exitcode == 0


def _sweep(stops: Sequence[int], processes: int, work: Callable[..., None], url: str, more: Sequence[Any]) -> None:
    """In a process of its own, which has no threads and so can fork."""
    for stop in stops:
        workers = [_forked(work, url, *more) for _ in range(processes)]
        while position_of(url) < stop and not all(has_ended(x) for x in workers):
            time.sleep(0.001)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
    for worker in [_forked(work, url, *more) for _ in range(processes)]:
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0


def _forked(work: Callable[..., None], *arguments: Any) -> int:
    worker = os.fork()
    if worker == 0:
        try:
            work(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return worker


def has_ended(process: int) -> bool:
    """Whether a child has ended; it can still be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def position_of(url: str) -> int:
    """The end of the log."""
    [[position]] = query(url, "SELECT position FROM head")
    return int(position)


def jsonl(lines: Sequence[Mapping[str, Any]]) -> str:
    """JSON lines."""
    return "".join(f"{json.dumps(line)}\n" for line in lines)


@contextmanager
def database(postgres: str, *, template: str = "template1", is_migrated: bool = True) -> Iterator[str]:
    """The URL of a database of its own, with an empty ledger in it unless it is a copy of another one."""
    name = f"console_{os.getpid()}_{next(NUMBERS)}"
    url = fresh_database(postgres, name, template=template)
    try:
        if is_migrated and template == "template1":
            migrate(url)
        yield url
    finally:
        drop_database(postgres, name)


def name_of(url: str) -> str:
    """The name of the database, by which it can be copied."""
    return urlsplit(url).path[1:]


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What the database itself says."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path TO guarantee_ledger")
        answer = connection.execute(statement)  # type: ignore[arg-type]
        return answer.fetchall() if answer.description else []


@contextmanager
def _logs_kept() -> Iterator[None]:
    """The command sets up the logs of the process it believes to own; they are put back."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()


def _ended(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
