"""Keys for whoever wants to try the demonstration's API: one for each role, for people who take part in it."""

from typing import NamedTuple

from api import keys
from api.demo import cast
from api.wiring import Ledger
from ledger.decider import (
    ADMIN,
    AUDITOR,
    BUYER,
    CARRIER,
    FINANCE,
    HANDLER,
    INTEGRATOR,
    MERCHANT,
    OFFICER,
    PAYMENT,
    SUPERVISOR,
)
from ledger.orders.state import OrderState

LABEL = "demo"


class Visitor(NamedTuple):
    """Who may come in, as what, and with which key."""

    role: str
    actor: str
    key: str


def were_welcomed(ledger: Ledger) -> bool:
    """Whether keys were made before."""
    return any(record.label == LABEL for record in keys.listing(ledger.url, ledger.schema))


def welcome(ledger: Ledger, order: OrderState) -> list[Visitor]:
    """A new key for each role; buyer, merchant and carrier are those of an order."""
    actors = {
        BUYER: order.buyer_ref,
        MERCHANT: order.merchant_id,
        CARRIER: next((x.carrier for x in order.shipments.values()), cast.CAINIAO),
        PAYMENT: cast.PROVIDER,
        HANDLER: cast.HANDLER,
        SUPERVISOR: cast.SUPERVISOR,
        OFFICER: cast.OFFICER,
        FINANCE: cast.FINANCE,
        AUDITOR: cast.AUDITOR,
        INTEGRATOR: cast.MARKETPLACE,
        ADMIN: cast.ADMIN,
    }
    return [
        Visitor(role, actor, keys.create(ledger.url, ledger.schema, actor, role, LABEL))
        for role, actor in actors.items()
    ]
