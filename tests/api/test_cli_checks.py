"""``verify`` and ``rebuild`` as an auditor uses them: what was altered behind the ledger's back is found and named."""

import json
from collections.abc import Iterator

import pytest

from projections import PROJECTIONS
from tests.api.console import Guarantee, database, name_of, position_of, query
from tests.spec import agree, confirm, july, paid, parcel, placed, request, scan, units
from tests.stories.market import RULEBOOK, admission, line_of, open_market

SOLD = [placed(), paid(), parcel(), scan("delivered", july(5)), confirm(at=july(6))]


@pytest.fixture(scope="module")
def sold(postgres: str) -> Iterator[str]:
    """The name of a database with one order in it that was received and paid out."""
    with database(postgres) as url:
        with open_market(url) as market:
            market.given(RULEBOOK, admission(), SOLD)
        yield name_of(url)


@pytest.fixture
def guarantee(postgres: str, sold: str) -> Iterator[Guarantee]:
    """A shell over a copy of it."""
    with database(postgres, template=sold) as url:
        yield Guarantee(url)


def alter_event(guarantee: Guarantee, change: str, where: str) -> None:
    """What only the owner of the database can do, and only on purpose."""
    query(guarantee.url, "ALTER TABLE ledger_events DISABLE TRIGGER append_only")
    assert query(guarantee.url, f"UPDATE ledger_events SET {change} WHERE {where} RETURNING 1") == [(1,)]
    query(guarantee.url, "ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER append_only")


def alter_row(guarantee: Guarantee, name: str, change: str) -> None:
    """A number in a read model that nothing in the log explains."""
    [[generation]] = query(guarantee.url, f"SELECT generation FROM read_models WHERE name = '{name}'")
    assert query(guarantee.url, f"UPDATE {name}__{generation} SET {change} RETURNING 1")


def failing(guarantee: Guarantee) -> dict[str, int]:
    """The checks that find something."""
    ran = guarantee("verify", "--json")
    found = {x["name"]: x["differences"] for x in ran.json["checks"] if x["differences"]}
    assert ran.code == (1 if found else 0)
    return found


def test_a_ledger_that_nobody_touched_has_nothing_to_be_found(guarantee: Guarantee) -> None:
    ran = guarantee("verify").ok()

    *checks, position = ran.text.splitlines()
    assert all(line.startswith("ok         0 differences  ") for line in checks)
    assert len(checks) > 20
    assert position == f"position {position_of(guarantee.url)}"
    assert ran.err == ""


def test_verify_as_json_names_every_check_and_what_it_found_first(guarantee: Guarantee) -> None:
    alter_row(guarantee, "merchant_months", "value_fen = value_fen + 1")

    ran = guarantee("verify", "--json")

    assert ran.code == 1
    assert list(ran.json) == ["position", "checks"]
    assert all(list(x) == ["name", "differences", "first"] for x in ran.json["checks"])
    by_name = {x["name"]: x for x in ran.json["checks"]}
    assert by_name["positions have no gap"] == {"name": "positions have no gap", "differences": 0, "first": None}
    assert by_name["merchant_months: live = replayed"]["first"].keys() == {"live", "replayed"}


def test_an_amount_altered_in_the_log_breaks_the_chain(guarantee: Guarantee) -> None:
    before = guarantee.digests()
    changed = """replace(convert_from(state, 'UTF8'), '"amount_fen":1101', '"amount_fen":9101')"""
    alter_event(guarantee, f"state = convert_to({changed}, 'UTF8')", "topic = 'PaymentCaptured'")

    found = failing(guarantee)

    assert found["every event is chained to the one before"] == 1
    assert found["order_status: live = replayed"] == 1
    assert guarantee.digests("--at", position_of(guarantee.url)) != before


def test_an_instant_altered_in_the_log_breaks_the_chain_although_no_figure_changes(guarantee: Guarantee) -> None:
    alter_event(guarantee, "occurred_at = occurred_at + interval '1 microsecond'", "topic = 'DepositPaid'")

    assert failing(guarantee) == {"every event is chained to the one before": 1}


def test_an_event_taken_out_leaves_a_gap(guarantee: Guarantee) -> None:
    query(guarantee.url, "ALTER TABLE ledger_events DISABLE TRIGGER append_only")
    query(guarantee.url, "DELETE FROM ledger_events WHERE topic = 'PaymentCaptured' RETURNING 1")
    query(guarantee.url, "ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER append_only")

    found = failing(guarantee)

    assert found.keys() >= {"positions have no gap", "versions of a stream have no gap"}


def test_an_event_that_cannot_be_read_is_found_and_not_stumbled_over(guarantee: Guarantee) -> None:
    alter_event(guarantee, "topic = 'Nonsense', state = '{\"type\":\"Nonsense\"}'", "topic = 'EscrowReleased'")

    ran = guarantee("verify", "--json")

    assert ran.code == 1
    found = {x["name"]: x for x in ran.json["checks"] if x["differences"]}
    assert "every event is chained to the one before" in found
    assert "Nonsense" in json.dumps(found["every event folds and its postings balance"]["first"])
    why = guarantee("digest", "--at", position_of(guarantee.url)).refused(3)
    assert why.startswith("the log holds what cannot be read: ")


def test_protection_that_was_taken_off_is_found(guarantee: Guarantee) -> None:
    query(guarantee.url, "ALTER TABLE ledger_events DISABLE TRIGGER append_only")

    assert failing(guarantee).keys() == {"the log is append-only"}


def test_rebuild_compares_and_leaves_a_table_that_differs_for_you_to_look_at(guarantee: Guarantee) -> None:
    alter_row(guarantee, "order_status", "refunded_fen = 7")

    ran = guarantee("rebuild", "--json")

    assert ran.code == 1
    outcomes = {x["name"]: x for x in ran.json}
    assert {name: x["outcome"] for name, x in outcomes.items() if x["outcome"] != "same"} == {
        "order_status": "different"
    }
    first = outcomes["order_status"]["first"]
    assert (first["key"], first["live"]["refunded_fen"], first["rebuilt"]["refunded_fen"]) == (["o-1"], 7, 0)
    shown = guarantee("rebuild", "order_status")
    assert shown.code == 1
    assert shown.text.startswith("order_status      different ")
    assert "refunded_fen=7" in shown.text


def test_rebuild_says_what_it_rebuilt(guarantee: Guarantee) -> None:
    end = position_of(guarantee.url)

    everything, chosen = guarantee("rebuild").ok(), guarantee("rebuild", "merchant_days", "due_tasks").ok()

    assert [line.split()[0] for line in everything.text.splitlines()] == list(PROJECTIONS)
    assert [line.split()[:2] for line in chosen.text.splitlines()] == [["merchant_days", "same"], ["due_tasks", "same"]]
    assert all(line.endswith(f" rows at position {end}") for line in everything.text.splitlines())


def test_what_is_on_its_way_between_streams_is_carried_before_it_is_checked(guarantee: Guarantee) -> None:
    steps = [request(units("a", 3), at=july(8)), agree(july(8, 5))]
    guarantee.sent(*(line_of(step, f"k-{number}") for number, step in enumerate(steps)))
    before = position_of(guarantee.url)

    assert failing(guarantee) == {}

    assert position_of(guarantee.url) > before
    assert failing(guarantee) == {}
