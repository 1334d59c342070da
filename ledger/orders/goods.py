"""How far the goods came: shipments and raw carrier scans in, dispatch, arrival, delivery and receipt out.

State is computed from the *set* of a parcel's scans, ordered by (instant, rank), never from the order in which they
were recorded.  A lower rank never undoes a higher one; contradictions are reported, not repaired.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import msgspec

from ledger.calendar import add_days, business_date, day_after, start_of
from ledger.decider import CARRIER, HANDLER, MERCHANT, Asked, Decisions, Rejected
from ledger.orders import events as e
from ledger.orders.asking import OrderCommand, ids, known_shipment, once, require_placed
from ledger.orders.state import OrderState, Scan, ShipmentState
from ledger.rulebook import Rulebook

RANKS = {"created": 0, "handed": 1, "transit": 2, "out": 3, "attempted": 4, "delivered": 5, "signed": 6}
"""How far a scan's status says the parcel came.  ``lost`` and ``returned_to_sender`` end it; others say nothing."""
HANDED, ATTEMPTED, DELIVERED = RANKS["handed"], RANKS["attempted"], RANKS["delivered"]
ENDINGS = frozenset({"lost", "returned_to_sender"})
FUTURE_TOLERANCE = timedelta(minutes=5)
"""A fact dated further ahead of its receipt than this is kept, flagged, and proves nothing."""


# --- Commands -----------------------------------------------------------------------------------------------------


class CreateShipment(OrderCommand, frozen=True, kw_only=True):
    """Announce a parcel and what is in it; one order may travel in many.

    Refused: ``units_not_shippable`` (more than was ordered, paid for and not yet in another parcel)."""

    roles = frozenset({MERCHANT})
    shipment_id: str
    lines: tuple[e.Units, ...]
    carrier: str
    waybill: str
    is_cainiao: bool


class RecordScan(OrderCommand, frozen=True, kw_only=True):
    """Record one carrier scan as it came; it is never refused for coming out of order.

    ``status``: created, handed, transit, out, attempted, delivered, signed, lost, returned_to_sender; anything else is
    kept as unknown.  Refused: ``unknown_shipment``, ``id_reused``."""

    roles = frozenset({CARRIER})
    scan_id: str
    shipment_id: str
    status: str
    code: str = ""
    place: str = ""
    raw_sha256: str | None = None
    is_carrier_origin: bool = True
    precision: e.Precision = "instant"


class RetractScan(OrderCommand, frozen=True, kw_only=True):
    """Take a scan back.  Refused: ``unknown_scan``."""

    roles = frozenset({CARRIER})
    scan_id: str
    reason: str


class CorrectWaybill(OrderCommand, frozen=True, kw_only=True):
    """Correct the carrier and waybill of a parcel; a handler approves.

    Refused: ``unknown_shipment``, ``already_delivered``, ``same_approver``."""

    roles = frozenset({MERCHANT})
    approver = HANDLER
    shipment_id: str
    carrier: str
    waybill: str
    is_cainiao: bool
    reason: str


class ConfirmReceipt(OrderCommand, frozen=True, kw_only=True):
    """Say that parcels were received, which releases their money.  Refused: ``unknown_shipment``, ``wrong_state``."""

    roles = frozenset({"buyer"})
    shipment_ids: tuple[str, ...]


class DenyDelivery(OrderCommand, frozen=True, kw_only=True):
    """Deny a delivery that the carrier reports, before receipt is presumed.

    Refused: ``unknown_shipment``, ``not_delivered``, ``too_late``."""

    roles = frozenset({"buyer"})
    shipment_id: str
    grounds_sha256: str


# --- Decide -------------------------------------------------------------------------------------------------------


def create_shipment(s: OrderState, c: CreateShipment, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """A parcel holds units that were paid for, are not cancelled or refunded, and are in no other parcel."""
    require_placed(s)
    fact = e.ShipmentCreated(
        **ids(s),
        shipment_id=c.shipment_id,
        lines=c.lines,
        carrier=c.carrier,
        waybill=c.waybill,
        is_cainiao=c.is_cainiao,
    )
    if once(s, "shipment/" + c.shipment_id, fact):
        return []
    if s.paid_at is None or not c.lines or len({x.line_id for x in c.lines}) < len(c.lines):
        raise Rejected("units_not_shippable")
    for x in c.lines:
        line = s.lines.get(x.line_id)
        if line is None or not 1 <= x.units <= line.free_units - s.live_units(line, lambda p: p.ended is None):
            raise Rejected("units_not_shippable")
    return [fact]


def record_scan(s: OrderState, c: RecordScan, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Every scan of a known parcel is kept."""
    require_placed(s)
    known_shipment(s, c.shipment_id)
    status = c.status if c.status in RANKS or c.status in ENDINGS else "unknown"
    fact = e.CarrierScanRecorded(
        **ids(s), scan_id=c.scan_id, shipment_id=c.shipment_id, code=c.code or c.status, status=status, place=c.place,
        raw_sha256=c.raw_sha256, is_carrier_origin=c.is_carrier_origin, precision=c.precision,
        is_future=asked.occurred_at > asked.received_at + FUTURE_TOLERANCE,
    )  # fmt: skip
    return [] if once(s, "scan/" + c.scan_id, fact) else [fact]


def retract_scan(s: OrderState, c: RetractScan, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Only a scan that stands can be taken back."""
    require_placed(s)
    if not any(c.scan_id in shipment.scans for shipment in s.shipments.values()):
        raise Rejected("unknown_scan")
    return [e.ScanRetracted(**ids(s), scan_id=c.scan_id, reason=c.reason)]


def correct_waybill(s: OrderState, c: CorrectWaybill, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Before the parcel is delivered, and never by the merchant alone."""
    require_placed(s)
    if known_shipment(s, c.shipment_id).delivered_at:
        raise Rejected("already_delivered")
    return [
        e.WaybillCorrected(
            **ids(s), shipment_id=c.shipment_id, carrier=c.carrier, waybill=c.waybill, is_cainiao=c.is_cainiao,
            reason=c.reason, approved_by=asked.approved_by or "",
        )
    ]  # fmt: skip


def confirm_receipt(s: OrderState, c: ConfirmReceipt, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Parcels that were received already add nothing."""
    require_placed(s)
    fresh = tuple(dict.fromkeys(x for x in c.shipment_ids if not known_shipment(s, x).received_at))
    if not c.shipment_ids:
        raise Rejected("unknown_shipment")
    if not fresh:
        return []
    if s.status not in ("paid", "partly_shipped", "shipped", "partly_received"):
        raise Rejected("wrong_state")
    return [e.ReceiptConfirmed(**ids(s), shipment_ids=fresh)]


def deny_delivery(s: OrderState, c: DenyDelivery, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Until receipt was confirmed or presumed."""
    require_placed(s)
    shipment = known_shipment(s, c.shipment_id)
    if shipment.delivered_at is None:
        raise Rejected("not_delivered")
    if shipment.received_at:
        raise Rejected("too_late")
    if shipment.is_denied:
        return []
    return [e.DeliveryDenied(**ids(s), shipment_id=c.shipment_id, grounds_sha256=c.grounds_sha256)]


# --- React: what the set of scans says ----------------------------------------------------------------------------


class Reading(msgspec.Struct):
    """What the standing scans of a parcel say together."""

    dispatched: Scan | None = None
    arrived: Scan | None = None
    delivered: Scan | None = None
    ended: Scan | None = None


def read_scans(shipment: ShipmentState) -> Reading:
    """The first scan of each kind, by (instant, rank); scans dated in the future prove nothing."""
    reading = Reading()
    for scan in sorted(shipment.scans.values(), key=_by_instant_and_rank):
        if scan.is_future:
            continue
        if scan.status in ENDINGS:
            reading.ended = reading.ended or scan
            continue
        rank = RANKS.get(scan.status, -1)
        if rank >= HANDED and scan.is_carrier_origin:
            reading.dispatched = reading.dispatched or scan
        if rank >= ATTEMPTED:
            reading.arrived = reading.arrived or scan
        if rank >= DELIVERED:
            reading.delivered = reading.delivered or scan
    return reading


def _by_instant_and_rank(scan: Scan) -> tuple[datetime, int, str]:
    return scan.occurred_at, RANKS.get(scan.status, -1), scan.scan_id


def arrived_at(scan: Scan) -> datetime:
    """For a promise a date-only scan counts as the first instant of its day: the benefit of the doubt."""
    return start_of(business_date(scan.occurred_at)) if scan.precision == "date" else scan.occurred_at


def delivered_at(scan: Scan) -> datetime:
    """For the buyer's windows a date-only scan counts as the end of its day."""
    return day_after(business_date(scan.occurred_at)) if scan.precision == "date" else scan.occurred_at


def follow_scans(s: OrderState, shipment: ShipmentState, rules: Rulebook) -> Decisions:
    """Dispatch, arrival, delivery and end of a parcel, as far as they changed."""
    reading = read_scans(shipment)
    yield from _follow_dispatch(s, shipment, reading)
    yield from _follow_arrival(s, shipment, reading)
    delivered = reading.delivered
    if delivered and (shipment.delivered_at is None or delivered_at(delivered) < shipment.delivered_at):
        yield deliver(s, shipment, delivered_at(delivered), delivered.precision, rules)
    if reading.ended and shipment.ended is None and shipment.delivered_at is None:
        outcome = "lost" if reading.ended.status == "lost" else "returned_to_sender"
        yield e.ShipmentEnded(
            **ids(s),
            shipment_id=shipment.shipment_id,
            lines=shipment.lines,
            outcome=outcome,  # type: ignore[arg-type]
        )
    yield from _find_conflicts(s, shipment)


def _follow_dispatch(s: OrderState, shipment: ShipmentState, reading: Reading) -> Decisions:
    before = shipment.dispatched_at
    now = reading.dispatched.occurred_at if reading.dispatched else None
    if before is None and now:
        yield e.UnitsDispatched(
            **ids(s), shipment_id=shipment.shipment_id, lines=shipment.lines, dispatched_at=now,
            is_cainiao=shipment.is_cainiao,
        )  # fmt: skip
    elif before and now != before:
        yield e.DispatchRevised(**ids(s), shipment_id=shipment.shipment_id, from_at=before, to_at=now)


def _follow_arrival(s: OrderState, shipment: ShipmentState, reading: Reading) -> Decisions:
    if shipment.received_at and reading.arrived is None:
        return  # the buyer's own word stands without any scan
    before, scan = shipment.arrived_at, reading.arrived
    now = arrived_at(scan) if scan else None
    if before is None and scan and now:
        yield e.UnitsArrived(
            **ids(s), shipment_id=shipment.shipment_id, lines=shipment.lines, arrived_at=now,
            precision=scan.precision, is_attempt=scan.status == "attempted",
        )  # fmt: skip
    elif before and (now != before or (shipment.delivered_at and reading.delivered is None)):
        yield e.ArrivalRevised(
            **ids(s), shipment_id=shipment.shipment_id, from_at=before, to_at=now,
            is_delivered=reading.delivered is not None or shipment.received_at is not None,
        )  # fmt: skip


def deliver(
    s: OrderState, shipment: ShipmentState, at: datetime, precision: e.Precision, rules: Rulebook
) -> e.UnitsDelivered:
    """The buyer has the parcel, and the windows begin."""
    windows = rules.windows
    auto_receipt_at = add_days(at, windows.auto_receipt_days)
    return e.UnitsDelivered(
        **ids(s), shipment_id=shipment.shipment_id, lines=shipment.lines, delivered_at=at, precision=precision,
        auto_receipt_at=auto_receipt_at,
        closes_at=add_days(auto_receipt_at, max(windows.claim_days, windows.rating_days)),
    )  # fmt: skip


def follow_receipt(s: OrderState, shipment: ShipmentState, at: datetime, rules: Rulebook) -> Decisions:
    """A buyer's confirmation proves what the carrier did not scan."""
    if shipment.arrived_at is None:
        yield e.UnitsArrived(
            **ids(s), shipment_id=shipment.shipment_id, lines=shipment.lines, arrived_at=at, precision="instant",
            is_attempt=False,
        )  # fmt: skip
    if shipment.delivered_at is None:
        yield deliver(s, shipment, at, "instant", rules)


def _find_conflicts(s: OrderState, shipment: ShipmentState) -> Decisions:
    for first, second, kind in _conflicts(shipment.scans.values()):
        pair = (first.scan_id, second.scan_id)
        if pair not in shipment.conflicts:
            yield e.ScanConflictFound(**ids(s), shipment_id=shipment.shipment_id, scan_ids=pair, kind=kind)  # type: ignore[arg-type]


def _conflicts(scans: Iterable[Scan]) -> Iterator[tuple[Scan, Scan, str]]:
    scans = sorted(scans, key=_by_instant_and_rank)
    for delivered in scans:
        if RANKS.get(delivered.status, -1) < DELIVERED:
            continue
        for other in scans:
            if other.status in ENDINGS:
                yield delivered, other, "ended_and_delivered"
            elif HANDED <= RANKS.get(other.status, -1) < DELIVERED and other.occurred_at > delivered.occurred_at:
                yield delivered, other, "moved_after_delivery"


# --- The clock ----------------------------------------------------------------------------------------------------


def presume_receipt(s: OrderState, shipment_id: str) -> Decisions:
    """auto_receipt: the buyer said nothing."""
    yield e.ReceiptPresumed(**ids(s), shipment_id=shipment_id)


def last_receipt_at(s: OrderState) -> datetime | None:
    """When the order was received in full, ``None`` before."""
    if not s.is_received:
        return None
    return max((x.received_at for x in s.shipments.values() if x.received_at), default=None)
