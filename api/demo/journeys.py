"""What carriers say about a parcel of the demonstration: when it was handed over, where it is, when it arrived.

Realistic, that is: recorded minutes or hours after it happened, sometimes twice, out of order, with a date only, dated
ahead, or wrong.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random

import msgspec

from api.demo import cast
from api.demo.plans import Plan
from ledger.calendar import business_date, start_of
from ledger.orders.events import Precision

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Scan(msgspec.Struct, frozen=True):
    """A scan: what it says, of when, and when it comes in."""

    scan_id: str
    status: str
    at: datetime
    received_at: datetime
    precision: Precision = "instant"
    is_again: bool = False
    """The same scan was sent before."""
    is_retracted_at: datetime | None = None
    """The carrier takes it back."""


def final_scan(plan: Plan, parcel: int) -> str | None:
    """The id of the scan by which the buyer learns that a parcel is there; ``None`` if it never is."""
    return None if plan.course in ("lost", "returned") else f"{parcel}-delivered"


def journey(plan: Plan, parcel: int, created_at: datetime, chance: Random) -> Iterator[Scan]:
    """Every scan of a parcel, numbered from 1, that was announced at an instant."""
    handed_at = created_at + _minutes(chance, 90, 8 * 60)
    there_at = _there_at(plan, parcel, handed_at, chance)
    scans = [*_under_way(parcel, handed_at, there_at, chance), *_ending(plan, parcel, there_at, chance)]
    for scan in _with_noise(plan, parcel, scans) if parcel == 1 else scans:
        yield _delayed(plan, scan, chance)


def _minutes(chance: Random, least: int, most: int) -> timedelta:
    return timedelta(minutes=chance.randint(least, most))


def _by_day(chance: Random, day_begins_at: datetime) -> datetime:
    return day_begins_at + 9 * HOUR + _minutes(chance, 0, 11 * 60)


def _there_at(plan: Plan, parcel: int, handed_at: datetime, chance: Random) -> datetime:
    """When the parcel comes, or would have come."""
    due_at, course = plan.arrive_due_at, plan.course
    if course == "late" or (course == "partial" and parcel == 2):
        return _by_day(chance, due_at + chance.randint(1 if course == "partial" else 0, 4) * DAY)
    if course in ("amended", "waived"):
        return _by_day(chance, due_at + chance.randint(1, 2) * DAY)
    if course == "false_delivered":
        return _by_day(chance, due_at + 5 * DAY)
    if course == "recorded_late":
        return _by_day(chance, due_at - DAY)
    if course == "short_waived" and parcel == 2:
        return _by_day(chance, due_at + 4 * DAY)
    if plan.merchant.is_poor:
        return _by_day(chance, start_of(business_date(plan.placed_at)) + 3 * DAY)
    earliest = start_of(business_date(handed_at)) + DAY
    return _by_day(chance, earliest + chance.randint(0, (due_at - earliest).days - 1) * DAY)


def _under_way(parcel: int, handed_at: datetime, there_at: datetime, chance: Random) -> Iterator[Scan]:
    yield Scan(f"{parcel}-handed", "handed", handed_at, handed_at)
    stops = chance.randint(1, 2)
    for stop in range(1, stops + 1):
        at = handed_at + (there_at - handed_at) * stop / (stops + 1)
        yield Scan(f"{parcel}-transit-{stop}", "transit", at, at)


def _ending(plan: Plan, parcel: int, there_at: datetime, chance: Random) -> Iterator[Scan]:
    due_at = plan.arrive_due_at
    if plan.course == "returned" or (plan.course == "lost" and plan.number % 2):
        status, at = ("lost" if plan.course == "lost" else "returned_to_sender"), due_at - 20 * HOUR
        yield Scan(f"{parcel}-ended", status, at, at)
    if plan.course in ("lost", "returned"):
        return
    if plan.course == "false_delivered":
        at = _by_day(chance, due_at - 2 * DAY)
        yield Scan(f"{parcel}-wrong", "delivered", at, at, is_retracted_at=due_at + 2 * DAY + 11 * HOUR)
    out_at = there_at - _minutes(chance, 60, 180)
    yield Scan(f"{parcel}-out", "out", out_at, out_at)
    yield Scan(f"{parcel}-delivered", chance.choice(("delivered", "signed")), there_at, there_at)


def _with_noise(plan: Plan, parcel: int, scans: list[Scan]) -> Iterator[Scan]:
    """The same scans as carriers' systems send them."""
    first, last = scans[0], scans[-1]
    noise = plan.noise
    for scan in scans:
        if scan is first and noise == "handed_late":
            yield msgspec.structs.replace(scan, received_at=scan.at + 7 * HOUR)
            yield Scan(f"{parcel}-transit-0", "transit", scan.at + 2 * HOUR, scan.at + 2 * HOUR)
        elif scan is last and noise == "date_only":
            day = start_of(business_date(scan.at))
            yield msgspec.structs.replace(scan, at=day, precision="date", received_at=day + 21 * HOUR)
        else:
            yield scan
    if noise == "twice":
        yield msgspec.structs.replace(scans[1], received_at=scans[1].at + 6 * HOUR, is_again=True)
    elif noise == "attempted_late":
        at = last.at - timedelta(minutes=50)
        yield Scan(f"{parcel}-attempted", "attempted", at, last.at + 6 * HOUR)
    elif noise == "after_delivery":
        at = last.at + 20 * HOUR
        yield Scan(f"{parcel}-transit-9", "transit", at, at)
    elif noise == "ahead":
        yield Scan(f"{parcel}-transit-8", "transit", first.at + 9 * HOUR, first.at + 2 * HOUR)
    elif noise == "unknown":
        yield Scan(f"{parcel}-weather", "held by a typhoon", first.at + 3 * HOUR, first.at + 3 * HOUR)


def _delayed(plan: Plan, scan: Scan, chance: Random) -> Scan:
    """Cainiao's scans come in within the hour, others' within the day; some are sent much too late."""
    if plan.noise == "ahead" and scan.received_at < scan.at:
        return scan
    delay = _minutes(chance, 1, 55 if plan.carrier == cast.CAINIAO else 280)
    received_at = scan.received_at + delay
    if plan.course == "recorded_late" and scan.scan_id.endswith(("-out", "-delivered")):
        received_at = max(received_at, plan.arrive_due_at + 3 * DAY + 9 * HOUR + delay)
    if plan.course == "handed_recorded_late":
        received_at = max(received_at, plan.dispatch_due_at + 2 * DAY + 10 * HOUR + delay)
    return msgspec.structs.replace(scan, received_at=received_at)
