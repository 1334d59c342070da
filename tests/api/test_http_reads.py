"""Read models, streams and digests by HTTP."""

import threading
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest

from projections import PROJECTIONS
from tests.api.service import Service
from tests.api.test_http_roles import refused


def test_whoever_waits_for_a_position_reads_what_was_written_there(service: Service) -> None:
    for _ in range(10):
        order_id = service.place("m-1", "b-1")
        position = service.pay(order_id)["position"]
        row = service.get(f"/v1/order_status/{order_id}", after=position)
        assert row.json()["state"] == "paid"
        assert int(row.headers["Ledger-Position"]) >= position


def test_a_position_that_does_not_come_is_504(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.reads.WAIT_SECONDS", 0.2)
    answer = service.get("/v1/order_status", after=2**53)
    assert refused(answer) == (504, "not_reached")
    assert "Retry-After" in answer.headers


def test_rows_are_written_as_they_are_exported(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    service.caught_up()
    text = service.get(f"/v1/order_status/{order_id}").text
    assert text.startswith(f'{{"order_id":"{order_id}","merchant_id":"m-1","buyer_ref":"b-1","category":"other",')
    assert '"placed_at":"2015-07-01T04:00:00.000000Z","paid_at":null' in text


def test_pages_lead_through_all_rows_in_key_order_without_gap_or_repeat(service: Service) -> None:
    expected = sorted(service.place("m-1", "paging") for _ in range(7))
    service.caught_up()
    answer = service.get("/v1/order_status", "buyer", "paging", limit=3)
    pages = [[row["order_id"] for row in answer.json()]]
    while "next" in answer.links:
        answer = service.client.get(answer.links["next"]["url"], headers=service.headers("buyer", "paging"))
        pages.append([row["order_id"] for row in answer.json()])
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [order_id for page in pages for order_id in page] == expected


def test_pages_of_a_balance_carry_it_from_row_to_row(service: Service) -> None:
    service.pay(service.place("m-1", "b-1"))
    service.caught_up()
    whole = service.get("/v1/account_balance").json()
    assert len(whole) > 2
    one_by_one, answer = [], service.get("/v1/account_balance", limit=1)
    one_by_one += answer.json()
    while "next" in answer.links:
        answer = service.client.get(answer.links["next"]["url"], headers=service.headers("auditor"))
        one_by_one += answer.json()
    assert one_by_one == whole


def test_rows_are_chosen_by_the_columns_of_the_key_and_by_whose_they_are(service: Service) -> None:
    order_id = service.place("m-2", "chosen")
    service.caught_up()
    assert [x["order_id"] for x in service.get("/v1/order_status", buyer_ref="chosen").json()] == [order_id]
    assert [x["order_id"] for x in service.get("/v1/order_status", order_id=order_id).json()] == [order_id]
    assert service.get("/v1/order_status", order_id=order_id, merchant_id="m-1").json() == []
    months = service.get("/v1/merchant_months", month="2015-07").json()
    assert {(x["merchant_id"], x["month"]) for x in months} >= {("m-2", "2015-07")}


def test_a_key_of_several_parts_is_joined_by_slashes(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    service.caught_up()
    assert service.get("/v1/merchant_months/m-1/2015-07").json()["month"] == "2015-07"
    assert service.get(f"/v1/due_tasks/order-{order_id}/payment/{order_id}").json()["owner_id"] == "b-1"
    account = service.get("/v1/account_balance").json()[0]["account"]
    for written in (account, account.replace(":", "%3A")):
        assert service.get(f"/v1/account_balance/{written}/2015-07").json()["account"] == account


@pytest.mark.parametrize("column", ["state", "total_fen", "nonsense", "limits"])
def test_a_filter_that_is_not_served_is_refused_not_overlooked(service: Service, column: str) -> None:
    assert refused(service.get("/v1/order_status", **{column: "1"})) == (422, "invalid_parameter")


BAD_QUERIES = [
    "limit=0", "limit=1001", "limit=-1", "limit=x", "limit=1&limit=2", "limit=", "limit=%D9%A1",
    "after=-1", "after=x", "after=99999999999999999999", "at=-1", "at=x", "at=999999999999", "at=1&after=1",
    "recorded_as_of=yesterday", "recorded_as_of=2015-07-01", "recorded_as_of=2015-07-01T00:00:00",
    "recorded_as_of=0001-01-01T00:00:00%2B08:00", "occurred_as_of=9999-12-31T23:59:59-08:00",
    "at=1&recorded_as_of=2015-07-01T00:00:00Z", "cursor=%00", "cursor=a/b/c/d", "cursor=%25FF",
    "merchant_id=%00", "fires_at=2015-07-01",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_malformed_query_is_refused(service: Service, query: str) -> None:
    model = "due_tasks" if "fires_at" in query else "order_status"
    answer = service.client.get(f"/v1/{model}?{query}", headers=service.headers("auditor"))
    assert refused(answer) == (422, "invalid_parameter"), answer.text


@pytest.mark.parametrize(
    "path",
    [
        "order_status/%00", "order_status/%FF", "order_status/a/b", "order_status/", "merchant_months/m-1",
        "merchant_months/m-1/2015-07/x", "merchant_days/m-1/yesterday/on_time", "merchant_days/m-1/9999-99-99/x",
        "streams/order-%00", "streams/order-%0A", "streams/nonsense-1", "streams/order-", "streams/%FF",
        "no_such_model",
        "order_status/" + "a" * 5_000, "",
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_not_found(service: Service, path: str) -> None:
    assert refused(service.client.get(f"/v1/{path}", headers=service.headers("auditor"))) == (404, "not_found")


# --- as it was --------------------------------------------------------------------------------------------------------


def test_a_row_is_read_as_it_stood_at_a_position(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    placed = service.store.head().position
    service.pay(order_id)

    then = service.get(f"/v1/order_status/{order_id}", at=placed)
    assert then.json()["state"] == "placed"
    assert then.headers["Ledger-Position"] == str(placed)
    assert service.get(f"/v1/order_status/{order_id}", at=placed + 1).json()["state"] == "paid"
    assert refused(service.get(f"/v1/order_status/{order_id}", at=placed - 1)) == (404, "not_found")


def test_a_row_is_read_as_it_was_recorded_and_as_it_had_occurred(service: Service) -> None:
    start = service.clock.now()
    order_id = service.place("m-1", "b-1")
    service.clock.move_to(start + timedelta(hours=2))
    earlier = (start + timedelta(minutes=30)).isoformat()
    body = {"order_id": order_id, "amount_fen": 31_000, "payment_ref": "late", "occurred_at": earlier}
    service.accepted("CapturePayment", "payment", **body)

    an_hour = (start + timedelta(hours=1)).isoformat()
    path = f"/v1/order_status/{order_id}"
    assert service.get(path, recorded_as_of=an_hour).json()["state"] == "placed"
    assert service.get(path, occurred_as_of=an_hour).json()["state"] == "paid"
    assert service.get(path, occurred_as_of=earlier).json()["state"] == "placed"


@pytest.mark.parametrize("model", PROJECTIONS)
def test_a_read_model_now_is_the_same_as_at_the_present_position(service: Service, model: str) -> None:
    position = service.caught_up()
    now, then = service.get(f"/v1/{model}", limit=1000), service.get(f"/v1/{model}", limit=1000, at=position)
    assert now.text == then.text
    assert now.headers["Ledger-Position"] == then.headers["Ledger-Position"] == str(position)


def test_pages_of_the_past_lead_on_too(service: Service) -> None:
    expected = sorted(service.place("m-1", "past") for _ in range(5))
    at = service.store.head().position
    service.place("m-1", "past")
    answer = service.get("/v1/order_status", "buyer", "past", at=at, limit=2)
    found = answer.json()
    while "next" in answer.links:
        assert f"at={at}" in answer.links["next"]["url"]
        answer = service.client.get(answer.links["next"]["url"], headers=service.headers("buyer", "past"))
        found += answer.json()
    assert [row["order_id"] for row in found] == expected


def test_too_many_folds_at_a_time_are_told_to_come_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.reads.FOLDS_WAITING", 1)
    at, answers = service.store.head().position, list[httpx.Response]()
    asking = [threading.Thread(target=lambda: answers.append(service.get("/v1/digest", at=at))) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert {x.status_code for x in answers} <= {200, 503}
    assert 200 in {x.status_code for x in answers}
    assert all(x.headers["Retry-After"] for x in answers if x.status_code == 503)


# --- streams and digests ----------------------------------------------------------------------------------------------


def test_a_stream_is_read_with_its_metadata_and_its_state(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    paid_at = service.pay(order_id)["position"]
    answer = service.get(f"/v1/streams/order-{order_id}")
    read: dict[str, Any] = answer.json()
    assert [(x["version"], x["type"], x["role"]) for x in read["events"]] == [
        (1, "OrderPlaced", "buyer"),
        (2, "PaymentCaptured", "payment"),
    ]
    assert read["state"]["captured_fen"] == 31_000
    assert read["events"][1]["position"] == paid_at
    assert int(answer.headers["Ledger-Position"]) >= paid_at

    then = service.get(f"/v1/streams/order-{order_id}", at=paid_at - 1).json()
    assert [x["type"] for x in then["events"]] == ["OrderPlaced"]
    assert then["state"]["captured_fen"] == 0


def test_a_merchant_reads_a_beginning_of_its_order_that_names_it_only_later(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    at = service.store.head().position
    path = f"/v1/streams/order-{order_id}"
    assert service.get(path, "merchant", "m-1", at=at).status_code == 200
    assert service.get(path, "merchant", "m-1", at=at - 1).status_code == 404


def test_the_digest_now_is_the_digest_at_the_present_position(service: Service) -> None:
    position = service.caught_up()
    now, then = service.get("/v1/digest").json(), service.get("/v1/digest", at=position).json()
    assert now == then
    assert now["position"] == position
    assert set(now["read_models"]) == set(PROJECTIONS)
    assert now["chain"] == service.store.head().chain.hex()


def test_the_digest_of_the_past_does_not_change(service: Service) -> None:
    at = service.store.head().position
    before = service.get("/v1/digest", at=at).json()
    service.place("m-1", "b-1")
    assert service.get("/v1/digest", at=at).json() == before


def test_readers_see_no_gap_while_writers_write(service: Service) -> None:
    done = threading.Event()
    statuses: list[int] = []

    def read() -> None:
        while not done.is_set():
            statuses.append(service.get("/v1/order_status", limit=5).status_code)

    reading = threading.Thread(target=read)
    reading.start()
    ends_at = time.monotonic() + 2
    while time.monotonic() < ends_at:
        service.place("m-1", "b-1")
    done.set()
    reading.join()
    assert set(statuses) == {200}
