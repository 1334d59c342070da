"""What goes on without anybody asking: messages are carried, deadlines fire, read models follow; each thing once,
although workers die at any point, run late, and run in many processes at once.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from api.clock import VirtualClock
from api.settings import Settings
from api.wiring import Ledger, opened
from api.worker import Worker
from ledger import merchants
from ledger.decider import Story
from ledger.orders import events as e
from projections import PROJECTIONS, due_tasks
from projections.runner import Projector
from tests import spec
from tests.api.console import Guarantee, database, killed_at, name_of, position_of, query
from tests.spec import Ask, july
from tests.stories.market import RULEBOOK, admission, open_market, request_of

NOW = july(25)
"""The time by the workers' clock."""


@pytest.fixture(scope="module")
def opening(postgres: str) -> Iterator[str]:
    """The name of a database in which merchant m-1 may sell."""
    with database(postgres) as url:
        with open_market(url) as market:
            market.given(RULEBOOK, admission())
        yield name_of(url)


@pytest.fixture
def url(postgres: str, opening: str) -> Iterator[str]:
    """The ledger of a merchant that may sell."""
    with database(postgres, template=opening) as found:
        yield found


@contextmanager
def ledger(url: str, now: Any = NOW) -> Iterator[Ledger]:
    """The ledger, opened in this process."""
    with opened(Settings(database_url=url), VirtualClock(now)) as found:
        yield found


def ask(found: Ledger, runner: asyncio.Runner, *steps: Ask) -> None:
    """All of this is accepted, and nothing of it carried."""
    for step in steps:
        answer = runner.run(found.desk.execute(request_of(step, july(1, 10), f"ask-{found.store.head().position}")))
        assert answer.result == "accepted", (step, answer)


# --- messages ---------------------------------------------------------------------------------------------------------

ORDERS = [f"o-{number}" for number in range(6)]
DEAR_FEN = 3_000_000
"""What each of them costs: together more than the deposit of 3 000 000 and the advance of 10 000 000."""


def presumed_to_be_received(order_id: str) -> list[Ask]:
    """The order was delivered in time and its money released; then the carrier takes the scan back: the goods were
    lost, and the refund has to come from elsewhere than escrow."""
    scan = spec.scan("delivered", july(5), order_id=order_id)
    return [
        spec.placed(spec.line(line_fen=DEAR_FEN), freight_fen=0, order_id=order_id, at=july(1, 10)),
        spec.paid(DEAR_FEN, order_id=order_id, ref=f"pay-{order_id}"),
        spec.parcel(order_id=order_id),
        scan,
        spec.retract(scan.command.scan_id, july(17)).but(order_id=order_id),
    ]


def the_merchant_pays_and_some_parcels_are_found(order_id: str) -> list[Ask]:
    """The scan was right after all, which a handler finds when the buyer has been paid."""
    return [
        spec.scan("delivered", july(5), scan_id="found", received=NOW, order_id=order_id),
        spec.overturn(NOW).but(order_id=order_id),
        spec.pay_out(NOW, "arrive", ref=f"out-{order_id}").but(order_id=order_id),
    ]


def carry(url: str) -> None:
    """A worker's process: carries messages until there are none."""
    with ledger(url) as found, asyncio.Runner() as runner:
        while runner.run(found.worker.carry()):
            pass


def test_messages_are_carried_once_although_two_carry_them_and_are_killed_at_any_point(postgres: str, url: str) -> None:
    dice = random.Random(1)
    # P3: six refunds ask the merchant's stream for money; P4: they hear what they get; P5: the provider is instructed
    with ledger(url) as found, asyncio.Runner() as runner:
        ask(found, runner, *(step for order_id in ORDERS for step in presumed_to_be_received(order_id)))
    both_ways(postgres, url, dice)

    with ledger(url) as found, asyncio.Runner() as runner:
        covers = of(found, "merchant-m-1", merchants.RefundCovered)
        assert [x.order_id for x in covers] == ORDERS
        assert (sum(x.drawn_fen for x in covers), sum(x.advanced_fen for x in covers)) == (3_000_000, 10_000_000)
        assert [x.short_fen for x in covers] == [0, 0, 0, 0, 1_625_000, 2_925_000]
        instructed = [order_id for order_id in ORDERS if of(found, f"order-{order_id}", e.RefundInstructed)]
        assert instructed == ORDERS[:4]

        # the merchant tops up, so that what was short is tried again; and P6: what was undone goes back
        ask(found, runner, spec.deposit(5_000_000, "top-up", at=NOW))
        ask(found, runner, *(step for x in ORDERS[:2] for step in the_merchant_pays_and_some_parcels_are_found(x)))
    both_ways(postgres, url, dice)

    with ledger(url) as found, asyncio.Runner() as runner:
        assert [len(of(found, f"order-{x}", e.RefundInstructed)) for x in ORDERS] == [1] * 6
        reversed_covers = of(found, "merchant-m-1", merchants.CoverReversed)
        assert [(x.order_id, x.receivable_fen + x.deposit_fen) for x in reversed_covers] == [
            (order_id, 2_925_000) for order_id in ORDERS[:2]
        ]
        runner.run(found.worker.catch_up())
    assert {x["differences"] for x in Guarantee(url)("verify", "--json").ok().json["checks"]} == {0}


def both_ways(postgres: str, url: str, dice: random.Random) -> None:
    """Carries what there is to carry: in a copy undisturbed, here by two who are killed again and again; the same
    comes of it in every stream."""
    before = position_of(url)
    with database(postgres, template=name_of(url)) as undisturbed_url:
        carry(undisturbed_url)
        stops = sorted(dice.sample(range(before + 1, position_of(undisturbed_url)), 3))
        killed_at(stops, 2, carry, url)
        with ledger(undisturbed_url) as undisturbed, ledger(url) as found:
            for stream in ("merchant-m-1", *(f"order-{order_id}" for order_id in ORDERS)):
                assert told(found, stream) == told(undisturbed, stream)


def told(found: Ledger, stream: str) -> list[str]:
    """What was told in a stream, as text that names no positions."""
    return [repr(x.data) for x in found.store.read_stream(stream)]


def of(found: Ledger, stream: str, cls: type[Any]) -> list[Any]:
    """The events of a class in a stream."""
    return [x.data for x in found.store.read_stream(stream) if isinstance(x.data, cls)]


def test_a_message_names_the_event_that_sent_it(url: str) -> None:
    with ledger(url) as found, asyncio.Runner() as runner:
        ask(found, runner, *presumed_to_be_received("o-1"))
        carry(url)
        [sent] = [x for x in found.store.history("order-o-1") if x.type == "RefundApproved"]
        [taken] = [x for x in found.store.history("merchant-m-1") if x.type == "RefundCoverRequested"]

    assert taken.source == f"order-o-1@{sent.version}"
    assert (taken.actor, taken.role, taken.key) == ("ledger", "policy", "P3/o-1/arrive")


# --- deadlines --------------------------------------------------------------------------------------------------------

DUE = [july(day, hour) for day in range(8, 14) for hour in (3, 15)]


def orders_that_will_be_late(url: str) -> None:
    """Twelve orders that are paid for and never shipped, each due at another time, in no order."""
    numbers = list(range(len(DUE)))
    random.Random(5).shuffle(numbers)
    with ledger(url, july(1, 10)) as found, asyncio.Runner() as runner:
        for number in numbers:
            name, at = f"o-{number}", july(1, 10)
            promise = spec.arrive_by(DUE[number])
            ask(found, runner, spec.placed(order_id=name, at=at, promises=[promise]))
            ask(found, runner, spec.paid(order_id=name, ref=f"pay-{name}"))


def tick(url: str) -> None:
    """A worker's process: fires what is due."""
    with ledger(url) as found, asyncio.Runner() as runner:
        runner.run(found.worker.tick(NOW))


def breaches(found: Ledger) -> list[tuple[str, Any]]:
    """Which orders were decided to be late, and when, in the order of the log."""
    return [
        (x.data.order_id, x.received_at) for x in found.store.read(0, 10_000) if isinstance(x.data, e.PromiseBreached)
    ]


def test_deadlines_fire_once_and_in_due_order_although_three_workers_are_killed_at_it(url: str) -> None:
    orders_that_will_be_late(url)
    before = position_of(url)

    killed_at([before + 3, before + 20], 3, tick, url)

    with ledger(url) as found:
        assert breaches(found) == [(f"o-{number}", at + spec.HOUR * 24) for number, at in enumerate(DUE)]
        assert {(x.role, x.actor) for x in found.store.entries(before, 10_000)} == {
            ("clock", "ledger"), ("policy", "ledger"),
        }  # fmt: skip


def test_a_deadline_that_has_not_come_does_not_fire(url: str) -> None:
    orders_that_will_be_late(url)
    with ledger(url, DUE[3]) as found, asyncio.Runner() as runner:
        grace = spec.HOUR * 24
        assert runner.run(found.worker.tick(DUE[2] + grace - spec.SECOND)) > 0
        assert [order_id for order_id, _ in breaches(found)] == ["o-0", "o-1"]
        assert runner.run(found.worker.tick(DUE[2] + grace - spec.SECOND)) == 0
        assert runner.run(found.worker.tick(DUE[2] + grace)) > 0
        assert [order_id for order_id, _ in breaches(found)] == ["o-0", "o-1", "o-2"]


def test_a_slow_clock_changes_nothing(postgres: str, url: str) -> None:
    orders_that_will_be_late(url)
    with database(postgres, template=name_of(url)) as slow_url:
        for day in range(8, 16):
            with ledger(url, july(day)) as found, asyncio.Runner() as runner:
                runner.run(found.worker.tick(july(day)))
        tick(slow_url)
        with ledger(url) as found, ledger(slow_url) as slow:
            assert breaches(found) == breaches(slow)
            for number in range(len(DUE)):
                assert told(found, f"order-o-{number}") == told(slow, f"order-o-{number}")


def test_replay_fires_nothing(url: str) -> None:
    orders_that_will_be_late(url)
    guarantee = Guarantee(url)
    before = guarantee.chain()

    guarantee("rebuild").ok()
    guarantee("verify").ok()
    guarantee("digest", "--at", before[0]).ok()
    guarantee("export", "due_tasks", "--occurred-as-of", "2016-01-01").ok()

    assert guarantee.chain() == before


def test_a_tick_ends_although_the_list_of_what_is_due_has_stopped(url: str) -> None:
    orders_that_will_be_late(url)
    stumbling = msgspec.structs.replace(due_tasks.projection, rows=rows_that_stumble)
    with ledger(url) as found, asyncio.Runner() as runner:
        runner.run(found.worker.catch_up())
        projections = {**PROJECTIONS, "due_tasks": stumbling}
        with Projector.open(url, found.schema, found.store, projections) as projector:
            worker = Worker(found.desk, projector, found.worker.checkpoints)
            runner.run(asyncio.wait_for(worker.tick(NOW), 20))

        assert [order_id for order_id, _ in breaches(found)] == [f"o-{number}" for number in range(len(DUE))]
        assert found.models.status()["due_tasks"].error


def rows_that_stumble(story: Story) -> Any:
    """A fold with a fault that shows when the first order is decided."""
    if story.stream == "order-o-0" and story.version > 2:
        raise ValueError("a fault")
    return due_tasks.rows(story)


# --- always -----------------------------------------------------------------------------------------------------------


@contextmanager
def working(url: str) -> Iterator[Ledger]:
    """A worker that goes on and on, beside this thread."""
    with ledger(url, july(1, 10)) as found, ThreadPoolExecutor(1) as thread:
        stop, loop = asyncio.Event(), asyncio.new_event_loop()
        running = thread.submit(loop.run_until_complete, found.worker.run(stop))
        try:
            yield found
        finally:
            loop.call_soon_threadsafe(stop.set)
            running.result()
            loop.close()


def soon(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it comes true in time."""
    give_up_at = time.monotonic() + seconds
    while not what():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.02)
    return True


def test_a_running_worker_projects_carries_and_ticks_by_itself(url: str) -> None:
    with working(url) as worker, ledger(url, july(1, 10)) as found, asyncio.Runner() as runner:
        ask(found, runner, *presumed_to_be_received("o-1"))
        assert soon(lambda: bool(of(found, "order-o-1", e.RefundInstructed)))

        ask(found, runner, spec.placed(order_id="o-2", at=july(1, 10)), spec.paid(order_id="o-2", ref="pay-2"))
        worker.desk.clock.move_to(july(16))  # type: ignore[attr-defined]
        assert soon(lambda: bool(of(found, "order-o-2", e.RefundInstructed)))

        head = found.store.head().position
        assert found.models.wait_for(head, 20.0) >= head


def test_a_worker_begins_with_a_ledger_that_holds_nothing_yet(postgres: str) -> None:
    with database(postgres) as url, working(url) as worker:
        assert soon(lambda: worker.models.status().keys() == PROJECTIONS.keys())
        time.sleep(1.5)  # it looks for deadlines once a second


def test_a_running_worker_survives_the_loss_of_every_connection(url: str) -> None:
    with working(url) as worker:
        assert worker.models.wait_for(position_of(url), 20.0) >= position_of(url)
        for number in range(2):
            lose_connections(url)
            with ledger(url, july(1, 10)) as found, asyncio.Runner() as runner:
                ask(found, runner, *presumed_to_be_received(f"o-{number}"))
                assert soon(lambda: bool(of(found, f"order-o-{number}", e.RefundInstructed)))  # noqa: B023
                head = found.store.head().position
                assert found.models.wait_for(head, 20.0) >= head


def lose_connections(url: str) -> None:
    """The server ends every connection to the database, those that listen, too."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    query(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
