"""Read models that follow the log: exactly once, whoever runs, whatever dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ledger.store import Append, Store
from ledger.streams import WIRE
from projections import PROJECTIONS, replay
from projections.projection import Projection
from projections.runner import Projector
from tests.ledger.histories import MOVES, Move
from tests.projections import toys
from tests.projections.conftest import InThreads, empty_ledger
from tests.projections.logs import AT_ONCE, orders, random_history, written
from tests.projections.toys import FRAGILE, FRAGILE_PLACED, LENGTHS, PLACED, named
from tests.store.bank import cut_connections
from tests.store.conftest import NIGHTLY

FRAGILES = named(FRAGILE, FRAGILE_PLACED, LENGTHS, PLACED)


def live_digests(projector: Projector) -> dict[str, str]:
    with projector.models.snapshot() as snapshot:
        return {name: snapshot.digest(name) for name in projector.projections}


def replayed_digests(store: Store, projections: dict[str, Projection], upto: int | None = None) -> dict[str, str]:
    rows = replay.fold_rows(store.scan(upto=upto), projections)
    return {name: replay.digest(x, replay.shown(x, rows[name])) for name, x in projections.items()}


def check(projector: Projector, position: int) -> None:
    """Everything stands at the position, and is what the log says."""
    assert {found.position for found in projector.models.status().values()} == {position}
    assert live_digests(projector) == replayed_digests(projector.store, projector.projections)


def wait_until(happens: Callable[[], bool], seconds: float = 120) -> None:
    """Does it happen?  Nobody waits for ever."""
    give_up_at = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@pytest.fixture
def bad_orders() -> Iterator[set[str]]:
    yield toys.BAD_ORDERS
    toys.BAD_ORDERS.clear()


# --- the same rows, however it goes -----------------------------------------------------------------------------------


@given(moves=st.lists(MOVES, max_size=60), chance=st.randoms(use_true_random=False))
@settings(
    max_examples=200 if NIGHTLY else 8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_histories_in_random_batches_give_the_rows_folded_in_memory(
    ledgers: str, moves: list[Move], chance: Random
) -> None:
    url = empty_ledger(ledgers)
    with Store.open(url, wire=WIRE, now=AT_ONCE) as store, Projector.open(url, store=store, stories=3) as projector:
        projector.build()
        appends = random_history(moves)
        while appends:
            count = chance.randint(1, len(appends))
            position = written(store, appends[:count])
            del appends[:count]
            while projector.run_once(chance.choice([1, 2, 7, 50])) < position:
                pass
        check(projector, position)
        assert {x.outcome for x in projector.rebuild()} == {"same"}


def test_orders_in_batches_of_any_size_give_the_same_digests(ledger: str, store: Store, projector: Projector) -> None:
    appends = orders(3_000)
    projector.build()
    half = written(store, appends[: len(appends) // 2])
    while projector.run_once(1_000) < half:
        pass
    position = written(store, appends[len(appends) // 2 :])
    assert projector.catch_up() == position
    check(projector, position)


def test_stories_are_read_again_from_the_log_if_they_were_forgotten(ledger: str, store: Store) -> None:
    with Projector.open(ledger, store=store, stories=1) as forgetful:
        forgetful.build()
        position = written(store, orders(1_500))
        while forgetful.run_once(40) < position:
            pass
        check(forgetful, position)


def test_a_read_model_that_was_added_later_catches_up_alone(ledger: str, store: Store) -> None:
    with Projector.open(ledger, store=store, projections=named(LENGTHS)) as first:
        written(store, orders(300))
        first.catch_up()
        position = written(store, [renamed(x, x.stream + "-2") for x in orders(300)])
    with Projector.open(ledger, store=store, projections=named(LENGTHS, PLACED)) as both:
        assert both.catch_up() == position
        check(both, position)


def test_rows_disappear_with_what_they_showed(ledger: str, store: Store, projector: Projector) -> None:
    projector.build()
    appends = orders(1_500, a_day=2_000)
    seen = set()
    for start in range(0, len(appends), 50):
        written(store, appends[start : start + 50])
        projector.catch_up()
        with projector.models.snapshot("due_tasks") as snapshot:
            seen |= {PROJECTIONS["due_tasks"].key_of(row) for row in snapshot.rows("due_tasks")}
    with projector.models.snapshot("due_tasks") as snapshot:
        left = {PROJECTIONS["due_tasks"].key_of(row) for row in snapshot.rows("due_tasks")}
    assert left < seen


# --- many runners -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runners", [2, 4])
def test_many_runners_at_once_do_the_work_once(ledger: str, store: Store, in_threads: InThreads, runners: int) -> None:
    appends = orders(4_000)
    with Projector.open(ledger, store=store) as first:
        first.build()

        def run() -> None:
            with Store.open(ledger, wire=WIRE) as mine, Projector.open(ledger, store=mine) as projector:
                wait_until(lambda: projector.run_once(97) >= len_of_log)

        len_of_log = sum(len(append.events) for append in appends)
        in_threads(lambda: written(store, appends), *[run] * runners)
        check(first, len_of_log)


def test_a_runner_whose_checkpoint_was_moved_by_another_writes_nothing(ledger: str, store: Store) -> None:
    with Projector.open(ledger, store=store, projections=named(PLACED)) as one:
        one.build()
        position = written(store, orders(200))

        class Racing(Store):
            def read(self, after: int, limit: int, upto: int | None = None) -> list:  # type: ignore[type-arg]
                events = store.read(after, limit, upto)
                one.catch_up()
                return events

        slow = Racing(store.recorder, WIRE, queue_limit=1, retry_seconds=1)
        with Projector.open(ledger, store=slow, projections=named(PLACED)) as other:
            assert other.run_once() == position
        slow._threads.shutdown()
        check(one, position)


RUNNER = """
import sys
from ledger.store import Append, Store
from ledger.streams import WIRE
from projections.runner import Projector
url, limit = sys.argv[1], int(sys.argv[2])
with Store.open(url, wire=WIRE) as store, Projector.open(url, store=store) as projector:
    print("running", flush=True)
    while True:
        projector.run_once(limit)
"""


@contextmanager
def runner_process(url: str, limit: int) -> Iterator[subprocess.Popen[str]]:
    """A runner in a process of its own, killed in the end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", RUNNER, url, str(limit)]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        try:
            yield process
        finally:
            process.kill()


def test_runners_that_are_killed_leave_whole_batches_behind(ledger: str, store: Store, projector: Projector) -> None:
    projector.build()
    chance = Random(1)
    position = written(store, orders(6_000))
    for _ in range(6):
        with runner_process(ledger, chance.choice([3, 30])) as process:
            time.sleep(chance.random() * 0.3)
            process.send_signal(signal.SIGKILL)
        standing = {found.position for found in projector.models.status().values()}
        assert len(standing) == 1
        assert live_digests(projector) == replayed_digests(store, PROJECTIONS, upto=standing.pop())
    projector.catch_up()
    check(projector, position)


def test_a_runner_whose_connection_is_cut_within_a_transaction_goes_on(
    ledger: str, store: Store, projector: Projector, owner: psycopg.Connection
) -> None:
    projector.build()
    position = written(store, orders(3_000))
    is_over = threading.Event()

    def cut() -> None:
        while not is_over.wait(0.05):
            cut_connections(owner)

    cutting = threading.Thread(target=cut)
    cutting.start()
    stop = threading.Event()
    following = threading.Thread(target=projector.follow, args=(stop,))
    following.start()
    try:
        time.sleep(1)
        is_over.set()
        cutting.join()
        assert projector.models.wait_for(position, 30) == position
    finally:
        is_over.set()
        stop.set()
        following.join()
    check(projector, position)


# --- folds that raise -------------------------------------------------------------------------------------------------


def delivered_orders(store: Store) -> list[str]:
    return list(
        dict.fromkeys(x.stream for chunk in store.scan() for x in chunk if "Delivered" in type(x.data).__name__)
    )


def test_a_fold_that_raises_stops_its_own_read_model_there_and_no_other(
    ledger: str, store: Store, bad_orders: set[str]
) -> None:
    with Projector.open(ledger, store=store, projections=FRAGILES) as projector:
        projector.build()
        position = written(store, orders(2_000))
        bad = delivered_orders(store)[3]
        bad_orders.add(bad)
        with capture_logs() as logs:
            assert projector.catch_up() == position
        status = projector.models.status()
        events = store.read_stream(bad)
        shipped = next(x.position for x in events if type(x.data).__name__ == "ShipmentCreated")
        assert status["lengths"].position == status["placed"].position == position
        assert status["fragile"].position == shipped - 1
        assert status["fragile_placed"].position == events[0].position - 1
        assert (status["fragile"].error_position, status["fragile"].error_stream) == (shipped, bad)
        assert status["fragile"].error == f"Spoiled: {bad}"
        assert [x["read_model"] for x in logs if x["event"] == "projection_stopped"] == ["fragile_placed", "fragile"]
        assert all(x["log_level"] == "error" for x in logs if x["event"] == "projection_stopped")


def test_rows_before_the_failure_are_right(ledger: str, store: Store, bad_orders: set[str]) -> None:
    with Projector.open(ledger, store=store, projections=named(FRAGILE)) as projector:
        projector.build()
        written(store, orders(2_000))
        bad_orders.add(delivered_orders(store)[3])
        projector.catch_up()
        at = projector.models.status()["fragile"].position
        toys.BAD_ORDERS.clear()
        assert live_digests(projector) == replayed_digests(store, projector.projections, upto=at)


def test_after_the_fix_it_goes_on_from_where_it_stopped(ledger: str, store: Store, bad_orders: set[str]) -> None:
    with Projector.open(ledger, store=store, projections=FRAGILES) as projector:
        projector.build()
        position = written(store, orders(2_000))
        bad_orders.update(delivered_orders(store)[3:5])
        projector.catch_up()
        projector.catch_up()
        assert projector.models.status()["fragile"].error is not None
    bad_orders.clear()
    with Projector.open(ledger, store=store, projections=FRAGILES) as repaired:
        assert repaired.catch_up() == position
        assert repaired.models.status()["fragile"].error is None
        check(repaired, position)


def test_one_whose_fix_runs_elsewhere_is_followed_again_here(ledger: str, store: Store, bad_orders: set[str]) -> None:
    with Projector.open(ledger, store=store, projections=FRAGILES) as here:
        here.build()
        position = written(store, orders(2_000))
        bad_orders.add(delivered_orders(store)[0])
        here.catch_up()
        bad_orders.clear()
        with Projector.open(ledger, store=store, projections=FRAGILES) as elsewhere:
            while elsewhere.run_once(100) < position // 2:
                pass
        assert here.catch_up() == position
        check(here, position)


def test_a_first_build_that_fails_is_followed_up_to_the_failure(
    ledger: str, store: Store, bad_orders: set[str]
) -> None:
    position = written(store, orders(2_000))
    bad = delivered_orders(store)[3]
    bad_orders.add(bad)
    with Projector.open(ledger, store=store, projections=FRAGILES) as projector:
        with capture_logs() as logs:
            assert projector.catch_up() == position
            projector.catch_up()
        assert [x["event"] for x in logs if x["event"] == "rebuild_failed"] == ["rebuild_failed"] * 2
        status = projector.models.status()
        assert status["lengths"].position == status["placed"].position == position
        assert status["fragile"].error_stream == status["fragile_placed"].error_stream == bad


def test_rows_that_cannot_be_stored_stop_their_read_model_and_no_other(ledger: str, store: Store) -> None:
    nul = msgspec.structs.replace(
        FRAGILE, name="nul", rows=lambda story: (toys.Length(story.stream, 2**63 if story.version > 5 else 1),)
    )
    with Projector.open(ledger, store=store, projections=named(nul, LENGTHS)) as projector:
        projector.build()
        position = written(store, orders(500))
        assert projector.catch_up() == position
        status = projector.models.status()
        assert status["lengths"].position == position
        assert status["nul"].error is not None
        assert status["nul"].error_position == status["nul"].position + 1


def test_a_read_model_of_a_later_version_is_left_to_those_who_know_it(ledger: str, store: Store) -> None:
    later = msgspec.structs.replace(LENGTHS, version=2)
    with (
        Projector.open(ledger, store=store, projections=named(later)) as new,
        Projector.open(ledger, store=store, projections=named(LENGTHS, PLACED)) as old,
    ):
        new.build()
        position = written(store, orders(200))
        assert old.catch_up() == position
        assert new.models.status()["lengths"].position == 0
        assert new.catch_up() == position


def renamed(append: Append, stream: str) -> Append:
    return msgspec.structs.replace(append, stream=stream, key=None, body_sha256=None)


def test_one_that_is_far_behind_keeps_no_other_waiting(ledger: str, store: Store) -> None:
    with Projector.open(ledger, store=store, projections=named(LENGTHS, PLACED)) as projector:
        projector.build()
        first = written(store, orders(1_000))
        projector.catch_up()
        with psycopg.connect(ledger, autocommit=True) as connection:
            connection.execute("SET search_path TO guarantee_ledger")
            connection.execute("UPDATE read_models SET position = 0 WHERE name = 'placed'")
            connection.execute("TRUNCATE placed__1")
        position = written(store, [renamed(x, x.stream + "-2") for x in orders(100)])
        assert projector.run_once(200) == 200
        assert projector.models.status()["lengths"].position == min(first + 200, position)
        assert projector.catch_up() == position
        check(projector, position)


# --- following --------------------------------------------------------------------------------------------------------


@contextmanager
def following(projector: Projector) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=projector.follow, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_who_waits_for_a_position_reads_what_was_written(ledger: str, store: Store, projector: Projector) -> None:
    with following(projector):
        for append in orders(150):
            position = written(store, [append])
            assert projector.models.wait_for(position, 10, "order_status") >= position
            with projector.models.snapshot("order_status") as snapshot:
                assert snapshot.position >= position
                [row] = snapshot.rows("order_status", key_prefix=(append.stream.removeprefix("order-"),))
                assert row.order_id


def test_who_waits_is_told_by_runners_in_other_processes_too(ledger: str, store: Store, projector: Projector) -> None:
    projector.build()
    with runner_process(ledger, 100):
        for append in orders(60):
            position = written(store, [append])
            assert projector.models.wait_for(position, 10) >= position


def test_thousands_of_tasks_wait_at_once(ledger: str, store: Store, projector: Projector) -> None:
    import asyncio

    async def wait(position: int) -> list[int]:
        waiting = [projector.models.wait_for_async(position, 20, "order_status") for _ in range(2_000)]
        return await asyncio.gather(*waiting)

    with following(projector):
        position = written(store, orders(300))
        assert min(asyncio.run(wait(position))) >= position


def test_waiting_ends_when_the_time_is_over(ledger: str, store: Store, projector: Projector) -> None:
    projector.build()
    position = written(store, orders(20))
    began_at = time.monotonic()
    assert projector.models.wait_for(position, 0.2) == 0
    assert 0.2 <= time.monotonic() - began_at < 2


def test_it_follows_on_after_every_connection_was_cut(
    ledger: str, store: Store, projector: Projector, owner: psycopg.Connection
) -> None:
    with following(projector):
        for seed in range(3):
            appends = orders(60, seed=seed)
            renamed = [
                msgspec.structs.replace(x, stream=f"{x.stream}-{seed}", key=None, body_sha256=None) for x in appends
            ]
            position = written(store, renamed)
            assert projector.models.wait_for(position, 20) >= position
            cut_connections(owner)
    check(projector, position)


def test_many_ledgers_lie_in_one_database(ledgers: str, store: Store, ledger: str) -> None:
    from migrations import migrate

    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS other CASCADE")
    migrate(ledger, "other")
    with Store.open(ledger, "other", wire=WIRE) as other, Projector.open(ledger, "other", other) as there:
        written(other, orders(100))
        there.catch_up()
        with Projector.open(ledger, store=store) as here:
            here.catch_up()
            assert {x.position for x in here.models.status().values()} == {0}
        check(there, other.head().position)
