"""Random histories of a few orders of one merchant with a small deposit: legal and illegal, late, doubled, disordered.

A history is a list of numbers (``Move``); ``play`` turns each into a command that fits what is there, or does not.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ledger.decider import BUYER, CARRIER, Outcome
from ledger.events import Fact
from ledger.orders import events as e
from ledger.orders import goods, placing, promises, refunds
from ledger.orders.state import OrderState
from tests.spec import (
    HOUR,
    Ask,
    Tick,
    World,
    active_merchant,
    arrive_by,
    ask,
    body_with,
    deposit,
    dispatch_by,
    flat,
    july,
    july_day,
    lift,
    line,
    parcel,
    pay_receivable,
    placed,
    raise_cap,
    rules_with,
    scan,
    suspend,
    tick,
)

POOR: dict[str, Any] = {
    "deposit": {"advance_cap_fen": 300},
    "categories": {
        "mens_apparel": {"deposit_fen": 400, "commission_bp": 250, "exchange_days": [7], "fee": "other_fen"}
    },
}
"""A merchant with hardly any deposit, so that refunds come up short."""
POOR_RULES = rules_with(**POOR)

ORDERS = ("o-1", "o-2")
SHAPES = (
    (line("a", 3, 1001),),
    (line("a", 2, 999), line("b", 3, 100)),
    (line("a", 3, 1001, is_indivisible=True), line("b", 1, 50)),
    (line("a", 1, 7),),
    (line("a", 2, 0), line("b", 4, 3335)),
)
STATUSES = ("handed", "transit", "attempted", "delivered", "signed", "lost", "returned_to_sender", "elsewhere")
REASONS = ("quality", "not_arrived", "no_reason", "delivery_denied")


class Move(NamedTuple):
    """One step: what, to which order, which choices, and how many hours go by before it."""

    what: int
    order: int
    a: int
    b: int
    c: int
    hours: int


MOVES = st.builds(
    Move,
    what=st.integers(0, 63),
    order=st.integers(0, len(ORDERS) - 1),
    a=st.integers(0, 7),
    b=st.integers(0, 7),
    c=st.integers(0, 7),
    hours=st.one_of(st.integers(0, 12), st.integers(0, 400)),
)


class Story:
    """A world in which moves are made one after the other."""

    def __init__(self) -> None:
        self.world = World(body_with(**POOR), carries=False)
        self.last: Ask | None = None
        self.count = 0
        steps = [x for x in active_merchant() if not (isinstance(x, Ask) and "RecordDeposit" in repr(x))]
        for step in flat([*steps[:-1], deposit(400), tick(july(1))]):
            self.world.tick(step.at) if isinstance(step, Tick) else self.world.ask(step)
        assert self.world.story("merchant-m-1").state.is_active

    def play(self, move: Move) -> Outcome | None:
        """Makes one move; ``None`` if it asks nothing of a stream."""
        self.count += 1
        if move.hours:
            self.world.now += timedelta(hours=move.hours)
        made = WHAT[move.what % len(WHAT)](self, move)
        if made is None:
            return None
        self.last = made
        return self.world.ask(made)

    def state(self, move: Move) -> OrderState:
        """The order that the move is about."""
        state: OrderState = self.world.story(f"order-{self.order(move)}").state
        return state

    def order(self, move: Move) -> str:
        """Its id."""
        return ORDERS[move.order]

    @property
    def now(self) -> datetime:
        """The world's clock."""
        return self.world.now

    def settle(self) -> None:
        """Carries all messages and lets the provider pay everything it was asked to, until nothing moves any more."""
        self.world.carry()
        for _ in range(6):
            for order_id in ORDERS:
                for claim in list(self.world.story(f"order-{order_id}").state.claims.values()):
                    if claim.state == "instructed":
                        self.world.ask(_paid_out(self.now, order_id, claim.claim_id))
            self.world.carry()
            self.world.tick(self.now + timedelta(days=60))
            self.world.carry()


# --- Moves --------------------------------------------------------------------------------------------------------


def _place(t: Story, m: Move) -> Ask:
    lines = SHAPES[m.a % len(SHAPES)]
    due_at = t.now + timedelta(hours=24 * (m.b + 1))
    wanted = [arrive_by(due_at, *(x.line_id for x in lines))]
    if m.c & 1:
        wanted.append(dispatch_by(t.now + timedelta(hours=12 * m.b + 6), lines[0].line_id))
    if m.c & 4:
        wanted.append(arrive_by(due_at + 24 * HOUR, lines[-1].line_id, promise_id="arrive-2"))
    return placed(*lines, order_id=t.order(m), promises=wanted, at=t.now, freight_fen=(0, 100, 33)[m.c % 3])


def _pay(t: Story, m: Move) -> Ask:
    s = t.state(m)
    amount_fen = s.owed_fen if m.a else 5
    ref = f"pay-{m.order}-{m.b}"
    return ask(placing.CapturePayment(order_id=t.order(m), amount_fen=amount_fen, payment_ref=ref), t.now)


def _return_stray(t: Story, m: Move) -> Ask | None:
    for ref, amount_fen in t.state(m).strays.items():
        return ask(
            placing.ReturnStrayPayment(
                order_id=t.order(m), stray_ref=ref, amount_fen=amount_fen, payment_ref=f"back-{ref}"
            ),
            t.now,
        )
    return None


def _pick(things: Any, number: int) -> Any:
    chosen = list(things)
    return chosen[number % len(chosen)] if chosen else None


def _cancel(t: Story, m: Move) -> Ask:
    line_id = _pick(t.state(m).lines, m.a) or "a"
    command = placing.CancelUnits(
        order_id=t.order(m), refund_id=f"x-{m.c}", line_id=line_id, units=1 + m.b % 3, cause="buyer"
    )
    return ask(command, t.now).by(BUYER)


def _rate(t: Story, m: Move) -> Ask:
    return ask(placing.RateOrder(order_id=t.order(m), rating_id=f"rating-{m.a}", as_described=m.b), t.now)


def _parcel(t: Story, m: Move) -> Ask:
    parts = [e.Units(line_id=x, units=1 + (m.b + i) % 3) for i, x in enumerate(t.state(m).lines)]
    if m.a & 1:
        parts = parts[: 1 + m.a % 2]
    step = parcel(f"p{m.c % 4}", *parts or [e.Units(line_id="a", units=1)], is_cainiao=bool(m.a & 2), at=t.now)
    return step.but(order_id=t.order(m))


def _whole_parcel(t: Story, m: Move) -> Ask:
    free = [e.Units(line_id=k, units=x.free_units) for k, x in t.state(m).lines.items() if x.free_units]
    step = parcel(f"p{m.c % 4}", *free or [e.Units(line_id="a", units=1)], is_cainiao=m.a < 6, at=t.now)
    return step.but(order_id=t.order(m))


def _scan(t: Story, m: Move) -> Ask:
    """A scan of some hours ago, or (rarely) of tomorrow."""
    shipment_id = _pick(t.state(m).shipments, m.a) or "p0"
    at = t.now - timedelta(hours=(0, 0, 1, 5, 20, 50, 120, -30)[m.b])
    precision = "date" if m.b == 3 and m.c & 1 else "instant"
    step = scan(
        STATUSES[m.c], at, shipment_id, received=t.now, order_id=t.order(m), precision=precision,
        is_carrier_origin=m.b != 2,
    )  # fmt: skip
    return step.by(CARRIER)


def _deliver(t: Story, m: Move) -> Ask:
    shipment_id = _pick(t.state(m).shipments, m.a) or "p0"
    return scan("delivered", t.now - timedelta(hours=m.b), shipment_id, received=t.now, order_id=t.order(m))


def _retract(t: Story, m: Move) -> Ask | None:
    shipment = _pick(t.state(m).shipments.values(), m.a)
    scan_id = _pick(shipment.scans, m.b) if shipment else None
    return ask(goods.RetractScan(order_id=t.order(m), scan_id=scan_id or "none", reason="wrong"), t.now)


def _correct(t: Story, m: Move) -> Ask:
    return ask(
        goods.CorrectWaybill(
            order_id=t.order(m), shipment_id=f"p{m.a % 4}", carrier="x", waybill=f"w{m.b}", is_cainiao=bool(m.c & 1),
            reason="typo",
        ),
        t.now,
    )  # fmt: skip


def _confirm(t: Story, m: Move) -> Ask:
    known = list(t.state(m).shipments) or ["p0"]
    chosen = tuple(known) if m.b & 1 else (known[m.a % len(known)],)
    command = goods.ConfirmReceipt(
        order_id=t.order(m), shipment_ids=chosen, occurred_at=t.now - timedelta(hours=m.c * 5)
    )
    return ask(command, t.now)


def _deny(t: Story, m: Move) -> Ask:
    return ask(goods.DenyDelivery(order_id=t.order(m), shipment_id=f"p{m.a % 4}", grounds_sha256="aa"), t.now)


def _waive(t: Story, m: Move) -> Ask:
    return ask(promises.WaivePromise(order_id=t.order(m), promise_id=_promise(t, m)), t.now)


def _overturn(t: Story, m: Move) -> Ask:
    command = promises.OverturnBreach(order_id=t.order(m), promise_id=_promise(t, m), reason="r", evidence_sha256="e")
    return ask(command, t.now)


def _amend(t: Story, m: Move) -> Ask:
    command = promises.AmendPromise(
        order_id=t.order(m), promise_id=_promise(t, m), due_at=t.now + timedelta(hours=24 * m.b - 24),
        buyer_consent_sha256="cc",
    )  # fmt: skip
    return ask(command, t.now)


def _promise(t: Story, m: Move) -> str:
    return _pick(t.state(m).promises, m.a) or "arrive"


def _move(t: Story, m: Move) -> Ask:
    region = ("zhejiang", "guangdong")[m.a & 1]
    return ask(promises.ChangeAddress(order_id=t.order(m), address_ref=f"home-{m.b}", region=region), t.now)


def _request(t: Story, m: Move) -> Ask:
    line_ids = list(t.state(m).lines) or ["a"]
    lines = [
        e.Units(line_id=x, units=1 + m.b % 3) for x in (line_ids if m.b & 1 else line_ids[m.a % len(line_ids) :][:1])
    ]
    return _refund(t, m, lines, 0)


def _request_reduction(t: Story, m: Move) -> Ask:
    line_ids = list(t.state(m).lines) or ["a"]
    return _refund(t, m, [e.Units(line_id=x, units=0) for x in line_ids[: 1 + m.b % 2]], 1 + 97 * m.b)


def _refund(t: Story, m: Move, lines: list[e.Units], reduction_fen: int) -> Ask:
    command = refunds.RequestRefund(
        order_id=t.order(m), refund_id=f"r{m.c}", lines=tuple(lines), reduction_fen=reduction_fen,
        reason=REASONS[m.a % len(REASONS)],  # type: ignore[arg-type]
    )  # fmt: skip
    return ask(command, t.now)


def _claim(t: Story, m: Move, *states: str) -> str:
    claims = [x.claim_id for x in t.state(m).claims.values() if x.state in states] if m.c else []
    return _pick(claims, m.a) or _pick(t.state(m).claims, m.a) or "r0"


def _agree(t: Story, m: Move) -> Ask:
    return ask(refunds.AgreeRefund(order_id=t.order(m), refund_id=_claim(t, m, "reserved", "refused")), t.now)


def _refuse(t: Story, m: Move) -> Ask:
    return ask(refunds.RefuseRefund(order_id=t.order(m), refund_id=_claim(t, m, "reserved"), reason="no"), t.now)


def _withdraw(t: Story, m: Move) -> Ask:
    return ask(refunds.WithdrawRefund(order_id=t.order(m), refund_id=_claim(t, m, "reserved", "refused")), t.now)


def _paid_out(now: datetime, order_id: str, claim_id: str) -> Ask:
    command = refunds.ConfirmRefund(
        order_id=order_id, refund_id=claim_id, payment_ref=f"out-{order_id}-{claim_id}", value_on=july_day(20)
    )
    return ask(command, now)


def _pay_out(t: Story, m: Move) -> Ask:
    return _paid_out(t.now, t.order(m), _claim(t, m, "instructed"))


def _fail(t: Story, m: Move) -> Ask:
    claim_id = _claim(t, m, "instructed")
    claim = t.state(m).claims.get(claim_id)
    attempt = claim.payout_attempt if claim and m.b else m.b
    command = refunds.FailRefund(order_id=t.order(m), refund_id=claim_id, attempt=attempt, code="closed")
    return ask(command, t.now)


def _recover(t: Story, m: Move) -> Ask:
    claim_id = _claim(t, m, "recovering")
    claim = t.state(m).claims.get(claim_id)
    amount_fen = max(1, claim.owed_back_fen // (1 + m.b % 2)) if claim else 1
    if m.b & 4:
        command: Any = refunds.WriteOffRecovery(
            order_id=t.order(m), refund_id=claim_id, amount_fen=amount_fen, reason="gone"
        )
    else:
        command = refunds.RecordRecovery(
            order_id=t.order(m), refund_id=claim_id, amount_fen=amount_fen, payment_ref=f"rec-{t.count}"
        )
    return ask(command, t.now)


def _repay(t: Story, m: Move) -> Ask | None:
    late = [x for x in t.state(m).claims.values() if x.late]
    claim = _pick(late, m.a)
    if claim is None:
        return None
    goods_fen = sum(x.goods_fen for x in claim.late.values())
    return ask(
        refunds.RepayUnits(
            order_id=t.order(m), refund_id=claim.claim_id, goods_fen=goods_fen, freight_fen=claim.late_freight_fen,
            payment_ref=f"again-{t.count}",
        ),
        t.now,
    )  # fmt: skip


def _deposit(t: Story, m: Move) -> Ask:
    return deposit((1, 50, 400, 2000)[m.a % 4], ref=f"dep-{m.b}-{m.c}", at=t.now)


def _receivable(t: Story, m: Move) -> Ask:
    owed_fen = t.world.story("merchant-m-1").state.receivable_fen
    return pay_receivable(owed_fen if m.a & 1 else 1 + m.b, t.now, ref=f"mrec-{t.count}")


def _raise_cap(t: Story, m: Move) -> Ask:
    return raise_cap(200 * (m.a + 1), t.now)


def _suspend(t: Story, m: Move) -> Ask:
    return suspend(t.now) if m.a & 1 else lift(t.now)


def _carry(t: Story, m: Move) -> None:
    t.world.carry()


def _tick(t: Story, m: Move) -> None:
    t.world.tick(t.now)


def _again(t: Story, m: Move) -> None:
    """The same is asked twice, at once: nothing new is asserted."""
    if t.last is None or isinstance(t.last.command, refunds.WriteOffRecovery):  # a write-off has no id of its own
        return
    before = t.world.ask(t.last)
    again = t.world.ask(t.last)
    if before.rejected is None:
        assert not any(isinstance(x.data, Fact) for x in again.events), t.last


WHAT: tuple[Callable[[Story, Move], Ask | None], ...] = (
    _place, _place, _pay, _pay, _pay, _return_stray, _cancel, _cancel, _rate, _parcel, _parcel, _whole_parcel,
    _whole_parcel, _whole_parcel, _scan, _scan, _scan, _scan, _deliver, _deliver, _deliver, _retract, _retract,
    _correct, _confirm, _confirm, _deny, _waive, _overturn, _overturn, _amend, _move, _request, _request, _request,
    _request_reduction, _agree, _agree, _agree, _refuse, _withdraw, _pay_out, _pay_out, _pay_out, _fail, _recover,
    _repay, _repay, _deposit, _deposit, _receivable, _raise_cap, _suspend, _carry, _carry, _carry, _carry, _carry,
    _carry, _tick, _tick, _tick, _again, _again,
)  # fmt: skip
assert len(WHAT) == 64
