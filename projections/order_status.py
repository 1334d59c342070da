"""``order_status``: an order as it stands.  Key: order_id."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from ledger import orders
from ledger.decider import Story
from ledger.orders.goods import last_receipt_at
from ledger.orders.state import ClaimState, OrderState
from projections.projection import Key, Projection, Row


class PromiseStatus(msgspec.Struct, frozen=True):
    """A promise: open, kept, breached or voided."""

    promise_id: str
    kind: str
    due_at: datetime
    state: str


class ClaimStatus(msgspec.Struct, frozen=True):
    """A claim, what it asks for or gives, and by when somebody has to act."""

    claim_id: str
    kind: str
    state: str
    amount_fen: int
    next_due_at: datetime | None


class OrderStatus(Row):
    """``refundable_fen`` = captured - refunded - reserved.  ``refunded_fen`` counts approved refunds of what was paid
    that are not undone; damages come on top of them."""

    order_id: str
    merchant_id: str
    buyer_ref: str
    category: str
    rulebook: str
    state: str
    placed_at: datetime
    paid_at: datetime | None
    received_at: datetime | None
    completed_at: datetime | None
    total_fen: int
    captured_fen: int
    escrow_fen: int
    reserved_fen: int
    refunded_fen: int
    refundable_fen: int
    released_fen: int
    paid_out_fen: int
    commission_fen: int
    rebate_fen: int
    rebate_denied_cause: str | None
    promises: tuple[PromiseStatus, ...]
    claims: tuple[ClaimStatus, ...]
    next_deadline: str | None
    next_due_at: datetime | None


def rows(story: Story) -> Iterable[OrderStatus]:
    """One row, once the order is placed."""
    s: OrderState = story.state
    if s.placed_at is None or s.rulebook is None:
        return ()
    deadline = story.next_deadline(orders.DECIDER)
    reserved_fen = s.reserved_fen
    row = OrderStatus(
        s.order_id, s.merchant_id, s.buyer_ref, s.category, s.rulebook, s.status, s.placed_at, s.paid_at,
        last_receipt_at(s), s.completed_at, s.total_fen, s.captured_fen, s.escrow_fen, reserved_fen, s.refunded_fen,
        s.captured_fen - s.refunded_fen - reserved_fen, s.released_fen, s.paid_out_fen, s.commission_fen,
        s.rebate_fen, s.rebate_denied_cause,
        tuple([PromiseStatus(p.promise_id, p.kind, p.due_at, p.state) for p in s.promises.values()]),
        tuple([_claim_status(c) for c in s.claims.values()]),
        deadline.name if deadline else None, deadline.fires_at if deadline else None,
    )  # fmt: skip
    return (row,)


def _claim_status(c: ClaimState) -> ClaimStatus:
    due_at = {"reserved": c.answer_at, "refused": c.dispute_by_at}.get(c.state, c.return_by_at)
    return ClaimStatus(c.claim_id, c.kind, c.state, c.refund_fen or c.amount_fen, due_at)


def stream_of(key: Key) -> str:
    """The order's stream."""
    return f"order-{key[0]}"


projection = Projection(
    "order_status", 1, OrderStatus, ("order_id",), frozenset({"order"}), rows=rows, is_sum=False, stream_of=stream_of
)
