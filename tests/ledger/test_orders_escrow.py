"""The merchant's money: released on receipt, commission on what is kept, half of it rebated; by cumulative target."""

import pytest

from ledger.orders import events as e
from tests.spec import (
    Scenario,
    Step,
    agree,
    arrive_by,
    confirm,
    correct_waybill,
    cover,
    event,
    given,
    instructed_and_paid,
    july,
    line,
    paid,
    parcel,
    placed,
    refuse,
    request,
    retract,
    rules_with,
    scan,
    scan_id,
    tick,
    units,
    withdraw,
)

SHIPPED: list[Step] = [placed(), paid(), parcel(), scan("handed", july(3))]


def shipped(*more: Step) -> Scenario:
    return given(SHIPPED, *more)


# --- Released -----------------------------------------------------------------------------------------------------


def test_receipt_releases_the_money_less_commission() -> None:
    story = shipped().when(confirm(at=july(6))).then(
        e.ReceiptConfirmed, e.UnitsArrived, e.UnitsDelivered, e.PromiseKept,
        event(
            e.EscrowReleased, goods_fen=1001, freight_fen=100, paid_out_fen=1076,
            lines=(e.ReleasedLine(line_id="a", goods_fen=1001),),
        ),
        event(e.CommissionCharged, target_fen=25, commission_fen=25),
        event(e.RebateAccrued, target_fen=12, rebate_fen=12, cainiao_goods_fen=1001, kept_goods_fen=1001),
    )  # fmt: skip
    assert story.balances() == {
        "assets:cash:operating": 25, "income:commission": -25, "expenses:rebate": 12, "liabilities:subsidy:m-1": -12
    }  # fmt: skip


def test_each_parcel_releases_its_share_and_the_last_one_the_rest() -> None:
    story = given(
        placed(), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 1)), parcel("p3", units("a", 1))
    )
    story.given(confirm("p1", at=july(5)), confirm("p2", at=july(6)), confirm("p3", at=july(7)))
    released = story.told(e.EscrowReleased)
    assert [x.goods_fen for x in released] == [334, 333, 334]
    assert [x.freight_fen for x in released] == [33, 34, 33]
    assert [x.target_fen for x in story.told(e.CommissionCharged)] == [8, 17, 25]
    assert story.state.escrow_fen == 0


def test_what_an_open_claim_holds_is_not_released() -> None:
    story = shipped(scan("delivered", july(5)), request(units("a", 1), at=july(5, 1)))
    story.when(confirm(at=july(5, 2))).then(
        e.ReceiptConfirmed, event(e.EscrowReleased, goods_fen=667, freight_fen=67), ...
    )
    assert story.state.escrow_fen == 367


@pytest.mark.parametrize("end", ["withdrawn", "lapsed"])
def test_a_claim_that_ends_frees_the_rest_at_once(end: str) -> None:
    story = shipped(scan("delivered", july(5)), request(units("a", 1), at=july(5, 1)), confirm(at=july(5, 2)))
    if end == "withdrawn":
        story.when(withdraw(july(5, 3))).then(
            e.RefundWithdrawn, e.ClaimReleased, event(e.EscrowReleased, paid_out_fen=359), ...
        )
    else:
        story.given(refuse(july(5, 3))).tick(july(10, 3)).then(
            e.ClaimReleased, event(e.EscrowReleased, paid_out_fen=359), ...
        )
    assert (story.state.escrow_fen, story.state.commission_fen) == (0, 25)


def test_no_receipt_no_release() -> None:
    assert shipped(scan("delivered", july(5)), tick(july(14))).told(e.EscrowReleased) == []


def test_goods_without_a_price_are_received_like_any() -> None:
    story = given(placed(line("a", 1, 0), freight_fen=50), paid(50), parcel("p1", units("a", 1)))
    story.when(confirm(at=july(5))).then(..., event(e.EscrowReleased, goods_fen=0, freight_fen=50, paid_out_fen=50))


# --- The worked example -------------------------------------------------------------------------------------------


def test_three_units_come_back_one_at_a_time_and_not_a_fen_is_lost() -> None:
    """1 001 fen for three units, 100 fen freight, 250 bp commission, all by Cainiao, released, then refunded singly."""
    story = shipped(confirm(at=july(6)))
    assert (story.state.commission_fen, story.state.rebate_fen) == (25, 12)
    steps = [
        # goods, freight, kept, commission target and change, rebate target and change
        (334, 33, 667, 17, -8, 8, -4),
        (334, 34, 333, 8, -9, 4, -4),
        (333, 33, 0, 0, -8, 0, -4),
    ]
    for number, (goods_fen, freight_fen, kept_fen, target_fen, change_fen, rebate_fen, rebate_change_fen) in enumerate(
        steps
    ):
        refund_id = f"r{number}"
        story.given(request(units("a", 1), at=july(7 + number), refund_id=refund_id))
        story.when(agree(july(7 + number, 1), refund_id)).then(
            e.RefundAgreed,
            event(
                e.RefundApproved, freight_fen=freight_fen, refund_fen=goods_fen + freight_fen,
                commission_fen=-change_fen, cover_fen=goods_fen + freight_fen + change_fen,
            ),
            event(e.CommissionReturned, commission_fen=-change_fen),
            event(e.RebateClawedBack, target_fen=rebate_fen, rebate_fen=-rebate_change_fen, refund_id=refund_id),
        )  # fmt: skip
        assert (story.state.kept_fen, story.state.commission_fen, story.state.rebate_fen) == (
            kept_fen,
            target_fen,
            rebate_fen,
        )
        story.given(cover(goods_fen + freight_fen + change_fen, july(7 + number, 2), refund_id=refund_id))
    assert (story.state.escrow_fen, story.state.commission_fen, story.state.rebate_fen) == (0, 0, 0)
    assert story.state.refunded_fen == 1101
    balances = story.balances()
    assert not {"income:commission", "expenses:rebate", "liabilities:subsidy:m-1"} & set(balances)


# --- The rebate ---------------------------------------------------------------------------------------------------


def test_the_rebate_goes_by_the_units_that_cainiao_carried_per_line() -> None:
    order = placed(line("a", 3, 90_000), line("b", 1, 10_000), freight_fen=0, promises=[])
    story = given(
        order, paid(100_000), parcel("p1", units("a", 1)), parcel("p2", units("a", 2), units("b", 1), is_cainiao=False),
        scan("handed", july(3), "p1"), scan("handed", july(3), "p2"),
    )  # fmt: skip
    story.when(confirm("p1", "p2", at=july(6))).then(
        ..., event(e.CommissionCharged, target_fen=2500),
        event(e.RebateAccrued, target_fen=375, cainiao_goods_fen=30_000, kept_goods_fen=100_000),
    )  # fmt: skip


def test_goods_that_travelled_with_others_earn_no_rebate() -> None:
    story = given(placed(), paid(), parcel(is_cainiao=False), scan("handed", july(3)))
    story.when(confirm(at=july(6))).then(..., event(e.RebateDenied, cause="not_cainiao"))
    assert story.state.rebate_denied_cause == "not_cainiao"


def test_a_waybill_without_the_carriers_own_scan_earns_no_rebate_until_it_comes() -> None:
    story = given(placed(), paid(), parcel(), scan("handed", july(3), is_carrier_origin=False))
    story.when(confirm(at=july(6))).then(..., event(e.RebateDenied, cause="no_carrier_scan"))
    story.when(scan("handed", july(3), scan_id="late", received=july(8))).then(
        e.CarrierScanRecorded, event(e.UnitsDispatched, dispatched_at=july(3)), event(e.RebateAccrued, rebate_fen=12)
    )
    assert story.state.rebate_denied_cause is None


def test_a_rebate_of_nothing_is_denied_once() -> None:
    rules = rules_with(rebate={"share_bp": 0})
    story = given(SHIPPED, rules=rules).when(confirm(at=july(6))).then(..., event(e.RebateDenied, cause="share_zero"))
    story.when(request(units("a", 1), at=july(7)), agree(july(7))).then(
        e.RefundAgreed, e.RefundApproved, e.CommissionReturned
    )


def test_a_rebate_that_rounds_to_nothing_is_not_denied() -> None:
    story = given(
        placed(line("a", 1, 40), freight_fen=0), paid(40), parcel("p1", units("a", 1)), scan("handed", july(3))
    )
    story.when(confirm(at=july(6))).then(..., event(e.CommissionCharged, commission_fen=1))


def test_without_commission_there_is_no_rebate_to_speak_of() -> None:
    story = given(
        placed(line("a", 1, 10), freight_fen=0), paid(10), parcel("p1", units("a", 1)), scan("handed", july(3))
    )
    story.when(confirm(at=july(6))).then(..., event(e.EscrowReleased, paid_out_fen=10))


def test_a_handover_taken_back_claws_the_rebate_back() -> None:
    story = shipped(confirm(at=july(6)))
    story.when(retract(scan_id("handed", july(3)), july(8))).then(
        e.ScanRetracted, event(e.DispatchRevised, to_at=None), event(e.RebateClawedBack, rebate_fen=12, refund_id=None)
    )


def test_a_corrected_waybill_claws_back_its_share_of_the_rebate() -> None:
    story = given(
        placed(promises=[]), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2)),
        scan("handed", july(3), "p1"), scan("handed", july(3), "p2"), confirm("p1", at=july(6)),
    )  # fmt: skip
    assert (story.state.commission_fen, story.state.rebate_fen) == (8, 4)
    story.when(correct_waybill("p2", at=july(7))).then(
        e.WaybillCorrected, event(e.RebateClawedBack, target_fen=1, rebate_fen=3)
    )


def test_a_waybill_corrected_to_cainiao_accrues_it() -> None:
    story = given(
        placed(promises=[]), paid(), parcel("p1", units("a", 1)), parcel("p2", units("a", 2), is_cainiao=False),
        scan("handed", july(3), "p1"), scan("handed", july(3), "p2"), confirm("p1", at=july(6)),
    )  # fmt: skip
    story.when(correct_waybill("p2", carrier="cainiao", is_cainiao=True, at=july(7))).then(
        e.WaybillCorrected, event(e.RebateAccrued, target_fen=4)
    )


# --- Completed ----------------------------------------------------------------------------------------------------


def test_an_order_is_completed_when_its_last_window_has_closed() -> None:
    story = shipped(scan("delivered", july(5)))
    story.given(tick(july(44, 23)))
    assert story.state.status == "received"
    story.tick(july(45)).then(event(e.OrderCompleted, outcome="fulfilled", occurred_at=july(45)))


def test_an_order_refunded_in_part_says_so() -> None:
    story = shipped(confirm(at=july(5)), request(units("a", 1), at=july(7)), agree(july(7)), cover(359, july(7)))
    story.given(instructed_and_paid(july(8))).tick(july(60)).then(event(e.OrderCompleted, outcome="partly_refunded"))


def test_an_order_waits_for_its_open_claims_and_unpaid_refunds() -> None:
    story = shipped(confirm(at=july(5)), request(units("a", 1), at=july(34)), refuse(july(34, 1)), agree(july(39)))
    story.tick(july(80)).then_nothing()
    story.given(cover(359, july(80)))
    story.when(*instructed_and_paid(july(81))).then(e.RefundPaid, event(e.OrderCompleted, outcome="partly_refunded"))


def test_an_order_refunded_in_full_is_completed_when_the_buyer_has_the_money() -> None:
    story = shipped(tick(july(16)))
    story.when(*instructed_and_paid(july(17), "arrive")).then(e.RefundPaid, event(e.OrderCompleted, outcome="refunded"))
    assert story.deadlines() == {}


def test_a_fully_refunded_order_leaves_nothing_of_escrow_commission_and_rebate() -> None:
    order = placed(line("a", 2, 999), line("b", 1, 301), freight_fen=77, promises=[arrive_by(july(15), "a", "b")])
    story = given(
        order, paid(1377), parcel("p1", units("a", 1), units("b", 1)), parcel("p2", units("a", 1)),
        scan("handed", july(3), "p1"), confirm("p1", at=july(4)),
        request(units("a", 1), units("b", 1), at=july(6), refund_id="r1"), agree(july(6)),
    )  # fmt: skip
    story.given(cover(story.last(e.RefundApproved).cover_fen, july(6)), instructed_and_paid(july(7)), tick(july(16)))
    story.given(cover(story.last(e.RefundApproved).cover_fen, july(16), refund_id="arrive"))
    story.given(instructed_and_paid(july(17), "arrive"))
    state = story.state
    assert (state.escrow_fen, state.commission_fen, state.rebate_fen, state.refunded_fen) == (0, 0, 0, 1377)
