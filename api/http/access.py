"""Who may ask what, and who may see what.  Closed by default: what no line in here allows is refused.

Staff (auditor, finance, handler, supervisor, officer, admin) and the marketplace's own system (integrator) read
everything.  A merchant sees what is its own, a buyer their own orders; payment providers and carriers see the events
they act on.  Nobody learns from an answer that something exists which they may not see.
"""

from typing import Any

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
    Command,
    Story,
)
from ledger.store import Entry
from ledger.streams import decider_of
from projections.projection import Projection
from projections.reader import Where

READS_EVERYTHING = frozenset({AUDITOR, FINANCE, HANDLER, SUPERVISOR, OFFICER, ADMIN, INTEGRATOR})
"""Roles that read every read model, stream and event."""

SPOKEN_FOR = frozenset({BUYER, MERCHANT, CARRIER})
"""Roles that the integrator speaks for."""

OWNERS = {MERCHANT: "merchant_id", BUYER: "buyer_ref"}
"""Roles that see rows of their own only, and the column that says whose a row is.  A task is its ``owner_id``'s."""

ACTS_ON: dict[str, frozenset[str]] = {
    # RefundApproved says how much RefundInstructed asks for.
    PAYMENT: frozenset({"RefundApproved", "RefundInstructed", "StrayPaymentRecorded", "RefundRecoveryOpened"}),
    CARRIER: frozenset({"ShipmentCreated", "WaybillCorrected"}),
}
"""Roles that follow the feed for the events they act on; a carrier for its own parcels."""


# --- commands ---------------------------------------------------------------------------------------------------------


def may_ask(role: str, command: type[Command]) -> bool:
    """Whether a role can ever ask for a command; whether it may here and now is decided by the stream."""
    return role in command.roles or (role == INTEGRATOR and bool(command.roles & SPOKEN_FOR))


def told(role: str, code: str, command: type[Command]) -> str:
    """A rejection as its caller may know it: a stream of somebody else is as unknown as one that is not there."""
    if code == "not_allowed" and role in OWNERS and not command.creates:
        return "unknown_stream"
    return code


# --- reads ------------------------------------------------------------------------------------------------------------


def reads_everything(role: str) -> bool:
    """Whether a role sees all there is."""
    return role in READS_EVERYTHING


def scope(role: str, actor: str, projection: Projection) -> list[Where] | None:
    """The conditions under which a role reads a read model; ``None`` if it may not at all."""
    if role in READS_EVERYTHING:
        return []
    columns = projection.row.__struct_fields__
    column = OWNERS.get(role)
    if column in columns:
        return [Where(column, "=", actor)]
    if column is not None and "owner_role" in columns:
        return [Where("owner_role", "=", role), Where("owner_id", "=", actor)]
    return None


def may_read_stream(role: str, actor: str, story: Story) -> bool:
    """Whether a role may read a stream, as it stands now."""
    if role in READS_EVERYTHING:
        return True
    if role not in OWNERS:
        return False
    return decider_of(story.stream).owner(story.state, role) == actor


def may_follow(role: str) -> bool:
    """Whether any event of the feed can be for a role."""
    return role in READS_EVERYTHING or role in ACTS_ON or role == MERCHANT


def may_see(role: str, actor: str, entry: Entry) -> bool:
    """Whether an event of the feed is for a role: a merchant gets those that carry its id."""
    if role in READS_EVERYTHING:
        return True
    if role == MERCHANT:
        return _has(entry.data, "merchant_id", actor)
    if entry.type not in ACTS_ON.get(role, frozenset()):
        return False
    return role != CARRIER or _has(entry.data, "carrier", actor)


def _has(data: Any, field: str, value: str) -> bool:
    return bool(getattr(data, field, None) == value)
