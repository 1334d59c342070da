"""``account_balance``: the books, one row an account and month.  Key: account, period in which it was recorded."""

from collections.abc import Iterable, Iterator

import msgspec

from ledger.accounts import POSTED, postings
from ledger.calendar import business_month
from ledger.events import Recorded
from projections.projection import Projection, Row


class AccountMonth(Row):
    """What a month posted.  ``relates_to``: of this, what happened in an earlier month, debit positive."""

    account: str
    period: str
    debit_fen: int = 0
    credit_fen: int = 0
    entries: int = 0
    relates_to: dict[str, int] = msgspec.field(default_factory=dict)


class RelatesTo(msgspec.Struct, frozen=True):
    """So much of a month's postings happened in an earlier one."""

    period: str
    amount_fen: int


class AccountMonthShown(msgspec.Struct):
    """closing = opening + debit - credit; opening = the last month's closing.  A credit balance is negative."""

    account: str
    period: str
    opening_fen: int
    debit_fen: int
    credit_fen: int
    closing_fen: int
    entries: int
    relates_to: tuple[RelatesTo, ...]


def contributions(event: Recorded) -> Iterable[AccountMonth]:
    """One row a posting."""
    entry = postings(event.data)
    if not entry:
        return ()
    period = business_month(event.recorded_at)
    happened_in = period if event.occurred_at == event.recorded_at else business_month(event.occurred_at)
    is_late = happened_in < period
    found = []
    for posting in entry:
        account, fen = posting.account, posting.amount_fen
        debit_fen, credit_fen = (fen, 0) if fen > 0 else (0, -fen)
        found.append(AccountMonth(account, period, debit_fen, credit_fen, 1, {happened_in: fen} if is_late else {}))
    return found


def read(stored: Iterator[AccountMonth]) -> Iterator[AccountMonthShown]:
    """The months with their running balance."""
    account, balance_fen = None, 0
    for x in stored:
        opening_fen = balance_fen if x.account == account else 0
        account, balance_fen = x.account, opening_fen + x.debit_fen - x.credit_fen
        yield AccountMonthShown(
            x.account, x.period, opening_fen, x.debit_fen, x.credit_fen, balance_fen, x.entries,
            tuple(RelatesTo(period, amount_fen) for period, amount_fen in x.relates_to.items()),
        )  # fmt: skip


projection = Projection(
    "account_balance", 1, AccountMonth, ("account", "period"), frozenset({"order", "merchant", "budget"}),
    contributions=contributions, events=POSTED, read=read, shown=AccountMonthShown, series=1,
)  # fmt: skip
