"""The cases that the story is told of: found in the ledger by what happened, never by name."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from ledger.calendar import business_month
from ledger.events import Fact, Recorded
from ledger.merchants import MerchantActivated
from ledger.orders import events as e
from ledger.store import Store
from projections.reader import Snapshot


class Refund(NamedTuple):
    """A refund: its order, and its id there."""

    order_id: str
    refund_id: str


class Cases(msgspec.Struct):
    """What the log holds, in numbers, and the orders worth telling of; ``None`` where there is none."""

    events: int = 0
    facts: int = 0
    types: Counter[type] = msgspec.field(default_factory=Counter)
    overturned: str | None = None
    """An order whose broken promise of arrival was found to have been kept."""
    late: str | None = None
    """An order whose promise of arrival was broken."""
    refund: Refund | None = None
    """A paid refund whose money came from as many sources as possible."""
    rebate: str | None = None
    """A key of ``subsidy_balance``: a merchant from which a rebate was taken back, and the month."""

    @property
    def merchants(self) -> int:
        """How many were ever admitted."""
        return self.types[MerchantActivated]

    @property
    def told(self) -> str | None:
        """The late order that an auditor would ask about."""
        return self.overturned or self.late


def find(store: Store) -> Cases:
    """Reads the log once."""
    cases, late, best = Cases(), set[str](), (0, 0)
    for event in _events(store):
        d = event.data
        cases.events += 1
        cases.types[type(d)] += 1
        match d:
            case e.PromiseBreached(kind="arrive_by", order_id=order_id):
                late.add(order_id)
                cases.late = cases.late or order_id
            case e.BreachOverturned(order_id=order_id) if order_id in late:
                cases.overturned = cases.overturned or order_id
            case e.RebateClawedBack(merchant_id=merchant_id):
                cases.rebate = cases.rebate or f"{merchant_id}/{business_month(event.recorded_at)}"
            case e.RefundPaid():
                parts = (d.escrow_fen, d.deposit_fen, d.platform_fen)
                rank = (sum(part > 0 for part in parts), sum(parts))
                if rank > best:
                    best, cases.refund = rank, Refund(d.order_id, d.refund_id)
    cases.facts = sum(count for kind, count in cases.types.items() if issubclass(kind, Fact))
    return cases


def _events(store: Store) -> Iterator[Recorded]:
    for chunk in store.scan():
        yield from chunk


class Orders(msgspec.Struct):
    """Where the orders stand, and the one that a handler is asked about."""

    states: Counter[str] = msgspec.field(default_factory=Counter)
    claimed: Any = None
    """The row of an order with a claim that somebody has to answer, if there is one."""


def orders(snapshot: Snapshot) -> Orders:
    """Reads ``order_status`` once."""
    found = Orders()
    for row in snapshot.rows("order_status"):
        found.states[row.state] += 1
        if row.reserved_fen and (found.claimed is None or _rank(row) > _rank(found.claimed)):
            found.claimed = row
    return found


def _rank(row: Any) -> tuple[bool, str]:
    """The more there is to explain, the better."""
    return bool(row.refunded_fen), row.order_id
