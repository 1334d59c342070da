"""Waiting for news: woken at once, never for ever."""

import asyncio
import threading
import time

import psycopg
import pytest

from ledger import log_tail
from ledger.store import Store
from tests.store.bank import append, cut_connections, deposits


def test_news_that_is_there_already_is_told_at_once(store: Store) -> None:
    store.append(append("a", 0, *deposits(1, 2)))

    with store.listen() as tail:
        assert tail.wait(0, timeout=10) == 2
        assert tail.wait(1, timeout=10) == 2


def test_without_news_the_wait_ends_in_time(store: Store) -> None:
    store.append(append("a", 0, *deposits(1)))

    with store.listen() as tail:
        tail.wait(0, timeout=10)
        began = time.monotonic()
        assert tail.wait(1, timeout=0.1) == 1
        assert time.monotonic() - began < 5


def test_news_wakes_those_who_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "_POLL_SECONDS", 3600)
    with store.listen() as tail:
        assert tail.wait(-1, timeout=10) == 0
        threading.Timer(0.1, lambda: store.append(append("a", 0, *deposits(1)))).start()
        assert tail.wait(0, timeout=10) == 1


def test_a_thousand_tasks_wait_on_one_connection(store: Store) -> None:
    async def main() -> list[int]:
        with store.listen() as tail:
            waiting = [asyncio.ensure_future(tail.wait_async(0, timeout=10)) for _ in range(1000)]
            await asyncio.sleep(0.1)
            await store.submit(append("a", 0, *deposits(1)))
            return await asyncio.gather(*waiting, tail.wait_async(1, timeout=0.01))

    assert asyncio.run(main()) == [1] * 1001


def test_a_task_that_stops_waiting_is_forgotten(store: Store) -> None:
    async def main() -> int:
        with store.listen() as tail:
            impatient = asyncio.ensure_future(tail.wait_async(0, timeout=10))
            await asyncio.sleep(0.05)
            impatient.cancel()
            await store.submit(append("a", 0, *deposits(1)))
            return await tail.wait_async(0, timeout=10)

    assert asyncio.run(main()) == 1


def test_news_is_heard_although_the_listening_connection_was_cut(store: Store, owner: psycopg.Connection) -> None:
    with store.listen() as tail:
        for version in range(3):
            cut_connections(owner)
            store.append(append("a", version, *deposits(1)))
            assert tail.wait(version, timeout=10) == version + 1


def test_a_lost_notification_costs_a_second_and_not_an_event(store: Store, owner: psycopg.Connection) -> None:
    """The head moves without any notification, as if it had been lost."""
    with store.listen() as tail:
        tail.wait(-1, timeout=0.3)
        owner.execute("UPDATE head SET position = 1")
        assert tail.wait(0, timeout=5) == 1


def test_a_false_notification_is_not_believed(store: Store, owner: psycopg.Connection) -> None:
    with store.listen() as tail:
        tail.wait(-1, timeout=0.3)
        owner.execute("SELECT pg_notify('guarantee_ledger', '999')")
        owner.execute("SELECT pg_notify('guarantee_ledger', 'nonsense')")
        assert tail.wait(0, timeout=0.3) == 0


def test_closing_wakes_those_who_wait(store: Store) -> None:
    tail = store.listen()
    tail.wait(-1, timeout=1)
    threading.Timer(0.1, tail.close).start()
    began = time.monotonic()

    assert tail.wait(0, timeout=10) == 0
    assert time.monotonic() - began < 5


def test_a_listener_that_can_never_work_says_so(store: Store, owner: psycopg.Connection) -> None:
    owner.execute("ALTER TABLE head RENAME TO lost_head")
    with store.listen() as tail, pytest.raises(psycopg.errors.UndefinedTable):
        tail.wait(0, timeout=10)
