"""Written by a process of its own: the same answers, whoever of the two processes dies."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from eventsourcing.persistence import PersistenceError

from ledger.log_apart import WriterApart
from ledger.store import Append, Appended, Conflict, KeyReused, Store, StoreError, Unwritable
from tests.store.bank import WIRE, append, deposits


@pytest.fixture
def apart(ledger: str) -> Iterator[Store]:
    """A store whose log is written by another process."""
    with Store.open(ledger, wire=WIRE, writes_apart=True) as opened:
        yield opened


def writer_of(store: Store) -> int:
    """The number of the process that writes."""
    writer = store.recorder.writer
    assert isinstance(writer, WriterApart)
    assert writer._process is not None
    return writer._process.pid


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def is_running(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def ended(process: int) -> bool:
    """It ends within a few seconds."""
    for _ in range(500):
        if not is_running(process):
            return True
        time.sleep(0.01)
    return False


EVERY_ANSWER = [
    append("account-1", 0, *deposits(1, 2), key="k-1"),
    append("account-1", 2, *deposits(3), key="k-2"),
    append("account-1", 0, *deposits(1, 2), key="k-1"),
    append("account-1", 0, *deposits(1, 2), key="k-1", body="another"),
    append("account-1", 1, *deposits(4), key="k-3"),
    append("account-2", 0, *deposits(5)),
    append("account-3", 0, *deposits(6), key="nul\0"),
    append("account-2", 1, key="k-4"),
]


def told(answer: Appended | StoreError) -> tuple[object, ...]:
    """What an answer says, but when it was recorded."""
    if isinstance(answer, Appended):
        return (answer.stream, answer.first_version, answer.version, answer.position, answer.is_repeated)
    return (type(answer), str(answer), vars(answer))


def test_every_answer_is_the_one_that_is_given_within_the_process(store: Store, ledger: str) -> None:
    within = [told(answer) for answer in store.append(*EVERY_ANSWER)]
    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute("SET client_min_messages TO warning; DROP SCHEMA guarantee_ledger CASCADE")
    from migrations import migrate

    migrate(ledger)
    with Store.open(ledger, wire=WIRE, writes_apart=True) as other:
        assert [told(answer) for answer in other.append(*EVERY_ANSWER)] == within
    kinds = {answer[0] for answer in within if isinstance(answer[0], type)}
    assert kinds == {Conflict, KeyReused, Unwritable}


def test_what_is_appended_is_read_back_and_chained(apart: Store) -> None:
    apart.append(*EVERY_ANSWER)
    assert [event.data for event in apart.read_stream("account-1")] == deposits(1, 2, 3)
    assert all(check.differences == 0 for check in apart.verify_log())


def test_tasks_and_threads_may_write_at_the_same_time(apart: Store) -> None:
    async def submit() -> list[Appended]:
        tasks = [apart.submit(append(f"task-{n}", 0, *deposits(n), key=f"t-{n}")) for n in range(200)]
        threads = [
            asyncio.to_thread(apart.append, append(f"thread-{n}", 0, *deposits(n), key=f"r-{n}")) for n in range(20)
        ]
        found, _ = await asyncio.gather(asyncio.gather(*tasks), asyncio.gather(*threads))
        return list(found)

    assert len({answer.position for answer in asyncio.run(submit())}) == 200
    assert apart.head().position == 220


def test_after_the_writing_process_was_killed_another_one_goes_on(apart: Store) -> None:
    [first] = apart.append(append("account-1", 0, *deposits(1), key="k-1"))
    killed = writer_of(apart)
    kill(killed)

    [again] = apart.append(append("account-1", 0, *deposits(1), key="k-1"))
    [second] = apart.append(append("account-1", 1, *deposits(2), key="k-2"))

    assert isinstance(first, Appended)
    assert isinstance(again, Appended)
    assert again.is_repeated
    assert again.position == first.position
    assert isinstance(second, Appended)
    assert writer_of(apart) != killed


def test_killed_again_and_again_while_many_submit_it_loses_nothing(apart: Store) -> None:
    apart.append(append("account-0", 0, *deposits(1)))

    async def teller(number: int) -> None:
        for n in range(30):
            answer = await apart.submit(append(f"account-{number}", n, *deposits(n), key=f"{number}/{n}"))
            assert answer.version == n + 1

    async def killer() -> None:
        for _ in range(6):
            position = apart.head().position
            while apart.head().position < position + 50:
                await asyncio.sleep(0.01)
            kill(writer_of(apart))

    async def all_at_once() -> None:
        await asyncio.gather(killer(), *(teller(number) for number in range(1, 41)))

    asyncio.run(all_at_once())
    assert apart.head().position == 1 + 40 * 30
    assert [event.position for chunk in apart.scan() for event in chunk] == list(range(1, 1202))


def test_it_writes_behind_the_callers_back(apart: Store) -> None:
    answers = apart.begin(*[append(f"account-{n}", 0, *deposits(n)) for n in range(2_000)])
    assert [answer.position for answer in answers() if isinstance(answer, Appended)] == list(range(1, 2_001))


def test_without_a_database_it_says_what_the_package_says(ledger: str) -> None:
    with Store.open(ledger, wire=WIRE, writes_apart=True, retry_seconds=0.2) as store:
        store.append(append("account-1", 0, *deposits(1)))
        with psycopg.connect(ledger, autocommit=True) as connection:
            connection.execute("ALTER TABLE guarantee_ledger.head RENAME TO hidden")
        with pytest.raises(PersistenceError, match="head"):
            store.append(append("account-1", 1, *deposits(2)))


def test_it_ends_with_the_store(apart: Store) -> None:
    apart.append(append("account-1", 0, *deposits(1)))
    process = writer_of(apart)
    apart.close()
    assert not is_running(process)


def test_it_ends_when_the_process_that_it_writes_for_is_killed(ledger: str) -> None:
    script = (
        "import sys, time\n"
        "from ledger.store import Store\n"
        "from tests.store.bank import WIRE, append, deposits\n"
        "store = Store.open(sys.argv[1], wire=WIRE, writes_apart=True)\n"
        "store.append(append('account-1', 0, *deposits(1)))\n"
        "print(store.recorder.writer._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script, ledger], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        writing = int(process.stdout.readline())
        assert is_running(writing)
        process.kill()
    assert ended(writing)


def test_an_interrupt_is_for_the_caller_only(apart: Store) -> None:
    apart.append(append("account-1", 0, *deposits(1)))
    process = writer_of(apart)
    os.kill(process, signal.SIGINT)
    [answer] = apart.append(append("account-1", 1, *deposits(2)))
    assert isinstance(answer, Appended)
    assert writer_of(apart) == process


def test_a_batch_that_was_sent_when_the_writer_died_is_written_once(apart: Store) -> None:
    apart.append(append("account-0", 0, *deposits(1)))
    batch: list[Append] = [append(f"account-{n}", 0, *deposits(n), key=f"k-{n}") for n in range(1, 3_000)]
    answers = apart.begin(*batch)
    kill(writer_of(apart))
    found = answers()
    assert all(isinstance(answer, Appended) for answer in found)
    assert apart.head().position == 3_000
