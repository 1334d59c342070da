"""``history``, ``show``, ``export`` and ``digest``: what is, what was recorded, and what had truly occurred."""

import csv
import hashlib
import io
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from api.exports import ENTRY_COLUMNS
from ledger.calendar import ZONE
from projections import PROJECTIONS
from tests import spec
from tests.api.console import GUARANTEE, Guarantee, database, position_of
from tests.spec import confirm, deposit, july, paid, parcel, placed, rate, retract, scan, scan_id
from tests.stories.market import RULEBOOK, admission, line_of, open_market

NOTHING = hashlib.sha256(b"").hexdigest()


class Told(NamedTuple):
    """A shell over a ledger with a story in it, and the end of the log at two moments of the story."""

    guarantee: Guarantee
    delivered: int
    """Order o-1 seems to be delivered in time, and o-2 is received."""
    end: int
    """The scan of o-1 was taken back, and everything that followed from it."""


@pytest.fixture(scope="module")
def told(postgres: str) -> Iterator[Told]:
    """Two orders.  What the carrier said of the first one was believed until 20 July, and was never true."""
    with database(postgres) as url:
        with open_market(url) as market:
            market.given(RULEBOOK, admission())
            market.given(placed(), paid(), parcel(), scan("handed", july(3)), scan("delivered", july(14, 12)))
            second = placed(order_id="o-2", at=july(14, 13), promises=[spec.arrive_by(july(30))])
            market.given(second, paid(order_id="o-2", ref="pay-2", at=july(14, 14)))
            market.given(parcel(order_id="o-2", at=july(14, 15)), scan("delivered", july(15), order_id="o-2"))
            market.given(confirm(at=july(15, 1)).but(order_id="o-2"), rate(2, at=july(15, 2)).but(order_id="o-2"))
            delivered = position_of(url)
            market.given(retract(scan_id("delivered", july(14, 12)), july(20)))
            end = position_of(url)
        yield Told(Guarantee(url), delivered, end)


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


# --- history ----------------------------------------------------------------------------------------------------------


def versions(told: Told, *moment: object) -> list[int]:
    """Which events of the first order count at a moment."""
    return [x["version"] for x in told.guarantee("history", "order-o-1", *moment, "--json").ok().json["events"]]


def test_history_shows_every_event_of_a_stream_and_the_state_they_fold_to(told: Told) -> None:
    ran = told.guarantee("history", "order-o-1").ok()

    for word in ("OrderPlaced", "ScanRetracted", "PromiseBreached", "RefundInstructed", "2015-07-20 00:00:00"):
        assert word in ran.text
    assert "refunded_fen" in ran.text
    assert ran.err == ""


def test_history_as_json_has_every_column_of_the_log_and_the_state(told: Told) -> None:
    found = told.guarantee("history", "order-o-1", "--json").ok().json

    assert list(found) == ["stream", "events", "state"]
    assert found["stream"] == "order-o-1"
    assert all(tuple(x) == (*ENTRY_COLUMNS, "data") for x in found["events"])
    assert [x["version"] for x in found["events"]] == list(range(1, len(found["events"]) + 1))
    placement, breach = found["events"][0], next(x for x in found["events"] if x["type"] == "PromiseBreached")
    assert (placement["actor"], placement["role"], placement["rule"]) == ("b-1", "buyer", None)
    assert breach["rule"].startswith("rulebook-2015.1/")
    assert breach["causation"] == "order-o-1/due:promise/arrive"
    assert breach["occurred_at"] == "2015-07-14T16:00:00.000000Z"
    assert found["state"]["order_id"] == "o-1"


def test_history_at_a_position_is_what_was_recorded_up_to_it(told: Told) -> None:
    at_delivery = versions(told, "--at", told.delivered)
    assert at_delivery == versions(told, "--recorded-as-of", "2015-07-20")
    assert at_delivery == list(range(1, 10))
    assert versions(told, "--at", told.end) == versions(told)


def test_history_as_it_had_occurred_knows_what_was_found_out_later(told: Told) -> None:
    # by 15 July 00:00 the parcel had been handed over; that it was not delivered was recorded on the 20th, and holds
    # from the 14th at noon; the breach holds from the 15th, which is not before it
    as_of = told.guarantee("history", "order-o-1", "--occurred-as-of", "2015-07-15", "--json").ok().json
    later = told.guarantee("history", "order-o-1", "--occurred-as-of", "2015-07-15 00:00:01", "--json").ok().json

    assert [x["type"] for x in as_of["events"]][-1] == "ArrivalRevised"
    assert "PromiseBreached" in [x["type"] for x in later["events"]]
    assert as_of["state"]["promises"]["arrive"]["state"] != later["state"]["promises"]["arrive"]["state"] == "breached"


def test_an_instant_without_a_zone_is_shanghais(told: Told) -> None:
    midnight = ("2015-07-15", "2015-07-15 00:00", "2015-07-15T00:00:00+08:00", "2015-07-14T16:00:00Z")
    for option in ("--recorded-as-of", "--occurred-as-of"):
        assert len({tuple(versions(told, option, text)) for text in midnight}) == 1
    in_london = versions(told, "--occurred-as-of", "2015-07-15T00:00:00Z")
    assert in_london != versions(told, "--occurred-as-of", "2015-07-15")


# --- show -------------------------------------------------------------------------------------------------------------

KEYS = {
    "order_status": "o-1",
    "merchant_months": "m-1/2015-07",
    "merchant_days": "m-1/2015-07-14/on_time",
    "subsidy_balance": "m-1/2015-07",
    "account_balance": "liabilities:deposit:m-1/2015-07",
    "due_tasks": "merchant-m-1/fee_expiry/m-1",
}


@pytest.mark.parametrize("name", KEYS)
def test_show_prints_the_row_that_export_writes(told: Told, name: str) -> None:
    width = len(PROJECTIONS[name].key)
    rows = [json.loads(line) for line in told.guarantee.export(name).splitlines()]
    row = next(x for x in rows if "/".join(map(str, [*x.values()][:width])) == KEYS[name])

    shown = told.guarantee("show", name, KEYS[name], "--json").ok()

    assert shown.json == row
    assert shown.err == f"position {told.end}\n"


@pytest.mark.parametrize("moment", [["--at"], ["--recorded-as-of", "2015-07-20"], ["--occurred-as-of", "2015-07-16"]])
def test_show_knows_the_past_as_export_does(told: Told, moment: list[object]) -> None:
    moment = [*moment, told.delivered] if moment == ["--at"] else moment
    for name in ("order_status", "merchant_months", "account_balance"):
        width = len(PROJECTIONS[name].key)
        for line in told.guarantee.export(name, *moment).splitlines():
            row = json.loads(line)
            key = "/".join(map(str, [*row.values()][:width]))
            assert told.guarantee("show", name, key, *moment, "--json").ok().json == row
            break


def test_show_tells_what_was_believed_and_what_was_true(told: Told) -> None:
    def state(*moment: object) -> Any:
        row = told.guarantee("show", "order_status", "o-1", *moment, "--json").ok().json
        return row["promises"][0]["state"], row["refunded_fen"]

    assert state("--recorded-as-of", "2015-07-16") == ("kept", 0)
    assert state("--occurred-as-of", "2015-07-16") == ("breached", 1101)
    assert state() == ("breached", 1101)


def test_show_without_json_is_a_line_a_column(told: Told) -> None:
    lines = told.guarantee("show", "order_status", "o-1").ok().text.splitlines()

    assert [line.split()[0] for line in lines] == list(PROJECTIONS["order_status"].columns)
    assert lines[0].split() == ["order_id", "o-1"]


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_export_is_the_same_byte_for_byte_live_and_replayed(told: Told, form: str) -> None:
    for name in PROJECTIONS:
        assert told.guarantee.export(name, form=form) == told.guarantee.export(name, "--at", told.end, form=form)


def test_the_digest_of_a_read_model_is_the_sha256_of_its_export(told: Told) -> None:
    live, at_delivery = told.guarantee.digests(), told.guarantee.digests("--at", told.delivered)

    assert live == {name: sha256(told.guarantee.export(name)) for name in PROJECTIONS}
    for name in ("order_status", "account_balance", "due_tasks"):
        assert at_delivery[name] == sha256(told.guarantee.export(name, "--at", told.delivered)) != live[name]


def test_jsonl_is_compact_utf8_in_the_order_of_the_columns(told: Told) -> None:
    for name, projection in PROJECTIONS.items():
        exported = told.guarantee.export(name)
        rows = [json.loads(line) for line in exported.splitlines()]
        assert all(tuple(row) == projection.columns for row in rows)
        again = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
        assert exported == again.encode()
    placed_at = json.loads(told.guarantee.export("order_status").splitlines()[0])["placed_at"]
    assert placed_at == "2015-07-01T02:00:00.000000Z"


def test_rows_stand_in_the_order_of_their_keys(told: Told) -> None:
    for name, projection in PROJECTIONS.items():
        rows = [json.loads(line) for line in told.guarantee.export(name).splitlines()]
        keys = [tuple(str(row[column]).encode() for column in projection.key) for row in rows]
        assert keys == sorted(keys)
        assert len(set(keys)) == len(keys)


def test_csv_says_the_same_with_a_header_and_instants_in_the_business_zone(told: Told) -> None:
    for name, projection in PROJECTIONS.items():
        text = told.guarantee.export(name, form="csv").decode()
        reader = csv.DictReader(io.StringIO(text))
        rows = [json.loads(line) for line in told.guarantee.export(name).splitlines()]
        assert text.splitlines()[0] == ",".join(projection.columns)
        assert "\r" not in text
        assert list(reader) == [{k: as_cell(v) for k, v in row.items()} for row in rows]


def as_cell(value: Any) -> str:
    """What a value of JSON is in CSV."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, str) and value.endswith(".000000Z"):
        return datetime.fromisoformat(value).astimezone(ZONE).isoformat(timespec="microseconds")
    return str(value)


def test_the_log_is_exported_event_by_event(told: Told) -> None:
    exported = [json.loads(line) for line in told.guarantee.export("events").splitlines()]

    assert [x["position"] for x in exported] == list(range(1, told.end + 1))
    assert all(tuple(x) == (*ENTRY_COLUMNS, "data") for x in exported)
    assert not [x for x in exported if "type" in x["data"]]
    [first, *_] = [x for x in exported if x["stream"] == "order-o-1"]
    assert first == told.guarantee("history", "order-o-1", "--json").ok().json["events"][0]


def test_the_log_can_be_exported_as_it_was(told: Told) -> None:
    def exported(*moment: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in told.guarantee.export("events", *moment).splitlines()]

    everything = exported()
    assert exported("--at", told.delivered) == everything[: told.delivered]
    assert exported("--recorded-as-of", "2015-07-20") == everything[: told.delivered]
    before = "2015-07-14T16:00:00.000000Z"
    assert exported("--occurred-as-of", "2015-07-15") == [x for x in everything if x["occurred_at"] < before]
    assert exported("--at", 0) == []


def test_an_export_goes_to_a_file_if_one_is_named(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"

    ran = told.guarantee("export", "order_status", "-o", path).ok()

    assert ran.out == b""
    assert path.read_bytes() == told.guarantee.export("order_status", form="csv")


def test_a_file_is_not_touched_by_an_export_that_makes_no_sense(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "precious.csv"
    path.write_text("precious")

    told.guarantee("export", "order_states", "-o", path).refused(2)
    told.guarantee("export", "order_status", "--format", "xml", "-o", path).refused(2)
    told.guarantee("export", "order_status", "--at", 10**6, "-o", path).refused(2)

    assert path.read_text() == "precious"


def test_words_for_people_never_get_into_the_data(told: Told) -> None:
    ran = told.guarantee.apart("export", "order_status", "--format", "jsonl").ok()

    assert ran.out == told.guarantee.export("order_status")
    assert ran.err == f"position {told.end}\n"


def test_a_reader_who_has_seen_enough_is_no_error(told: Told) -> None:
    writer = subprocess.Popen(
        [*GUARANTEE, "export", "events", "--format", "jsonl"], env=told.guarantee.everything(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stderr is not None
    with writer.stdout, writer.stderr:
        assert writer.stdout.read(10) == b'{"position'
        writer.stdout.close()
        assert b"Traceback" not in writer.stderr.read()
    writer.wait()


# --- digest -----------------------------------------------------------------------------------------------------------


def test_digest_names_position_chain_and_every_read_model(told: Told) -> None:
    found = told.guarantee("digest", "--json").ok().json

    assert list(found) == ["position", "chain", "read_models"]
    assert list(found["read_models"]) == list(PROJECTIONS)
    assert found["position"] == told.end
    assert len(bytes.fromhex(found["chain"])) == 32
    text = told.guarantee("digest").ok().text
    for value in (str(told.end), found["chain"], *found["read_models"].values()):
        assert value in text


def test_digest_at_the_beginning_is_that_of_nothing(told: Told) -> None:
    found = told.guarantee("digest", "--at", 0, "--json").ok().json

    assert found == {"position": 0, "chain": "0" * 64, "read_models": dict.fromkeys(PROJECTIONS, NOTHING)}


def test_a_digest_of_a_position_stays_the_same_whatever_comes_after(postgres: str) -> None:
    with database(postgres) as url:
        guarantee = Guarantee(url)
        with open_market(url) as market:
            market.given(RULEBOOK, admission())
        end = position_of(url)
        live, before = guarantee("digest", "--json").ok().json, guarantee("digest", "--at", end, "--json").ok().json
        guarantee.sent(line_of(deposit(5, "more", at=july(5)), "k-1"))
        after = guarantee("digest", "--at", end, "--json").ok().json

        assert live == before == after
        assert guarantee("digest", "--json").ok().json != after


# --- questions that make no sense -------------------------------------------------------------------------------------

READ_MODELS = ", ".join(PROJECTIONS)
REFUSED = {
    "show nothing x": f"no such read model: nothing; there are {READ_MODELS}",
    "show order_status o-9": "no row o-9 in order_status",
    "show order_status o-9 --at 3": "no row o-9 in order_status",
    "show merchant_months m-1": "a key of merchant_months is merchant_id/month",
    "show merchant_days m-1/today/on_time": "Invalid isoformat string: 'today'",
    "show order_status o-1 --at 999999": "the log ends at position ",
    "history order-o-9": "no events in order-o-9",
    "history order-o-1 --at 1": "no events in order-o-1 at position 1",
    "history parcel-1": "no such stream: parcel-1; streams begin with order-, merchant-, programme-, budget-",
    "history order-o-1 --at 999999": "the log ends at position ",
    "history order-o-1 --recorded-as-of then": "not an instant: then",
    "history order-o-1 --occurred-as-of 0001-01-01": "not an instant: 0001-01-01",
    "history order-o-1 --at 5 --occurred-as-of 2015-07-01": "give a position, a recorded or an occurred instant, not",
    "export nothing": f"no such read model: nothing; there are {READ_MODELS}",
    "export events": "events cannot be exported as csv",
    "export order_status --format xml": "order_status cannot be exported as xml",
    "export order_status --at 999999": "the log ends at position ",
    "export order_status -o /": "/: Is a directory",
    "export order_status -o /nowhere/file": "/nowhere/file: No such file or directory",
    "export order_status --recorded-as-of 2015-13-01": "not an instant: 2015-13-01",
    "digest --at 999999": "the log ends at position ",
    "rebuild nothing": f"no such read model: nothing; there are {READ_MODELS}",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_a_question_that_makes_no_sense_is_answered_in_one_line_with_code_2(told: Told, typed: str) -> None:
    assert told.guarantee(*typed.split()).refused(2).startswith(REFUSED[typed])


MISTYPED = [
    "", "shwo", "show", "show order_status", "history", "export", "digest --at -1", "digest --at x",
    "export order_status --at 99999999999999999999", "rebuild --processes 0", "import", "import olist", "db", "keys",
    "command", "digest --jsno", "keys create someone",
]  # fmt: skip


@pytest.mark.parametrize("typed", MISTYPED)
def test_what_is_mistyped_is_explained_with_code_2(told: Told, typed: str) -> None:
    ran = told.guarantee(*typed.split())

    assert ran.code == 2
    assert "Usage: guarantee" in ran.err or "Usage: guarantee" in ran.text
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", ["digest", "history", "export", "verify"])
def test_reading_writes_nothing(told: Told, name: str) -> None:
    arguments = {"history": ["order-o-1"], "export": ["order_status"]}.get(name, [])

    told.guarantee(name, *arguments).ok()

    assert position_of(told.guarantee.url) == told.end
