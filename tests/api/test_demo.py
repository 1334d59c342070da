"""The demonstration: everything happens in it, the same seed makes the same log, and what it tells is true."""

import re
import shlex
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from api import keys, relive
from api.demo import running
from api.demo.plans import LEAST_MERCHANTS, LEAST_ORDERS, Plans, Size
from api.settings import Settings
from api.wiring import opened
from ledger import calendar
from ledger.decider import AGENCY, POLICY, ROLES
from ledger.rulebook import shipped
from ledger.streams import WIRE
from migrations import SCHEMA
from tests.api.console import PROCESSES, Guarantee, Ran, database, jsonl, name_of, query

CANNOT_OCCUR: frozenset[str] = frozenset()
"""Kinds of event that the demonstration cannot show: none."""

SMALL = ("--merchants", str(LEAST_MERCHANTS), "--orders", "80", "--seed", "7")


class Shown:
    """A ledger with a demonstration in it, and what was printed when it was made."""

    def __init__(self, guarantee: Guarantee) -> None:
        self.guarantee = guarantee
        self.ran = guarantee("demo").ok()
        self.text = self.ran.text


@pytest.fixture(scope="module")
def shown(postgres: str) -> Iterator[Shown]:
    """The demonstration in its default size; tests only read it."""
    with database(postgres) as url:
        yield Shown(Guarantee(url))


@pytest.fixture(scope="module")
def small(postgres: str) -> Iterator[Guarantee]:
    """A small demonstration; tests only read it, or ask for it again."""
    with database(postgres) as url:
        guarantee = Guarantee(url)
        guarantee("demo", *SMALL).ok()
        yield guarantee


@pytest.fixture
def empty(postgres: str) -> Iterator[Guarantee]:
    """An empty ledger."""
    with database(postgres) as url:
        yield Guarantee(url)


# --- what happens in it -----------------------------------------------------------------------------------------------


def test_every_kind_of_event_occurs(shown: Shown) -> None:
    types = {kind for (kind,) in query(shown.guarantee.url, "SELECT DISTINCT topic FROM ledger_events")}

    assert WIRE.classes.keys() - types == CANNOT_OCCUR
    assert types <= WIRE.classes.keys()


def test_there_are_as_many_orders_and_merchants_as_are_asked_for(small: Guarantee) -> None:
    [[placed, active]] = query(
        small.url,
        "SELECT count(*) FILTER (WHERE topic = 'OrderPlaced'), count(*) FILTER (WHERE topic = 'MerchantActivated') "
        "FROM ledger_events",
    )

    assert (placed, active) == (80, LEAST_MERCHANTS)


@pytest.mark.parametrize(
    "size",
    [Size(LEAST_MERCHANTS, LEAST_ORDERS, 1), Size(5, 200, 2), Size(30, 400, 3), Size(LEAST_MERCHANTS, 400, -4)],
    ids=repr,
)
def test_nobody_asks_for_anything_that_the_rules_reject(empty: Guarantee, size: Size) -> None:
    with opened(Settings(database_url=empty.url), recorded_from=calendar.BEGINNING) as ledger:
        made = running.run(ledger, size)

    assert made.rejected == {}
    assert made.events > 15 * size.orders
    empty("verify").ok()


def test_the_ledger_is_sound(shown: Shown) -> None:
    shown.guarantee("verify").ok()


def test_it_is_recorded_as_it_was_lived(shown: Shown) -> None:
    [[first, last]] = query(shown.guarantee.url, "SELECT min(recorded_at), max(recorded_at) FROM ledger_events")

    assert first == calendar.parse("2015-06-10 10:00")
    assert last == calendar.parse("2015-09-30 18:00")


def test_a_plan_is_drawn_from_the_seed_and_the_number_alone() -> None:
    plans, again = Plans(Size(seed=5)), Plans(Size(seed=5))

    backwards = [again.plan(number) for number in range(len(again), 0, -1)]

    assert [plans.plan(number) for number in range(1, len(plans) + 1)] == backwards[::-1]
    assert all(plans.of(plan.order_id) == plan for plan in backwards)
    assert plans.of("0701-9999") is None
    assert plans.of("somebody's own") is None


# --- once, and the same every time ------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_log_and_the_same_read_models(small: Guarantee, empty: Guarantee) -> None:
    empty("demo", *SMALL).ok()

    assert empty.chain() == small.chain()
    assert empty.digests() == small.digests()


def test_another_seed_makes_another_log(small: Guarantee, empty: Guarantee) -> None:
    empty("demo", *SMALL[:-1], "8").ok()

    assert empty.chain() != small.chain()


def test_a_second_time_nothing_is_appended_and_the_story_is_told_again(small: Guarantee) -> None:
    before = small.chain()

    ran = small("demo", *SMALL).ok()

    assert small.chain() == before
    assert "nothing was appended" in ran.text
    assert "An auditor asks" in ran.text


def test_without_options_the_story_of_the_one_that_is_there_is_told(small: Guarantee) -> None:
    assert "3 merchants, 80 orders" in small("demo").ok().text


def live_slowly(url: str) -> None:
    """Makes the demonstration in many small transactions."""
    relive.BATCH = 30
    Guarantee(url)("demo", *SMALL)


def test_one_that_was_killed_again_and_again_ends_with_the_same_log(small: Guarantee, empty: Guarantee) -> None:
    end, killed_at = small.chain(), []
    for part in (0.2, 0.5, 0.8):
        process = PROCESSES.Process(target=live_slowly, args=(empty.url,))
        process.start()
        while process.is_alive() and position_of(empty) < part * end[0]:
            time.sleep(0.001)
        process.kill()
        process.join()
        killed_at.append(position_of(empty))

    empty("demo", *SMALL).ok()

    assert 0 < killed_at[0] < end[0]
    assert empty.chain() == end


def position_of(guarantee: Guarantee) -> int:
    [[position]] = query(guarantee.url, "SELECT position FROM head")
    return int(position)


def test_a_ledger_that_holds_another_demonstration_is_refused(small: Guarantee) -> None:
    before = small.chain()

    said = small("demo", "--seed", "8").refused(2)

    assert "3 merchants and 80 orders, seed 7" in said
    assert "GUARANTEE_SCHEMA" in said
    assert small.chain() == before


def test_a_ledger_that_holds_anything_else_is_refused(empty: Guarantee) -> None:
    approver = empty("keys", "create", "somebody-else", "supervisor").ok().text.strip()
    publish = {
        "command": "PublishRulebook", "key": "mine", "actor": "somebody", "role": "admin",
        "body": {"body": shipped("rulebook-2015.1")},
    }  # fmt: skip
    empty("command", "--approver-key", approver, "--file", "-", stdin=jsonl([publish])).ok()

    assert "other events" in empty("demo").refused(2)
    assert position_of(empty) == 1


@pytest.mark.parametrize("option", [("--orders", "5"), ("--merchants", "1"), ("--seed", "x")])
def test_what_cannot_be_made_is_refused(empty: Guarantee, option: tuple[str, str]) -> None:
    ran = empty("demo", *option)

    assert ran.code == 2
    assert option[0] in ran.err
    assert position_of(empty) == 0


# --- what it tells ----------------------------------------------------------------------------------------------------


def test_the_story_is_plain_text_that_fits_two_screens(shown: Shown) -> None:
    lines = shown.text.splitlines()

    assert len(lines) <= 120
    assert "\x1b" not in shown.text
    assert max(len(line) for line in lines if " echo '" not in line) <= 120
    assert "✗" not in shown.text


def test_three_people_see_their_first_question_answered(shown: Shown) -> None:
    for person in ("An auditor asks", "A finance person asks", "A handler asks"):
        assert person in shown.text


def test_the_totals_are_those_of_the_log(shown: Shown) -> None:
    [[events, orders, merchants]] = query(
        shown.guarantee.url,
        "SELECT count(*), count(*) FILTER (WHERE topic = 'OrderPlaced'), "
        "count(*) FILTER (WHERE topic = 'MerchantActivated') FROM ledger_events",
    )

    assert f"{merchants} merchants, {orders} orders, {events:,} events" in shown.text


def test_the_auditors_order_was_late_until_its_breach_was_overturned(shown: Shown) -> None:
    [stream, at] = re.findall(r"guarantee history (\S+) --at (\d+)", shown.text)[0]

    then = shown.guarantee("history", stream, "--at", at, "--json").ok().json
    now = shown.guarantee("history", stream, "--json").ok().json

    assert then["state"]["promises"]["arrival"]["state"] == "breached"
    assert now["state"]["promises"]["arrival"]["state"] == "kept"
    assert "BreachOverturned" in {event["type"] for event in now["events"]}


def test_the_refunds_sources_add_up_to_what_the_buyer_got(shown: Shown) -> None:
    [order_id, total] = re.findall(r"order-(\S+), \S+: ¥([\d,.]+), paid from", shown.text)[0]
    table = shown.text.partition("paid from")[2].partition("to the buyer")[0]

    parts = [fen(amount) for amount in re.findall(r"¥([\d,.]+)", table)]

    assert len(parts) == 4
    assert all(parts)
    assert sum(parts) == fen(total)
    row = shown.guarantee("show", "order_status", order_id, "--json").ok().json
    assert fen(total) in [claim["amount_fen"] for claim in row["claims"]]


def test_the_rebates_of_a_month_are_those_in_the_accounts(shown: Shown) -> None:
    rows = re.findall(r"^2015-\d\d .*✓.*$", shown.text, re.MULTILINE)

    assert len(rows) == 3
    for row in rows:
        opening, accrued, clawed_back, closing, booked = map(fen, re.findall(r"¥([\d,.]+)", row))
        assert opening + accrued - clawed_back == closing == booked


def test_what_can_be_refunded_is_what_the_handlers_row_says(shown: Shown) -> None:
    pattern = r"order-(\S+) \(.*?\): paid ¥(\S+) - refunded ¥(\S+) - reserved ¥(\S+) = refundable ¥(\S+)"
    [order_id, *said] = re.findall(pattern, shown.text)[0]

    row = shown.guarantee("show", "order_status", order_id, "--json").ok().json

    columns = ("captured_fen", "refunded_fen", "reserved_fen", "refundable_fen")
    assert [fen(amount) for amount in said] == [row[column] for column in columns]
    assert all(row[column] for column in columns)


def fen(amount: str) -> int:
    return int(Decimal(amount.replace(",", "")) * 100)


def test_every_command_that_it_suggests_does_something(shown: Shown) -> None:
    named = re.findall(r"^  guarantee (.*?)(?:  .*)?$", shown.text, re.MULTILINE)

    for command in named:
        if command != "serve":
            assert shown.guarantee(*shlex.split(command)).ok().out
    assert len(named) >= 8


def test_the_ledger_accepts_the_command_that_it_suggests(shown: Shown, postgres: str) -> None:
    [line] = re.findall(r"echo '(.*)' \| guarantee command --virtual-clock --file -", shown.text)
    with database(postgres, template=name_of(shown.guarantee.url)) as url:
        copy = Guarantee(url)

        copy("command", "--virtual-clock", "--file", "-", stdin=line).ok()

        assert "RefundAgreed" in {kind for (kind,) in query(url, "SELECT topic FROM ledger_events WHERE key = 'try-1'")}
        copy("demo").ok()


def test_there_is_a_key_for_each_role_and_a_fresh_one_each_time(small: Guarantee) -> None:
    first, second = keys_in(small("demo").ok()), keys_in(small("demo").ok())

    assert set(first) == set(ROLES) - {POLICY, AGENCY}
    assert not set(first.values()) & set(second.values())
    for role, key in (*first.items(), *second.items()):
        holder = keys.holder(small.url, SCHEMA, key)
        assert holder is not None
        assert holder.role == role


def test_keys_are_said_to_have_been_shown_before(shown: Shown, small: Guarantee) -> None:
    assert "Keys to try each role with" in shown.text
    assert "Keys were shown when the demonstration was made" in small("demo").ok().text


def keys_in(ran: Ran) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+) +\S+ +(gl_\S+)$", ran.text, re.MULTILINE))


def test_it_says_so_if_a_check_finds_anything(small: Guarantee, postgres: str) -> None:
    with database(postgres, template=name_of(small.url)) as url:
        [[table]] = query(url, "SELECT 'order_status__' || generation FROM read_models WHERE name = 'order_status'")
        query(url, f"UPDATE {table} SET refunded_fen = refunded_fen + 1 RETURNING order_id")

        ran = Guarantee(url)("demo")

    assert ran.code == 1
    assert "✗" in ran.text
    assert "order_status: live = replayed: 1" in ran.text
