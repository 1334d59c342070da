"""The read models compared with tables that were computed without the ledger: ``guarantee import olist --check``.

Each table of the expected directory is compared row by row and column by column; one line a table says how many rows
differ, and the first that does.
"""

import csv
import gzip
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from ledger.calendar import ZONE, parse
from ledger.decider import Story, fold
from ledger.events import Recorded
from ledger.orders.state import OrderState
from ledger.store import Check
from ledger.streams import decider_of
from projections import merchant_months
from projections.merchant_months import MerchantMonth, MerchantMonthShown, last_arrival_at, last_dispatch_at

Table = dict[tuple[str, ...], dict[str, str]]

_FEN = {"value_cents": "value_fen", "freight_cents": "freight_fen", "refund_cents": "refund_fen",
        "cancelled_cents": "cancelled_fen"}  # fmt: skip
_NOT_OURS = frozenset({"status", "approved"})
"""Columns of ``ledger_orders`` that say what the files said, not what became of it."""
TABLES = (
    "seller_totals.csv", "seller_months.csv", "months.csv", "asof_totals.csv", "subsidies.csv", "ledger_orders.csv.gz",
)  # fmt: skip
"""What the expected directory holds."""
OUTCOMES = ("cancelled", "unavailable", "on_time", "late", "undelivered", "open")


def require_tables(expected: Path) -> None:
    """``FileNotFoundError`` if one of the tables is not there."""
    for name in TABLES:
        with (expected / name).open("rb"):
            pass


def check(expected: Path, months: Iterable[MerchantMonthShown], log: Iterable[Iterable[Recorded]]) -> list[Check]:
    """Compares the ``merchant_months`` read model, and the orders folded from the log, with the tables."""
    rows = list(months)
    orders, moments = _orders(log, _moments(expected))
    return [
        _compare(expected, "seller_totals.csv", ("seller_id",), _totals(rows)),
        _compare(expected, "seller_months.csv", ("seller_id", "month"), _seller_months(rows)),
        _compare(expected, "months.csv", ("month",), _months(rows)),
        _compare(expected, "asof_totals.csv", ("as_of",), moments),
        _compare(expected, "subsidies.csv", ("seller_id", "month"), _subsidies(rows)),
        _compare(expected, "ledger_orders.csv.gz", ("order_id", "seller_id"), orders),
    ]


# --- From merchant_months -----------------------------------------------------------------------------------------


def _seller_months(rows: Iterable[MerchantMonthShown]) -> Table:
    return {(row.merchant_id, row.month): _columns(row) for row in rows}


def _totals(rows: Iterable[MerchantMonthShown]) -> Table:
    return {(key,): _columns(row) for key, row in _summed(rows, "merchant_id")}


def _months(rows: Iterable[MerchantMonthShown]) -> Table:
    return {(key,): _columns(row) for key, row in _summed(rows, "month")}


def _summed(rows: Iterable[MerchantMonthShown], by: str) -> Iterator[tuple[str, MerchantMonthShown]]:
    """The rows of each merchant, or of each month, added up; the ratios are those of the sums."""

    def group(row: MerchantMonthShown) -> str:
        key: str = getattr(row, by)
        return key

    for key, members in groupby(sorted(rows, key=group), key=group):
        total = MerchantMonth(key, key)
        for row in members:
            for column in MerchantMonth.__struct_fields__[2:]:
                setattr(total, column, getattr(total, column) + getattr(row, column))
        yield key, next(merchant_months.read(iter([total])))


def _columns(row: MerchantMonthShown) -> dict[str, str]:
    ours = msgspec.structs.asdict(row)
    for theirs, name in _FEN.items():
        ours[theirs] = ours[name]
    return {name: _text(value) for name, value in ours.items()}


def _subsidies(rows: Iterable[MerchantMonthShown]) -> Table:
    return {
        (row.merchant_id, row.month): {
            "orders": _text(row.on_time),
            "commission_cents": _text(row.commission_fen),
            "rebate_cents": _text(row.rebate_fen),
        }
        for row in rows
        if row.on_time
    }


# --- From the log -------------------------------------------------------------------------------------------------


def _moments(expected: Path) -> dict[str, datetime]:
    return {row["as_of"]: parse(row["as_of"]) for row in _rows(expected / "asof_totals.csv")}


def _orders(log: Iterable[Iterable[Recorded]], moments: Mapping[str, datetime]) -> tuple[Table, Table]:
    """Each order at its end, and all orders as they were at each moment, by occurred time."""
    streams: dict[str, list[Recorded]] = {}
    for chunk in log:
        for event in chunk:
            if event.stream.startswith("order-"):
                streams.setdefault(event.stream, []).append(event)
    totals = {name: dict.fromkeys(("placed", "shipped", "arrived", "breaches", "refund_cents"), 0) for name in moments}
    orders: Table = {}
    for stream, events in streams.items():
        _count_as_of(stream, events, moments, totals)
        state: OrderState = _folded(stream, events).state
        order_id, _, seller_id = state.order_id.partition("-")
        orders[order_id, seller_id] = _order(state)
    return orders, {(name,): {k: _text(v) for k, v in total.items()} for name, total in totals.items()}


def _folded(stream: str, events: Iterable[Recorded]) -> Story:
    return fold(decider_of(stream), stream, events)


def _count_as_of(
    stream: str, events: list[Recorded], moments: Mapping[str, datetime], totals: dict[str, dict[str, int]]
) -> None:
    """Folds the events strictly before each moment; between two events nothing changes."""
    folded: tuple[int, dict[str, int]] = (0, {})
    for name, moment in moments.items():
        before = [event for event in events if event.occurred_at < moment]
        if len(before) != folded[0]:
            folded = len(before), _as_of(_folded(stream, before).state)
        for column, value in folded[1].items():
            totals[name][column] += value


def _as_of(s: OrderState) -> dict[str, int]:
    is_breached = any(p.kind == "arrive_by" and p.state == "breached" for p in s.promises.values())
    return {
        "placed": int(s.is_placed),
        "shipped": int(any(x.dispatched_at for x in s.shipments.values())),
        "arrived": int(any(x.arrived_at for x in s.shipments.values())),
        "breaches": int(is_breached),
        "refund_cents": s.refunded_fen if is_breached else 0,
    }


def _order(s: OrderState) -> dict[str, str]:
    row = next(iter(merchant_months.rows(Story("", s))))
    promises = {p.kind: p for p in s.promises.values()}
    outcome = next(x for x in OUTCOMES if getattr(row, x))
    is_void = outcome in ("cancelled", "unavailable")
    return {
        "outcome": outcome,
        "items": _text(row.items),
        "placed": _local(s.placed_at),
        "shipped": "" if is_void else _local(last_dispatch_at(s)),
        "arrived": "" if is_void else _local(last_arrival_at(s)),
        "ship_limit": _local(promises["dispatch_by"].due_at - timedelta(seconds=1)),
        "due": _local(promises["arrive_by"].due_at),
        "value_cents": _text(row.value_fen),
        "freight_cents": _text(row.freight_fen),
        "refund_cents": _text(row.refund_fen),
        "reviews": _text(row.reviews),
        "review_score_sum": _text(row.review_score_sum),
        "low_reviews": _text(row.low_reviews),
    }


# --- Comparing ----------------------------------------------------------------------------------------------------


def _compare(expected: Path, name: str, key: tuple[str, ...], ours: Table) -> Check:
    differences, first = 0, None
    seen = set()
    for row in _rows(expected / name):
        row_key = tuple(row[column] for column in key)
        seen.add(row_key)
        mine = ours.get(row_key)
        differs = _differing(name, row, mine, key)
        if differs:
            differences += 1
            first = first or {"key": "/".join(row_key), **differs}
    for row_key in ours.keys() - seen:
        differences += 1
        first = first or {"key": "/".join(row_key), "expected": None}
    return Check(name, differences, first)


def _differing(name: str, row: dict[str, str], mine: dict[str, str] | None, key: tuple[str, ...]) -> dict[str, Any]:
    if mine is None:
        return {"ledger": None}
    if name.startswith("ledger_orders") and row["outcome"] in ("cancelled", "unavailable"):
        row = row | {"shipped": "", "arrived": ""}
    for column, value in row.items():
        if column not in key and column not in _NOT_OURS and mine[column] != value:
            return {"column": column, "expected": value, "ledger": mine[column]}
    return {}


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    else:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _text(value: int | str | None) -> str:
    return "" if value is None else str(value)


def _local(instant: datetime | None) -> str:
    return "" if instant is None else instant.astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S")
