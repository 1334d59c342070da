"""``guarantee command`` and ``guarantee tick``: what goes in, what is answered line by line, what falls due when."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.rulebook import shipped
from tests import spec
from tests.api.console import Guarantee, database, jsonl, name_of, position_of, query
from tests.spec import Ask, july, paid, parcel, placed, scan
from tests.stories.market import RULEBOOK, admission, line_of, open_market


@pytest.fixture(scope="module")
def opening(postgres: str) -> Iterator[str]:
    """The name of a database in which merchant m-1 may sell from 1 July 2015 on."""
    with database(postgres) as url:
        with open_market(url) as market:
            market.given(RULEBOOK, admission())
        yield name_of(url)


@pytest.fixture
def guarantee(postgres: str, opening: str) -> Iterator[Guarantee]:
    """A shell over that ledger."""
    with database(postgres, template=opening) as url:
        yield Guarantee(url)


@pytest.fixture(scope="module")
def untouched(postgres: str, opening: str) -> Iterator[Guarantee]:
    """The same, for tests that write nothing."""
    with database(postgres, template=opening) as url:
        before = position_of(url)
        yield Guarantee(url)
        assert position_of(url) == before


def lines(*steps: Ask) -> list[dict[str, Any]]:
    """Steps as lines, with the keys k-1, k-2, …"""
    return [line_of(step, f"k-{number}", july(1, 10)) for number, step in enumerate(steps, 1)]


def send(guarantee: Guarantee, *steps: Any) -> Any:
    """Sends lines, by the virtual clock."""
    return guarantee("command", "--virtual-clock", "--file", "-", stdin=jsonl(steps))


# --- answers ----------------------------------------------------------------------------------------------------------


def test_each_line_is_answered_with_what_came_of_it(guarantee: Guarantee) -> None:
    before = position_of(guarantee.url)

    ran = send(guarantee, *lines(placed(), paid(), parcel(), scan("delivered", july(5)))).ok()

    order = {"stream": "order-o-1", "result": "accepted"}
    assert ran.lines[:3] == [
        {"line": number, **order, "version": number, "position": before + number, "events": [f"order-o-1@{number}"]}
        for number in (1, 2, 3)
    ]
    # the scan decides more: dispatched, arrived, delivered, kept
    assert ran.lines[3] == {
        "line": 4, **order, "version": 8, "position": before + 8,
        "events": [f"order-o-1@{version}" for version in range(4, 9)],
    }  # fmt: skip
    assert list(ran.lines[0]) == ["line", "result", "stream", "version", "position", "events"]
    assert ran.err == ""


def test_the_same_lines_again_are_answered_the_same_and_change_nothing(guarantee: Guarantee) -> None:
    first = send(guarantee, *lines(placed(), paid())).ok()
    before = guarantee.chain()

    again = send(guarantee, *lines(placed(), paid())).ok()

    assert again.lines == [{**line, "result": "repeated"} for line in first.lines]
    assert guarantee.chain() == before


def test_a_rejected_line_says_why_the_others_are_done_and_the_exit_code_is_1(guarantee: Guarantee) -> None:
    ran = send(guarantee, *lines(placed(), parcel(), paid()))

    assert ran.code == 1
    assert [x["result"] for x in ran.lines] == ["accepted", "rejected", "accepted"]
    assert ran.lines[1] == {
        "line": 2, "result": "rejected", "code": "units_not_shippable", "stream": "order-o-1"
    }  # fmt: skip
    assert send(guarantee, *lines(placed(), parcel())).ok().lines[1]["result"] == "accepted"


def test_an_invalid_line_harms_no_other_and_the_exit_code_is_2(guarantee: Guarantee) -> None:
    first, second, third = lines(placed(), parcel(), paid())

    ran = send(guarantee, first, {"command": "PlaceOrder"}, second, third)

    assert ran.code == 2
    assert [x["result"] for x in ran.lines] == ["accepted", "invalid", "rejected", "accepted"]
    assert ran.lines[1]["line"] == 2


def test_a_key_that_was_used_for_something_else_is_invalid(guarantee: Guarantee) -> None:
    send(guarantee, *lines(placed())).ok()
    other = {**lines(placed(order_id="o-2"))[0]}

    ran = send(guarantee, other)

    assert (ran.code, ran.lines[0]["result"], ran.lines[0]["code"]) == (2, "invalid", "key_reused")


def test_blank_lines_count_but_are_not_answered(guarantee: Guarantee) -> None:
    first, second = (json.dumps(line) for line in lines(placed(), paid()))

    ran = guarantee("command", "--virtual-clock", "--file", "-", stdin=f"\n{first}\r\n   \n{second}").ok()

    assert [x["line"] for x in ran.lines] == [2, 4]


def test_no_lines_are_no_answers(untouched: Guarantee) -> None:
    assert untouched("command", "--file", "-").ok().out == b""


def test_lines_are_read_from_a_file(guarantee: Guarantee, tmp_path: Path) -> None:
    path = tmp_path / "commands.jsonl"
    path.write_text(jsonl(lines(placed())))

    assert guarantee("command", "--virtual-clock", "--file", path).ok().lines[0]["result"] == "accepted"


@pytest.mark.parametrize(("file", "why"), [("nowhere.jsonl", "No such file or directory"), ("/", "Is a directory")])
def test_a_file_that_cannot_be_read_is_wrong_usage(untouched: Guarantee, file: str, why: str) -> None:
    assert untouched("command", "--file", file).refused(2) == f"{file}: {why}"


def test_the_same_file_sent_by_two_at_once_has_one_effect(guarantee: Guarantee) -> None:
    steps = [placed(order_id=f"o-{number}", at=july(1, 10)) for number in range(10)]
    given = jsonl(lines(*steps))
    before = position_of(guarantee.url)

    started = [guarantee.start("command", "--virtual-clock", "--file", "-", stdin=given) for _ in range(2)]
    answers = [x.ran().ok().lines for x in started]

    for number in range(10):
        found = [x[number] for x in answers]
        assert sorted(x["result"] for x in found) == ["accepted", "repeated"]
        assert len({(x["stream"], x["version"], x["position"]) for x in found}) == 1
    assert position_of(guarantee.url) == before + 10


# --- lines that are none ----------------------------------------------------------------------------------------------

ORDER = line_of(placed(), "k-1", july(1, 10))
SCAN = line_of(scan("delivered", july(5)), "k-1", july(1, 10))


def but(line: dict[str, Any], **changes: Any) -> bytes:
    """The line with something else in it; in the body what begins with ``body_``."""
    body = {**line["body"], **{k.removeprefix("body_"): v for k, v in changes.items() if k.startswith("body_")}}
    outside = {k: v for k, v in changes.items() if not k.startswith("body_")}
    return json.dumps({**line, "body": body, **outside}).encode()


def without(line: dict[str, Any], name: str) -> bytes:
    """The line without something, in its body if it is not outside."""
    return json.dumps(
        {k: {n: x for n, x in v.items() if n != name} if k == "body" else v for k, v in line.items() if k != name}
    ).encode()


INVALID = {
    "no JSON": (b"{", "invalid_line", "truncated"),
    "no object": (b"[1]", "invalid_line", "Expected `object`"),
    "bytes that are no text": (b'{"command": "\xff"}', "invalid_line", "utf-8"),
    "no command": (without(ORDER, "command"), "invalid_line", "missing required field `command`"),
    "no key": (without(ORDER, "key"), "invalid_line", "missing required field `key`"),
    "no body": (without(ORDER, "body"), "invalid_line", "missing required field `body`"),
    "a body that is none": (but(ORDER, body=[]), "invalid_body", "Expected `object`"),
    "something unknown beside": (but(ORDER, note="hello"), "invalid_line", "unknown field `note`"),
    "a command nobody knows": (but(ORDER, command="BuyOrder"), "invalid_line", "no such command: BuyOrder"),
    "a role nobody has": (but(ORDER, role="king"), "invalid_line", "no such role: king; the roles are buyer,"),
    "the ledger's own role": (but(ORDER, role="policy"), "invalid_line", "no such role: policy"),
    "the ledger's own key": (but(ORDER, key="P3/o-1/r1"), "invalid_line", "the ledger's own"),
    "an empty key": (but(ORDER, key=""), "invalid_line", "`$.key`"),
    "an actor with a slash": (but(ORDER, actor="a/b"), "invalid_line", "`$.actor`"),
    "no order": (without(ORDER, "order_id"), "invalid_body", "missing required field `order_id`"),
    "an empty order": (but(ORDER, body_order_id=""), "invalid_body", "order_id"),
    "a field nobody knows": (but(ORDER, body_colour="red"), "invalid_body", "unknown field `colour`"),
    "what only the ledger fills in": (but(ORDER, body_merchant_version=1), "invalid_body", "`merchant_version`"),
    "an amount that is text": (but(ORDER, body_freight_fen="100"), "invalid_body", "Expected `int`"),
    "an amount with a fraction": (but(ORDER, body_freight_fen=1.5), "invalid_body", "Expected `int`"),
    "an amount beyond all money": (but(ORDER, body_total_fen=10**15), "invalid_body", "total_fen"),
    "a number beyond all numbers": (but(ORDER, body_total_fen=10**40), "invalid_", ""),
    "a NUL in a text": (but(ORDER, body_region="a\0b"), "invalid_body", "NUL"),
    "an instant that is none": (but(SCAN, body_occurred_at="yesterday"), "invalid_line", "not an instant: yesterday"),
    "an instant before all": (but(SCAN, body_occurred_at="0001-01-01"), "invalid_line", "not an instant"),
    "a received_at that is none": (but(ORDER, received_at="soon"), "invalid_line", "not an instant: soon"),
    "a received_at after all": (but(ORDER, received_at="9999-01-01T00:00:00Z"), "invalid_line", "years 1970 to 2999"),
    "a nest": (but(ORDER, body_lines=json.loads("[" * 60 + "]" * 60)), "invalid_body", ""),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_line_that_is_no_command_is_invalid_and_says_why(untouched: Guarantee, name: str) -> None:
    line, code, detail = INVALID[name]

    ran = untouched("command", "--virtual-clock", "--file", "-", stdin=line)

    assert (ran.code, ran.err) == (2, "")
    [answer] = ran.lines
    assert (answer["line"], answer["result"]) == (1, "invalid")
    assert answer["code"].startswith(code)
    assert detail in answer["detail"]


def test_the_virtual_clock_has_to_be_asked_for(untouched: Guarantee) -> None:
    ran = untouched("command", "--file", "-", stdin=jsonl([ORDER]))

    assert ran.code == 2
    assert ran.lines[0]["detail"] == "received_at is for --virtual-clock only"


# --- time -------------------------------------------------------------------------------------------------------------


def events(guarantee: Guarantee, stream: str) -> list[dict[str, Any]]:
    """The events of a stream."""
    found: list[dict[str, Any]] = guarantee("history", stream, "--json").ok().json["events"]
    return found


def test_by_the_virtual_clock_everything_is_received_and_recorded_when_the_lines_say(guarantee: Guarantee) -> None:
    send(guarantee, *lines(placed(at=july(1, 10)), paid(at=july(1, 11)).received(july(1, 12)))).ok()

    first, second = events(guarantee, "order-o-1")
    assert {first[x] for x in ("occurred_at", "received_at", "recorded_at")} == {"2015-07-01T02:00:00.000000Z"}
    assert second["occurred_at"] == "2015-07-01T03:00:00.000000Z"
    assert second["received_at"] == second["recorded_at"] == "2015-07-01T04:00:00.000000Z"


def test_without_it_they_are_received_now(guarantee: Guarantee) -> None:
    send(guarantee, *lines(placed())).ok()
    began = datetime.now(UTC)
    rating = line_of(spec.rate(5), "rating")
    del rating["received_at"]

    guarantee("command", "--file", "-", stdin=jsonl([rating])).ok()

    event = events(guarantee, "order-o-1")[-1]
    received_at = datetime.fromisoformat(event["received_at"])
    assert began <= received_at <= datetime.now(UTC)
    assert event["occurred_at"] == event["received_at"] <= event["recorded_at"]


def test_an_instant_without_a_zone_is_shanghais(guarantee: Guarantee) -> None:
    order = lines(placed())[0]
    order["received_at"], order["body"]["occurred_at"] = "2015-07-01 10:00", "2015-07-01T09:59:00"
    order["body"]["promises"][0]["due_at"] = "2015-07-15"

    send(guarantee, order).ok()

    [event] = events(guarantee, "order-o-1")
    assert event["received_at"] == "2015-07-01T02:00:00.000000Z"
    assert event["occurred_at"] == "2015-07-01T01:59:00.000000Z"
    assert event["data"]["promises"][0]["due_at"] == "2015-07-14T16:00:00.000000Z"


def test_each_line_keeps_its_own_time_although_another_stream_is_ahead(guarantee: Guarantee) -> None:
    ahead, behind = placed(order_id="o-1", at=july(3)), placed(order_id="o-2", at=july(2))

    send(guarantee, *lines(ahead, behind)).ok()

    [event] = events(guarantee, "order-o-2")
    assert event["received_at"] == "2015-07-01T16:00:00.000000Z"
    assert event["recorded_at"] == "2015-07-02T16:00:00.000000Z"


# --- four eyes --------------------------------------------------------------------------------------------------------


def test_what_needs_a_second_person_needs_that_persons_key(guarantee: Guarantee) -> None:
    def key(actor: str, role: str) -> str:
        return guarantee("keys", "create", actor, role).ok().text.strip()

    cap = line_of(spec.raise_cap(20_000_000, july(2)), "k-1")
    approved_by = {
        "nobody": [],
        "a person of another role": ["--approver-key", key("handler-1", "handler")],
        "the same person": ["--approver-key", key(cap["actor"], "supervisor")],
        "another person": ["--approver-key", key("supervisor-1", "supervisor")],
    }
    found = {
        who: guarantee("command", "--virtual-clock", *option, "--file", "-", stdin=jsonl([cap])).lines[0]
        for who, option in approved_by.items()
    }

    assert {who: answer.get("code", answer["result"]) for who, answer in found.items()} == {
        "nobody": "approval_missing",
        "a person of another role": "approval_missing",
        "the same person": "same_approver",
        "another person": "accepted",
    }
    raised = next(x for x in events(guarantee, "merchant-m-1") if x["type"] == "AdvanceCapRaised")
    assert (raised["actor"], raised["data"]["approved_by"]) == (cap["actor"], "supervisor-1")


def test_an_approvers_key_that_is_unknown_or_revoked_is_wrong_usage(guarantee: Guarantee) -> None:
    key = guarantee("keys", "create", "supervisor-1", "supervisor").ok().text.strip()
    [listed] = guarantee("keys", "list", "--json").ok().lines
    guarantee("keys", "revoke", listed["fingerprint"]).ok()

    for approver in (key, "gl_made-up"):
        why = guarantee("command", "--approver-key", approver, "--file", "-").refused(2)
        assert why == "the approver's key is unknown or revoked"


def test_a_rulebook_is_published_like_anything_else(postgres: str) -> None:
    with database(postgres) as url:
        guarantee = Guarantee(url)
        key = guarantee("keys", "create", "supervisor-1", "supervisor").ok().text.strip()
        publish = {
            "command": "PublishRulebook", "key": "rulebook", "actor": "admin-1", "role": "admin",
            "body": {"body": shipped("rulebook-2015.1")},
        }  # fmt: skip
        guarantee("command", "--approver-key", key, "--file", "-", stdin=jsonl([publish])).ok()

        shown = guarantee("history", "programme-rulebook", "--json").ok().json
        assert shown["events"][0]["data"]["rulebook"] == "rulebook-2015.1"


# --- tick -------------------------------------------------------------------------------------------------------------


def late_orders(count: int) -> list[dict[str, Any]]:
    """Orders that are paid for and never shipped; the first is due last."""
    promises = [[spec.arrive_by(july(20 - number))] for number in range(count)]
    orders = [placed(order_id=f"o-{n}", at=july(1, 10), promises=promise) for n, promise in enumerate(promises)]
    payments = [paid(order_id=f"o-{n}", ref=f"pay-{n}") for n in range(count)]
    return lines(*orders, *payments)


def decided(guarantee: Guarantee) -> list[str]:
    """Whose promise was decided to be broken, in the order of the log."""
    exported = guarantee.export("events").splitlines()
    return [x["data"]["order_id"] for x in map(json.loads, exported) if x["type"] == "PromiseBreached"]


def test_tick_fires_what_is_due_in_order_and_once(guarantee: Guarantee) -> None:
    send(guarantee, *late_orders(4)).ok()

    assert guarantee("tick", "--now", "2015-07-17 23:59:59").ok().err.startswith("0 decisions;")
    first = guarantee("tick", "--now", "2015-07-19").ok()
    assert first.out == b""
    assert decided(guarantee) == ["o-3", "o-2"]

    guarantee("tick", "--now", "2015-07-30").ok()
    assert decided(guarantee) == ["o-3", "o-2", "o-1", "o-0"]

    before = guarantee.chain()
    assert guarantee("tick", "--now", "2015-07-30").ok().err == f"0 decisions; the log is at position {before[0]}\n"
    assert guarantee("tick", "--now", "2015-07-01").ok().err.startswith("0 decisions;")
    assert guarantee.chain() == before


def test_tick_carries_what_its_decisions_have_to_say_to_other_streams(guarantee: Guarantee) -> None:
    send(guarantee, *late_orders(1)).ok()

    guarantee("tick", "--now", "2015-07-21").ok()

    told = [x["type"] for x in events(guarantee, "order-o-0")]
    assert told[-2:] == ["RefundFunded", "RefundInstructed"]


def test_without_an_instant_tick_goes_by_the_clock(guarantee: Guarantee) -> None:
    send(guarantee, *late_orders(2)).ok()

    guarantee("tick").ok()

    assert decided(guarantee) == ["o-1", "o-0"]
    recorded_at = datetime.fromisoformat(events(guarantee, "order-o-0")[-1]["recorded_at"])
    assert datetime.now(UTC) - recorded_at < timedelta(minutes=5)


def test_two_ticks_at_once_are_one(guarantee: Guarantee) -> None:
    send(guarantee, *late_orders(8)).ok()

    for started in [guarantee.start("tick", "--now", "2015-08-01") for _ in range(2)]:
        started.ran().ok()

    assert decided(guarantee) == [f"o-{number}" for number in reversed(range(8))]
    [[instructed]] = query(guarantee.url, "SELECT count(*) FROM ledger_events WHERE topic = 'RefundInstructed'")
    assert instructed == 8


def test_an_instant_that_is_none_is_wrong_usage(untouched: Guarantee) -> None:
    for text in ("never", "2015-02-30", "", "0001-01-01"):
        assert untouched("tick", "--now", text).refused(2) == f"not an instant: {text}".strip()
