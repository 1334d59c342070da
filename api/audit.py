"""``guarantee verify``: is everything as it should be?  The log, the read models, and the money.

Each check is a name and a number of differences; the first one is shown.  The log is folded once from its beginning, in
memory, and whatever is live is compared with that.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from ledger import accounts
from ledger.budgets import BudgetState
from ledger.decider import Story
from ledger.merchants import MerchantState
from ledger.orders.state import UNPAID_REFUND, OrderState
from ledger.store import Check, Store
from projections import PROJECTIONS, replay
from projections.account_balance import AccountMonth
from projections.reader import ReadModels
from projections.replay import FoldFailed, Rows, Telling
from projections.runner import Projector

Progress = Callable[[int, int], None]
Finding = Iterator[tuple[str, int, int]]
"""What differs: its name, what the books say, what the states say; fen."""


def verify(store: Store, models: ReadModels, progress: Progress = lambda done, total: None) -> tuple[int, list[Check]]:
    """Every check there is, and the position they were made at."""
    with models.snapshot() as snapshot:
        position = snapshot.position
        checks = list(store.verify_log())
        telling = Telling(PROJECTIONS)
        try:
            done = 0
            for chunk in store.scan(upto=position):
                telling.tell(chunk)
                done += len(chunk)
                progress(done, position)
        except (FoldFailed, msgspec.MsgspecError) as error:
            return position, [*checks, Check("every event folds and its postings balance", 1, {"error": str(error)})]
        checks.append(Check("every event folds and its postings balance", 0, None))
        stories = dict(telling.stories)
        rows = telling.rows()
        checks += list(_live(snapshot, rows))
    checks += _failed(models)
    checks += _finance(stories, rows["account_balance"], rows["subsidy_balance"])
    return position, checks


def digests(store: Store, projector: Projector, at: int | None) -> dict[str, Any]:
    """The position, the log's chain there, and the digest of every read model: live, or replayed up to a position."""
    if at is None:
        projector.catch_up()
        with projector.models.snapshot() as snapshot:
            position = snapshot.position
            found = {name: snapshot.digest(name) for name in PROJECTIONS}
    else:
        position = min(at, store.head().position)
        rows = replay.fold_rows(store.scan(upto=position), PROJECTIONS)
        found = {name: replay.digest(x, replay.shown(x, rows[name])) for name, x in PROJECTIONS.items()}
    last = store.entries(position - 1, 1) if position else []
    return {
        "position": position,
        "chain": last[0].chain_sha256.hex() if last else bytes(32).hex(),
        "read_models": found,
    }


def _live(snapshot: Any, rows: Mapping[str, Rows]) -> Iterator[Check]:
    for name, projection in PROJECTIONS.items():
        at = snapshot.registered[name].position
        replayed = replay.digest(projection, replay.shown(projection, rows[name]))
        live = snapshot.digest(name)
        if at != snapshot.position:
            yield Check(f"{name}: live = replayed", 0, None, f"not compared: it stands at {at}, others behind it")
        else:
            first = None if live == replayed else {"live": live, "replayed": replayed}
            yield Check(f"{name}: live = replayed", int(live != replayed), first)


def _failed(models: ReadModels) -> list[Check]:
    failed = {name: found.error for name, found in models.status().items() if found.error}
    first = {"read_model": next(iter(failed)), "error": next(iter(failed.values()))} if failed else None
    return [Check("no read model has stopped", len(failed), first)]


# --- The money ----------------------------------------------------------------------------------------------------


def _finance(stories: Mapping[str, Story], books: Rows, subsidies: Rows) -> list[Check]:
    """The daily finance checks.  What is on its way between streams counts as a difference until it has arrived."""
    balances: dict[str, int] = defaultdict(int)
    for row in books.values():
        assert isinstance(row, AccountMonth)
        balances[row.account] += row.debit_fen - row.credit_fen
    orders: list[OrderState] = [x.state for x in stories.values() if isinstance(x.state, OrderState)]
    merchants: list[MerchantState] = [x.state for x in stories.values() if isinstance(x.state, MerchantState)]
    budgets: list[BudgetState] = [x.state for x in stories.values() if isinstance(x.state, BudgetState)]
    return [
        _check("finance 1: all accounts add up to zero", iter([("all", sum(balances.values()), 0)])),
        _check("finance 2: escrow is what the orders hold", _escrow(balances, orders)),
        _check("finance 3: escrow cash covers buyers", _escrow_cash(balances)),
        _check("finance 4: deposit cash covers deposits", _deposit_cash(balances)),
        _check("finance 5: every returned cover has arrived", iter([(accounts.COVER, balances[accounts.COVER], 0)])),
        _check("finance 6: refunds owed are those not yet paid", _refunds(balances, orders)),
        _check("finance 7: deposits and receivables are the merchants'", _merchants(balances, merchants)),
        _check("finance 8: commission and rebates are the orders' targets", _targets(balances, orders)),
        _check("finance 9: subsidies owed are the subsidy balances", _subsidies(balances, subsidies)),
        _check("finance 10: budgets are available or spent", _budgets(balances, budgets)),
        _check("finance 11: every rebate has commission and a Cainiao scan", _rebates(orders)),
    ]


def _check(name: str, findings: Finding) -> Check:
    wrong = [(what, books, states) for what, books, states in findings if books != states]
    first = {"what": wrong[0][0], "books_fen": wrong[0][1], "states_fen": wrong[0][2]} if wrong else None
    return Check(name, len(wrong), first)


def _sum(balances: Mapping[str, int], prefix: str) -> int:
    return sum(amount for account, amount in balances.items() if account.startswith(prefix))


def _escrow(balances: Mapping[str, int], orders: list[OrderState]) -> Finding:
    yield accounts.ESCROW, -balances[accounts.ESCROW], sum(s.escrow_fen for s in orders)


def _escrow_cash(balances: Mapping[str, int]) -> Finding:
    owed = balances[accounts.ESCROW] + balances[accounts.REFUND_ESCROW] + _sum(balances, "liabilities:suspense:")
    yield accounts.CASH_ESCROW, balances[accounts.CASH_ESCROW], -owed


def _deposit_cash(balances: Mapping[str, int]) -> Finding:
    owed = _sum(balances, "liabilities:deposit:") + balances[accounts.REFUND_DEPOSIT]
    yield accounts.CASH_DEPOSIT, balances[accounts.CASH_DEPOSIT], -owed


def _refunds(balances: Mapping[str, int], orders: list[OrderState]) -> Finding:
    open_refunds = [c for s in orders for c in s.claims.values() if c.state in UNPAID_REFUND]
    yield accounts.REFUND_ESCROW, -balances[accounts.REFUND_ESCROW], sum(c.escrow_fen for c in open_refunds)
    yield accounts.REFUND_DEPOSIT, -balances[accounts.REFUND_DEPOSIT], sum(c.drawn_fen for c in open_refunds)
    platform = sum(c.commission_fen + c.advanced_fen for c in open_refunds)
    yield accounts.REFUND_PLATFORM, -balances[accounts.REFUND_PLATFORM], platform


def _merchants(balances: Mapping[str, int], merchants: list[MerchantState]) -> Finding:
    for s in merchants:
        deposit, receivable = accounts.deposit(s.merchant_id), accounts.receivable(s.merchant_id)
        yield deposit, -balances.get(deposit, 0), s.balance_fen
        yield receivable, balances.get(receivable, 0), s.receivable_fen


def _targets(balances: Mapping[str, int], orders: list[OrderState]) -> Finding:
    yield accounts.COMMISSION, -balances[accounts.COMMISSION], sum(s.commission_fen for s in orders)
    yield accounts.REBATE, balances[accounts.REBATE], sum(s.rebate_fen for s in orders)


def _subsidies(balances: Mapping[str, int], subsidies: Rows) -> Finding:
    closing: dict[str, int] = {}
    for row in replay.shown(PROJECTIONS["subsidy_balance"], subsidies):
        closing[accounts.subsidy(row.merchant_id)] = row.closing_fen  # type: ignore[attr-defined]
    for account, closing_fen in closing.items():
        yield account, -balances.get(account, 0), closing_fen


def _budgets(balances: Mapping[str, int], budgets: list[BudgetState]) -> Finding:
    totals: dict[str, tuple[int, int]] = {}
    for s in budgets:
        authorised, spent = totals.get(s.budget, (0, 0))
        totals[s.budget] = authorised + s.authorised_fen, spent + s.spent_fen
    for budget, (authorised_fen, spent_fen) in totals.items():
        yield f"budget:authorised:{budget}", -balances[f"budget:authorised:{budget}"], authorised_fen
        yield f"budget:spent:{budget}", balances[f"budget:spent:{budget}"], spent_fen
        yield f"budget:available:{budget}", balances[f"budget:available:{budget}"], authorised_fen - spent_fen


def _rebates(orders: list[OrderState]) -> Finding:
    for s in orders:
        if s.rebate_fen:
            has_scan = any(x.is_cainiao and x.dispatched_at for x in s.shipments.values())
            yield s.order_id, int(s.commission_fen > 0 and has_scan), 1
