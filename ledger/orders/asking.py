"""What every command to an order shares: its stream, its ids, and the refusals that come first."""

from datetime import date
from typing import TypedDict

from ledger.decider import Command, Rejected
from ledger.events import Fact
from ledger.orders.state import ClaimState, OrderState, PromiseState, ShipmentState


class Ids(TypedDict):
    """What every event of an order carries."""

    order_id: str
    merchant_id: str
    placed_on: date


class OrderCommand(Command, frozen=True, kw_only=True):
    """A command to one order."""

    order_id: str

    @property
    def stream(self) -> str:
        """``order-<order_id>``."""
        return f"order-{self.order_id}"


def ids(s: OrderState) -> Ids:
    """The order's ids, for an event of it."""
    assert s.placed_on is not None
    return {"order_id": s.order_id, "merchant_id": s.merchant_id, "placed_on": s.placed_on}


def require_placed(s: OrderState) -> None:
    """``unknown_stream`` before there is an order."""
    if not s.is_placed:
        raise Rejected("unknown_stream")


def once(s: OrderState, business_id: str, fact: Fact) -> bool:
    """Whether this was asserted before with the same content; ``id_reused`` if with another."""
    before = s.asked.get(business_id)
    if before is None:
        return False
    if before != fact:
        raise Rejected("id_reused")
    return True


def known_shipment(s: OrderState, shipment_id: str) -> ShipmentState:
    """The shipment, or ``unknown_shipment``."""
    shipment = s.shipments.get(shipment_id)
    if shipment is None:
        raise Rejected("unknown_shipment")
    return shipment


def known_claim(s: OrderState, refund_id: str) -> ClaimState:
    """The claim, or ``unknown_refund``."""
    claim = s.claims.get(refund_id)
    if claim is None:
        raise Rejected("unknown_refund")
    return claim


def known_promise(s: OrderState, promise_id: str) -> PromiseState:
    """The promise, or ``unknown_promise``."""
    promise = s.promises.get(promise_id)
    if promise is None:
        raise Rejected("unknown_promise")
    return promise
