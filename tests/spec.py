"""Given, when, then, over the pure domain; and a small world of streams in memory with a virtual clock.

    given(placed(), paid(), parcel()).when(scan("delivered", july(9))).then(UnitsArrived, ...)

A *step* is a command as somebody asks it (``Ask``), or the clock moving on (``tick``).  A pattern is the class of an
event, ``event(Class, field=value, ...)``, or ``...`` for any number of events.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from types import EllipsisType
from typing import Any

import msgspec

from ledger import accounts, merchants, orders, policies, programme
from ledger.calendar import BEGINNING, start_of
from ledger.decider import (
    BUYER,
    CARRIER,
    MERCHANT,
    POLICY,
    Asked,
    Command,
    Deadline,
    Decider,
    Outcome,
    Story,
    fire,
    fold,
    handle,
)
from ledger.events import Event, Fact, NewEvent, Recorded
from ledger.orders import events as e
from ledger.orders import goods, placing, promises, refunds
from ledger.rulebook import Rulebook, rulebook_of, shipped
from ledger.streams import DECIDERS

BODY = shipped("rulebook-2015.1")
RULES = rulebook_of(BODY)


def body_with(name: str = "rulebook-test", **sections: dict[str, Any]) -> dict[str, Any]:
    """The shipped rulebook under another name, with some parameters changed: ``body_with(windows={...})``."""
    body = copy.deepcopy(BODY) | {"rulebook": name}
    for section, parameters in sections.items():
        body[section] = {**body[section], **parameters}
    return body


def rules_with(name: str = "rulebook-test", **sections: dict[str, Any]) -> Rulebook:
    """The rules of such a body."""
    return rulebook_of(body_with(name, **sections))


# --- Instants -----------------------------------------------------------------------------------------------------


def july(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """An instant of July 2015 in Shanghai; days go on counting after the 31st and before the 1st."""
    clock = timedelta(days=day - 1, hours=hour, minutes=minute, seconds=second)
    return start_of(date(2015, 7, 1)) + clock


def july_day(day: int) -> date:
    """A business day of July 2015, counted in the same way."""
    return date(2015, 7, 1) + timedelta(days=day - 1)


HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


# --- Steps --------------------------------------------------------------------------------------------------------


class Ask(msgspec.Struct, frozen=True):
    """A command as somebody asks it: who, in what role, and when the door receives it."""

    command: Command
    received_at: datetime | None = None
    role: str | None = None
    actor: str | None = None
    approved_by: str | None = None

    def by(self, role: str, actor: str | None = None) -> Ask:
        """Asked by somebody else."""
        return msgspec.structs.replace(self, role=role, actor=actor or ACTORS.get(role, f"{role}-1"))

    def received(self, at: datetime) -> Ask:
        """Received at another instant than it happened."""
        return msgspec.structs.replace(self, received_at=at)

    def approved(self, by: str | None) -> Ask:
        """Approved by somebody else."""
        return msgspec.structs.replace(self, approved_by=by)

    def but(self, **fields: Any) -> Ask:
        """With other fields."""
        return msgspec.structs.replace(self, command=msgspec.structs.replace(self.command, **fields))

    def asked(self, now: datetime) -> Asked:
        """As the door hands it over; by default the one role that may ask for it asks, and another person approves."""
        role = self.role or sorted(self.command.roles)[0]
        actor = self.actor or ACTORS.get(role, f"{role}-1")
        approver = self.approved_by
        if approver is None and self.command.approver:
            approver = f"{self.command.approver}-2"
        return Asked(self.command, actor, role, self.received_at or self.command.occurred_at or now, approver or None)


class Tick(msgspec.Struct, frozen=True):
    """The clock comes to an instant."""

    at: datetime


Step = Ask | Tick

ACTORS = {BUYER: "b-1", MERCHANT: "m-1"}


def ask(command: Command, at: datetime | None = None) -> Ask:
    """A command, asked by whoever may ask it."""
    return Ask(command, at)


def tick(at: datetime) -> Tick:
    """The clock comes to an instant."""
    return Tick(at)


# --- Patterns -----------------------------------------------------------------------------------------------------


class Like(msgspec.Struct, frozen=True):
    """An event of a class, with these fields."""

    cls: type[Event]
    fields: dict[str, Any]

    def matches(self, new: NewEvent) -> bool:
        """Whether it is such an event; ``occurred_at`` is the envelope's."""
        return type(new.data) is self.cls and all(
            (new.occurred_at if name == "occurred_at" else getattr(new.data, name)) == value
            for name, value in self.fields.items()
        )


Pattern = type[Event] | Like | EllipsisType


def event(cls: type[Event], **fields: Any) -> Like:
    """An event of this class with these fields."""
    return Like(cls, fields)


def matches(events: Sequence[NewEvent], patterns: Sequence[Pattern]) -> bool:
    """Whether the events are these, in this order."""
    if not patterns:
        return not events
    first, rest = patterns[0], patterns[1:]
    if first is ...:
        return any(matches(events[i:], rest) for i in range(len(events) + 1))
    like = first if isinstance(first, Like) else Like(first, {})  # type: ignore[arg-type]
    return bool(events) and like.matches(events[0]) and matches(events[1:], rest)


# --- Given, when, then --------------------------------------------------------------------------------------------


class Scenario:
    """One stream, told step by step."""

    def __init__(self, rules: Rulebook = RULES) -> None:
        self.rules, self.rulebooks = rules, {rules.rulebook: rules}
        self.story: Story | None = None
        self.decider: Decider = orders.DECIDER
        self.events: list[NewEvent] = []
        self.outcome = Outcome([])

    @property
    def state(self) -> Any:
        """What the stream has come to."""
        assert self.story is not None
        return self.story.state

    @property
    def now(self) -> datetime:
        """The latest instant that was told."""
        return self.story.latest_at if self.story else BEGINNING

    def take(self, step: Step) -> Outcome:
        """One step, whatever comes of it."""
        if isinstance(step, Tick):
            assert self.story is not None
            self.outcome = Outcome(fire(self.decider, self.story, step.at, self.rulebooks))
        else:
            stream = step.command.stream
            self.decider = DECIDERS[stream.partition("-")[0]]
            self.story = self.story or Story(stream, self.decider.initial())
            assert self.story.stream == stream, "one scenario tells one stream"
            asked = step.asked(max(self.now, july(1)))
            self.outcome = handle(self.decider, self.story, asked, self.rulebooks, self.rules)
        self.events += self.outcome.events
        return self.outcome

    def given(self, *steps: Step | Iterable[Step]) -> Scenario:
        """What happened before; none of it may be rejected."""
        for step in flat(steps):
            outcome = self.take(step)
            assert outcome.rejected is None, f"given {step} was rejected: {outcome.rejected}"
        return self

    def when(self, *steps: Step | Iterable[Step]) -> Scenario:
        """What happens now; all but the last may not be rejected."""
        *before, last = flat(steps)
        self.given(*before)
        self.take(last)
        return self

    def tick(self, at: datetime) -> Scenario:
        """The clock comes to an instant."""
        return self.when(tick(at))

    def then(self, *patterns: Pattern) -> Scenario:
        """Exactly these events came of the last step, in this order."""
        assert self.outcome.rejected is None, f"rejected: {self.outcome.rejected}"
        self.and_also(*patterns)
        return self

    def and_also(self, *patterns: Pattern) -> Scenario:
        """These events came of it, although the command may have been rejected."""
        shown = "\n".join(f"  {x.occurred_at} {x.data}" for x in self.outcome.events)
        assert matches(self.outcome.events, patterns), f"instead of {patterns} came\n{shown or '  nothing'}"
        return self

    def then_nothing(self) -> Scenario:
        """Nothing came of it."""
        return self.then()

    def rejected(self, code: str) -> Scenario:
        """The command was refused."""
        assert self.outcome.rejected == code, f"{self.outcome.rejected}: {self.outcome.events}"
        return self

    def told(self, cls: type[Any]) -> list[Any]:
        """Every event of a class so far."""
        return [x.data for x in self.events if isinstance(x.data, cls)]

    def last(self, cls: type[Any]) -> Any:
        """The latest event of a class."""
        return self.told(cls)[-1]

    def deadlines(self) -> dict[tuple[str, str], datetime]:
        """The deadlines that stand, by name and key."""
        return {(x.name, x.key): x.fires_at for x in self.decider.deadlines(self.state)}

    def balances(self) -> dict[str, int]:
        """The accounts that are not 0, from all events so far."""
        total: Counter[str] = Counter()
        for new in self.events:
            for posting in accounts.postings(new.data):
                total[posting.account] += posting.amount_fen
        return {account: amount for account, amount in total.items() if amount}


def flat(steps: Iterable[Step | Iterable[Step]]) -> Iterator[Step]:
    """Steps, and lists of steps, one after the other."""
    for step in steps:
        if isinstance(step, Ask | Tick):
            yield step
        else:
            yield from flat(step)


def given(*steps: Step | Iterable[Step], rules: Rulebook = RULES) -> Scenario:
    """A stream of which this has been told."""
    return Scenario(rules).given(*steps)


def when(*steps: Step | Iterable[Step], rules: Rulebook = RULES) -> Scenario:
    """The first that is told of a stream."""
    return Scenario(rules).when(*steps)


# --- What people ask of an order ----------------------------------------------------------------------------------

ORDER = "o-1"
DUE = july(15)
"""Before this instant the goods have to arrive, unless a test says otherwise: by the end of 14 July."""


def line(line_id: str = "a", units: int = 3, line_fen: int = 1001, **more: Any) -> e.Line:
    """A line of an order."""
    return e.Line(line_id=line_id, sku=f"sku-{line_id}", units=units, line_fen=line_fen, **more)


def units(line_id: str = "a", count: int = 1) -> e.Units:
    """So many units of a line."""
    return e.Units(line_id=line_id, units=count)


def arrive_by(due_at: datetime = DUE, *line_ids: str, promise_id: str = "arrive") -> placing.PromiseWanted:
    """A promise of arrival for lines, by default for line a."""
    return placing.PromiseWanted(
        promise_id=promise_id, kind="arrive_by", line_ids=line_ids or ("a",), due_at=due_at, remedy="full_refund"
    )


def dispatch_by(due_at: datetime, *line_ids: str, promise_id: str = "dispatch") -> placing.PromiseWanted:
    """A promise of dispatch for lines, by default for line a."""
    return placing.PromiseWanted(
        promise_id=promise_id, kind="dispatch_by", line_ids=line_ids or ("a",), due_at=due_at, remedy="damages"
    )


def placed(
    *lines: e.Line,
    freight_fen: int = 100,
    promises: Sequence[placing.PromiseWanted] | None = None,
    category: str = "mens_apparel",
    at: datetime | None = None,
    order_id: str = ORDER,
    merchant_id: str = "m-1",
    **more: Any,
) -> Ask:
    """The buyer orders on 1 July: three units for 1 001 fen and 100 fen freight, to arrive by 14 July."""
    lines = lines or (line(),)
    if promises is None:
        promises = [arrive_by(DUE, *(x.line_id for x in lines))]
    total_fen = sum(x.line_fen for x in lines) + freight_fen
    fields = {
        "order_id": order_id, "merchant_id": merchant_id, "buyer_ref": "b-1", "checkout_id": "c-1",
        "category": category, "address_ref": "address-1", "region": "zhejiang", "lines": lines,
        "freight_fen": freight_fen, "total_fen": total_fen, "promises": tuple(promises), "merchant_version": 9,
        "occurred_at": at or july(1, 10),
    }  # fmt: skip
    return ask(placing.PlaceOrder(**{**fields, **more}))


def paid(amount_fen: int = 1101, at: datetime | None = None, ref: str = "pay-1", order_id: str = ORDER) -> Ask:
    """The provider holds the buyer's money, at 11 o'clock on 1 July."""
    at = at or july(1, 11)
    return ask(placing.CapturePayment(order_id=order_id, amount_fen=amount_fen, payment_ref=ref, occurred_at=at))


def cancel(count: int = 1, line_id: str = "a", refund_id: str = "cancel-1", at: datetime | None = None) -> Ask:
    """The buyer calls units off."""
    return ask(
        placing.CancelUnits(
            order_id=ORDER, refund_id=refund_id, line_id=line_id, units=count, cause="buyer", occurred_at=at
        )
    ).by(BUYER)


def rate(score: int | None = 5, at: datetime | None = None, rating_id: str = "rating-1", **more: Any) -> Ask:
    """The buyer rates the order."""
    return ask(placing.RateOrder(order_id=ORDER, rating_id=rating_id, as_described=score, occurred_at=at, **more))


def parcel(
    shipment_id: str = "p1", *parts: e.Units, is_cainiao: bool = True, at: datetime | None = None, order_id: str = ORDER
) -> Ask:
    """The merchant announces a parcel, by default of all three units of line a."""
    return ask(
        goods.CreateShipment(
            order_id=order_id, shipment_id=shipment_id, lines=parts or (units("a", 3),),
            carrier="cainiao" if is_cainiao else "other", waybill=f"w-{shipment_id}", is_cainiao=is_cainiao,
            occurred_at=at or july(2),
        )
    )  # fmt: skip


def scan(
    status: str,
    at: datetime,
    shipment_id: str = "p1",
    *,
    received: datetime | None = None,
    scan_id: str | None = None,
    order_id: str = ORDER,
    **more: Any,
) -> Ask:
    """The carrier scans a parcel; ``received``: when we hear of it."""
    scan_id = scan_id or f"{shipment_id}-{status}-{at:%m%d%H%M}"
    command = goods.RecordScan(
        order_id=order_id, scan_id=scan_id, shipment_id=shipment_id, status=status, occurred_at=at, **more
    )
    return Ask(command, received).by(CARRIER)


def scan_id(status: str, at: datetime, shipment_id: str = "p1") -> str:
    """The id that ``scan`` gives."""
    return f"{shipment_id}-{status}-{at:%m%d%H%M}"


def retract(scan_id: str, at: datetime) -> Ask:
    """The carrier takes a scan back."""
    return ask(goods.RetractScan(order_id=ORDER, scan_id=scan_id, reason="wrong parcel", occurred_at=at))


def correct_waybill(
    shipment_id: str = "p1", *, carrier: str = "other", is_cainiao: bool = False, at: datetime | None = None
) -> Ask:
    """The merchant corrects who carries a parcel."""
    return ask(
        goods.CorrectWaybill(
            order_id=ORDER, shipment_id=shipment_id, carrier=carrier, waybill="w-new", is_cainiao=is_cainiao,
            reason="typed the wrong one", occurred_at=at,
        )
    )  # fmt: skip


def confirm(*shipment_ids: str, at: datetime) -> Ask:
    """The buyer confirms receipt."""
    return ask(goods.ConfirmReceipt(order_id=ORDER, shipment_ids=shipment_ids or ("p1",), occurred_at=at))


def deny(shipment_id: str = "p1", *, at: datetime) -> Ask:
    """The buyer denies a delivery."""
    return ask(goods.DenyDelivery(order_id=ORDER, shipment_id=shipment_id, grounds_sha256="aa", occurred_at=at))


def waive(at: datetime, promise_id: str = "arrive") -> Ask:
    """The buyer gives up a promise's money."""
    return ask(promises.WaivePromise(order_id=ORDER, promise_id=promise_id, occurred_at=at))


def amend(due_at: datetime, at: datetime, promise_id: str = "arrive", consent: str = "cc") -> Ask:
    """Merchant and buyer agree on another date."""
    return ask(
        promises.AmendPromise(
            order_id=ORDER, promise_id=promise_id, due_at=due_at, buyer_consent_sha256=consent, occurred_at=at
        )
    )


def overturn(at: datetime, promise_id: str = "arrive") -> Ask:
    """A handler finds that a breach was none."""
    return ask(
        promises.OverturnBreach(
            order_id=ORDER, promise_id=promise_id, reason="the carrier was late to tell", evidence_sha256="ee",
            occurred_at=at,
        )
    )  # fmt: skip


def move_to(region: str, at: datetime) -> Ask:
    """The buyer wants the goods elsewhere."""
    return ask(promises.ChangeAddress(order_id=ORDER, address_ref=f"address-{region}", region=region, occurred_at=at))


def request(
    *parts: e.Units, at: datetime, reason: str = "quality", refund_id: str = "r1", reduction_fen: int = 0
) -> Ask:
    """The buyer wants money back, by default for one unit."""
    return ask(
        refunds.RequestRefund(
            order_id=ORDER, refund_id=refund_id, lines=parts or (units("a", 1),), reason=reason,  # type: ignore[arg-type]
            reduction_fen=reduction_fen, occurred_at=at,
        )
    )  # fmt: skip


def agree(at: datetime, refund_id: str = "r1") -> Ask:
    """The merchant agrees."""
    return ask(refunds.AgreeRefund(order_id=ORDER, refund_id=refund_id, occurred_at=at))


def refuse(at: datetime, refund_id: str = "r1") -> Ask:
    """The merchant refuses."""
    return ask(refunds.RefuseRefund(order_id=ORDER, refund_id=refund_id, reason="used", occurred_at=at))


def withdraw(at: datetime, refund_id: str = "r1") -> Ask:
    """The buyer wants it no more."""
    return ask(refunds.WithdrawRefund(order_id=ORDER, refund_id=refund_id, occurred_at=at))


def cover(
    drawn_fen: int, at: datetime, *, advanced_fen: int = 0, short_fen: int = 0, attempt: int = 1, refund_id: str = "r1"
) -> Ask:
    """The order hears what deposit and advance gave."""
    return ask(
        refunds.ReportCover(
            order_id=ORDER, refund_id=refund_id, attempt=attempt, drawn_fen=drawn_fen, advanced_fen=advanced_fen,
            short_fen=short_fen, occurred_at=at,
        )
    )  # fmt: skip


def instruct(at: datetime, refund_id: str = "r1", attempt: int = 1) -> Ask:
    """The provider is asked to pay."""
    return ask(
        refunds.InstructRefund(
            order_id=ORDER, refund_id=refund_id, attempt=attempt, payment_key=f"{ORDER}/{refund_id}", occurred_at=at
        )
    )


def pay_out(at: datetime, refund_id: str = "r1", ref: str | None = None) -> Ask:
    """The provider has paid."""
    return ask(
        refunds.ConfirmRefund(
            order_id=ORDER, refund_id=refund_id, payment_ref=ref or f"out-{refund_id}", value_on=july_day(20),
            occurred_at=at,
        )
    )  # fmt: skip


def fail_payout(at: datetime, refund_id: str = "r1", attempt: int = 1) -> Ask:
    """The provider could not pay."""
    return ask(refunds.FailRefund(order_id=ORDER, refund_id=refund_id, attempt=attempt, code="closed", occurred_at=at))


def instructed_and_paid(at: datetime, refund_id: str = "r1") -> list[Ask]:
    """The refund goes out."""
    return [instruct(at, refund_id), pay_out(at, refund_id)]


def recover(amount_fen: int, at: datetime, refund_id: str = "arrive", ref: str = "back-1") -> Ask:
    """The buyer pays back what was undone."""
    return ask(
        refunds.RecordRecovery(
            order_id=ORDER, refund_id=refund_id, amount_fen=amount_fen, payment_ref=ref, occurred_at=at
        )
    )


def write_off(amount_fen: int, at: datetime, refund_id: str = "arrive") -> Ask:
    """What the buyer owes is given up."""
    return ask(
        refunds.WriteOffRecovery(
            order_id=ORDER, refund_id=refund_id, amount_fen=amount_fen, reason="unreachable", occurred_at=at
        )
    )


def repay(goods_fen: int, freight_fen: int, at: datetime, refund_id: str = "arrive", ref: str = "again-1") -> Ask:
    """The buyer pays again for goods that came after their refund."""
    return ask(
        refunds.RepayUnits(
            order_id=ORDER, refund_id=refund_id, goods_fen=goods_fen, freight_fen=freight_fen, payment_ref=ref,
            occurred_at=at,
        )
    )  # fmt: skip


# --- What people ask of a merchant --------------------------------------------------------------------------------


def trustpass(
    to_on: date = date(2016, 12, 31), trustpass_id: str = "tp-1", at: datetime | None = None, **more: Any
) -> Ask:
    """The merchant is a TrustPass member from 2015 on."""
    fields = {
        "merchant_id": "m-1", "trustpass_id": trustpass_id, "valid_from_on": date(2015, 1, 1), "valid_to_on": to_on,
        "occurred_at": at or july(-20),
    }  # fmt: skip
    return ask(merchants.RegisterTrustPass(**{**fields, **more}))


def applied(category: str = "mens_apparel", at: datetime | None = None) -> Ask:
    """It applies in June."""
    return ask(
        merchants.ApplyForProgramme(
            merchant_id="m-1", category=category, contact_ref="contact-1", occurred_at=at or july(-19)
        )
    )


def review_started(*checklist: str, at: datetime | None = None) -> Ask:
    """An officer looks at it."""
    return ask(
        merchants.StartReview(
            merchant_id="m-1", officer_id="officer-1", checklist=checklist or ("licence", "factory"),
            occurred_at=at or july(-18),
        )
    )  # fmt: skip


def review_passed(*names: str, on_time_bp: int | None = 9600, at: datetime | None = None, **more: Any) -> Ask:
    """Every point is proved."""
    fields = {
        "merchant_id": "m-1",
        "checks": tuple(merchants.Check(name=x, evidence_sha256="aa") for x in names or ("licence", "factory")),
        "on_time_bp": on_time_bp, "as_described_bp": 9900, "score_position": 0, "occurred_at": at or july(-17),
    }  # fmt: skip
    return ask(merchants.PassReview(**{**fields, **more}))


def review_failed(at: datetime | None = None) -> Ask:
    """The application fails."""
    return ask(merchants.FailReview(merchant_id="m-1", reasons=("factory not found",), occurred_at=at or july(-17)))


def guarantees(*names: str, days: int = 7, at: datetime | None = None) -> Ask:
    """The merchant promises them."""
    return ask(
        merchants.AcceptGuarantees(
            merchant_id="m-1", guarantees=names or ("quality", "delivery", "exchange"), exchange_days=days,
            return_address_ref="warehouse-1", occurred_at=at or july(-16),
        )
    )  # fmt: skip


def fee(
    from_on: date = date(2015, 7, 1), to_on: date = date(2016, 6, 30), fee_fen: int = 2_800_000, ref: str = "fee-1",
    at: datetime | None = None,
) -> Ask:  # fmt: skip
    """The annual fee is paid."""
    return ask(
        merchants.RecordAnnualFee(
            merchant_id="m-1", fee_fen=fee_fen, period_from_on=from_on, period_to_on=to_on, payment_ref=ref,
            occurred_at=at or july(-15),
        )
    )  # fmt: skip


def deposit(amount_fen: int = 3_000_000, ref: str = "dep-1", at: datetime | None = None) -> Ask:
    """Money comes into the deposit."""
    return ask(
        merchants.RecordDeposit(merchant_id="m-1", amount_fen=amount_fen, payment_ref=ref, occurred_at=at or july(-14))
    )


def approved_merchant() -> list[Ask]:
    """A merchant whose review is passed."""
    return [trustpass(), applied(), review_started(), review_passed()]


def admitted_merchant() -> list[Ask]:
    """A merchant that meets every condition two weeks before the programme goes live."""
    return [*approved_merchant(), guarantees(), fee(), deposit()]


def active_merchant() -> list[Step]:
    """A power merchant from 1 July on."""
    return [*admitted_merchant(), tick(july(1))]


def cover_refund(requested_fen: int, at: datetime, refund_id: str = "r1", order_id: str = ORDER) -> Ask:
    """An order asks for money."""
    return ask(
        merchants.CoverRefund(
            merchant_id="m-1", refund_id=refund_id, order_id=order_id, requested_fen=requested_fen, occurred_at=at
        )
    )


def reverse_cover(reversal_fen: int, at: datetime, refund_id: str = "r1", order_id: str = ORDER) -> Ask:
    """A covered refund was undone."""
    return ask(
        merchants.ReverseCover(
            merchant_id="m-1", refund_id=refund_id, order_id=order_id, reversal_fen=reversal_fen, occurred_at=at
        )
    )


def pay_receivable(amount_fen: int, at: datetime, ref: str = "rec-1") -> Ask:
    """The merchant pays what was advanced."""
    return ask(merchants.RecordReceivable(merchant_id="m-1", amount_fen=amount_fen, payment_ref=ref, occurred_at=at))


def raise_cap(cap_fen: int, at: datetime) -> Ask:
    """The platform is ready to advance more."""
    return ask(merchants.RaiseAdvanceCap(merchant_id="m-1", cap_fen=cap_fen, reason="peak season", occurred_at=at))


def suspend(at: datetime) -> Ask:
    """An officer suspends the merchant."""
    return ask(merchants.SuspendMerchant(merchant_id="m-1", reason="under review", occurred_at=at))


def lift(at: datetime) -> Ask:
    """The officer ends it."""
    return ask(merchants.LiftSuspension(merchant_id="m-1", reason="cleared", occurred_at=at))


# --- A world of streams -------------------------------------------------------------------------------------------


class World:
    """Several streams in memory, one log in position order, one virtual clock, and the policies between the streams."""

    def __init__(self, body: dict[str, Any] = BODY, *, carries: bool = True) -> None:
        self.now = BEGINNING
        self.log: list[Recorded] = []
        self.envelopes: list[NewEvent] = []
        self.stories: dict[str, Story] = {}
        self.answers: dict[str, Outcome] = {}
        self.balances: Counter[str] = Counter()
        self.carries, self._carried = carries, 0
        self.rules = rulebook_of(body)
        self.ask(ask(programme.PublishRulebook(body=body, occurred_at=self.now)))

    @property
    def rulebooks(self) -> programme.RulebookState:
        """Every rulebook there is."""
        state: programme.RulebookState = self.story(programme.STREAM).state
        return state

    def story(self, stream: str) -> Story:
        """A stream as it stands."""
        if stream not in self.stories:
            self.stories[stream] = Story(stream, DECIDERS[stream.partition("-")[0]].initial())
        return self.stories[stream]

    def ask(self, step: Ask, key: str | None = None) -> Outcome:
        """A command goes through the door: looked up, decided, appended; then its messages are carried."""
        if key is not None and key in self.answers:
            return self.answers[key]
        asked = step.asked(self.now)
        self.now = max(self.now, asked.received_at)
        asked.command = self._filled(asked.command)
        story = self.story(step.command.stream)
        outcome = handle(decider_of(story), story, asked, self.rulebooks.rules, self.rules)
        self._append(story, outcome.events)
        if key is not None:
            self.answers[key] = outcome
        if self.carries:
            self.carry()
        return outcome

    def _filled(self, command: Command) -> Command:
        if not isinstance(command, placing.PlaceOrder):
            return command
        merchant = self.story(f"merchant-{command.merchant_id}")
        return msgspec.structs.replace(command, merchant_version=merchant.version if merchant.state.is_active else None)

    def _append(self, story: Story, events: list[NewEvent]) -> None:
        version = story.version - len(events)
        for new in events:
            version += 1
            recorded_at = max(self.log[-1].recorded_at if self.log else BEGINNING, new.received_at, self.now)
            self.log.append(
                Recorded(
                    len(self.log) + 1, story.stream, version, new.occurred_at, new.received_at, recorded_at, new.data
                )
            )
            self.envelopes.append(new)
            for posting in accounts.postings(new.data):
                self.balances[posting.account] += posting.amount_fen

    @property
    def has_messages(self) -> bool:
        """Something that the log says has not been carried to its stream yet."""
        return any(
            message.key not in self.answers for x in self.log[self._carried :] for message in policies.messages(x)
        )

    def carry(self) -> None:
        """Carries every message that the log holds to its stream, each once."""
        while self._carried < len(self.log):
            event = self.log[self._carried]
            self._carried += 1
            for message in policies.messages(event):
                step = Ask(message.command, self.now, POLICY, message.key.partition("/")[0])
                if message.key not in self.answers:
                    self.ask(step, message.key)

    def tick(self, now: datetime) -> None:
        """Fires every deadline of every stream that has come, in the order of (instant, stream, name, key)."""
        while due := self._next_due(now):
            deadline, story = due
            self.now = max(self.now, deadline.fires_at)
            events = fire(decider_of(story), story, deadline.fires_at, self.rulebooks.rules)
            assert events, f"{deadline} of {story.stream} decided nothing"
            self._append(story, events)
            if self.carries:
                self.carry()
        self.now = max(self.now, now)

    def _next_due(self, now: datetime) -> tuple[Deadline, Story] | None:
        due = []
        for story in self.stories.values():
            deadline = story.next_deadline(decider_of(story)) if story.version else None
            if deadline and deadline.fires_at <= now:
                due.append((deadline, story))
        return min(due, key=lambda x: (x[0].fires_at, x[1].stream, x[0].name, x[0].key), default=None)

    def of(self, stream: str) -> list[Recorded]:
        """The events of a stream."""
        return [x for x in self.log if x.stream == stream]

    def told(self, stream: str) -> list[NewEvent]:
        """The events of a stream as they were decided."""
        return [new for new, recorded in zip(self.envelopes, self.log, strict=True) if recorded.stream == stream]

    def folded(self, stream: str, events: Iterable[Recorded] | None = None) -> Story:
        """A stream told again from its events."""
        return fold(DECIDERS[stream.partition("-")[0]], stream, self.of(stream) if events is None else events)

    def as_of(self, stream: str, occurred_before: datetime) -> Any:
        """What had become of a stream by an instant on the clock of occurrence."""
        return self.folded(stream, (x for x in self.of(stream) if x.occurred_at < occurred_before)).state


def decider_of(story: Story) -> Decider:
    """The decider of a story's stream."""
    return DECIDERS[story.stream.partition("-")[0]]


def rederived(stream: str, events: Sequence[Recorded], rules: Rulebook = RULES) -> list[NewEvent]:
    """What the rules make of the facts of a stream alone, told again as they were received: conformance wants this to
    be what was recorded."""
    decider = DECIDERS[stream.partition("-")[0]]
    story = Story(stream, decider.initial())
    again: list[NewEvent] = []
    rulebooks = {rules.rulebook: rules}
    for recorded in events:
        if isinstance(recorded.data, Fact):
            asserting = msgspec.structs.replace(decider, decide=lambda s, asked, rules, fact=recorded.data: [fact])
            asked = Asked(_Assert(occurred_at=recorded.occurred_at), "", POLICY, recorded.received_at)
            again += handle(asserting, story, asked, rulebooks, rules).events
    if events:
        again += fire(decider, story, max(x.received_at for x in events), rulebooks)
    return again


class _Assert(Command, frozen=True, kw_only=True):
    roles = frozenset({POLICY})
