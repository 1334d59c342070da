"""Group commit: many callers, few transactions, and nobody suffers for another."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from eventsourcing.persistence import OperationalError

from ledger.store import Appended, Conflict, Overloaded, Store, Unwritable
from tests.store.bank import WIRE, append, cut_connections, deposits
from tests.store.conftest import InThreads


@pytest.fixture
def busy(owner: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Somebody who holds the end of the log, so that every append waits until they commit."""
    owner.execute("BEGIN")
    owner.execute("SELECT FROM head FOR UPDATE")
    yield owner
    owner.rollback()


def test_many_callers_share_few_transactions(store: Store) -> None:
    async def main() -> list[Appended]:
        return await asyncio.gather(
            *[store.submit(append(f"account-{number}", 0, *deposits(1))) for number in range(500)]
        )

    answers = asyncio.run(main())

    assert sorted(answer.position for answer in answers) == list(range(1, 501))
    assert len({answer.recorded_at for answer in answers}) < 50


def test_the_order_of_submission_is_kept(store: Store) -> None:
    async def main() -> list[Appended]:
        return await asyncio.gather(
            *[store.submit(append("account-1", version, *deposits(version))) for version in range(300)]
        )

    answers = asyncio.run(main())

    assert [answer.position for answer in answers] == list(range(1, 301))


def test_of_many_who_race_for_a_version_one_wins(store: Store) -> None:
    async def main() -> list[Any]:
        callers = [store.submit(append("account-1", 0, *deposits(number))) for number in range(64)]
        return await asyncio.gather(*callers, return_exceptions=True)

    answers = asyncio.run(main())

    assert [type(answer) for answer in answers].count(Appended) == 1
    assert [type(answer) for answer in answers].count(Conflict) == 63
    assert store.head().position == 1


def test_a_stale_caller_harms_none_who_is_not(store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1)))

    async def main() -> list[Any]:
        stale = append("account-1", 0, *deposits(2))
        bad = append("account-\0", 0, *deposits(2))
        fresh = append("account-1", 1, *deposits(2))
        return await asyncio.gather(*map(store.submit, (stale, bad, fresh)), return_exceptions=True)

    answers = asyncio.run(main())

    assert [type(answer) for answer in answers] == [Conflict, Unwritable, Appended]


def test_when_too_many_wait_the_next_one_is_told_to_try_later(ledger: str, busy: psycopg.Connection) -> None:
    async def main(store: Store) -> tuple[list[Any], int]:
        waiting = [asyncio.ensure_future(store.submit(append(f"a-{n}", 0, *deposits(1)))) for n in range(14)]
        await asyncio.sleep(0.2)
        overloaded = [task for task in waiting if task.done()]
        busy.execute("COMMIT")
        return await asyncio.gather(*waiting, return_exceptions=True), len(overloaded)

    with Store.open(ledger, wire=WIRE, queue_limit=10) as store:
        answers, overloaded = asyncio.run(main(store))
        kinds = [type(answer) for answer in answers]
        written = store.head().position

    assert kinds.count(Overloaded) == overloaded > 0
    assert kinds.count(Appended) == written == 14 - overloaded


def test_a_caller_that_goes_away_harms_no_other(store: Store, busy: psycopg.Connection) -> None:
    async def main() -> list[Any]:
        under_way = asyncio.ensure_future(store.submit(append("under-way", 0, *deposits(1))))
        await asyncio.sleep(0.1)
        goes_away = asyncio.ensure_future(store.submit(append("goes-away", 0, *deposits(1))))
        stays = asyncio.ensure_future(store.submit(append("stays", 0, *deposits(1))))
        await asyncio.sleep(0.1)
        under_way.cancel()
        goes_away.cancel()
        await asyncio.sleep(0)
        busy.execute("COMMIT")
        return list(await asyncio.gather(under_way, goes_away, stays, return_exceptions=True))

    first, second, third = asyncio.run(main())

    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, asyncio.CancelledError)
    assert isinstance(third, Appended)
    assert [event.stream for event in store.read(0, 10)] == ["under-way", "stays"]


def test_callers_in_several_event_loops_share_one_store(store: Store, in_threads: InThreads) -> None:
    async def submit_some(thread: int) -> None:
        await asyncio.gather(*[store.submit(append(f"a-{thread}-{n}", 0, *deposits(1))) for n in range(50)])

    in_threads(lambda thread: asyncio.run(submit_some(thread)), 4)

    assert store.head().position == 200


def test_a_broken_connection_loses_and_doubles_nothing(store: Store, owner: psycopg.Connection) -> None:
    """Every command is acknowledged, although its connections are cut 20 times in the middle of the load."""

    async def submit_in_turn(caller: int) -> list[Appended]:
        stream = f"account-{caller}"
        return [await store.submit(append(stream, n, *deposits(n), key=f"{stream}/{n}")) for n in range(100)]

    async def cut_often() -> None:
        for _ in range(20):
            await asyncio.sleep(0.02)
            await asyncio.to_thread(cut_connections, owner)

    async def main() -> list[Appended]:
        cutting = asyncio.ensure_future(cut_often())
        answers = await asyncio.gather(*[submit_in_turn(caller) for caller in range(16)])
        await cutting
        return [answer for of_caller in answers for answer in of_caller]

    answers = asyncio.run(main())

    assert len(answers) == 1600
    events = store.read(0, 10_000)
    assert [event.position for event in events] == list(range(1, 1601))
    assert {answer.position: (answer.stream, answer.version) for answer in answers} == {
        event.position: (event.stream, event.version) for event in events
    }


def test_a_database_out_of_reach_is_each_callers_error(ledger: str) -> None:
    nowhere = ledger.replace(f":{psycopg.conninfo.conninfo_to_dict(ledger)['port']}/", ":1/")

    async def main(store: Store) -> list[Any]:
        callers = [store.submit(append(f"a-{n}", 0, *deposits(1))) for n in range(3)]
        return await asyncio.gather(*callers, return_exceptions=True)

    with Store.open(nowhere, wire=WIRE, retry_seconds=0.1) as store:
        answers = asyncio.run(main(store))

    assert [type(answer) for answer in answers] == [OperationalError] * 3
