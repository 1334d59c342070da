"""The promise and the money: an order is placed with frozen terms, paid into escrow, cancelled, rated."""

from datetime import datetime

from ledger.calendar import add_days, add_hours, business_date
from ledger.decider import BUYER, HANDLER, MERCHANT, PAYMENT, Asked, Rejected
from ledger.orders import events as e
from ledger.orders.asking import OrderCommand, ids, once, require_placed
from ledger.orders.goods import last_receipt_at
from ledger.orders.promises import fires_at
from ledger.orders.refunds import is_last_under_reduction
from ledger.orders.state import OrderState
from ledger.rulebook import Rulebook

# --- Commands -----------------------------------------------------------------------------------------------------


class PromiseWanted(e.Value, frozen=True, kw_only=True):
    """A promise as merchant and buyer agreed on it: before ``due_at`` (exclusive)."""

    promise_id: str
    kind: e.PromiseKind
    line_ids: tuple[str, ...]
    due_at: datetime
    remedy: e.Remedy


class PlaceOrder(OrderCommand, frozen=True, kw_only=True):
    """Place an order with an active power merchant; its terms are frozen here.

    Refused, in this order: ``wrong_state`` (the id is taken), ``not_allowed`` (for another buyer),
    ``merchant_not_active``, ``bad_lines``, ``total_wrong``, ``due_in_past``."""

    roles = frozenset({BUYER})
    creates = opens_term = True
    filled_by_door = frozenset({"merchant_version"})
    merchant_id: str
    buyer_ref: str
    checkout_id: str
    category: str
    address_ref: str
    region: str
    lines: tuple[e.Line, ...]
    freight_fen: int
    total_fen: int
    promises: tuple[PromiseWanted, ...]
    merchant_version: int | None = None
    """The version of the merchant's stream at which it was found active; null if it is not."""


class CapturePayment(OrderCommand, frozen=True, kw_only=True):
    """The provider holds the buyer's money.  What the order did not ask for (late, twice, another amount) is recorded
    as stray and sent back.  Refused: ``wrong_amount`` (nothing), ``id_reused``."""

    roles = frozenset({PAYMENT})
    amount_fen: int
    payment_ref: str


class ReturnStrayPayment(OrderCommand, frozen=True, kw_only=True):
    """A stray payment went back to the buyer.  Refused: ``no_stray_payment``, ``id_reused``."""

    roles = frozenset({PAYMENT})
    stray_ref: str
    amount_fen: int
    payment_ref: str


class CancelUnits(OrderCommand, frozen=True, kw_only=True):
    """Call off units of a line that are not shipped; what was paid for them is refunded at once.

    Refused: ``wrong_state``, ``bad_lines``, ``units_shipped``, ``units_not_free``, ``id_reused``."""

    roles = frozenset({BUYER, MERCHANT, HANDLER})
    refund_id: str
    line_id: str
    units: int
    cause: e.CancelCause


class RateOrder(OrderCommand, frozen=True, kw_only=True):
    """Rate an order, 1 to 5 each, null where no opinion is given.  Refused: ``bad_rating``, ``too_late`` (more than
    ``windows.rating_days`` after receipt), ``id_reused``."""

    roles = frozenset({BUYER})
    rating_id: str
    as_described: int | None = None
    logistics: int | None = None
    service: int | None = None


# --- Decide -------------------------------------------------------------------------------------------------------


def terms(c: PlaceOrder, rules: Rulebook) -> e.Terms:
    """What is worked out at the promise: the category's commission and the rebate's share of it."""
    return e.Terms(
        rulebook=rules.rulebook,
        rulebook_sha256=rules.sha256,
        commission_bp=rules.categories[c.category].commission_bp,
        rebate_share_bp=rules.rebate.share_bp,
    )


def place_order(s: OrderState, c: PlaceOrder, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """The merchant's standing was looked up at the door."""
    if s.is_placed:
        raise Rejected("wrong_state")
    if asked.role == BUYER and c.buyer_ref != asked.actor:
        raise Rejected("not_allowed")
    if c.merchant_version is None:
        raise Rejected("merchant_not_active")
    if not _lines_are_good(c) or c.category not in rules.categories:
        raise Rejected("bad_lines")
    if c.freight_fen < 0 or c.total_fen != sum(x.line_fen for x in c.lines) + c.freight_fen:
        raise Rejected("total_wrong")
    if any(p.due_at <= asked.occurred_at for p in c.promises):
        raise Rejected("due_in_past")
    placed_on = business_date(asked.occurred_at)
    return [
        e.OrderPlaced(
            order_id=c.order_id, merchant_id=c.merchant_id, placed_on=placed_on, buyer_ref=c.buyer_ref,
            checkout_id=c.checkout_id, category=c.category, address_ref=c.address_ref, region=c.region, lines=c.lines,
            freight_fen=c.freight_fen, total_fen=c.total_fen, promises=tuple(_promise(p, rules) for p in c.promises),
            payment_due_at=add_hours(asked.received_at, rules.windows.payment_hours),
            merchant_version=c.merchant_version, terms=terms(c, rules),
        )
    ]  # fmt: skip


def _lines_are_good(c: PlaceOrder) -> bool:
    line_ids = {x.line_id for x in c.lines}
    promise_ids = {p.promise_id for p in c.promises}
    return (
        0 < len(c.lines) == len(line_ids)
        and all(x.units > 0 and x.line_fen >= 0 for x in c.lines)
        and len(promise_ids) == len(c.promises)
        and all(p.line_ids and line_ids.issuperset(p.line_ids) for p in c.promises)
        and all(len(set(p.line_ids)) == len(p.line_ids) for p in c.promises)
        and all((p.remedy == "damages") == (p.kind == "dispatch_by") for p in c.promises)
    )


def _promise(p: PromiseWanted, rules: Rulebook) -> e.Promise:
    return e.Promise(
        promise_id=p.promise_id, kind=p.kind, line_ids=p.line_ids, due_at=p.due_at, fires_at=fires_at(p.due_at, rules),
        remedy=p.remedy,
    )  # fmt: skip


def capture_payment(s: OrderState, c: CapturePayment, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Money is never refused: it is the order's, or it is stray."""
    require_placed(s)
    if c.amount_fen <= 0:
        raise Rejected("wrong_amount")
    captured = e.PaymentCaptured(**ids(s), amount_fen=c.amount_fen, payment_ref=c.payment_ref)
    before = s.asked.get("payment/" + c.payment_ref)
    if isinstance(before, e.StrayPaymentRecorded):
        captured_before = (before.amount_fen, before.payment_ref) == (c.amount_fen, c.payment_ref)
        if not captured_before:
            raise Rejected("id_reused")
        return []
    if once(s, "payment/" + c.payment_ref, captured):
        return []
    cause = _why_stray(s, c, asked.occurred_at)
    if cause is None:
        return [captured]
    return [
        e.StrayPaymentRecorded(
            **ids(s),
            amount_fen=c.amount_fen,
            payment_ref=c.payment_ref,
            cause=cause,  # type: ignore[arg-type]
        )
    ]


def _why_stray(s: OrderState, c: CapturePayment, at: datetime) -> str | None:
    if s.status != "placed":
        return "not_awaited"
    if c.amount_fen != s.owed_fen:
        return "wrong_amount"
    if any(p.kind == "arrive_by" and at >= p.due_at for p in s.promises.values()):
        return "too_late"
    return None


def return_stray_payment(s: OrderState, c: ReturnStrayPayment, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """The whole of it, once."""
    require_placed(s)
    fact = e.StrayPaymentReturned(**ids(s), stray_ref=c.stray_ref, amount_fen=c.amount_fen, payment_ref=c.payment_ref)
    if once(s, "return/" + c.payment_ref, fact):
        return []
    if s.strays.get(c.stray_ref) != c.amount_fen:
        raise Rejected("no_stray_payment")
    return [fact]


def cancel_units(s: OrderState, c: CancelUnits, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Only units that are in no parcel and claimed by nobody."""
    require_placed(s)
    fact = e.UnitsCancelled(
        **ids(s), refund_id=c.refund_id, line_id=c.line_id, units=c.units, cause=c.cause, by=asked.role
    )
    if once(s, "refund/" + c.refund_id, fact):
        return []
    if s.status not in ("placed", "paid", "partly_shipped"):
        raise Rejected("wrong_state")
    line = s.lines.get(c.line_id)
    if line is None or c.units < 1 or c.refund_id in s.promises:
        raise Rejected("bad_lines")
    if c.units > line.units - line.cancelled_units - s.units(c.line_id, lambda x: x.ended is None):
        raise Rejected("units_shipped")
    if c.units > line.free_units or is_last_under_reduction(s, line, c.units):
        raise Rejected("units_not_free")
    return [fact]


def rate_order(s: OrderState, c: RateOrder, asked: Asked, rules: Rulebook) -> list[e.OrderFact]:
    """Any time until the rating window after receipt ends."""
    require_placed(s)
    if any(x is not None and not 1 <= x <= 5 for x in (c.as_described, c.logistics, c.service)):
        raise Rejected("bad_rating")
    fact = e.OrderRated(
        **ids(s), rating_id=c.rating_id, as_described=c.as_described, logistics=c.logistics, service=c.service
    )
    if once(s, "rating/" + c.rating_id, fact):
        return []
    received_at = last_receipt_at(s)
    if received_at and asked.occurred_at > add_days(received_at, rules.windows.rating_days):
        raise Rejected("too_late")
    return [fact]
