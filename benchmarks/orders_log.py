"""A log of orders as they happen: many lives at a time, decided by real commands, in the order of their instants.

Most orders arrive in time and are received by silence; some are late and refunded, some cancelled, some rated.  An
order has about 15 events.  The same seed makes the same log.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice

import msgspec

from ledger import orders
from ledger.decider import BUYER, CARRIER, MERCHANT, PAYMENT, POLICY, Asked, Command, Outcome, Story, fire, handle
from ledger.events import Recorded
from ledger.merchants import CoverRefund
from ledger.orders import events as e
from ledger.orders.goods import CreateShipment, RecordScan
from ledger.orders.placing import CancelUnits, CapturePayment, PlaceOrder, PromiseWanted, RateOrder
from ledger.orders.refunds import ConfirmRefund, ReportCover, RequestRefund
from ledger.policies import messages
from ledger.rulebook import Rulebook, rulebook_of, shipped
from ledger.store import Append, Appended, Store

BEGINNING = datetime(2015, 7, 1, tzinfo=UTC)
PROMISED_DAYS = 10


@cache
def rulebook() -> Rulebook:
    """The rules that come with the ledger."""
    return rulebook_of(shipped("rulebook-2015.1"))


class Step(msgspec.Struct):
    """What happens to an order at an instant: a command, or a deadline that may have come."""

    command: Command | None
    role: str = POLICY


class Life:
    """One order: its story, and what will happen to it."""

    def __init__(self, number: int, chance: random.Random, placed_at: datetime, merchants: int) -> None:
        self.order_id = f"o{number:08d}"
        self.merchant_id = f"m-{min(int(chance.paretovariate(0.6)), merchants)}"
        self.story = Story(f"order-{self.order_id}", orders.DECIDER.initial())
        self._chance, self._placed_at = chance, placed_at

    def steps(self) -> Iterator[tuple[datetime, Step]]:
        """What actors will do, and when; deadlines come besides."""
        chance, at, order_id = self._chance, self._placed_at, self.order_id
        place = self._place()
        yield at, Step(place, BUYER)
        at += timedelta(minutes=chance.randint(1, 600))
        if chance.random() < 0.03:
            return
        pay = CapturePayment(order_id=order_id, amount_fen=place.total_fen, payment_ref=f"{order_id}-p")
        yield at, Step(pay, PAYMENT)
        if chance.random() < 0.03:
            at += timedelta(hours=2)
            for line in place.lines:
                cancel = CancelUnits(
                    order_id=order_id, refund_id=f"{order_id}-c{line.line_id}", line_id=line.line_id, units=line.units,
                    cause=chance.choice(["buyer", "stock"]),
                )  # fmt: skip
                yield at, Step(cancel, MERCHANT)
            return
        yield from self._travel(place, at)

    def _place(self) -> PlaceOrder:
        chance = self._chance
        lines = tuple(
            e.Line(line_id=f"{n}", sku=f"s{chance.randint(1, 500)}", units=chance.randint(1, 9),
                   line_fen=chance.randint(500, 50_000))
            for n in range(1, 1 + (chance.random() < 0.15) + 1)
        )  # fmt: skip
        line_ids = tuple(line.line_id for line in lines)
        days = timedelta(days=1)
        return PlaceOrder(
            order_id=self.order_id, merchant_id=self.merchant_id, buyer_ref=f"b-{chance.randint(1, 30_000)}",
            checkout_id=f"{self.order_id}-x", category=chance.choice(["womens_apparel", "food", "home", "other"]),
            address_ref=f"a-{self.order_id}", region="zj", lines=lines, freight_fen=800,
            total_fen=sum(line.line_fen for line in lines) + 800, merchant_version=5,
            promises=(
                PromiseWanted(promise_id="arrive", kind="arrive_by", line_ids=line_ids, remedy="full_refund",
                              due_at=self._placed_at + PROMISED_DAYS * days),
                PromiseWanted(promise_id="dispatch", kind="dispatch_by", line_ids=line_ids, remedy="damages",
                              due_at=self._placed_at + 4 * days),
            ),
        )  # fmt: skip

    def _travel(self, place: PlaceOrder, at: datetime) -> Iterator[tuple[datetime, Step]]:
        chance, order_id, shipment_id = self._chance, self.order_id, f"{self.order_id}-s"
        is_cainiao = chance.random() < 0.6
        units = tuple(e.Units(line_id=line.line_id, units=line.units) for line in place.lines)
        ship = CreateShipment(
            order_id=order_id, shipment_id=shipment_id, lines=units, carrier="cainiao" if is_cainiao else "other",
            waybill=f"w-{order_id}", is_cainiao=is_cainiao,
        )  # fmt: skip
        at += timedelta(hours=chance.randint(1, 60))
        yield at, Step(ship, MERCHANT)
        late = timedelta(days=chance.randint(8, 20)) if chance.random() < 0.07 else timedelta()
        for status, hours in (("handed", 6), ("transit", 30), ("delivered", 60)):
            at += timedelta(hours=chance.randint(1, hours)) + (late if status == "delivered" else timedelta())
            scan = RecordScan(order_id=order_id, scan_id=f"{order_id}-{status}", shipment_id=shipment_id, status=status)
            yield at, Step(scan, CARRIER)
        at += timedelta(hours=chance.randint(12, 300))
        if chance.random() < 0.4:
            rate = RateOrder(order_id=order_id, rating_id=f"{order_id}-r", as_described=chance.randint(1, 5))
            yield at, Step(rate, BUYER)
        elif chance.random() < 0.04:
            refund = RequestRefund(
                order_id=order_id, refund_id=f"{order_id}-q", reason="quality", reduction_fen=300, lines=units[:1]
            )
            yield at, Step(refund, BUYER)


class OrdersLog:
    """Orders placed one after the other, and everything that follows."""

    def __init__(self, seed: int = 1, *, merchants: int = 1_000, orders_a_day: int = 250) -> None:
        self._chance = random.Random(seed)
        self._merchants, self._between = merchants, timedelta(days=1) / orders_a_day
        self._queue: list[tuple[datetime, int, Life, Step]] = []
        self._numbers = 0
        self._answered = 0
        self._placed = 0
        self._place_next()

    def appends(self, events: int) -> Iterator[Append]:
        """What is to be appended, in order, until there are so many events or a few more."""
        made = 0
        while made < events:
            append = self._happen()
            if append is not None:
                made += len(append.events)
                yield append

    def _place_next(self) -> None:
        at = BEGINNING + self._placed * self._between
        self._placed += 1
        life = Life(self._placed, random.Random(self._chance.random()), at, self._merchants)
        for instant, step in life.steps():
            self._plan(instant, life, step)

    def _plan(self, at: datetime, life: Life, step: Step) -> None:
        self._numbers += 1
        heapq.heappush(self._queue, (at, self._numbers, life, step))

    def _happen(self) -> Append | None:
        at, _, life, step = heapq.heappop(self._queue)
        story, version, rules = life.story, life.story.version, {rulebook().rulebook: rulebook()}
        if isinstance(step.command, PlaceOrder):
            self._place_next()
        if step.command is None:
            outcome = Outcome(fire(orders.DECIDER, story, at, rules))
        else:
            asked = Asked(step.command, _actor(step, life), step.role, at)
            outcome = handle(orders.DECIDER, story, asked, rules, rulebook())
        if not outcome.events:
            return None
        self._plan_what_follows(life, at, version, outcome)
        self._answered += 1
        key = None if step.command is None or outcome.rejected else f"{story.stream}/{self._answered}"
        return Append(
            story.stream, version, outcome.events, _actor(step, life), step.role, key, bytes(32) if key else None,
            story.stream,
        )  # fmt: skip

    def _plan_what_follows(self, life: Life, at: datetime, version: int, outcome: Outcome) -> None:
        soon = at + timedelta(minutes=1)
        for number, new in enumerate(outcome.events, start=version + 1):
            recorded = Recorded(0, life.story.stream, number, new.occurred_at, new.received_at, at, new.data)
            for message in messages(recorded):
                self._plan(soon, life, Step(_answered(message.command)))
            if isinstance(new.data, e.RefundInstructed):
                paid = ConfirmRefund(
                    order_id=life.order_id, refund_id=new.data.refund_id, payment_ref=f"{new.data.refund_id}-paid",
                    value_on=at.date(),
                )  # fmt: skip
                self._plan(at + timedelta(days=1), life, Step(paid, PAYMENT))
        deadline = life.story.next_deadline(orders.DECIDER)
        if deadline is not None:
            self._plan(max(deadline.fires_at, soon), life, Step(None))


def _answered(command: Command) -> Command:
    """A merchant's deposit always covers; the order hears so at once."""
    if isinstance(command, CoverRefund):
        return ReportCover(
            order_id=command.order_id, refund_id=command.refund_id, attempt=1, drawn_fen=command.requested_fen,
            advanced_fen=0, short_fen=0,
        )  # fmt: skip
    return command


def _actor(step: Step, life: Life) -> str:
    if step.role == BUYER:
        return step.command.buyer_ref if isinstance(step.command, PlaceOrder) else life.story.state.buyer_ref
    return life.merchant_id if step.role == MERCHANT else step.role


def fill(store: Store, events: int, *, seed: int = 1, progress: Callable[[int], None] = lambda done: None) -> int:
    """Appends a log of about so many events to an empty ledger; returns how many there are."""
    done = 0
    appends = OrdersLog(seed).appends(events)
    while batch := list(islice(appends, 2_000)):
        for answer in store.append(*batch):
            if not isinstance(answer, Appended):
                raise answer
            done = answer.position
        progress(done)
    return done
