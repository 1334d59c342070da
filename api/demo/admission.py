"""How the demonstration's programme begins and ends: its rules, its budgets, and the merchants it admits."""

import hashlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from api.demo import cast
from api.demo.cast import Merchant
from api.demo.plans import Size
from api.relive import Timed
from ledger import budgets, merchants, programme
from ledger.calendar import ZONE, parse
from ledger.decider import ADMIN, FINANCE, MERCHANT, OFFICER, PAYMENT, Command
from ledger.events import Recorded
from ledger.rulebook import Rulebook, rulebook_of, shipped

RULEBOOK, NEXT_RULEBOOK = "rulebook-2015.1", "rulebook-2015.2"
YEAR = 2015
GUARANTEES = ("quality", "delivery", "exchange")
CHECKLIST = ("business licence", "delivery on time", "goods as described")
SPARE_FEN, SPARE_FEN_AN_ORDER = 2_000_000, 20_000
"""What a careful merchant pays into its deposit beyond what is required."""

Step = tuple[str, str, Command, str, str]
"""When, under which key, what, who, as what."""


def opening(size: Size) -> Iterator[Timed]:
    """The rulebook, the budgets, the admission of every merchant, and what officers and finance do all summer."""
    yield _timed(size, parse("2015-06-10 10:00"), RULEBOOK, _publish(RULEBOOK), cast.ADMIN, ADMIN)
    for when, what, command, actor, role in (*_rules(), *_budgets()):
        yield _timed(size, parse(f"2015-{when}"), what, command, actor, role)
    found = cast.merchants(size.merchants)
    for merchant in found:
        yield from _admission(size, merchant)
    for when, what, command, actor, role in (
        *_suspension(found[1].merchant_id),
        *_august(found[-1].merchant_id),
        *_rejection(cast.applicant(size.merchants)),
    ):
        yield _timed(size, parse(f"2015-{when}"), what, command, actor, role)


def closing(size: Size) -> Timed:
    """The last command, by which it is known that the demonstration is complete."""
    command = budgets.RequestSpend(
        budget="marketing", year=YEAR, spend_id="autumn-order-fair", purpose="marketing", ref="order-fair-agency",
        amount_fen=60_000_000,
    )  # fmt: skip
    return _timed(size, cast.ENDS, "closing", command, cast.FINANCE, FINANCE)


def _timed(size: Size, at: datetime, what: str, command: Command, actor: str, role: str) -> Timed:
    approver = cast.SUPERVISOR if command.approver else None
    return Timed(at, command, f"{size.prefix}/{what}", actor, role, approved_by=approver)


@cache
def _body() -> dict[str, Any]:
    return shipped(RULEBOOK)


@cache
def _rulebook() -> Rulebook:
    return rulebook_of(_body())


def _publish(name: str, **changes: Any) -> programme.PublishRulebook:
    return programme.PublishRulebook(body=_body() | {"rulebook": name} | changes)


def _rules() -> Iterator[Step]:
    """A second rulebook that would lower the rebate is published, and withdrawn before it takes effect."""
    lower = {"share_bp": 4000, "needs_carrier_origin_scan": True}
    publish = _publish(NEXT_RULEBOOK, effective_from_at="2015-10-14T16:00:00Z", rebate=lower)
    withdraw = programme.WithdrawRulebook(rulebook=NEXT_RULEBOOK, reason="the rebate stays at one half")
    yield "09-10 10:00", NEXT_RULEBOOK, publish, cast.ADMIN, ADMIN
    yield "09-20 15:00", f"{NEXT_RULEBOOK}-withdrawn", withdraw, cast.ADMIN, ADMIN


def _budgets() -> Iterator[Step]:
    """The year's three budgets; marketing outruns its own, waits, and gets more."""
    authorised = _rulebook().budgets
    for name in ("quality", "marketing", "logistics"):
        amount_fen: int = getattr(authorised, f"{name}_fen")
        command = budgets.AuthoriseBudget(budget=name, year=YEAR, authorised_fen=amount_fen)
        yield "07-01 07:30", f"budget-{name}", command, cast.FINANCE, FINANCE
    yield "07-10 09:00", "order-fair", _spend("order-fair", 1_200_000_000), cast.FINANCE, FINANCE
    yield "08-05 09:00", "group-buy", _spend("group-buy", 950_000_000), cast.FINANCE, FINANCE
    top_up = budgets.TopUpBudget(budget="marketing", year=YEAR, amount_fen=300_000_000, reason="group buying sells")
    yield "08-20 09:00", "budget-marketing-top-up", top_up, cast.FINANCE, FINANCE
    unspent = budgets.ReturnSpend(
        budget="marketing", year=YEAR, spend_id="group-buy", amount_fen=40_000_000, reason="two venues were not needed"
    )
    yield "09-05 09:00", "group-buy-returned", unspent, cast.FINANCE, FINANCE


def _spend(what: str, amount_fen: int) -> budgets.RequestSpend:
    return budgets.RequestSpend(
        budget="marketing", year=YEAR, spend_id=what, purpose="marketing", ref=f"{what}-agency",
        amount_fen=amount_fen,
    )  # fmt: skip


def _admission(size: Size, merchant: Merchant) -> Iterator[Timed]:
    """TrustPass, application, review, guarantees, fee and deposit, within a morning."""
    rules, merchant_id = _rulebook(), merchant.merchant_id
    category = rules.categories[merchant.category]
    spare_fen = 0 if merchant.is_poor else SPARE_FEN + SPARE_FEN_AN_ORDER * size.orders // size.merchants
    guarantees = merchants.AcceptGuarantees(
        merchant_id=merchant_id, guarantees=GUARANTEES, exchange_days=category.exchange_days[-1],
        return_address_ref=f"address-{merchant_id}",
    )  # fmt: skip
    fee = merchants.RecordAnnualFee(
        merchant_id=merchant_id, fee_fen=getattr(rules.fee, category.fee), period_from_on=date(2015, 7, 1),
        period_to_on=date(2016, 6, 30), payment_ref=f"fee-{merchant_id}-2015",
    )  # fmt: skip
    deposit = _deposit(merchant_id, category.deposit_fen + spare_fen, 1)
    steps: tuple[tuple[int, Command, str, str], ...] = (
        *_application(merchant_id, merchant.category),
        (95, _passed(merchant_id), cast.OFFICER, OFFICER),
        (100, guarantees, merchant_id, MERCHANT),
        (130, fee, cast.PROVIDER, PAYMENT),
        (135, deposit, cast.PROVIDER, PAYMENT),
    )
    for minutes, command, actor, role in steps:
        at, what = merchant.joins_at + timedelta(minutes=minutes), f"{merchant_id}/{type(command).__name__}"
        yield _timed(size, at, what, command, actor, role)


def _application(merchant_id: str, category: str) -> tuple[tuple[int, Command, str, str], ...]:
    trustpass = merchants.RegisterTrustPass(
        merchant_id=merchant_id, trustpass_id=f"tp-{merchant_id}", valid_from_on=date(2015, 3, 1),
        valid_to_on=date(2016, 7, 31),
    )  # fmt: skip
    apply = merchants.ApplyForProgramme(
        merchant_id=merchant_id, category=category, contact_ref=f"contact-{merchant_id}"
    )
    review = merchants.StartReview(merchant_id=merchant_id, officer_id=cast.OFFICER, checklist=CHECKLIST)
    return (
        (0, trustpass, cast.OFFICER, OFFICER),
        (5, apply, merchant_id, MERCHANT),
        (15, review, cast.OFFICER, OFFICER),
    )  # fmt: skip


def _passed(merchant_id: str) -> merchants.PassReview:
    evidence = {name: hashlib.sha256(f"{merchant_id}/{name}".encode()).hexdigest() for name in CHECKLIST}
    return merchants.PassReview(
        merchant_id=merchant_id, on_time_bp=9600, as_described_bp=9900, score_position=0,
        checks=tuple(merchants.Check(name=name, evidence_sha256=sha256) for name, sha256 in evidence.items()),
    )  # fmt: skip


def _deposit(merchant_id: str, amount_fen: int, number: int) -> merchants.RecordDeposit:
    return merchants.RecordDeposit(
        merchant_id=merchant_id, amount_fen=amount_fen, payment_ref=f"deposit-{merchant_id}-{number}"
    )


def topped_up(size: Size, event: Recorded, d: merchants.TopUpDemanded) -> Iterator[Timed]:
    """A careful merchant refills its deposit (补缴) in two days, and adds to it; the poor one has its own August."""
    if d.merchant_id != cast.merchants(size.merchants)[-1].merchant_id:
        command = _deposit(d.merchant_id, d.top_up_fen + 2 * SPARE_FEN, event.version)
        at = event.received_at + timedelta(days=2)
        yield _timed(size, at, f"{d.merchant_id}/top-up-{event.version}", command, cast.PROVIDER, PAYMENT)


def _suspension(merchant_id: str) -> Iterator[Step]:
    """An officer suspends a merchant and lifts it a week later."""
    suspend = merchants.SuspendMerchant(merchant_id=merchant_id, reason="a brand owner's complaint is looked into")
    lift = merchants.LiftSuspension(merchant_id=merchant_id, reason="the goods are genuine")
    yield f"{_local(cast.SUSPENDED_FROM)}", f"{merchant_id}/suspended", suspend, cast.OFFICER, OFFICER
    yield f"{_local(cast.SUSPENDED_UNTIL)}", f"{merchant_id}/lifted", lift, cast.OFFICER, OFFICER


def _august(merchant_id: str) -> Iterator[Step]:
    """The poor merchant's August.  A refund uses up its deposit and what the platform advances (垫付); finance lets
    the platform advance more, which does not reach; at last the merchant pays, in three parts."""
    cap = merchants.RaiseAdvanceCap(
        merchant_id=merchant_id, cap_fen=11_000_000, reason="a buyer waits for a large refund"
    )
    owed = merchants.RecordReceivable(
        merchant_id=merchant_id, amount_fen=1_000_000, payment_ref=f"owed-{merchant_id}-1"
    )
    yield "08-14 15:00", f"{merchant_id}/cap", cap, cast.FINANCE, FINANCE
    yield "08-19 10:00", f"{merchant_id}/top-up-1", _deposit(merchant_id, 6_000_000, 2), cast.PROVIDER, PAYMENT
    yield "08-20 10:00", f"{merchant_id}/owed", owed, cast.PROVIDER, PAYMENT
    yield "08-24 10:00", f"{merchant_id}/top-up-2", _deposit(merchant_id, 12_000_000, 3), cast.PROVIDER, PAYMENT


def _rejection(merchant_id: str) -> Iterator[Step]:
    """A merchant does not pass the review, and applies again when it may."""
    for (_, command, actor, role), when in zip(
        _application(merchant_id, "food"), ("07-01 11:00", "07-01 11:05", "07-01 11:30"), strict=True
    ):
        yield when, f"{merchant_id}/{type(command).__name__}", command, actor, role
    failed = merchants.FailReview(merchant_id=merchant_id, reasons=("delivery on time could not be shown",))
    again = merchants.ApplyForProgramme(merchant_id=merchant_id, category="food", contact_ref=f"contact-{merchant_id}")
    yield "07-02 16:00", f"{merchant_id}/failed", failed, cast.OFFICER, OFFICER
    yield "09-30 09:00", f"{merchant_id}/again", again, merchant_id, MERCHANT


def _local(instant: datetime) -> str:
    return f"{instant.astimezone(ZONE):%m-%d %H:%M}"
