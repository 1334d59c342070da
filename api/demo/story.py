"""The demonstration's story: what an auditor, a finance person and a handler ask first, answered from the ledger.

Every number is read from the log or a read model just now; every case was found by what happened to it.
"""

import asyncio
import os
import shlex
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api import asof, audit
from api.asof import Moment
from api.demo import admission, visitors
from api.demo import cases as cases_
from api.demo.cases import Cases, Orders, Refund
from api.demo.running import Made
from api.wiring import Ledger
from ledger import accounts, calendar
from ledger.orders import events as e
from ledger.orders.state import OPEN_CLAIM, ClaimState, OrderState
from ledger.store import Check, Entry
from ledger.streams import WIRE
from projections import PROJECTIONS
from projections.reader import Snapshot

WIDTH = 120

Progress = Callable[[int, int], None]


class Told(msgspec.Struct):
    """The late order that an auditor asks about: its history, and its state."""

    stream: str
    entries: list[Entry]
    state: OrderState

    @property
    def due_at(self) -> datetime | None:
        """By when it had to arrive."""
        return max((p.due_at for p in self.state.promises.values() if p.kind == "arrive_by"), default=None)

    @property
    def late_scan(self) -> Entry | None:
        """The scan which said that the goods had come in time, and came in late itself."""
        contradicting = {x.data.scan_id for x in self.entries if isinstance(x.data, e.BreachContradicted)}
        scans = (x for x in self.entries if isinstance(x.data, e.CarrierScanRecorded))
        return next((x for x in scans if x.data.scan_id in contradicting), None)


class Tale(msgspec.Struct):
    """What is told of, and where it is told."""

    ledger: Ledger
    made: Made
    out: Console
    cases: Cases
    orders: Orders
    told: Told | None
    position: int
    checks: list[Check]
    live: dict[str, str]
    """Digest of every read model."""
    chain: str

    def line(self, text: str = "", style: str | None = None) -> None:
        """A line of words."""
        self.out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def chapter(self, title: str, question: str = "") -> None:
        """A line across the page with a title in it, and the question that is answered below."""
        self.out.print()
        self.out.rule(Text(title, style="bold"), align="left", style="cyan")
        if question:
            self.line(question, style="italic")

    @property
    def is_sound(self) -> bool:
        """No check found a difference."""
        return not any(check.differences for check in self.checks)


def look(ledger: Ledger, made: Made, out: Console, progress: Progress = lambda done, total: None) -> Tale:
    """Everything that takes time: the read models brought up to the log, all of it checked, the cases found."""
    asyncio.run(ledger.worker.catch_up())
    position, checks = audit.verify(ledger.store, ledger.models, progress)
    digests = audit.digests(ledger.store, ledger.projector, None)
    cases = cases_.find(ledger.store)
    with ledger.models.snapshot("order_status") as snapshot:
        orders = cases_.orders(snapshot)
    return Tale(
        ledger, made, out, cases, orders, _told(ledger, cases), position, checks, digests["read_models"],
        digests["chain"],
    )  # fmt: skip


def tell(tale: Tale) -> None:
    """Tells the story."""
    with tale.ledger.models.snapshot() as snapshot:
        _totals(tale, snapshot)
        _auditor(tale)
        _finance(tale, snapshot)
        _handler(tale, snapshot)
    _verified(tale)
    _where_next(tale)


def console() -> Console:
    """Standard output: colours on a terminal, plain text elsewhere."""
    out = Console()
    return Console(width=min(out.width, WIDTH) if out.is_terminal else WIDTH)


# --- how things are written -----------------------------------------------------------------------------------------


def yuan(amount_fen: int) -> str:
    """Fen as CNY, to the fen: ``¥1,234.05``."""
    whole, rest = divmod(abs(amount_fen), 100)
    return f"{'-' if amount_fen < 0 else ''}¥{whole:,}.{rest:02}"


def local(instant: datetime | None) -> str:
    """An instant in Shanghai: of the year 2015 to the minute, of other years the day."""
    if instant is None:
        return "-"
    there = instant.astimezone(calendar.ZONE)
    return f"{there:%m-%d %H:%M}" if there.year == admission.YEAR else f"{there:%Y-%m-%d}"


def _table(out: Console, *columns: str, right: Sequence[str] = (), wraps: Sequence[str] = ()) -> Table:
    """Where the page is too narrow, the columns that wrap give way."""
    gap = (0, 1) if out.width >= WIDTH else (0, 1, 0, 0)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=gap)
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=column not in wraps, overflow="fold"
        )
    return table


def _mark(is_good: bool) -> str:
    return "✓" if is_good else "✗"


# --- the totals -----------------------------------------------------------------------------------------------------


def _totals(tale: Tale, snapshot: Snapshot) -> None:
    out, cases, made = tale.out, tale.cases, tale.made
    title = "The summer of 2015: power merchants (实力商家) under rulebook-2015.1"
    out.rule(Text(title, style="bold"), style="cyan")
    orders = tale.orders.states.total()
    if made.seconds is None:
        how = "as made before; nothing was appended"
    else:
        how = f"in {made.seconds:.1f} seconds ({made.events / made.seconds:,.0f} events/s)"
    tale.line(
        f"{cases.merchants} merchants, {orders:,} orders, {cases.events:,} events ({cases.facts:,} facts asserted, "
        f"{cases.events - cases.facts:,} decisions by rule), {how}."
    )
    tale.line(
        f"Seed {made.size.seed}; {len(cases.types)} of {len(WIRE.classes)} kinds of event occur; the log ends at "
        f"position {tale.position:,}, recorded {local(tale.ledger.store.head().recorded_at)} in Shanghai."
    )
    months = _sums(snapshot, "merchant_months")
    arrived = months["on_time"] + months["late"] + months["undelivered"]
    tale.line(
        f"Goods for {yuan(months['value_fen'])}: {months['on_time']:,} orders on time (按期交货 "
        f"{_percent(months['on_time'], arrived)}), {months['late']} late, {months['undelivered']} never came, "
        f"{months['cancelled'] + months['unavailable']} called off, {months['open']} open."
    )
    states = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in tale.orders.states.most_common())
    tale.line(f"Where the orders stand: {states}.")


def _sums(snapshot: Snapshot, name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in snapshot.rows(name):
        for column in row.__struct_fields__:
            value = getattr(row, column)
            if isinstance(value, int):
                total[column] += value
    return total


def _percent(part: int, whole: int) -> str:
    return f"{part * 1000 // whole / 10:.1f} %" if whole else "-"


# --- an auditor -----------------------------------------------------------------------------------------------------


def _told(ledger: Ledger, cases: Cases) -> Told | None:
    if cases.told is None:
        return None
    stream = f"order-{cases.told}"
    entries, story = asof.history(ledger.store, stream, Moment())
    return Told(stream, entries, story.state)


def _auditor(tale: Tale) -> None:
    question = "This order had not come when it was due (交期未到货). What happened, when did we know, and who decided?"
    tale.chapter("An auditor asks", question)
    if tale.told is None:
        tale.line("No order was late.")
    else:
        _history(tale, tale.told)
        _three_moments(tale, tale.told)
    _proof(tale)


def _history(tale: Tale, told: Told) -> None:
    table = _table(tale.out, "at", "occurred", "recorded", "event", "what", "by", right=("at",), wraps=("what", "by"))
    for entry in told.entries:
        what = _SAID.get(type(entry.data), _nothing)(entry.data)
        if what:
            style = "yellow" if isinstance(entry.data, _TURNS) else None
            table.add_row(
                str(entry.position), local(entry.occurred_at), local(entry.recorded_at), entry.type, what, _by(entry),
                style=style,
            )  # fmt: skip
    tale.line(f"{told.stream}, the main ones of its {len(told.entries)} events:")
    tale.out.print(table)


def _by(entry: Entry) -> str:
    """The rule that decided, else the actor, and whoever approved."""
    if entry.rule:
        return f"rule {entry.rule.partition('/')[2]}"
    approver = getattr(entry.data, "approved_by", "")
    return f"{entry.actor} + {approver}" if approver else entry.actor


_TURNS = (e.PromiseBreached, e.BreachContradicted, e.BreachOverturned)

_SAID: dict[type, Callable[[Any], str]] = {
    e.OrderPlaced: lambda d: f"{yuan(d.total_fen)}, due {_arrival_due(d)}",
    e.PaymentCaptured: lambda d: f"{yuan(d.amount_fen)} into escrow",
    e.UnitsDispatched: lambda d: f"parcel {d.shipment_id} is on its way",
    e.CarrierScanRecorded: lambda d: (
        f"parcel {d.shipment_id}: {d.status}" if d.status in ("delivered", "signed") else ""
    ),
    e.PromiseBreached: lambda d: f"{d.promise_id}: due {local(d.due_at)}",
    e.RefundApproved: lambda d: f"{d.refund_id}: {yuan(d.refund_fen)}",
    e.RefundPaid: lambda d: f"{d.refund_id}: paid to the buyer",
    e.BreachContradicted: lambda d: f"{d.promise_id}: a scan says in time",
    e.BreachOverturned: lambda d: f"{d.promise_id}: kept after all",
    e.RefundCancelled: lambda d: f"{d.refund_id}: {yuan(d.refund_fen)}",
    e.RefundRecoveryOpened: lambda d: f"{d.refund_id}: {yuan(d.refund_fen)} owed back",
    e.RefundRecovered: lambda d: f"{d.refund_id}: {yuan(d.amount_fen)} is back",
    e.RecoveryWrittenOff: lambda d: f"{d.refund_id}: {yuan(d.amount_fen)} given up",
    e.EscrowReleased: lambda d: f"{yuan(d.paid_out_fen)} to the merchant",
    e.CommissionCharged: lambda d: f"{yuan(d.commission_fen)} (扣点)",
    e.RebateAccrued: lambda d: f"{yuan(d.rebate_fen)} (菜鸟物流补贴)",
    e.OrderCompleted: lambda d: str(d.outcome),
}
"""The main events, in a few words."""


def _nothing(data: Any) -> str:
    return ""


def _arrival_due(d: e.OrderPlaced) -> str:
    return local(max((p.due_at for p in d.promises if p.kind == "arrive_by"), default=None))


def _three_moments(tale: Tale, told: Told) -> None:
    """The order as it was recorded before the late scan came in, as it truly was when it was due, and as it is."""
    scan, due_at = told.late_scan, told.due_at
    if scan is None or due_at is None:
        return
    moments = {
        f"recorded at {scan.position - 1}": Moment(position=scan.position - 1),
        f"occurred by {local(due_at)}": Moment(occurred_before=due_at),
        "it is now": Moment(),
    }
    table = _table(tale.out, "the same order as", *moments)
    states = [asof.history(tale.ledger.store, told.stream, moment)[1].state for moment in moments.values()]
    for what, shown in _SHOWN.items():
        table.add_row(what, *(shown(state) for state in states))
    tale.line()
    tale.line(f"The scan of {local(scan.occurred_at)} was recorded {_days(scan.recorded_at - scan.occurred_at)} later.")
    tale.out.print(table)


def _days(time: timedelta) -> str:
    return f"{time.days} days and {time.seconds // 3600} hours"


def _came_at(s: OrderState) -> str:
    arrived = [x.arrived_at for x in s.shipments.values() if x.arrived_at]
    return local(max(arrived)) if arrived else "not yet"


_SHOWN: dict[str, Callable[[OrderState], str]] = {
    "goods arrived": _came_at,
    "promise of arrival": lambda s: next((p.state for p in s.promises.values() if p.kind == "arrive_by"), "-"),
    "refunded to the buyer": lambda s: yuan(s.refunded_fen),
    "in escrow": lambda s: yuan(s.escrow_fen),
    "paid to the merchant": lambda s: yuan(s.paid_out_fen),
    "owed back by the buyer": lambda s: yuan(sum(c.owed_back_fen for c in s.claims.values())),
}


def _proof(tale: Tale) -> None:
    chained = _is_good(tale, "every event is chained to the one before")
    replayed = _is_good(tale, "order_status: live = replayed")
    tale.line()
    tale.line(
        f"{_mark(chained)} each event is chained to the one before: {tale.position:,} hashes to {tale.chain[:32]}…"
    )
    tale.line(
        f"{_mark(replayed)} order_status, live = replayed from position 0: SHA-256 {tale.live['order_status'][:32]}…"
    )


def _is_good(tale: Tale, name: str) -> bool:
    return all(check.differences == 0 for check in tale.checks if check.name == name)


# --- a finance person -----------------------------------------------------------------------------------------------


def _finance(tale: Tale, snapshot: Snapshot) -> None:
    question = "What do we owe in rebates, is the buyers' money there, and whose money paid the largest mixed refund?"
    tale.chapter("A finance person asks", question)
    _rebates(tale, snapshot)
    _escrow_cash(tale, snapshot)
    if tale.cases.refund:
        _sources(tale, tale.cases.refund)


def _rebates(tale: Tale, snapshot: Snapshot) -> None:
    """By month, beside what the accounts say."""
    months: dict[str, Counter[str]] = defaultdict(Counter)
    for row in snapshot.rows("subsidy_balance"):
        for column in ("accrued_fen", "clawed_back_fen", "orders", "denied_orders"):
            months[row.month][column] += getattr(row, column)
    booked: Counter[str] = Counter()
    for row in snapshot.rows("account_balance"):
        if row.account.startswith(accounts.subsidy("")):
            booked[row.period] += row.credit_fen - row.debit_fen
    columns = ("month", "opening", "accrued", "clawed back", "closing", "in the accounts", "", "orders", "denied")
    table = _table(tale.out, *columns, right=[x for x in columns if x != "month"])
    balance_fen = in_accounts_fen = 0
    for month in sorted(months.keys() | booked.keys()):
        found, opening_fen = months[month], balance_fen
        balance_fen += found["accrued_fen"] - found["clawed_back_fen"]
        in_accounts_fen += booked[month]
        table.add_row(
            month, yuan(opening_fen), yuan(found["accrued_fen"]), yuan(found["clawed_back_fen"]), yuan(balance_fen),
            yuan(in_accounts_fen), _mark(balance_fen == in_accounts_fen), str(found["orders"]),
            str(found["denied_orders"]),
        )  # fmt: skip
    tale.line("Rebates (补贴): half of the commission on what travelled with Cainiao (菜鸟), owed to merchants:")
    tale.out.print(table)


def _escrow_cash(tale: Tale, snapshot: Snapshot) -> None:
    balances: Counter[str] = Counter()
    for row in snapshot.rows("account_balance"):
        account = "liabilities:suspense" if row.account.startswith(accounts.suspense("")) else row.account
        balances[account] += row.debit_fen - row.credit_fen
    cash_fen = balances[accounts.CASH_ESCROW]
    owed = {x: -balances[x] for x in (accounts.ESCROW, accounts.REFUND_ESCROW, "liabilities:suspense")}
    parts = " + ".join(f"{yuan(amount_fen)} {account}" for account, amount_fen in owed.items() if amount_fen)
    tale.line()
    covers = _mark(cash_fen == sum(owed.values()))
    tale.line(f"{covers} escrow cash (担保交易) covers buyers: {yuan(cash_fen)} = {parts or yuan(0)}")


def _sources(tale: Tale, refund: Refund) -> None:
    """Whose money a refund was, and how it came together."""
    entries, story = asof.history(tale.ledger.store, f"order-{refund.order_id}", Moment())
    claim: ClaimState = story.state.claims[refund.refund_id]
    table = _table(tale.out, "source", "amount", "account it left", right=("amount",))
    sources = {
        "escrow": (claim.escrow_fen, accounts.ESCROW),
        "commission given back": (claim.commission_fen, accounts.COMMISSION),
        "the merchant's deposit (保证金)": (claim.drawn_fen, accounts.deposit(story.state.merchant_id)),
        "the platform's advance (垫付)": (claim.advanced_fen, accounts.receivable(story.state.merchant_id)),
    }
    for source, (amount_fen, account) in sources.items():
        table.add_row(source, yuan(amount_fen), account)
    total_fen = sum(amount_fen for amount_fen, _ in sources.values())
    table.add_row(
        "to the buyer", yuan(total_fen), f"{_mark(total_fen == claim.refund_fen)} the refund approved", style="bold"
    )
    tale.line()
    tale.line(f"order-{refund.order_id}, {refund.refund_id}: {yuan(claim.refund_fen)}, paid from")
    tale.out.print(table)
    tale.line(_in_attempts(entries, refund.refund_id))


def _in_attempts(entries: Sequence[Entry], refund_id: str) -> str:
    steps: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        match entry.data:
            case e.RefundCoverReported(refund_id=found, short_fen=short_fen) if found == refund_id:
                steps[local(entry.recorded_at)].append(f"short by {yuan(short_fen)}" if short_fen else "covered")
            case e.RefundPayoutFailed(refund_id=found) if found == refund_id:
                steps[local(entry.recorded_at)].append("payout failed")
            case e.RefundApproved(refund_id=found) if found == refund_id:
                steps[local(entry.recorded_at)].append("approved")
            case e.RefundPaid(refund_id=found) if found == refund_id:
                steps[local(entry.recorded_at)].append("paid")
    return " → ".join(f"{at} {', '.join(said)}" for at, said in steps.items())


# --- a handler ------------------------------------------------------------------------------------------------------


def _handler(tale: Tale, snapshot: Snapshot) -> None:
    tale.chapter("A handler asks", "What is due next, and how much of this order can still be refunded, and why?")
    waiting: Counter[str] = Counter()
    first: dict[str, Any] = {}
    for task in snapshot.rows("due_tasks"):
        if task.owner_id and task.stream.startswith("order-"):
            waiting[task.deadline] += 1
            so_far = first.get(task.deadline)
            if so_far is None or task.fires_at < so_far.fires_at:
                first[task.deadline] = task
    columns = ("next due", "until then it is up to", "in", "deadline", "waiting", "else the clock decides")
    table = _table(tale.out, *columns, right=("waiting",), wraps=columns[-1:])
    for name, task in sorted(first.items(), key=lambda item: (item[1].fires_at, item[0])):
        who, else_ = f"{task.owner_role} {task.owner_id}", _ELSE.get(name, "")
        table.add_row(local(task.fires_at), who, task.stream, name, str(waiting[name]), else_)
    if first:
        tale.out.print(table)
    else:
        tale.line("Nothing is due.")
    if tale.orders.claimed is not None:
        _refundable(tale, tale.orders.claimed)


_ELSE = {
    "payment": "the order is off",
    "promise": "kept, or broken: refund or damages",
    "auto_receipt": "received: escrow is released",
    "refund_answer": "silence agrees to the refund",
    "refund_dispute": "the claim lapses",
    "refunded_units": "refunded goods were kept",
    "top_up": "the merchant is suspended",
    "fee_expiry": "the merchant is suspended",
    "trustpass_expiry": "the merchant is suspended",
}
"""What happens when a deadline comes."""


def _refundable(tale: Tale, row: Any) -> None:
    _, story = asof.history(tale.ledger.store, f"order-{row.order_id}", Moment())
    s: OrderState = story.state
    tale.line()
    tale.line(
        f"order-{row.order_id} ({row.state.replace('_', ' ')}): paid {yuan(row.captured_fen)} - refunded "
        f"{yuan(row.refunded_fen)} - reserved {yuan(row.reserved_fen)} = refundable {yuan(row.refundable_fen)}"
    )
    for claim in s.claims.values():
        tale.line(f"  {claim.claim_id}: {_claim_said(claim)}")
    free = ", ".join(
        f"{x.free_units} of {x.units} {x.sku} {yuan(x.left_fen)}" for x in s.lines.values() if x.free_units
    )
    in_escrow_fen = sum(x.escrow_fen for x in s.lines.values()) + s.freight_escrow_fen
    tale.line(f"  left: {free or 'no units'}, freight {yuan(s.freight_left_fen)}")
    elsewhere_fen = row.refundable_fen - in_escrow_fen
    asked = "" if not elsewhere_fen else f", {yuan(elsewhere_fen)} would be asked of the merchant and its deposit"
    tale.line(f"  of this {yuan(in_escrow_fen)} still lie in escrow{asked}")


def _claim_said(claim: ClaimState) -> str:
    units = sum(x.units for x in claim.lines)
    what = f"{units} units" if units else "a lower price"
    by = {"reserved": claim.answer_at, "refused": claim.dispute_by_at}.get(claim.state)
    until = f", to be answered by {local(by)}" if claim.state == "reserved" else f", disputable until {local(by)}"
    reason = claim.reason.replace("_", " ")
    return f"{claim.kind} ({reason}) of {what}, {yuan(claim.amount_fen)}, {claim.state}{until if by else ''}"


# --- what was checked, and where to go ------------------------------------------------------------------------------


def _verified(tale: Tale) -> None:
    found = sum(check.differences for check in tale.checks)
    tale.chapter(f"guarantee verify: {len(tale.checks)} checks at position {tale.position:,}, {found} differences")
    kinds = {
        "the log": [x for x in tale.checks if not x.name.startswith("finance") and "live" not in x.name],
        "the read models": [x for x in tale.checks if "live" in x.name],
        "the money": [x for x in tale.checks if x.name.startswith("finance")],
    }
    for kind, checks in kinds.items():
        bad = [check for check in checks if check.differences]
        said = _WHAT_IS_CHECKED[kind] if not bad else ""
        tale.line(f"{_mark(not bad)} {kind}, {len(checks)} checks{': ' if said else ''}{said}")
        for check in bad:
            tale.line(f"    {check.name}: {check.differences}, first {check.first}", style="red")


_WHAT_IS_CHECKED = {
    "the log": "positions without gaps, versions contiguous, chained, append-only, keys and commands agree",
    "the read models": f"the live digest of each of the {len(PROJECTIONS)} is that of the replay from position 0",
    "the money": "every posting balances, escrow and deposits are covered, rebates are the orders' targets",
}


def _where_next(tale: Tale) -> None:
    tale.chapter("Where to go next")
    for command, why in _commands(tale):
        tale.line(f"  {command:<70} {why}")
    if tale.orders.claimed is not None:
        _act(tale, tale.orders.claimed)
    if tale.told is not None:
        _keys(tale, tale.told.state)


def _commands(tale: Tale) -> Iterator[tuple[str, str]]:
    told = tale.told
    if os.sep in sys.argv[0] and shutil.which("guarantee") is None:
        yield f"alias guarantee={shlex.quote(sys.argv[0])}", "first, because it is not on your PATH"
    if told is not None:
        yield f"guarantee history {told.stream}", "every event of the late order"
    if told is not None and told.late_scan is not None and told.due_at is not None:
        yield f"guarantee history {told.stream} --at {told.late_scan.position - 1}", "before the late scan was recorded"
        due = f"{told.due_at.astimezone(calendar.ZONE):%Y-%m-%d %H:%M}"
        yield f'guarantee history {told.stream} --occurred-as-of "{due}"', "as it truly was when it was due"
    if tale.orders.claimed is not None:
        yield f"guarantee show order_status {tale.orders.claimed.order_id}", "what the handler sees"
    if tale.cases.rebate:
        yield f"guarantee show subsidy_balance {tale.cases.rebate}", "a merchant's rebates in a month"
    yield f"guarantee show account_balance {accounts.CASH_ESCROW}/2015-09", "the books, by account and month"
    yield "guarantee export merchant_months --format csv", "a whole read model"
    yield f"guarantee digest --at {tale.position}", "the same for ever: nothing was altered"
    yield "guarantee rebuild", "every read model again, compared, swapped"
    yield "guarantee serve", "http://127.0.0.1:8000/docs, by today's clock"


def _act(tale: Tale, row: Any) -> None:
    """A command that the ledger would accept now, at the time where its clock stands."""
    claim = next(x for x in row.claims if x.state in OPEN_CLAIM)
    command = {
        "command": "AgreeRefund", "key": "try-1", "actor": row.merchant_id, "role": "merchant",
        "received_at": f"{tale.ledger.store.head().recorded_at.astimezone(calendar.ZONE).isoformat()}",
        "body": {"order_id": row.order_id, "refund_id": claim.claim_id},
    }  # fmt: skip
    tale.line("  and to act in the summer of 2015, as the merchant who agrees to the refund that is asked for:")
    text = msgspec.json.encode(command).decode()
    tale.line(f"  echo '{text}' | guarantee command --virtual-clock --file -")


def _keys(tale: Tale, order: OrderState) -> None:
    again = visitors.were_welcomed(tale.ledger)
    tale.line()
    tale.line(
        "Keys were shown when the demonstration was made, and still hold; here are others, shown this once:"
        if again
        else "Keys to try each role with (Authorization: Bearer KEY), shown this once:"
    )
    for visitor in visitors.welcome(tale.ledger, order):
        tale.line(f"  {visitor.role:<11} {visitor.actor:<18} {visitor.key}")
