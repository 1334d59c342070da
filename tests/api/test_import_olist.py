"""Real orders through the ledger: every figure against tables that were worked out without it.

The small data set holds each irregular kind that real data is known to contain.  The real data, where it is, goes the
same way: ``pytest -s -m slow``.
"""

import csv
import gzip
import itertools
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from api import asof, importing, olist, relive
from api.settings import Settings
from api.wiring import Ledger, opened
from ledger import calendar
from ledger.rulebook import shipped
from projections import PROJECTIONS
from tests.api.console import Guarantee, Ran, database, jsonl, killed_at, position_of, query
from tests.olist import oracle, small

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("GUARANTEE_OLIST") or ROOT.parent / "shared" / "data" / "olist")
UNTIL = calendar.parse("2018-12-01")

TABLES = (
    "seller_totals.csv", "seller_months.csv", "months.csv", "asof_totals.csv", "subsidies.csv", "ledger_orders.csv.gz",
)  # fmt: skip
KEYED_BY_WHAT_OCCURRED = ("order_status", "merchant_months", "merchant_days")
"""Read models that do not ask when or in what order anything was recorded."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the columns of the real one."""
    directory = tmp_path_factory.mktemp("data")
    small.write(directory)
    return directory


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ledger must make of it."""
    directory = tmp_path_factory.mktemp("expected")
    oracle.write(oracle.load(data), directory)
    return directory


@pytest.fixture(scope="module")
def imported(postgres: str, data: Path) -> Iterator[Guarantee]:
    """A ledger into which the small data set was imported as it happened; tests only read it, or import it again."""
    with database(postgres) as url:
        guarantee = Guarantee(url)
        guarantee("import", "olist", data).ok()
        yield guarantee


@pytest.fixture(scope="module")
def untouched(postgres: str) -> Iterator[Guarantee]:
    """An empty ledger that is empty afterwards, too."""
    with database(postgres) as url:
        yield Guarantee(url)
        assert query(url, "SELECT position FROM head") == [(0,)]


@pytest.fixture
def empty(postgres: str) -> Iterator[Guarantee]:
    """An empty ledger."""
    with database(postgres) as url:
        yield Guarantee(url)


def differences(ran: Ran) -> dict[str, int]:
    """The number of differences in each table."""
    return {check["name"]: check["differences"] for check in ran.json["checks"]}


NO_DIFFERENCE = dict.fromkeys(TABLES, 0)


# --- zero differences -------------------------------------------------------------------------------------------------


def test_every_table_comes_out_without_a_difference_and_again_when_imported_on_top(
    imported: Guarantee, data: Path, expected: Path
) -> None:
    before = imported.chain()

    again = imported("import", "olist", data, "--check", expected, "--json").ok()

    assert differences(again) == NO_DIFFERENCE
    assert "0 commands accepted" in again.err
    assert "0 events appended" in again.err
    assert imported.chain() == before


def test_the_check_says_a_line_for_each_table(imported: Guarantee, data: Path, expected: Path) -> None:
    ran = imported("import", "olist", data, "--check", expected).ok()

    *lines, position = ran.text.splitlines()
    assert lines == [f"ok         0 differences  {name}" for name in TABLES]
    assert position == f"position {imported.chain()[0]}"


def test_rebuild_and_verify_find_nothing_after_an_import(imported: Guarantee) -> None:
    before = imported.digests()

    assert {x["outcome"] for x in imported("rebuild", "--json").ok().json} == {"same"}
    assert {x["differences"] for x in imported("verify", "--json").ok().json["checks"]} == {0}
    assert imported.digests() == before


@pytest.mark.parametrize("seed", [1, 2])
def test_facts_received_late_and_in_another_order_come_to_the_same_figures(
    imported: Guarantee, empty: Guarantee, data: Path, expected: Path, seed: int
) -> None:
    shuffled = empty("import", "olist", data, "--order", "shuffled", "--seed", seed, "--check", expected, "--json").ok()

    assert differences(shuffled) == NO_DIFFERENCE
    mine, theirs = empty.digests(), imported.digests()
    assert {name: mine[name] for name in KEYED_BY_WHAT_OCCURRED} == {
        name: theirs[name] for name in KEYED_BY_WHAT_OCCURRED
    }
    assert empty.chain()[1] != imported.chain()[1]
    as_of_march = empty.export("merchant_months", "--occurred-as-of", "2018-03-01", form="csv")
    assert totals(as_of_march) == expected_at(expected, "2018-03-01")


EDGES = (
    "2017-06-01", "2017-08-01", "2017-10-01", "2017-11-01", "2018-01-01", "2018-02-01", "2018-03-01", "2018-04-01",
    "2018-06-01",
)  # fmt: skip
"""Beginnings of months close to which something happened."""


def test_the_state_as_it_had_occurred_is_right_to_the_second(imported: Guarantee, data: Path, expected: Path) -> None:
    # merchant_months shows an order from its placement on, whatever a carrier says to have had in its hands before
    handed_over_too_early = Counter(
        at
        for at in EDGES
        for pair in oracle.load(data).ledger
        if pair.order.shipped and pair.order.shipped < at <= pair.order.placed
    )
    with ledger(imported) as opened_ledger:
        found = {at: as_of(opened_ledger, at) for at in EDGES}

    for at, figures in found.items():
        figures["shipped"] += handed_over_too_early[at]
    assert handed_over_too_early
    assert found == {at: expected_at(expected, at) for at in found}


def totals(exported: bytes) -> dict[str, int]:
    """An export of merchant_months, added up to the figures of ``asof_totals``."""
    rows = list(csv.DictReader(exported.decode().splitlines()))
    return {
        "placed": sum(int(row["orders"]) for row in rows),
        "shipped": sum(int(row["shipped_on_time"]) + int(row["shipped_late"]) for row in rows),
        "arrived": sum(int(row["arrived"]) for row in rows),
        "breaches": sum(int(row["breaches"]) for row in rows),
        "refund_cents": sum(int(row["refund_fen"]) for row in rows),
    }


def as_of(opened_ledger: Ledger, at: str) -> dict[str, int]:
    """The same figures, folded in this process."""
    moment = asof.Moment(occurred_before=calendar.parse(at))
    rows = list(asof.rows(opened_ledger.store, PROJECTIONS["merchant_months"], moment))
    return {
        "placed": sum(row.orders for row in rows),
        "shipped": sum(row.shipped_on_time + row.shipped_late for row in rows),
        "arrived": sum(row.arrived for row in rows),
        "breaches": sum(row.breaches for row in rows),
        "refund_cents": sum(row.refund_fen for row in rows),
    }


def expected_at(expected: Path, at: str) -> dict[str, int]:
    """The row of ``asof_totals`` at an instant."""
    [row] = [row for row in rows_of(expected / "asof_totals.csv") if row["as_of"] == at]
    return {name: int(row[name]) for name in ("placed", "shipped", "arrived", "breaches", "refund_cents")}


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table, zipped or not."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(text.splitlines()))


# --- a check that finds something -------------------------------------------------------------------------------------


def test_one_wrong_cell_in_a_table_is_one_difference(
    imported: Guarantee, data: Path, expected: Path, tmp_path: Path
) -> None:
    planted = {
        "seller_totals.csv": "orders", "seller_months.csv": "refund_cents", "months.csv": "on_time_bp",
        "asof_totals.csv": "shipped", "subsidies.csv": "rebate_cents", "ledger_orders.csv.gz": "due",
    }  # fmt: skip
    for name in TABLES:
        spoil(expected / name, tmp_path / name, planted[name])

    ran = imported("import", "olist", data, "--check", tmp_path, "--json")

    assert ran.code == 1
    assert differences(ran) == dict.fromkeys(TABLES, 1)
    found = {check["name"]: check["first"] for check in ran.json["checks"]}
    assert {name: first["column"] for name, first in found.items()} == planted
    assert all(first["key"] and first["expected"] != first["ledger"] for first in found.values())


def test_a_row_too_many_and_a_row_too_few_are_found(
    imported: Guarantee, data: Path, expected: Path, tmp_path: Path
) -> None:
    for name in TABLES:
        (tmp_path / name).write_bytes((expected / name).read_bytes())
    head, first, *rest = (expected / "months.csv").read_text().splitlines()
    (tmp_path / "months.csv").write_text("\n".join([head, first.replace(first[:7], "2001-01", 1), *rest]) + "\n")

    ran = imported("import", "olist", data, "--check", tmp_path)

    assert ran.code == 1
    assert "FAIL       2 differences  months.csv" in ran.text
    assert ran.text.count("FAIL") == 1


def spoil(good: Path, bad: Path, column: str) -> None:
    """Copies a table, but for one cell."""
    rows = rows_of(good)
    row = next(row for row in rows if row[column] not in ("", "0"))
    row[column] = row[column].replace(row[column][0], "7" if row[column][0] != "7" else "3", 1)
    text = [",".join(row) for row in ([*rows[0]], *([*row.values()] for row in rows))]
    content = "".join(f"{line}\n" for line in text).encode()
    bad.write_bytes(gzip.compress(content) if bad.suffix == ".gz" else content)


# --- whatever happens on the way --------------------------------------------------------------------------------------


def import_slowly(url: str, directory: str) -> None:
    """Imports in many small transactions."""
    relive.BATCH = 40
    Guarantee(url)("import", "olist", directory).ok()


def test_an_import_that_was_killed_again_and_again_ends_with_the_same_log(
    imported: Guarantee, empty: Guarantee, data: Path
) -> None:
    end = imported.chain()
    stops = sorted(random.Random(3).sample(range(1, end[0]), 4))

    killed_at(stops, 1, import_slowly, empty.url, str(data))

    assert empty.chain() == end


def test_of_two_imports_at_once_one_comes_through_and_neither_spoils_the_log(
    imported: Guarantee, empty: Guarantee, data: Path
) -> None:
    codes = sorted(started.ran().code for started in [empty.start("import", "olist", data) for _ in range(2)])

    assert codes[0] == 0
    assert codes[1] in (0, 3)
    empty("import", "olist", data).ok()
    assert empty.chain() == imported.chain()


def test_how_often_the_import_ticks_on_its_way_does_not_matter(imported: Guarantee, postgres: str, data: Path) -> None:
    as_it_happened = imported.digests()
    for live in (without_a_tick, with_many_ticks):
        with database(postgres) as url:
            with ledger(Guarantee(url)) as opened_ledger:
                live(opened_ledger, olist.facts(olist.read(data)))
            found = Guarantee(url).digests()
        assert {name for name in KEYED_BY_WHAT_OCCURRED if found[name] != as_it_happened[name]} == set()


def without_a_tick(opened_ledger: Ledger, facts: list[relive.Timed]) -> None:
    """Nothing but commands wakes a stream, until the very end."""
    with relive.Relive(opened_ledger.store, importing.ORIGIN) as door:
        for fact in facts:
            door.receive(fact)
        list(door.run([], UNTIL))


def with_many_ticks(opened_ledger: Ledger, facts: list[relive.Timed]) -> None:
    """The clock is looked at three times between any two facts."""
    with relive.Relive(opened_ledger.store, importing.ORIGIN) as door:
        for fact, following in itertools.pairwise(facts):
            pause = (following.received_at - fact.received_at) / 3
            for part in (0, 1, 2, 3):
                list(door.run([fact] if part == 0 else [], fact.received_at + part * pause))
        list(door.run(facts[-1:], UNTIL))


def ledger(guarantee: Guarantee) -> AbstractContextManager[Ledger]:
    """The ledger, opened in this process as the import opens it."""
    return opened(Settings(database_url=guarantee.url), recorded_from=calendar.BEGINNING)


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_a_ledger_in_which_something_else_went_on_since_is_refused(empty: Guarantee, data: Path) -> None:
    key = empty("keys", "create", "supervisor-1", "supervisor").ok().text.strip()
    rulebook = {"command": "PublishRulebook", "key": "k-1", "actor": "admin-1", "role": "admin"}
    body = {"body": {**shipped(olist.RULEBOOK), "rulebook": "another"}}
    empty("command", "--approver-key", key, "--file", "-", stdin=jsonl([{**rulebook, "body": body}])).ok()

    why = empty("import", "olist", data).refused(2)

    assert why == "the ledger holds other events, recorded after the first of these facts"
    assert position_of(empty.url) == 1


def test_other_orders_on_top_of_imported_ones_are_refused(imported: Guarantee, tmp_path: Path) -> None:
    small.write(tmp_path, seed=2)
    before = imported.chain()

    why = imported("import", "olist", tmp_path).refused(2)

    assert why == "the ledger holds other events, recorded after the first of these facts"
    assert imported.chain() == before


def test_more_orders_of_the_same_history_may_come_later(empty: Guarantee, data: Path, tmp_path: Path) -> None:
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rewrite(tmp_path / "orders.csv.gz", lambda lines: lines[:-3])
    empty("import", "olist", tmp_path, "--as-of", "2018-06-01").ok()

    again = empty("import", "olist", data).ok()

    assert re.search(r"\n[1-9]\d* commands accepted", again.err)


def test_a_ledger_with_other_rules_in_force_is_refused_before_anything_is_written(empty: Guarantee, data: Path) -> None:
    key = empty("keys", "create", "supervisor-1", "supervisor").ok().text.strip()
    rulebook = {
        "command": "PublishRulebook", "key": "k-1", "actor": "admin-1", "role": "admin",
        "received_at": "2015-06-01T00:00:00Z", "body": {"body": shipped("rulebook-2015.1")},
    }  # fmt: skip
    empty("command", "--virtual-clock", "--approver-key", key, "--file", "-", stdin=jsonl([rulebook])).ok()

    assert "other rules are in force" in empty("import", "olist", data).refused(2)
    assert position_of(empty.url) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--order", "reverse"], "--order is time or shuffled"),
        (["--as-of", "some day"], "not an instant: some day"),
        (["--check", "nowhere"], "nowhere/seller_totals.csv: No such file or directory"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_read(
    untouched: Guarantee, arguments: list[str], why: str
) -> None:
    assert untouched("import", "olist", "nowhere at all", *arguments).refused(2) == why


# --- files that are not what they should be ---------------------------------------------------------------------------

Lines = list[bytes]


def rewrite(path: Path, change: Callable[[Lines], Lines]) -> None:
    """Changes the lines of a zipped file."""
    path.write_bytes(gzip.compress(b"".join(change(gzip.decompress(path.read_bytes()).splitlines(keepends=True)))))


def cell(line: int, column: int, value: bytes) -> Callable[[Lines], Lines]:
    """Another value in a cell; the first line is the header."""

    def change(lines: Lines) -> Lines:
        cells = lines[line - 1].rstrip(b"\n").split(b",")
        cells[column] = value
        return [*lines[: line - 1], b",".join(cells) + b"\n", *lines[line:]]

    return change


MALFORMED: dict[str, tuple[str, Callable[[Lines], Lines], str]] = {
    "an amount that is none": ("order_items", cell(3, 5, b"12,50"), "line 3: not as many fields as columns"),
    "too many decimals": ("order_items", cell(4, 5, b"12.505"), "line 4: not an amount of money: '12.505'"),
    "a negative amount": ("payments", cell(2, 4, b"-1.00"), "line 2: not an amount of money: '-1.00'"),
    "no amount": ("order_items", cell(2, 6, b""), "line 2: not an amount of money: ''"),
    "no shipping limit": ("order_items", cell(5, 4, b""), "line 5: the item of order .* has no shipping limit"),
    "a time that is none": ("orders", cell(2, 4, b"2017-02-30 10:00:00"), "line 2: day is out of range for month"),
    "no purchase": ("orders", cell(3, 4, b""), "line 3: order .* has no purchase or no due date"),
    "a score that is none": ("reviews", cell(2, 2, b"five"), "line 2: invalid literal .*'five'"),
    "a column that is missing": ("sellers", cell(1, 2, b"uf"), "line 1: there is no column seller_state"),
    "bytes that are no text": ("sellers", cell(3, 1, b"S\xe3o Paulo"), "line .*: 'utf-8' codec can't decode"),
    "a quote that does not end": ("sellers", cell(2, 1, b'"Campinas'), "line .*: ',' expected"),
    "no orders": ("orders", lambda lines: lines[:1], ": not one order has items"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_with_its_name_and_line(
    untouched: Guarantee, data: Path, tmp_path: Path, name: str
) -> None:
    file, change, why = MALFORMED[name]
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rewrite(tmp_path / f"{file}.csv.gz", change)

    refused = untouched("import", "olist", tmp_path).refused(2)

    assert re.search(f"^{file}.csv.gz.* ?{why}", refused), refused
    assert position_of(untouched.url) == 0


@pytest.mark.parametrize("keep", [0, 1, 40, -9])
def test_a_file_that_is_cut_short_or_not_zipped_is_refused(
    untouched: Guarantee, data: Path, tmp_path: Path, keep: int
) -> None:
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    orders = tmp_path / "orders.csv.gz"
    orders.write_bytes(orders.read_bytes()[:keep] if keep else b"order_id,customer_unique_id\n")

    assert untouched("import", "olist", tmp_path).refused(2).startswith("orders.csv.gz, line ")
    assert position_of(untouched.url) == 0


def test_a_file_that_is_not_there_is_named(untouched: Guarantee, tmp_path: Path) -> None:
    assert untouched("import", "olist", tmp_path).refused(2).endswith("sellers.csv.gz: No such file or directory")


# --- the real orders --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_orders_come_out_without_a_difference(postgres: str) -> None:
    if not (REAL / "expected").is_dir():
        why = "no real orders here: set GUARANTEE_OLIST, or put them in ../shared/data/olist"
        print(f"\nSKIPPED: {why}")  # noqa: T201 - to be seen where nothing else of a skipped test is
        pytest.skip(why)
    with ThreadPoolExecutor(2) as lanes:
        as_they_happened, *shuffled = [
            future.result()
            for future in [lanes.submit(real_orders, postgres, seed, again=seed is None) for seed in (None, 1, 2)]
        ]
    for digests in shuffled:
        assert {x: digests[x] for x in KEYED_BY_WHAT_OCCURRED} == {
            x: as_they_happened[x] for x in KEYED_BY_WHAT_OCCURRED
        }


def real_orders(postgres: str, seed: int | None, *, again: bool) -> dict[str, str]:
    """Imports the real orders into a ledger of their own, as they happened or shuffled, and tries everything that has
    to find nothing; returns the digests of the read models."""
    order = [] if seed is None else ["--order", "shuffled", "--seed", seed]
    name = "as it happened" if seed is None else f"shuffled, seed {seed}"
    with database(postgres) as url:
        guarantee = Guarantee(url)
        imports = ("import", "olist", REAL, *order, "--check", REAL / "expected")
        timed(f"{name}: import --check", guarantee, *imports)
        end = guarantee.apart("digest", "--json").ok().json
        if again:
            timed(f"{name}: again, on top of itself", guarantee, *imports)
        timed(f"{name}: rebuild", guarantee, "rebuild")
        assert guarantee.apart("digest", "--json").ok().json == end
        timed(f"{name}: verify", guarantee, "verify")
        digests: dict[str, str] = end["read_models"]
        return digests


def timed(name: str, guarantee: Guarantee, *arguments: object) -> None:
    """Runs a command in a process of its own, and prints what it says and how long it took."""
    began = time.monotonic()
    ran = guarantee.apart(*arguments)
    print(f"\n{name} ({time.monotonic() - began:.0f} s)\n{ran.text}", flush=True)  # noqa: T201 - it is a report
    assert ran.code == 0, ran.err
