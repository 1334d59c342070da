"""The door for commands: one effect a key, fair to late and to early, and of one mind with other processes.

Two desks that are open on one ledger stand for two processes: they share nothing but the database.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest

from api.clock import VirtualClock
from api.commands import Answer, Desk, Request
from api.settings import Settings
from api.wiring import Ledger, opened
from ledger.decider import SUPERVISOR
from ledger.orders import events as e
from ledger.store import KeyReused
from tests import spec
from tests.api.console import database, name_of, query
from tests.spec import Ask, arrive_by, july, lift, paid, parcel, placed, rate, request, scan, suspend
from tests.stories.market import RULEBOOK, admission, open_market, request_of

T = TypeVar("T")
MOST_SECONDS = 2.0
"""After so long one process knows what another did; the desk looks again after one second."""


class Doors(NamedTuple):
    """Two processes with one ledger and one time."""

    url: str
    clock: VirtualClock
    one: Ledger
    other: Ledger
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for it."""
        return self.runner.run(work)

    def ask(self, desk: Desk, step: Ask, key: str) -> Answer:
        """Asks one desk."""
        wanted = request_of(step, self.clock.now(), key)
        assert wanted.received_at is not None
        self.clock.move_to(wanted.received_at)
        return self.run(desk.execute(wanted))

    def given(self, *steps: Ask) -> None:
        """All of this was accepted by the first desk."""
        for step in steps:
            answer = self.ask(self.one.desk, step, f"given-{self.one.store.head().position}")
            assert answer.result == "accepted", answer


@pytest.fixture(scope="module")
def opening(postgres: str) -> Iterator[str]:
    """The name of a database in which merchant m-1 may sell."""
    with database(postgres) as url:
        with open_market(url) as market:
            market.given(RULEBOOK, admission())
        yield name_of(url)


@pytest.fixture
def doors(postgres: str, opening: str) -> Iterator[Doors]:
    """1 July 2015, ten in the morning."""
    clock = VirtualClock(july(1, 10))
    with database(postgres, template=opening) as url, asyncio.Runner() as runner:
        settings = Settings(database_url=url)
        with opened(settings, clock) as one, opened(settings, clock) as other:
            yield Doors(url, clock, one, other, runner)


# --- one key, one effect ----------------------------------------------------------------------------------------------


def test_the_same_key_from_many_callers_at_once_has_one_effect_and_one_answer(doors: Doors) -> None:
    doors.given(placed())
    wanted = request_of(paid(), july(1, 11), "payment-1")

    async def ask_all() -> list[Answer]:
        desks = [doors.one.desk, doors.other.desk] * 20
        return await asyncio.gather(*(desk.execute(wanted) for desk in desks))

    answers = doors.run(ask_all())

    assert sorted(x.result for x in answers) == ["accepted"] + ["repeated"] * 39
    assert {(x.stream, x.version, x.position, x.events) for x in answers} == {
        ("order-o-1", 2, answers[0].position, ("order-o-1@2",))
    }
    assert len(doors.one.store.read_stream("order-o-1")) == 2


def test_the_same_key_with_another_body_is_refused_and_changes_nothing(doors: Doors) -> None:
    doors.given(placed())
    doors.ask(doors.one.desk, rate(5, at=july(2)), "rating")
    before = doors.one.store.head()

    for desk in (doors.one.desk, doors.other.desk):
        with pytest.raises(KeyReused):
            doors.ask(desk, rate(1, at=july(2)), "rating")
        with pytest.raises(KeyReused):
            doors.ask(desk, placed(order_id="o-2"), "rating")

    assert doors.one.store.head() == before


def test_a_repeated_command_is_answered_as_the_first_time_long_after_the_story_went_on(doors: Doors) -> None:
    first = doors.ask(doors.one.desk, placed(), "order")
    doors.given(paid(), parcel(), scan("delivered", july(3)))

    again = doors.ask(doors.other.desk, placed(), "order")

    assert again == Answer("repeated", "order-o-1", None, first.version, first.position, first.events)


def test_a_command_that_changed_nothing_is_remembered_too(doors: Doors) -> None:
    doors.given(placed(), paid())
    for key in ("again", "again"):
        answer = doors.ask(doors.one.desk, paid(), key)
        assert (answer.code, answer.version, answer.events) == (None, 2, ())

    with pytest.raises(KeyReused):
        doors.ask(doors.one.desk, paid(ref="pay-2"), "again")


def test_a_rejected_command_is_decided_afresh_when_it_is_repeated(doors: Doors) -> None:
    doors.given(placed())
    before = doors.one.store.head()

    too_early = doors.ask(doors.one.desk, parcel(), "parcel")
    assert (too_early.result, too_early.code) == ("rejected", "units_not_shippable")
    assert doors.one.store.head() == before
    assert query(doors.url, "SELECT count(*) FROM commands WHERE key = 'parcel'") == [(0,)]

    doors.given(paid())
    assert doors.ask(doors.one.desk, parcel(), "parcel").result == "accepted"


# --- time -------------------------------------------------------------------------------------------------------------


def test_nobody_slips_in_late_because_a_worker_was_asleep(doors: Doors) -> None:
    # the receipt was presumed on the 13th; no worker has run since, and a claim on the last day comes on the 20th
    doors.given(placed(), paid(), parcel(), scan("delivered", july(3)))

    answer = doors.ask(doors.one.desk, request(at=july(20)), "claim")

    assert answer.result == "accepted"
    told = [(type(x.data).__name__, x.received_at) for x in doors.one.store.read_stream("order-o-1")]
    presumed = told.index(("ReceiptPresumed", july(13)))
    assert told.index(("RefundRequested", july(20))) > presumed
    assert f"order-o-1@{presumed + 1}" in answer.events


def test_what_fell_due_is_recorded_even_if_the_command_is_rejected(doors: Doors) -> None:
    doors.given(placed())

    answer = doors.ask(doors.one.desk, parcel(at=july(10)), "parcel")

    assert (answer.result, answer.code, answer.events) == ("rejected", "units_not_shippable", ())
    assert [type(x.data) for x in doors.one.store.read_stream("order-o-1")][-1] is e.PaymentExpired
    [*_, expired] = doors.one.store.entries(0, 1000)
    assert (expired.role, expired.key, expired.received_at) == ("clock", None, july(4, 10))


def test_a_command_stamped_before_the_story_is_raised_to_it(doors: Doors) -> None:
    doors.given(placed(), paid(at=july(2)))

    stale = request_of(parcel(at=july(1, 11)), july(1, 11), "parcel")
    assert doors.run(doors.other.desk.execute(stale)).result == "accepted"

    created = doors.one.store.read_stream("order-o-1")[-1]
    assert (created.occurred_at, created.received_at) == (july(1, 11), july(2))


# --- others write, too ------------------------------------------------------------------------------------------------


def test_two_processes_that_write_to_one_stream_lose_nothing(doors: Doors) -> None:
    doors.given(placed(), paid(), parcel())

    async def scans(desk: Desk, name: str) -> list[Answer]:
        steps = [scan("transit", july(3, 1, number), scan_id=f"{name}-{number}") for number in range(25)]
        return [await desk.execute(request_of(x, july(4), f"{name}-{n}")) for n, x in enumerate(steps)]

    async def both() -> list[list[Answer]]:
        return await asyncio.gather(scans(doors.one.desk, "one"), scans(doors.other.desk, "other"))

    answers = [answer for found in doors.run(both()) for answer in found]

    assert {x.result for x in answers} == {"accepted"}
    stream = doors.one.store.read_stream("order-o-1")
    assert [x.version for x in stream] == list(range(1, len(stream) + 1))
    assert len([x for x in stream if isinstance(x.data, e.CarrierScanRecorded)]) == 50


def test_a_story_remembered_by_one_process_is_not_what_it_answers_from_when_another_went_on(doors: Doors) -> None:
    doors.given(placed())
    assert doors.ask(doors.other.desk, paid(), "payment").result == "accepted"

    # the first desk remembers an order that was not paid for, which has no units to ship
    assert doors.ask(doors.one.desk, parcel(), "parcel").result == "accepted"


def test_a_deadline_set_by_another_process_is_fired(doors: Doors) -> None:
    doors.given(placed(), paid(), parcel())
    doors.ask(doors.other.desk, scan("delivered", july(3)), "delivered")

    decisions, _ = doors.run(doors.one.desk.fire("order-o-1", july(13)))

    assert decisions > 0
    assert any(isinstance(x.data, e.ReceiptPresumed) for x in doors.one.store.read_stream("order-o-1"))


def test_a_merchant_that_was_suspended_by_one_process_is_soon_refused_by_another(doors: Doors) -> None:
    assert doors.ask(doors.one.desk, placed(), "o-1").result == "accepted"
    doors.ask(doors.other.desk, suspend(july(2)), "suspend")

    assert soon(doors, "merchant_not_active") < MOST_SECONDS

    doors.ask(doors.other.desk, lift(july(3)), "lift")
    assert soon(doors, None) < MOST_SECONDS


def soon(doors: Doors, code: str | None) -> float:
    """After how many seconds the first desk answers an order so."""
    began = time.monotonic()
    for number in range(1000):
        name = f"o-{doors.one.store.head().position}-{number}"
        if doors.ask(doors.one.desk, placed(order_id=name, at=doors.clock.now()), name).code == code:
            break
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_rulebook_published_by_one_process_soon_governs_the_orders_of_another(doors: Doors) -> None:
    assert doors.ask(doors.one.desk, placed(), "o-1").result == "accepted"
    body = {**spec.body_with("rulebook-2"), "effective_from_at": "2015-08-01T00:00:00+08:00"}
    publish = spec.ask(spec.programme.PublishRulebook(body=body, occurred_at=july(2)))
    assert doors.ask(doors.other.desk, publish, "rulebook-2").result == "accepted"

    time.sleep(1.1)
    late = placed(order_id="o-2", at=july(40), promises=[arrive_by(july(60))])
    assert doors.ask(doors.one.desk, late, "o-2").result == "accepted"

    placements = [doors.one.store.read_stream(f"order-{order_id}")[0].data for order_id in ("o-1", "o-2")]
    assert [x.terms.rulebook for x in placements] == ["rulebook-2015.1", "rulebook-2"]


def test_a_desk_that_remembers_two_stories_serves_many(doors: Doors) -> None:
    small = Desk(doors.one.store, doors.clock, cached_stories=2)

    async def many() -> list[Answer]:
        steps = [placed(order_id=f"o-{n}", at=july(1, 10)) for n in range(30)]
        return await asyncio.gather(*(small.execute(request_of(x, july(1, 10), f"k-{n}")) for n, x in enumerate(steps)))

    assert {x.result for x in doors.run(many())} == {"accepted"}
    assert {doors.ask(small, paid(order_id=f"o-{n}", ref=f"p-{n}"), f"paid-{n}").result for n in range(30)} == {
        "accepted"
    }


# --- who --------------------------------------------------------------------------------------------------------------


def test_four_eyes_are_two_people(doors: Doors) -> None:
    cap = spec.raise_cap(20_000_000, july(2))
    alone = Request(cap.command, "cap", "finance-1", "finance", None, received_at=july(2))
    assert doors.run(doors.one.desk.execute(alone)).code == "approval_missing"
    assert doors.ask(doors.one.desk, cap.by("finance", "f-1").approved("f-1"), "cap").code == "same_approver"

    answer = doors.ask(doors.one.desk, cap.by("finance", "f-1").approved("s-1"), "cap")

    assert answer.result == "accepted"
    assert doors.one.store.read_stream("merchant-m-1")[-1].data.approved_by == "s-1"


def test_who_may_not_ask_is_told_so_and_leaves_no_trace(doors: Doors) -> None:
    doors.given(placed(), paid())
    before = doors.one.store.head()

    assert doors.ask(doors.one.desk, parcel().by("merchant", "m-2"), "k-1").code == "not_allowed"
    assert doors.ask(doors.one.desk, parcel().by(SUPERVISOR), "k-2").code == "not_allowed"
    assert doors.ask(doors.one.desk, rate(at=july(2)).by("buyer", "b-2"), "k-3").code == "not_allowed"

    assert doors.one.store.head() == before
