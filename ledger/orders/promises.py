"""Promises of arrival and dispatch: kept by scans, breached by the clock, waived, amended, overturned.

A promise is judged by units.  ``due_at`` is exclusive: arriving at that very instant is late.  The clock decides at
``fires_at``, a grace after it, so that scans which come in late still count; what they say holds from ``due_at``.
"""

from collections.abc import Callable
from datetime import datetime

from ledger.calendar import add_hours
from ledger.decider import BUYER, HANDLER, MERCHANT, SUPERVISOR, Asked, At, Decisions, Rejected
from ledger.money import BP, clamp, half_even
from ledger.orders import events as e
from ledger.orders import refunds
from ledger.orders.asking import OrderCommand, ids, known_promise, require_placed
from ledger.orders.state import LineState, OrderState, PromiseState, ShipmentState, was_delivered
from ledger.rulebook import Rulebook

# --- Commands -----------------------------------------------------------------------------------------------------


class AmendPromise(OrderCommand, frozen=True, kw_only=True):
    """Agree on another due date with the buyer, whose consent is in the vault.

    Refused: ``unknown_promise``, ``no_consent``, ``too_late`` (it was due already, or the new date has passed)."""

    roles = frozenset({MERCHANT})
    promise_id: str
    due_at: datetime
    buyer_consent_sha256: str


class WaivePromise(OrderCommand, frozen=True, kw_only=True):
    """Give up the money of a promise; the metric still counts a breach.

    Refused: ``unknown_promise``, ``refund_instructed``."""

    roles = frozenset({BUYER})
    promise_id: str


class OverturnBreach(OrderCommand, frozen=True, kw_only=True):
    """Undo a breach that was none; a supervisor approves.

    Refused: ``unknown_promise``, ``not_breached``, ``same_approver``."""

    roles = frozenset({HANDLER})
    approver = SUPERVISOR
    promise_id: str
    reason: str
    evidence_sha256: str


class ChangeAddress(OrderCommand, frozen=True, kw_only=True):
    """Send the goods elsewhere; in another region the arrival promises are void.

    Refused: ``units_shipped`` (nothing is left to ship)."""

    roles = frozenset({BUYER})
    address_ref: str
    region: str


# --- Decide -------------------------------------------------------------------------------------------------------


def amend_promise(s: OrderState, c: AmendPromise, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Only before it is due, and only into the future."""
    require_placed(s)
    promise = known_promise(s, c.promise_id)
    if s.status not in ("placed", "paid", "partly_shipped", "shipped"):
        raise Rejected("wrong_state")
    if not c.buyer_consent_sha256:
        raise Rejected("no_consent")
    if promise.due_at == c.due_at:
        return []
    if promise.state != "open" or asked.received_at >= promise.due_at or c.due_at <= asked.received_at:
        raise Rejected("too_late")
    return [
        e.PromiseAmended(
            **ids(s), promise_id=c.promise_id, due_at=c.due_at, fires_at=fires_at(c.due_at, rules),
            buyer_consent_sha256=c.buyer_consent_sha256,
        )
    ]  # fmt: skip


def waive_promise(s: OrderState, c: WaivePromise, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Until its refund is with the payment provider."""
    require_placed(s)
    promise = known_promise(s, c.promise_id)
    if s.status not in ("paid", "partly_shipped", "shipped", "partly_received", "received"):
        raise Rejected("wrong_state")
    if promise.is_waived:
        return []
    refund = s.claims.get(c.promise_id)
    if refund and refund.state in ("instructed", "payout_failed", "paid", "recovering", "recovered"):
        raise Rejected("refund_instructed")
    return [e.PromiseWaived(**ids(s), promise_id=c.promise_id)]


def overturn_breach(s: OrderState, c: OverturnBreach, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Whatever the state of its refund: it is cancelled, or recovered from the buyer."""
    require_placed(s)
    promise = known_promise(s, c.promise_id)
    if promise.is_overturned:
        return []
    if promise.state != "breached":
        raise Rejected("not_breached")
    return [
        e.BreachOverturned(
            **ids(s), promise_id=c.promise_id, reason=c.reason, evidence_sha256=c.evidence_sha256,
            approved_by=asked.approved_by or "",
        )
    ]  # fmt: skip


def change_address(s: OrderState, c: ChangeAddress, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """While something is left to ship."""
    require_placed(s)
    if (c.address_ref, c.region) == (s.address_ref, s.region):
        return []
    if s.status in ("shipped", "partly_received", "received"):
        raise Rejected("units_shipped")
    if s.status not in ("placed", "paid", "partly_shipped"):
        raise Rejected("wrong_state")
    return [e.AddressChanged(**ids(s), address_ref=c.address_ref, region=c.region)]


def fires_at(due_at: datetime, rules: Rulebook) -> datetime:
    """When the clock decides: late records have had time to come in."""
    return add_hours(due_at, rules.windows.ingest_grace_hours)


# --- React: facts that keep, void or contradict a promise ----------------------------------------------------------


def keep(s: OrderState) -> Decisions:
    """Each open promise whose units have all come (or gone) in time is kept; each with no units left is void.

    It is kept from the instant the last unit came or was called off, whenever that was recorded."""
    for promise in s.promises.values():
        if promise.state != "open" or s.paid_at is None:
            continue
        promised = _promised(s, promise)
        if not any(x.units for x in promised):
            if s.is_cancelled:
                yield void(s, promise, "cancelled")
            continue
        kept_at = _kept_at(s, promise, promised)
        if kept_at:
            kept = e.PromiseKept(
                **ids(s), promise_id=promise.promise_id, kind=promise.kind, lines=promised, due_at=promise.due_at,
                kept_at=kept_at,
            )  # fmt: skip
            yield At(max([kept_at, *(x.cancelled_at for x in _lines(s, promise) if x.cancelled_at)]), kept)


def void(s: OrderState, promise: PromiseState, cause: str) -> e.PromiseVoided:
    """The promise binds no more."""
    return e.PromiseVoided(
        **ids(s),
        promise_id=promise.promise_id,
        line_ids=promise.line_ids,
        cause=cause,  # type: ignore[arg-type]
    )


def void_paid_late(s: OrderState) -> Decisions:
    """Nobody has to dispatch by a date that had passed when the buyer paid."""
    for promise in s.promises.values():
        if promise.state == "open" and s.paid_at and promise.due_at <= s.paid_at:
            yield void(s, promise, "paid_after_due")


def void_elsewhere(s: OrderState) -> Decisions:
    """The goods go to another region than their arrival was promised for."""
    for promise in s.promises.values():
        if promise.kind == "arrive_by" and promise.state == "open" and s.region != s.promised_region:
            yield void(s, promise, "address_changed")


def contradict(s: OrderState, scan_id: str) -> Decisions:
    """A breach was decided, and now a scan says that more units were in time than was known then."""
    for promise in s.promises.values():
        if promise.state == "breached" and scan_id not in promise.contradicted_by:
            known = {x.line_id: x.units for x in promise.kept}
            in_time = tuple(
                e.Units(line_id=x.line_id, units=min(x.units, more))
                for x in promise.breached
                if (more := s.units(x.line_id, _in_time(promise)) - known.get(x.line_id, 0)) > 0
            )
            if in_time:
                yield e.BreachContradicted(**ids(s), promise_id=promise.promise_id, lines=in_time, scan_id=scan_id)


# --- The clock ----------------------------------------------------------------------------------------------------


def judge(s: OrderState, promise_id: str, rules: Rulebook) -> Decisions:
    """due:promise.  In time in full: kept.  Else the units that were late are a breach, and the remedy follows."""
    promise = s.promises[promise_id]
    promised, late = _promised(s, promise), _late(s, promise)
    in_time = tuple(
        e.Units(line_id=x.line_id, units=x.units - y.units)
        for x, y in zip(promised, _late_by_line(s, promise), strict=True)
        if x.units > y.units
    )
    if not any(x.units for x in promised):
        yield void(s, promise, "cancelled")
        return
    if in_time:
        yield e.PromiseKept(
            **ids(s), promise_id=promise_id, kind=promise.kind, lines=in_time, due_at=promise.due_at,
            kept_at=_kept_at(s, promise, in_time) or promise.due_at,
        )  # fmt: skip
    if late:
        yield from breach(s, promise, late, rules)


def breach(s: OrderState, promise: PromiseState, late: tuple[e.Units, ...], rules: Rulebook) -> Decisions:
    """交期未到货全额退款: the units that were late are refunded, all of the order if a line is indivisible."""
    yield e.PromiseBreached(
        **ids(s), promise_id=promise.promise_id, kind=promise.kind, lines=late, due_at=promise.due_at,
        is_excluded=False, exclusion=None,
    )  # fmt: skip
    if promise.is_waived:
        return
    if promise.remedy == "damages":
        yield from refunds.pay_damages(s, promise.promise_id, _damages_fen(s, late, rules), rules)
    else:
        whole = any(s.lines[x].is_indivisible for x in promise.line_ids)
        yield from refunds.supersede(s, None if whole else late)
        wanted = refunds.all_free_units(s) if whole else refunds.free_part(s, late)
        yield from refunds.refund_breach(s, promise.promise_id, wanted, rules)


def _damages_fen(s: OrderState, late: tuple[e.Units, ...], rules: Rulebook) -> int:
    goods = sum(half_even(s.lines[x.line_id].line_fen * x.units, s.lines[x.line_id].units) for x in late)
    return clamp(half_even(goods * rules.damages.rate_bp, BP), rules.damages.min_fen, rules.damages.max_fen)


# --- Judging by units ---------------------------------------------------------------------------------------------


def _lines(s: OrderState, promise: PromiseState) -> list[LineState]:
    return [s.lines[x] for x in promise.line_ids if x in s.lines]


def _promised(s: OrderState, promise: PromiseState) -> tuple[e.Units, ...]:
    """Units that still fall under the promise: neither cancelled nor refunded before they came; but what another
    promise's breach refunded is still judged."""
    return tuple(
        e.Units(
            line_id=x.line_id,
            units=x.free_units
            + s.undecided_units(x.line_id)
            + s.broken_units(x.line_id)
            + s.claimed_units(x.line_id, was_delivered),
        )
        for x in _lines(s, promise)
    )


def _came_at(shipment: ShipmentState, promise: PromiseState) -> datetime | None:
    return shipment.arrived_at if promise.kind == "arrive_by" else shipment.dispatched_at


def _in_time(promise: PromiseState) -> Callable[[ShipmentState], bool]:
    def in_time(shipment: ShipmentState) -> bool:
        at = _came_at(shipment, promise)
        return at is not None and at < promise.due_at

    return in_time


def _late_by_line(s: OrderState, promise: PromiseState) -> list[e.Units]:
    in_time = _in_time(promise)
    return [
        e.Units(line_id=x.line_id, units=max(0, x.units - s.units(x.line_id, in_time))) for x in _promised(s, promise)
    ]


def _late(s: OrderState, promise: PromiseState) -> tuple[e.Units, ...]:
    return tuple(x for x in _late_by_line(s, promise) if x.units)


def _kept_at(s: OrderState, promise: PromiseState, units: tuple[e.Units, ...]) -> datetime | None:
    """The instant at which the last of these units had come; ``None`` if they have not all come in time."""
    last: datetime | None = None
    for wanted in units:
        missing = wanted.units
        arrivals = sorted(
            (at, part.units)
            for shipment in s.shipments.values()
            if (at := _came_at(shipment, promise)) is not None and at < promise.due_at
            for part in shipment.lines
            if part.line_id == wanted.line_id
        )
        for at, count in arrivals:
            if missing <= 0:
                break
            missing -= count
            last = at if last is None else max(last, at)
        if missing > 0:
            return None
    return last
