"""What has to hold after every step of every history: of an order, of a merchant, and of the accounts as a whole."""

from collections import Counter

from ledger import accounts, merchants
from ledger.events import Event
from ledger.money import BP, half_even
from ledger.orders import events as e
from ledger.orders.escrow import commission_target
from ledger.orders.state import REFUNDED, UNPAID_REFUND, OrderState
from tests.spec import World, decider_of


def check_world(world: World) -> None:
    """Every order, every merchant, and the daily checks of finance."""
    for story in world.stories.values():
        if isinstance(story.state, OrderState) and story.state.is_placed:
            check_units(story.state)
            check_money(story.state)
            check_targets(story.state)
        if isinstance(story.state, merchants.MerchantState):
            assert story.state.balance_fen >= 0
            assert story.state.receivable_fen >= 0
        for deadline in decider_of(story).deadlines(story.state):
            assert deadline.fires_at > story.latest_at, "a deadline that has come is still there"
    check_accounts(world)


def check_units(s: OrderState) -> None:
    """No unit is lost, refunded twice or claimed of a parcel that does not hold it."""
    for line in s.lines.values():
        assert min(line.free_units, line.reserved_units, line.refunded_units, line.cancelled_units) >= 0
        assert line.free_units + line.reserved_units + line.refunded_units == line.units + line.repaid_units
        assert s.live_units(line, lambda _: True) >= 0
    for shipment in s.shipments.values():
        held = {x.line_id: x.units for x in shipment.lines}
        for line_id, claimed in shipment.claimed.items():
            assert 0 <= claimed <= held[line_id]


def check_money(s: OrderState) -> None:
    """Refunds never exceed what was paid: per line, for the freight, and in total."""
    open_fen = Counter[str]()
    for claim in s.claims.values():
        if claim.is_open:
            open_fen["escrow"] += sum(x.escrow_fen for x in claim.lines) + claim.freight_escrow_fen
        if claim.is_open or claim.state in REFUNDED or claim.state == "void":
            open_fen["freight"] += claim.freight_fen
    for line in s.lines.values():
        assert min(line.left_fen, line.reserved_fen, line.refunded_fen, line.kept_fen, line.escrow_fen) >= 0
        assert line.escrow_fen <= line.left_fen
        assert line.left_fen + line.reserved_fen + line.refunded_fen == line.line_fen + line.repaid_fen
    repaid_freight_fen = s.freight_left_fen + open_fen["freight"] - s.freight_fen
    assert 0 <= s.freight_escrow_fen <= s.freight_left_fen
    assert repaid_freight_fen >= 0
    if s.paid_at:
        assert s.refunded_fen + s.reserved_fen <= s.captured_fen
        lines_fen = sum(line.escrow_fen for line in s.lines.values())
        assert s.escrow_fen == lines_fen + s.freight_escrow_fen + s.commission_escrow_fen + open_fen["escrow"]
        is_nothing_left = not any(x.free_units for x in s.lines.values())
        if (is_nothing_left or s.is_received) and not s.has_open_claim:
            assert s.escrow_fen == 0, "nobody can get at this money any more"


def check_targets(s: OrderState) -> None:
    """Commission and rebate stand at their cumulative targets."""
    assert s.commission_fen == commission_target(s, s.kept_fen)
    if s.kept_fen == 0:
        assert s.commission_fen == s.rebate_fen == 0
        return
    cainiao_fen = 0
    for line in s.lines.values():
        dispatched = s.units(line.line_id, lambda x: x.dispatched_at)
        by_cainiao = s.units(line.line_id, lambda x: x.dispatched_at and x.is_cainiao)
        cainiao_fen += half_even(line.kept_fen * by_cainiao, dispatched) if dispatched else 0
    assert s.terms is not None
    assert s.rebate_fen == half_even(s.commission_fen * s.terms.rebate_share_bp * cainiao_fen, BP * s.kept_fen)


def check_accounts(world: World) -> None:
    """The daily checks 1 to 8, from the postings on one side and the streams on the other."""
    of = world.balances
    orders = [x.state for x in world.stories.values() if isinstance(x.state, OrderState)]
    assert sum(of.values()) == 0
    assert -of[accounts.ESCROW] == sum(s.escrow_fen for s in orders)
    assert of[accounts.CASH_ESCROW] == -(of[accounts.ESCROW] + of[accounts.REFUND_ESCROW] + _under(of, "suspense"))
    assert _under(of, "suspense") == -sum(sum(s.strays.values()) for s in orders)
    assert of[accounts.CASH_DEPOSIT] == -(_under(of, "deposit") + of[accounts.REFUND_DEPOSIT])
    assert -of[accounts.COVER] == sum(_to_cover(x.data) for x in world.log)
    assert -of[accounts.COMMISSION] == sum(s.commission_fen for s in orders)
    assert of[accounts.REBATE] == sum(s.rebate_fen for s in orders)
    for story in world.stories.values():
        if isinstance(s := story.state, merchants.MerchantState) and s.merchant_id:
            assert of[accounts.receivable(s.merchant_id)] == s.receivable_fen
            assert -of[accounts.deposit(s.merchant_id)] == s.balance_fen
    refunds_fen = of[accounts.REFUND_ESCROW] + of[accounts.REFUND_DEPOSIT] + of[accounts.REFUND_PLATFORM]
    if not world.has_messages:  # between the streams, the merchant's knows more than the order's
        unpaid = [c for s in orders for c in s.claims.values() if c.state in UNPAID_REFUND]
        assert -refunds_fen == sum(c.escrow_fen + c.commission_fen + c.drawn_fen + c.advanced_fen for c in unpaid)
        for claim in unpaid:
            if claim.state in ("funded", "instructed", "payout_failed"):
                assert (
                    claim.escrow_fen + claim.commission_fen + claim.drawn_fen + claim.advanced_fen == claim.refund_fen
                )


def _under(of: Counter[str], group: str) -> int:
    return sum(amount for account, amount in of.items() if account.startswith(f"liabilities:{group}:"))


def _to_cover(event: Event) -> int:
    """What an event adds to the money on its way back to a merchant's stream."""
    if isinstance(event, e.RefundCancelled | e.RefundRecoveryOpened):
        return event.to_cover_fen
    return -(event.receivable_fen + event.deposit_fen) if isinstance(event, merchants.CoverReversed) else 0
