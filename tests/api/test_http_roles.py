"""Who may ask what, and who may see what: the whole table, written down once more by hand."""

from typing import Any

import httpx
import pytest

from api.keys import KEY_ROLES
from projections import PROJECTIONS
from tests.api.service import Service

MAY_ASK = {
    "buyer": "PlaceOrder CancelUnits RateOrder ConfirmReceipt DenyDelivery WaivePromise ChangeAddress RequestRefund "
    "WithdrawRefund",
    "merchant": "CancelUnits CreateShipment CorrectWaybill AmendPromise AgreeRefund RefuseRefund ApplyForProgramme "
    "AcceptGuarantees",
    "carrier": "RecordScan RetractScan",
    "payment": "CapturePayment ReturnStrayPayment ConfirmRefund FailRefund RecordRecovery RepayUnits RecordAnnualFee "
    "RecordDeposit RecordReceivable",
    "agency": "",
    "handler": "CancelUnits OverturnBreach",
    "supervisor": "",
    "officer": "RegisterTrustPass StartReview PassReview FailReview SuspendMerchant LiftSuspension",
    "finance": "WriteOffRecovery RaiseAdvanceCap AuthoriseBudget TopUpBudget RequestSpend ReturnSpend",
    "admin": "PublishRulebook WithdrawRulebook",
    "auditor": "",
    # The marketplace's own system speaks for buyers, merchants and carriers.
    "integrator": "PlaceOrder CancelUnits RateOrder ConfirmReceipt DenyDelivery WaivePromise ChangeAddress "
    "RequestRefund WithdrawRefund CreateShipment CorrectWaybill AmendPromise AgreeRefund RefuseRefund "
    "ApplyForProgramme AcceptGuarantees RecordScan RetractScan",
}
NOBODY = "ReportCover InstructRefund CoverRefund ReverseCover"
"""The ledger sends these to itself."""

STAFF = {"handler", "supervisor", "officer", "finance", "admin", "auditor", "integrator"}
MERCHANTS_OWN = {"order_status", "merchant_months", "merchant_days", "subsidy_balance", "due_tasks"}
BUYERS_OWN = {"order_status", "due_tasks"}
FOLLOWERS = STAFF | {"merchant", "payment", "carrier"}


def commands(service: Service) -> list[str]:
    paths = service.client.get("/openapi.json").json()["paths"]
    return [path.removeprefix("/v1/commands/") for path in paths if path.startswith("/v1/commands/")]


def test_every_role_and_every_command_is_in_the_table(service: Service) -> None:
    assert set(MAY_ASK) == set(KEY_ROLES)
    assert {name for names in MAY_ASK.values() for name in names.split()} | set(NOBODY.split()) == set(
        commands(service)
    )


@pytest.mark.parametrize("role", MAY_ASK)
def test_a_role_is_refused_every_command_but_its_own(service: Service, role: str) -> None:
    headers = service.headers(role) | {"Idempotency-Key": "k"}
    answers = {
        name: service.client.post(f"/v1/commands/{name}", json=None, headers=headers) for name in commands(service)
    }
    allowed = {name for name, answer in answers.items() if answer.status_code != 403}
    assert allowed == set(MAY_ASK[role].split())
    assert {answers[name].json()["code"] for name in allowed} <= {"bad_json"}


@pytest.mark.parametrize("role", MAY_ASK)
def test_a_role_reads_the_read_models_it_may(service: Service, role: str) -> None:
    seen = {name for name in PROJECTIONS if service.get(f"/v1/{name}", role).status_code == 200}
    expected = set(PROJECTIONS) if role in STAFF else {"merchant": MERCHANTS_OWN, "buyer": BUYERS_OWN}.get(role, set())
    assert seen == expected
    for name in set(PROJECTIONS) - expected:
        assert refused(service.get(f"/v1/{name}", role)) == (403, "not_allowed")
        assert service.get(f"/v1/{name}/x/y/z", role).status_code == 403


@pytest.mark.parametrize("role", MAY_ASK)
def test_a_role_follows_the_feed_and_asks_for_digests_if_it_may(service: Service, role: str) -> None:
    assert service.get("/v1/events", role).status_code == (200 if role in FOLLOWERS else 403)
    assert service.get("/v1/digest", role).status_code == (200 if role in STAFF else 403)


@pytest.mark.parametrize("role", MAY_ASK)
def test_staff_read_every_stream_and_others_none_that_is_not_theirs(service: Service, role: str) -> None:
    order_id = service.place("m-1", "b-1")
    for stream in (f"order-{order_id}", "merchant-m-1", "programme-rulebook"):
        assert service.get(f"/v1/streams/{stream}", role).status_code == (200 if role in STAFF else 404)


@pytest.mark.parametrize(
    "path", ["/v1/order_status", "/v1/streams/order-1", "/v1/events", "/v1/digest", "/v1/commands"]
)
def test_nothing_is_answered_without_a_key(service: Service, path: str) -> None:
    method = "POST" if path == "/v1/commands" else "GET"
    assert refused(service.client.request(method, path)) == (401, "unauthenticated")


def test_only_health_and_the_description_need_no_key(service: Service) -> None:
    paths: dict[str, Any] = service.client.get("/openapi.json").json()["paths"]
    is_open = {path for path, methods in paths.items() for operation in methods.values() if not operation["security"]}
    assert is_open == {"/healthz", "/readyz", "/metrics"}
    for path in is_open | {"/docs", "/openapi.json"}:
        assert service.client.get(path).status_code == 200


# --- whose it is ------------------------------------------------------------------------------------------------------


def test_a_merchant_sees_its_own_rows_and_no_others(service: Service) -> None:
    mine, other = service.place("m-1", "b-1"), service.place("m-2", "b-1")
    service.caught_up()
    assert service.get(f"/v1/order_status/{mine}", "merchant", "m-1").status_code == 200
    hidden = service.get(f"/v1/order_status/{other}", "merchant", "m-1")
    missing = service.get("/v1/order_status/no-such-order", "merchant", "m-1")
    assert refused(hidden) == refused(missing) == (404, "not_found")
    for model in MERCHANTS_OWN - {"due_tasks"}:
        owners = {row["merchant_id"] for row in service.get(f"/v1/{model}", "merchant", "m-1").json()}
        assert owners <= {"m-1"}
    assert service.get("/v1/order_status", "merchant", "m-1", merchant_id="m-2").json() == []


def test_a_buyer_sees_their_own_orders_and_no_others(service: Service) -> None:
    mine, other = service.place("m-1", "b-7"), service.place("m-1", "b-8")
    service.caught_up()
    assert [row["order_id"] for row in service.get("/v1/order_status", "buyer", "b-7").json()] == [mine]
    assert service.get(f"/v1/order_status/{other}", "buyer", "b-7").status_code == 404
    tasks = service.get("/v1/due_tasks", "buyer", "b-7").json()
    assert [(row["stream"], row["deadline"]) for row in tasks] == [(f"order-{mine}", "payment")]


def test_as_of_reads_hide_the_same(service: Service) -> None:
    mine, other = service.place("m-1", "b-9"), service.place("m-1", "b-10")
    at = service.store.head().position
    assert service.get(f"/v1/order_status/{mine}", "buyer", "b-9", at=at).status_code == 200
    assert service.get(f"/v1/order_status/{other}", "buyer", "b-9", at=at).status_code == 404
    assert [row["order_id"] for row in service.get("/v1/order_status", "buyer", "b-9", at=at).json()] == [mine]


def test_the_parties_of_an_order_read_its_stream_and_nobody_else_does(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    path = f"/v1/streams/order-{order_id}"
    for role, actor in (("buyer", "b-1"), ("merchant", "m-1")):
        assert service.get(path, role, actor).json()["events"][0]["type"] == "OrderPlaced"
    for role, actor in (("buyer", "m-1"), ("buyer", "b-2"), ("merchant", "m-2"), ("merchant", "b-1")):
        assert refused(service.get(path, role, actor)) == (404, "not_found")
    assert refused(service.get("/v1/streams/order-none", "buyer", "b-1")) == (404, "not_found")


def test_a_merchant_reads_its_own_stream_only(service: Service) -> None:
    assert service.get("/v1/streams/merchant-m-1", "merchant", "m-1").status_code == 200
    assert service.get("/v1/streams/merchant-m-1", "merchant", "m-2").status_code == 404
    assert service.get("/v1/streams/merchant-m-1", "buyer", "m-1").status_code == 404


def test_commands_to_the_orders_of_others_do_not_tell_that_they_exist(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    rating = {"rating_id": "r", "service": 1}
    other = service.send("RateOrder", "buyer", "b-2", order_id=order_id, **rating)
    missing = service.send("RateOrder", "buyer", "b-2", order_id="no-such-order", **rating)
    assert refused(other) == refused(missing) == (409, "unknown_stream")
    shipment = {"shipment_id": "s", "lines": [], "carrier": "c", "waybill": "w", "is_cainiao": False}
    other = service.send("CreateShipment", "merchant", "m-2", order_id=order_id, **shipment)
    missing = service.send("CreateShipment", "merchant", "m-2", order_id="no-such-order", **shipment)
    assert refused(other) == refused(missing) == (409, "unknown_stream")


def test_a_buyer_places_orders_for_nobody_else_and_the_integrator_for_all(service: Service) -> None:
    order = service.order("m-1", "b-1")
    assert refused(service.send("PlaceOrder", "buyer", "b-2", **order)) == (403, "not_allowed")
    service.accepted("PlaceOrder", "integrator", **order)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code")
