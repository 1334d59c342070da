"""How far the goods came: shipments and raw carrier scans in, dispatch, arrival, delivery and receipt out.

State is computed from the *set* of a parcel's scans, ordered by (instant, rank), never from the order in which they
were recorded.  A lower rank never undoes a higher one; contradictions are reported, not repaired.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

import msgspec

from ledger.calendar import add_days, business_date, day_after, start_of
from ledger.decider import CARRIER, HANDLER, MERCHANT, Asked, At, Decisions, Rejected
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
    standing = known_shipment(s, c.shipment_id).scans.get(c.scan_id)
    if standing and c.occurred_at not in (None, standing.occurred_at):
        raise Rejected("id_reused")
    is_future = standing.is_future if standing else asked.occurred_at > asked.received_at + FUTURE_TOLERANCE
    status = c.status if c.status in RANKS or c.status in ENDINGS else "unknown"
    fact = e.CarrierScanRecorded(
        **ids(s), scan_id=c.scan_id, shipment_id=c.shipment_id, code=c.code or c.status, status=status, place=c.place,
        raw_sha256=c.raw_sha256, is_carrier_origin=c.is_carrier_origin, precision=c.precision,
        is_future=is_future,
    )  # fmt: skip
    return [] if once(s, "scan/" + c.scan_id, fact) else [fact]


def retract_scan(s: OrderState, c: RetractScan, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Once; a scan that was taken back already stays so."""
    require_placed(s)
    if "scan/" + c.scan_id not in s.asked:
        raise Rejected("unknown_scan")
    if not any(c.scan_id in shipment.scans for shipment in s.shipments.values()):
        return []
    return [e.ScanRetracted(**ids(s), scan_id=c.scan_id, reason=c.reason)]


def correct_waybill(s: OrderState, c: CorrectWaybill, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Before the parcel is delivered, and never by the merchant alone."""
    require_placed(s)
    shipment = known_shipment(s, c.shipment_id)
    if (c.carrier, c.waybill, c.is_cainiao) == (shipment.carrier, shipment.waybill, shipment.is_cainiao):
        return []
    if shipment.delivered_at:
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
    """The first proof of each kind; the buyer's own word is as good as a signature."""
    reading = Reading()
    proofs = [scan for scan in shipment.scans.values() if not scan.is_future]  # those prove nothing
    if shipment.confirmed_at:
        proofs.append(Scan("", "signed", shipment.confirmed_at, "instant", False, False))
    for scan in sorted(proofs, key=_by_instant_and_rank):
        rank = RANKS.get(scan.status, -1)
        if scan.status in ENDINGS:
            reading.ended = reading.ended or scan
        if rank >= HANDED and scan.is_carrier_origin:
            reading.dispatched = _first(reading.dispatched, scan, earliest)
        if rank >= ATTEMPTED:
            reading.arrived = _first(reading.arrived, scan, earliest)
        if rank >= DELIVERED:
            reading.delivered = _first(reading.delivered, scan, latest)
    return reading


def _first(before: Scan | None, scan: Scan, at: Callable[[Scan], datetime]) -> Scan:
    return scan if before is None or at(scan) < at(before) else before


def _by_instant_and_rank(scan: Scan) -> tuple[datetime, int, str]:
    return scan.occurred_at, RANKS.get(scan.status, -1), scan.scan_id


def earliest(scan: Scan) -> datetime:
    """For a promise a date-only scan counts as the first instant of its day: the benefit of the doubt."""
    return start_of(business_date(scan.occurred_at)) if scan.precision == "date" else scan.occurred_at


def latest(scan: Scan) -> datetime:
    """For the buyer's windows a date-only scan counts as the end of its day."""
    return day_after(business_date(scan.occurred_at)) if scan.precision == "date" else scan.occurred_at


def follow_scans(s: OrderState, shipment: ShipmentState, rules: Rulebook) -> Decisions:
    """Dispatch, arrival, delivery and end of a parcel, as far as they changed.

    Each holds from the scan that proves it, whenever that was recorded.  What was told and is no longer proved, or only
    by a later scan, is taken back from the instant it was told for, and told anew."""
    reading = read_scans(shipment)
    yield from _follow_dispatch(s, shipment, reading.dispatched)
    yield from _follow_arrival(s, shipment, reading.arrived, reading.delivered)
    delivered = reading.delivered
    if delivered and (shipment.delivered_at is None or latest(delivered) < shipment.delivered_at):
        yield At(delivered.occurred_at, deliver(s, shipment, latest(delivered), delivered.precision, rules))
    ended = reading.ended
    if ended and shipment.ended != ended.status and shipment.delivered_at is None:
        ending = e.ShipmentEnded(
            **ids(s),
            shipment_id=shipment.shipment_id,
            lines=shipment.lines,
            outcome=ended.status,  # type: ignore[arg-type]
        )
        yield At(ended.occurred_at, ending)
    yield from _find_conflicts(s, shipment)


def _follow_dispatch(s: OrderState, shipment: ShipmentState, scan: Scan | None) -> Decisions:
    before, now = shipment.dispatched_at, earliest(scan) if scan else None
    if before and (now is None or now > before):
        yield At(before, e.DispatchRevised(**ids(s), shipment_id=shipment.shipment_id, from_at=before, to_at=None))
        before = None
    if scan and now and before is None:
        dispatched = e.UnitsDispatched(
            **ids(s), shipment_id=shipment.shipment_id, lines=shipment.lines, dispatched_at=now,
            is_cainiao=shipment.is_cainiao,
        )  # fmt: skip
        yield At(scan.occurred_at, dispatched)
    elif before and now and now < before:
        yield e.DispatchRevised(**ids(s), shipment_id=shipment.shipment_id, from_at=before, to_at=now)


def _follow_arrival(s: OrderState, shipment: ShipmentState, scan: Scan | None, delivered: Scan | None) -> Decisions:
    before, now = shipment.arrived_at, earliest(scan) if scan else None
    told = shipment.delivered_at
    is_delivered = bool(told and delivered and latest(delivered) <= told)
    is_taken_back = before is not None and (now is None or now > before)
    if before and (now != before or (told and not is_delivered)):
        revised = e.ArrivalRevised(
            **ids(s), shipment_id=shipment.shipment_id, from_at=before, to_at=None if is_taken_back else now,
            is_delivered=is_delivered,
        )  # fmt: skip
        yield revised if now and now < before else At(before, revised)
    if scan and now and (before is None or is_taken_back):
        arrived = e.UnitsArrived(
            **ids(s), shipment_id=shipment.shipment_id, lines=shipment.lines, arrived_at=now,
            precision=scan.precision, is_attempt=scan.status == "attempted",
        )  # fmt: skip
        yield At(scan.occurred_at, arrived)


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


def _find_conflicts(s: OrderState, shipment: ShipmentState) -> Decisions:
    if shipment.delivered_at is None:
        return
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
            elif HANDED <= RANKS.get(other.status, -1) < DELIVERED and other.occurred_at > latest(delivered):
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
