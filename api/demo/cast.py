"""Who takes part in the demonstration, and under which names they act."""

from datetime import datetime, timedelta

import msgspec

from ledger.calendar import parse

PROVIDER = "payments"
"""The payment provider, which holds the escrow and deposit accounts."""
MARKETPLACE = "marketplace"
"""The marketplace's own system: it speaks for merchants who let it announce their parcels."""
HANDLER, SUPERVISOR = "handler-chen", "supervisor-zhou"
OFFICER, FINANCE, ADMIN, AUDITOR = "officer-wu", "finance-qian", "admin-sun", "auditor-li"

CAINIAO = "cainiao"
"""菜鸟: the logistics network whose use earns the rebate."""
OTHER_CARRIERS = ("jiangnan-express", "dongfang-express")

REGIONS = ("zhejiang", "guangdong", "shanghai", "jiangsu", "sichuan", "beijing", "hubei", "fujian")

BEGINS = parse("2015-07-01 00:00")
"""The programme goes live, in Shanghai."""
FIRST_ORDER = parse("2015-07-02 08:00")
ENDS = parse("2015-09-30 18:00")
"""The clock of the demonstration stops here."""

CATEGORIES = ("womens_apparel", "mens_apparel", "home", "food", "womens_apparel", "home", "mens_apparel", "other")
SUSPENDED_FROM, SUSPENDED_UNTIL = parse("2015-07-20 10:00"), parse("2015-07-27 16:00")
POOR_UNTIL = parse("2015-08-01 00:00")
"""The merchant with the small deposit takes no ordinary orders from here on, so that its story stays its own."""


class Merchant(msgspec.Struct, frozen=True):
    """A power merchant (实力商家) of the demonstration."""

    merchant_id: str
    category: str
    joins_at: datetime
    share: int
    """Its weight among the merchants: how often a buyer chooses it."""
    is_poor: bool = False
    """It has paid no more than the required deposit, and its refunds come up short."""
    is_suspended: bool = False
    """An officer suspends it for a week of July."""
    is_spoken_for: bool = False
    """The marketplace's system announces its parcels."""

    def takes_orders(self, at: datetime) -> bool:
        """Whether ordinary orders are placed with it at an instant: it is active, and has room."""
        if self.is_poor and at >= POOR_UNTIL:
            return False
        if self.is_suspended and SUSPENDED_FROM <= at < SUSPENDED_UNTIL:
            return False
        return at >= self.joins_at + timedelta(days=1)


def merchants(count: int) -> tuple[Merchant, ...]:
    """Three merchants or more: the first is always there, the second is suspended for a week, the last is poor."""
    found = [
        Merchant(
            merchant_id=f"m-{i + 1:02}",
            category=CATEGORIES[i % len(CATEGORIES)],
            joins_at=BEGINS + timedelta(hours=8, minutes=20 * (i % 12), days=0 if i < 4 else min(2 * i, 20)),
            share=3 + (i * 5 + 4) % 7,
            is_suspended=i == 1,
            is_spoken_for=i % 4 == 3,
        )
        for i in range(count - 1)
    ]
    poor = Merchant(f"m-{count:02}", "other", BEGINS + timedelta(hours=9), share=1, is_poor=True)
    return (*found, poor)


def applicant(count: int) -> str:
    """The merchant whose application fails."""
    return f"m-{count + 1:02}"
