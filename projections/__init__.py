"""What the log means: the read models.  This is the only list of them."""

from projections import (
    account_balance,
    budget_burn,
    due_tasks,
    merchant_days,
    merchant_months,
    order_status,
    subsidy_balance,
)
from projections.projection import Projection

PROJECTIONS: dict[str, Projection] = {
    module.projection.name: module.projection
    for module in (
        order_status,
        merchant_months,
        merchant_days,
        subsidy_balance,
        account_balance,
        due_tasks,
        budget_burn,
    )
}
"""Every read model by name."""
