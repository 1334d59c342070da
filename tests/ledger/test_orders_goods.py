"""How far the goods came: what the set of a parcel's scans says, whatever order it was recorded in."""

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from ledger.orders import events as e
from tests.spec import (
    DUE,
    HOUR,
    SECOND,
    Scenario,
    Step,
    confirm,
    correct_waybill,
    deny,
    event,
    given,
    instructed_and_paid,
    july,
    line,
    paid,
    parcel,
    placed,
    request,
    retract,
    scan,
    scan_id,
    tick,
    units,
    when,
)

ORDERED: list[Step] = [placed(), paid()]
SHIPPED: list[Step] = [*ORDERED, parcel()]


def shipped(*more: Step) -> Scenario:
    return given(SHIPPED, *more)


def told_of_p1(story: Scenario) -> tuple[Any, ...]:
    p1 = story.state.shipments["p1"]
    return p1.dispatched_at, p1.arrived_at, p1.delivered_at, p1.ended


# --- Parcels ------------------------------------------------------------------------------------------------------


def test_a_parcel_is_announced_with_what_is_in_it() -> None:
    story = (
        given(ORDERED)
        .when(parcel())
        .then(event(e.ShipmentCreated, shipment_id="p1", lines=(units("a", 3),), carrier="cainiao", is_cainiao=True))
    )
    assert story.state.status == "paid"


def test_an_order_travels_in_as_many_parcels_as_it_has_units() -> None:
    story = given(ORDERED, parcel("p1", units("a", 1)), parcel("p2", units("a", 1)))
    story.when(parcel("p3", units("a", 1))).then(e.ShipmentCreated)
    story.when(parcel("p4", units("a", 1))).rejected("units_not_shippable")


@pytest.mark.parametrize(
    "parts", [(units("a", 4),), (units("a", 0),), (units("z", 1),), (units("a", 1), units("a", 1))]
)
def test_a_parcel_holds_units_that_there_are(parts: Any) -> None:
    given(ORDERED).when(parcel("p1", *parts)).rejected("units_not_shippable")


def test_nothing_is_shipped_before_it_is_paid() -> None:
    when(parcel()).rejected("unknown_stream")
    given(placed()).when(parcel()).rejected("units_not_shippable")
    given(ORDERED).when(parcel().but(lines=())).rejected("units_not_shippable")


def test_units_that_a_claim_holds_are_not_shipped() -> None:
    given(ORDERED, request(units("a", 2), at=july(3))).when(parcel()).rejected("units_not_shippable")


def test_a_parcel_announced_twice_is_one() -> None:
    shipped().when(parcel()).then_nothing()
    shipped().when(parcel("p1", units("a", 2))).rejected("id_reused")


def test_what_was_lost_can_be_shipped_again() -> None:
    shipped(scan("lost", july(3))).when(parcel("p2")).then(e.ShipmentCreated)


# --- Scans --------------------------------------------------------------------------------------------------------


def test_the_first_scan_of_the_carrier_means_dispatched() -> None:
    story = (
        shipped()
        .when(scan("handed", july(3)))
        .then(
            event(e.CarrierScanRecorded, status="handed", is_future=False),
            event(e.UnitsDispatched, dispatched_at=july(3), lines=(units("a", 3),), is_cainiao=True),
        )
    )
    assert story.state.status == "shipped"


def test_a_label_printed_is_not_a_dispatch() -> None:
    shipped().when(scan("created", july(3))).then(e.CarrierScanRecorded)


def test_a_scan_that_the_merchant_entered_is_no_dispatch_but_an_arrival() -> None:
    shipped().when(scan("handed", july(3), is_carrier_origin=False)).then(e.CarrierScanRecorded)
    shipped().when(scan("delivered", july(9), is_carrier_origin=False)).then(
        e.CarrierScanRecorded, e.UnitsArrived, e.UnitsDelivered, e.PromiseKept
    )


def test_a_delivery_says_dispatched_arrived_and_delivered_at_once() -> None:
    shipped().when(scan("delivered", july(9))).then(
        e.CarrierScanRecorded,
        event(e.UnitsDispatched, dispatched_at=july(9)),
        event(e.UnitsArrived, arrived_at=july(9), is_attempt=False),
        event(e.UnitsDelivered, delivered_at=july(9), auto_receipt_at=july(19), closes_at=july(49)),
        event(e.PromiseKept, kept_at=july(9)),
    )


def test_an_attempt_is_an_arrival_but_no_delivery() -> None:
    story = shipped(scan("handed", july(3))).when(scan("attempted", july(8)))
    story.then(e.CarrierScanRecorded, event(e.UnitsArrived, arrived_at=july(8), is_attempt=True), e.PromiseKept)
    story.when(scan("delivered", july(9))).then(e.CarrierScanRecorded, event(e.UnitsDelivered, delivered_at=july(9)))


def test_an_unknown_code_is_kept_and_says_nothing() -> None:
    shipped().when(scan("sorted by a robot", july(3))).then(
        event(e.CarrierScanRecorded, status="unknown", code="sorted by a robot")
    )


def test_a_scan_of_an_unknown_parcel_is_refused() -> None:
    when(scan("handed", july(3))).rejected("unknown_stream")
    given(ORDERED).when(scan("handed", july(3))).rejected("unknown_shipment")


def test_the_same_scan_sent_twice_adds_nothing() -> None:
    shipped(scan("handed", july(3))).when(scan("handed", july(3), received=july(5))).then_nothing()


def test_a_scan_id_means_one_scan() -> None:
    story = shipped(scan("handed", july(3), scan_id="s"))
    story.when(scan("transit", july(3), scan_id="s")).rejected("id_reused")
    story.when(scan("handed", july(4), scan_id="s")).rejected("id_reused")
    story.when(scan("handed", july(3), scan_id="s").but(occurred_at=None).received(july(5))).then_nothing()


def test_a_scan_from_the_future_is_kept_and_proves_nothing() -> None:
    edge = july(9) + timedelta(minutes=5)
    shipped().when(scan("delivered", edge + SECOND, received=july(9))).then(
        event(e.CarrierScanRecorded, is_future=True)
    )
    shipped().when(scan("delivered", edge, received=july(9))).then(
        event(e.CarrierScanRecorded, is_future=False),
        e.UnitsDispatched,
        e.UnitsArrived,
        e.UnitsDelivered,
        e.PromiseKept,
    )


def test_a_scan_from_the_future_sent_again_when_its_time_has_come_adds_nothing() -> None:
    shipped(scan("delivered", july(10), received=july(9))).when(scan("delivered", july(10))).then_nothing()


# --- Out of order -------------------------------------------------------------------------------------------------


def test_an_earlier_scan_recorded_later_brings_everything_forward() -> None:
    story = shipped(scan("delivered", july(9)))
    story.when(scan("handed", july(3), received=july(10))).then(
        e.CarrierScanRecorded, event(e.DispatchRevised, from_at=july(9), to_at=july(3), occurred_at=july(3))
    )
    story.when(scan("attempted", july(8), received=july(11))).then(
        e.CarrierScanRecorded,
        event(e.ArrivalRevised, from_at=july(9), to_at=july(8), is_delivered=True, occurred_at=july(8)),
        event(e.PromiseKept, kept_at=july(8)),
    )


def test_an_earlier_delivery_recorded_later_is_told_again_whole() -> None:
    shipped(scan("handed", july(3)), scan("signed", july(9))).when(scan("delivered", july(8), received=july(10))).then(
        e.CarrierScanRecorded,
        event(e.ArrivalRevised, to_at=july(8)),
        event(e.UnitsDelivered, delivered_at=july(8), auto_receipt_at=july(18), closes_at=july(48)),
        e.PromiseKept,
    )


def test_a_lower_rank_never_undoes_a_higher_one() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(9)))
    before = told_of_p1(story)
    story.when(scan("transit", july(8), received=july(10))).then(e.CarrierScanRecorded)
    assert told_of_p1(story) == before


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_order_of_recording_does_not_matter(order: tuple[int, ...]) -> None:
    scans = [
        scan("handed", july(3)), scan("attempted", july(7)), scan("delivered", july(8)), scan("signed", july(8, 1))
    ]  # fmt: skip
    story = shipped(*(scans[i].received(july(9) + i * HOUR) for i in order))
    assert told_of_p1(story) == (july(3), july(7), july(8), None)
    assert story.state.promises["arrive"].kept_at == july(7)


def test_a_scan_after_the_delivery_is_a_contradiction_to_be_looked_at() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(9))).when(scan("out", july(10)))
    ids = (scan_id("delivered", july(9)), scan_id("out", july(10)))
    story.then(e.CarrierScanRecorded, event(e.ScanConflictFound, scan_ids=ids, kind="moved_after_delivery"))
    story.when(scan("elsewhere", july(11))).then(e.CarrierScanRecorded)


# --- Date-only ----------------------------------------------------------------------------------------------------


def test_a_date_only_scan_counts_from_the_first_instant_of_its_day_for_the_promise() -> None:
    shipped().when(scan("delivered", DUE - 3 * HOUR, precision="date")).then(
        ..., event(e.UnitsArrived, arrived_at=july(14), precision="date"), ..., event(e.PromiseKept, kept_at=july(14))
    )


def test_a_date_only_scan_on_the_day_after_the_last_is_late() -> None:
    story = shipped(scan("delivered", DUE + 3 * HOUR, precision="date")).tick(july(16))
    story.then(e.PromiseBreached, ...)


def test_a_date_only_scan_counts_to_the_end_of_its_day_for_the_buyers_windows() -> None:
    shipped().when(scan("delivered", july(9, 15), precision="date")).then(
        ..., event(e.UnitsDelivered, delivered_at=july(10), auto_receipt_at=july(20)), ...
    )


def test_a_date_only_handover_counts_from_the_first_instant_of_its_day() -> None:
    shipped().when(scan("handed", july(3, 15), precision="date")).then(
        e.CarrierScanRecorded, event(e.UnitsDispatched, dispatched_at=july(3))
    )


@pytest.mark.parametrize("first", ["date", "instant"])
def test_an_exact_scan_of_the_same_day_says_it_better_for_the_windows(first: str) -> None:
    dated = scan("delivered", july(9), precision="date", received=july(11))
    exact = scan("signed", july(9, 15), received=july(11))
    story = shipped(*((dated, exact) if first == "date" else (exact, dated)))
    assert told_of_p1(story)[1:3] == (july(9), july(9, 15))


def test_a_scan_on_the_day_of_a_date_only_delivery_does_not_contradict_it() -> None:
    story = shipped(scan("delivered", july(9), precision="date"))
    story.when(scan("out", july(9, 10))).then(e.CarrierScanRecorded)
    story.when(scan("out", july(10, 10))).then(e.CarrierScanRecorded, e.ScanConflictFound)


# --- Lost and returned --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["lost", "returned_to_sender"])
def test_a_parcel_that_will_not_come_has_ended(outcome: str) -> None:
    shipped(scan("handed", july(3))).when(scan(outcome, july(5))).then(
        e.CarrierScanRecorded, event(e.ShipmentEnded, outcome=outcome, lines=(units("a", 3),))
    )


def test_an_end_of_the_journey_and_a_delivery_contradict_each_other() -> None:
    story = shipped(scan("delivered", july(5))).when(scan("lost", july(6)))
    story.then(e.CarrierScanRecorded, event(e.ScanConflictFound, kind="ended_and_delivered"))
    assert story.state.shipments["p1"].ended is None


@pytest.mark.parametrize("lost_first", [True, False])
def test_a_lost_parcel_that_was_delivered_was_not_lost(lost_first: bool) -> None:
    lost, found = scan("lost", july(5), received=july(8)), scan("delivered", july(7), received=july(8))
    story = shipped(*((lost, found) if lost_first else (found, lost)))
    assert told_of_p1(story) == (july(7), july(7), july(7), None)


def test_the_first_end_of_a_journey_counts() -> None:
    story = shipped(scan("returned_to_sender", july(6))).when(scan("lost", july(5), received=july(7)))
    story.then(e.CarrierScanRecorded, event(e.ShipmentEnded, outcome="lost", occurred_at=july(5)))
    story.when(scan("returned_to_sender", july(6, 1), received=july(8))).then(e.CarrierScanRecorded)


def test_a_loss_taken_back_was_none() -> None:
    story = shipped(scan("lost", july(5)), retract(scan_id("lost", july(5)), july(6)))
    assert story.state.shipments["p1"].ended is None
    story.when(parcel("p2")).rejected("units_not_shippable")


# --- Taken back ---------------------------------------------------------------------------------------------------


def test_a_delivery_taken_back_was_none() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(9)))
    story.when(retract(scan_id("delivered", july(9)), july(10))).then(
        e.ScanRetracted, event(e.ArrivalRevised, from_at=july(9), to_at=None, is_delivered=False, occurred_at=july(9))
    )
    assert told_of_p1(story) == (july(3), None, None, None)
    assert story.state.promises["arrive"].state == "open"
    assert story.deadlines() == {("promise", "arrive"): july(16)}


def test_an_attempt_stays_when_the_delivery_is_taken_back() -> None:
    story = shipped(scan("handed", july(3)), scan("attempted", july(8)), scan("delivered", july(9)))
    story.when(retract(scan_id("delivered", july(9)), july(10))).then(
        e.ScanRetracted,
        event(e.ArrivalRevised, from_at=july(8), to_at=july(8), is_delivered=False),
        event(e.PromiseKept, kept_at=july(8)),
    )


def test_the_next_delivery_counts_when_the_first_is_taken_back() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(5)), scan("signed", july(9)))
    story.when(retract(scan_id("delivered", july(5)), july(10))).then(
        e.ScanRetracted,
        event(e.ArrivalRevised, from_at=july(5), to_at=None, occurred_at=july(5)),
        event(e.UnitsArrived, arrived_at=july(9), occurred_at=july(9)),
        event(e.UnitsDelivered, delivered_at=july(9), auto_receipt_at=july(19), occurred_at=july(9)),
        event(e.PromiseKept, kept_at=july(9)),
    )


def test_a_handover_taken_back_leaves_the_next_scan() -> None:
    story = shipped(scan("handed", july(3)), scan("transit", july(4)))
    story.when(retract(scan_id("handed", july(3)), july(5))).then(
        e.ScanRetracted,
        event(e.DispatchRevised, from_at=july(3), to_at=None, occurred_at=july(3)),
        event(e.UnitsDispatched, dispatched_at=july(4), occurred_at=july(4)),
    )
    story.when(retract(scan_id("transit", july(4)), july(5))).then(
        e.ScanRetracted, event(e.DispatchRevised, to_at=None)
    )
    assert story.state.status == "paid"


def test_only_a_scan_that_came_can_be_taken_back_and_only_once() -> None:
    when(retract("s", july(3))).rejected("unknown_stream")
    shipped().when(retract("s", july(3))).rejected("unknown_scan")
    story = shipped(scan("handed", july(3)), retract(scan_id("handed", july(3)), july(4)))
    story.when(retract(scan_id("handed", july(3)), july(5))).then_nothing()


def test_a_scan_that_was_taken_back_does_not_come_again() -> None:
    story = shipped(scan("handed", july(3)), retract(scan_id("handed", july(3)), july(4)))
    story.when(scan("handed", july(3), received=july(5))).then_nothing()
    assert story.state.shipments["p1"].dispatched_at is None


def test_a_presumption_falls_with_the_delivery_it_rested_on() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(5)), tick(july(15)))
    assert story.state.status == "received"
    story.when(retract(scan_id("delivered", july(5)), july(15, 1)))
    assert story.state.status == "shipped"
    story.when(scan("delivered", july(15, 12), received=july(15, 12)))
    assert story.deadlines()["auto_receipt", "p1"] == july(25, 12)


# --- Waybills -----------------------------------------------------------------------------------------------------


def test_the_carrier_can_be_corrected_until_the_delivery() -> None:
    story = shipped(scan("handed", july(3)))
    story.when(correct_waybill(at=july(4))).then(
        event(e.WaybillCorrected, carrier="other", is_cainiao=False, approved_by="handler-2")
    )
    story.when(correct_waybill(at=july(5))).then_nothing()
    story.given(scan("delivered", july(9))).when(correct_waybill(carrier="third", at=july(10))).rejected(
        "already_delivered"
    )


def test_a_correction_takes_two_people_and_a_parcel() -> None:
    when(correct_waybill(at=july(4))).rejected("unknown_stream")
    given(ORDERED).when(correct_waybill(at=july(4))).rejected("unknown_shipment")
    shipped().when(correct_waybill(at=july(4)).approved("m-1")).rejected("same_approver")


# --- Receipt ------------------------------------------------------------------------------------------------------


def test_the_buyers_word_proves_what_the_carrier_did_not_scan() -> None:
    shipped().when(confirm(at=july(6))).then(
        e.ReceiptConfirmed,
        event(e.UnitsArrived, arrived_at=july(6), precision="instant", is_attempt=False),
        event(e.UnitsDelivered, delivered_at=july(6)),
        event(e.PromiseKept, kept_at=july(6)),
        e.EscrowReleased,
        e.CommissionCharged,
        event(e.RebateDenied, cause="no_carrier_scan"),
    )


@pytest.mark.parametrize("word_first", [True, False])
def test_the_buyers_word_counts_like_a_signature_among_the_scans(word_first: bool) -> None:
    word, signed = confirm(at=july(6)).received(july(9)), scan("signed", july(8), received=july(9))
    story = shipped(scan("handed", july(3)), *((word, signed) if word_first else (signed, word)))
    assert told_of_p1(story)[1:3] == (july(6), july(6))
    assert story.state.promises["arrive"].kept_at == july(6)


def test_the_buyers_word_stands_when_the_delivery_is_taken_back() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(5)), confirm(at=july(6)))
    story.when(retract(scan_id("delivered", july(5)), july(7))).then(
        e.ScanRetracted,
        event(e.ArrivalRevised, from_at=july(5), to_at=None),
        event(e.UnitsArrived, arrived_at=july(6)),
        event(e.UnitsDelivered, delivered_at=july(6)),
        event(e.PromiseKept, kept_at=july(6)),
    )
    assert story.state.status == "received"


def test_receipt_is_confirmed_once() -> None:
    shipped(confirm(at=july(6))).when(confirm(at=july(7))).then_nothing()
    story = given(ORDERED, parcel("p1", units("a", 1)), parcel("p2", units("a", 2)), confirm("p1", at=july(6)))
    story.when(confirm("p1", "p2", "p2", at=july(7))).then(event(e.ReceiptConfirmed, shipment_ids=("p2",)), ...)


def test_receipt_is_of_parcels_that_there_are() -> None:
    when(confirm(at=july(6))).rejected("unknown_stream")
    given(ORDERED).when(confirm("p9", at=july(6))).rejected("unknown_shipment")
    shipped().when(confirm(at=july(6)).but(shipment_ids=())).rejected("unknown_shipment")


def test_a_completed_order_is_not_received_any_more() -> None:
    story = shipped(scan("lost", july(3)), tick(july(16)), *instructed_and_paid(july(18), "arrive"))
    assert story.state.status == "completed"
    story.when(confirm(at=july(19))).rejected("wrong_state")


def test_silence_for_ten_days_is_receipt() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(9)))
    story.tick(july(19) - SECOND).then_nothing()
    story.tick(july(19)).then(
        event(e.ReceiptPresumed, shipment_id="p1", occurred_at=july(19)), e.EscrowReleased, e.CommissionCharged,
        e.RebateAccrued,
    )  # fmt: skip
    assert story.state.status == "received"


def test_each_parcel_is_presumed_received_for_itself() -> None:
    story = given(
        ORDERED, parcel("p1", units("a", 1)), parcel("p2", units("a", 2)),
        scan("delivered", july(5), "p1"), scan("delivered", july(9), "p2"),
    )  # fmt: skip
    story.tick(july(15)).then(event(e.ReceiptPresumed, shipment_id="p1"), ...)
    assert story.state.status == "partly_received"
    story.tick(july(19)).then(event(e.ReceiptPresumed, shipment_id="p2"), ...)
    assert story.state.status == "received"


def test_a_denied_delivery_is_not_presumed_received() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(9)))
    story.when(deny(at=july(10))).then(event(e.DeliveryDenied, shipment_id="p1"))
    story.when(deny(at=july(11))).then_nothing()
    story.tick(july(100)).then_nothing()
    assert story.state.escrow_fen == 1101


def test_a_buyer_who_denied_may_confirm_after_all() -> None:
    story = shipped(scan("handed", july(3)), scan("delivered", july(9)), deny(at=july(10)))
    story.when(confirm(at=july(12))).then(e.ReceiptConfirmed, e.EscrowReleased, e.CommissionCharged, e.RebateAccrued)


def test_only_a_delivery_can_be_denied_and_only_before_receipt() -> None:
    when(deny(at=july(6))).rejected("unknown_stream")
    given(ORDERED).when(deny(at=july(6))).rejected("unknown_shipment")
    shipped().when(deny(at=july(6))).rejected("not_delivered")
    shipped(scan("delivered", july(5)), confirm(at=july(6))).when(deny(at=july(7))).rejected("too_late")
    shipped(scan("delivered", july(5))).when(deny(at=july(15))).rejected("too_late")


# --- How far the order is -----------------------------------------------------------------------------------------


def test_an_order_is_as_far_as_its_units_are() -> None:
    two_lines = [placed(line("a", 2, 200), line("b", 1, 100)), paid(400)]
    story = given(two_lines, parcel("p1", units("a", 1), units("b", 1)), parcel("p2", units("a", 1)))
    stages = [story.state.status]
    for step in (
        scan("handed", july(3), "p1"), scan("handed", july(4), "p2"), scan("delivered", july(5), "p1"),
        confirm("p1", at=july(6)), confirm("p2", at=july(7)), tick(july(80)),
    ):  # fmt: skip
        stages.append(story.given(step).state.status)
    assert stages == ["paid", "partly_shipped", "shipped", "shipped", "partly_received", "received", "completed"]
