"""The feed: by pages and as a stream, whole and in order whatever happens."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any

import httpx
import pytest

from api import keys
from migrations import SCHEMA
from tests.api.service import Service
from tests.api.test_http_roles import refused


def test_pages_lead_through_the_whole_log(service: Service) -> None:
    service.place("m-1", "b-1")
    head = service.store.head().position
    answer, found = service.get("/v1/events", limit=7), list[dict[str, Any]]()
    while answer.json():
        found += answer.json()
        assert answer.headers["Ledger-Position"] == str(found[-1]["position"])
        answer = service.client.get(answer.links["next"]["url"], headers=service.headers("auditor"))
    assert [event["position"] for event in found] == list(range(1, head + 1))
    assert found[0]["type"] == "RulebookPublished"
    assert found[-1]["type"] == "OrderPlaced"
    assert found[-1]["data"]["buyer_ref"] == "b-1"


def test_the_link_at_the_end_leads_to_what_is_not_there_yet(service: Service) -> None:
    head = service.store.head().position
    answer = service.get("/v1/events", after=head)
    assert answer.json() == []
    service.place("m-1", "b-1")
    following = service.client.get(answer.links["next"]["url"], headers=service.headers("auditor"))
    assert [event["position"] for event in following.json()] == [head + 1]


def test_a_merchant_gets_the_events_that_carry_its_id(service: Service) -> None:
    mine, other = service.place("m-1", "b-1"), service.place("m-2", "b-1")
    events = all_events(service, "merchant", "m-1")
    assert {event["data"]["merchant_id"] for event in events} == {"m-1"}
    streams = {event["stream"] for event in events}
    assert {f"order-{mine}", "merchant-m-1"} <= streams
    assert f"order-{other}" not in streams


def test_a_carrier_hears_of_its_own_parcels(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    service.pay(order_id)
    for carrier in ("cainiao", "yunda"):
        parcel = {"shipment_id": f"s-{carrier}", "lines": [{"line_id": "1", "units": 1}], "waybill": "w"}
        service.accepted(
            "CreateShipment", "merchant", "m-1", order_id=order_id, carrier=carrier, is_cainiao=False, **parcel
        )
    events = all_events(service, "carrier", "cainiao")
    assert {(event["type"], event["data"]["carrier"]) for event in events} == {("ShipmentCreated", "cainiao")}


def test_a_payment_provider_hears_of_what_it_has_to_pay(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    service.pay(order_id)
    service.accepted(
        "CancelUnits", "buyer", "b-1", order_id=order_id, refund_id="r", line_id="1", units=3, cause="buyer"
    )
    service.pay(service.place("m-1", "b-1"), amount_fen=5)
    assert {event["type"] for event in all_events(service, "payment", "alipay")} == {
        "RefundApproved",
        "StrayPaymentRecorded",
    }


def test_a_page_of_few_passes_over_what_it_may_not_show(service: Service) -> None:
    for _ in range(30):
        service.place("m-2", "b-1")
    service.place("m-1", "b-1")
    answer = service.get("/v1/events", "merchant", "m-1", limit=1)
    positions = []
    while answer.json():
        positions += [event["position"] for event in answer.json()]
        next_page = answer.links["next"]["url"]
        answer = service.client.get(next_page, headers=service.headers("merchant", "m-1"))
    assert positions == sorted(set(positions))
    assert positions[-1] == service.store.head().position


# --- the stream -------------------------------------------------------------------------------------------------------


def test_the_stream_says_what_happened_and_goes_on(service: Service) -> None:
    head = service.store.head().position
    with following(service, after=head) as events:
        order_id = service.place("m-1", "b-1")
        event = next(events)
        assert event["id"] == str(head + 1)
        assert event["event"] == "OrderPlaced"
        assert json.loads(event["data"])["stream"] == f"order-{order_id}"
        service.pay(order_id)
        assert next(events)["event"] == "PaymentCaptured"


def test_many_followers_who_come_and_go_miss_nothing_while_writers_write(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.feed.HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr("api.http.feed.LOOK_AGAIN_SECONDS", 0.5)
    start, is_over = service.store.head().position, threading.Event()

    def write(number: int) -> None:
        for _ in range(25):
            service.place(f"m-{number % 2 + 1}", f"b-{number}")

    def follow(number: int) -> list[int]:
        """Reads a few events, goes away, and comes back with the id of the last one."""
        positions: list[int] = []

        def has_all() -> bool:
            return is_over.is_set() and positions[-1:] == [service.store.head().position]

        while not has_all():
            with following(service, last_event_id=positions[-1] if positions else start) as events:
                for event in islice(events, 5 + 10 * number):
                    if "data" in event:  # else it only says how far the log was looked through
                        positions.append(int(event["id"]))
                    if has_all():
                        break
        return positions

    with ThreadPoolExecutor(8) as threads:
        followers = [threads.submit(follow, number) for number in range(4)]
        writers = [threads.submit(write, number) for number in range(4)]
        wait(writers)
        is_over.set()
        found = [follower.result(60) for follower in followers]
    assert [writer.exception() for writer in writers] == [None] * 4
    head = service.store.head().position
    assert head == start + 100
    for positions in found:
        assert positions == list(range(start + 1, head + 1))


def test_a_stream_of_few_says_how_far_it_has_come(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.feed.HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr("api.http.feed.LOOK_AGAIN_SECONDS", 0.1)
    head = service.store.head().position
    with following(service, "payment", after=head) as events:
        service.place("m-1", "b-1")
        while (event := next(events))["id"] != str(head + 1):
            pass
        assert "data" not in event


def test_a_stream_ends_when_its_key_is_revoked(service: Service) -> None:
    key = keys.create(service.url, SCHEMA, "leaver", "auditor")
    with following(service, headers={"Authorization": f"Bearer {key}"}, after=service.store.head().position) as events:
        keys.revoke(service.url, SCHEMA, key)
        revoked_at = time.monotonic()
        assert list(events) == []
        assert time.monotonic() - revoked_at < 8
    assert service.client.get("/v1/events", headers={"Authorization": f"Bearer {key}"}).status_code == 401


@pytest.mark.parametrize("last_id", ["x", "-1", "", "99999999999999999999"])
def test_a_last_event_id_that_is_none_is_refused(service: Service, last_id: str) -> None:
    headers = service.headers("auditor") | {"Accept": "text/event-stream", "Last-Event-ID": last_id}
    assert refused(service.client.get("/v1/events", headers=headers)) == (422, "invalid_parameter")


# --- words ------------------------------------------------------------------------------------------------------------


def all_events(service: Service, role: str, actor: str) -> list[dict[str, Any]]:
    answer, found = service.get("/v1/events", role, actor, limit=1000), list[dict[str, Any]]()
    while answer.json():
        found += answer.json()
        answer = service.client.get(answer.links["next"]["url"], headers=service.headers(role, actor))
    return found


@contextmanager
def following(
    service: Service,
    role: str = "auditor",
    *,
    after: int | None = None,
    last_event_id: int | None = None,
    headers: dict[str, str] | None = None,
) -> Iterator[Iterator[dict[str, str]]]:
    """The events of the stream, each with its fields; comments and the pause are passed over."""
    sent = {"Accept": "text/event-stream", **(headers or service.headers(role))}
    if last_event_id is not None:
        sent["Last-Event-ID"] = str(last_event_id)
    parameters = {} if after is None else {"after": after}
    with (
        httpx.Client(base_url=service.base_url, timeout=30) as client,
        client.stream("GET", "/v1/events", params=parameters, headers=sent) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield events_of(answer.iter_lines())


def events_of(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if line:
            field, _, value = line.partition(": ")
            event[field] = value
            continue
        if "id" in event:
            yield event
        event = {}
