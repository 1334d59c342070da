"""How the door behaves as a service: its health, its figures, its logs, its description, and bad days."""

import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from api import logs
from api.commands import Desk
from projections import PROJECTIONS
from tests.api.service import Service, serving
from tests.api.test_http_commands import assert_problem
from tests.api.test_http_roles import refused

# --- health and figures -----------------------------------------------------------------------------------------------


def test_it_is_alive_and_ready(service: Service) -> None:
    assert service.client.get("/healthz").json() == {"status": "alive"}
    assert service.client.get("/readyz").json() == {"status": "ready"}


def test_it_is_not_ready_while_a_read_model_has_stopped(service: Service) -> None:
    with owner(service) as connection:
        connection.execute("UPDATE read_models SET error = 'x', error_position = 3 WHERE name = 'due_tasks'")
        answer = service.client.get("/readyz")
        connection.execute("UPDATE read_models SET error = NULL, error_position = NULL WHERE name = 'due_tasks'")
    assert_problem(answer, 503, "not_ready")
    assert "due_tasks stopped at position 3" in answer.json()["detail"]


def test_it_is_not_ready_before_its_schema_is_up_to_date(service: Service) -> None:
    with owner(service) as connection:
        connection.execute("UPDATE migrations SET name = 'x' WHERE name = '0004_api_keys.sql'")
        answer = service.client.get("/readyz")
        connection.execute("UPDATE migrations SET name = '0004_api_keys.sql' WHERE name = 'x'")
    assert_problem(answer, 503, "not_ready")
    assert "0004_api_keys.sql was not applied" in answer.json()["detail"]


def test_the_figures_tell_commands_by_result_and_how_far_read_models_lag(service: Service) -> None:
    order = service.order("m-1", "b-1")
    service.accepted("PlaceOrder", "buyer", "b-1", idempotency_key="figures", **order)
    service.accepted("PlaceOrder", "buyer", "b-1", idempotency_key="figures", **order)
    service.send("PlaceOrder", "buyer", "b-1", **service.order("m-1", "b-1", total_fen=1))
    service.send("PlaceOrder", "buyer", "b-1")
    head = service.caught_up()
    figures = figures_of(service)
    for result in ("accepted", "repeated", "rejected", "refused"):
        assert figures[f'guarantee_commands_total{{command="PlaceOrder",result="{result}"}}'] >= 1
    assert figures['guarantee_command_seconds_count{command="PlaceOrder"}'] >= 4
    assert figures["guarantee_commands_waiting"] == 0
    assert figures["guarantee_head_position"] == head
    assert {figures[f'guarantee_read_model_lag{{read_model="{name}"}}'] for name in PROJECTIONS} == {0}


# --- the description --------------------------------------------------------------------------------------------------


def test_the_description_names_every_route_that_is_served_and_every_schema_it_speaks_of(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert wanted == set(document["components"]["schemas"])
    assert {f"/v1/{name}" for name in PROJECTIONS} <= set(document["paths"])
    operations = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations))


def test_the_description_of_a_command_has_its_words_bounds_and_roles(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    operation = document["paths"]["/v1/commands/PlaceOrder"]["post"]
    assert "`merchant_not_active`" in operation["description"]
    assert "Asked by: buyer, integrator." in operation["description"]
    schema = document["components"]["schemas"]["PlaceOrder"]
    assert "merchant_version" not in schema["properties"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["order_id"]["pattern"] == "^[!-.0-~]{1,200}$"
    assert schema["properties"]["total_fen"]["maximum"] == 10**13
    approved = document["paths"]["/v1/commands/AuthoriseBudget"]["post"]
    assert "Approval-Key" in {parameter["name"] for parameter in approved["parameters"]}


def test_the_page_for_people_needs_nothing_from_elsewhere_and_lets_nothing_else_in(service: Service) -> None:
    page = service.client.get("/docs")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "src=" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(quiet: None) -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", is_json=True, stream=stream)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return stream


def test_each_request_is_logged_once_in_the_past_tense(service: Service, logged: io.StringIO) -> None:
    order = service.order("m-1", "b-1")
    position = service.accepted("PlaceOrder", "buyer", "b-1", headers={"X-Correlation-ID": "c-1"}, **order)["position"]
    service.send("PlaceOrder", "buyer", "b-1", **order)
    service.get(f"/v1/order_status/{order['order_id']}", after=position)
    service.get("/v1/nonsense")

    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [x["event"] for x in lines] == ["command_accepted", "command_rejected", "row_read", "request_refused"]
    stream = f"order-{order['order_id']}"
    accepted = {k: v for k, v in lines[0].items() if k not in ("at", "duration_ms")}
    assert accepted == {
        "level": "info", "event": "command_accepted", "correlation_id": "c-1", "method": "POST",
        "path": "/v1/commands/PlaceOrder", "status": 200, "actor": "b-1", "role": "buyer", "stream": stream,
        "position": position, "command": "PlaceOrder",
    }  # fmt: skip
    assert lines[0]["duration_ms"] > 0
    assert lines[1]["code"] == "wrong_state"
    assert (lines[2]["read_model"], lines[2]["rows"]) == ("order_status", 1)


def test_keys_are_never_logged(service: Service, logged: io.StringIO) -> None:
    key = service.key("b-1", "buyer")
    service.send(
        "RateOrder", "buyer", "b-1", headers={"Approval-Key": key, "X-Api-Key": key}, order_id="o", rating_id="r"
    )
    service.client.get("/v1/order_status", headers={"X-Api-Key": "gl_unknown"})
    assert logged.getvalue()
    assert key not in logged.getvalue()
    assert "gl_" not in logged.getvalue()


def test_a_fault_of_ours_is_logged_under_the_correlation_id_and_tells_nothing(
    service: Service, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(desk: Desk, request: Any) -> None:
        raise KeyError("a secret of the house")

    monkeypatch.setattr(Desk, "execute", broken)
    answer = service.send("RateOrder", "buyer", "b-1", order_id="o", rating_id="r")
    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    failed = json.loads(logged.getvalue().splitlines()[0])
    assert failed["event"] == "request_failed"
    assert failed["correlation_id"] == answer.headers["X-Correlation-ID"]
    assert "a secret of the house" in failed["exception"]
    assert service.key("b-1", "buyer") not in logged.getvalue()


def test_a_rule_that_cannot_calculate_with_a_number_is_no_fault_of_ours(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overflowing(desk: Desk, request: Any) -> None:
        raise OverflowError("date value out of range")

    monkeypatch.setattr(Desk, "execute", overflowing)
    answer = service.send("RateOrder", "buyer", "b-1", order_id="o", rating_id="r")
    assert_problem(answer, 422, "out_of_range")


# --- bad days ---------------------------------------------------------------------------------------------------------


def test_when_too_many_wait_the_next_are_told_to_come_back_and_nothing_is_lost(database: str) -> None:
    with serving(database, queue_limit=4, is_following=False) as service:
        service.publish_rulebook()
        service.admit("m-1")
        service.key("integrator-1", "integrator")
        orders = [service.order("m-1", "b-1") for _ in range(200)]

        def place(order: dict[str, Any]) -> httpx.Response:
            return service.send("PlaceOrder", "integrator", idempotency_key=f"k-{order['order_id']}", **order)

        with ThreadPoolExecutor(48) as threads:
            answers = list(threads.map(place, orders))
        assert {x.status_code for x in answers} == {200, 503}
        refused_answers = [x for x in answers if x.status_code == 503]
        assert {(x.json()["code"], x.headers["Retry-After"]) for x in refused_answers} == {("overloaded", "1")}
        for order, answer in zip(orders, answers, strict=True):
            written = service.store.history(f"order-{order['order_id']}")
            assert len(written) == (1 if answer.status_code == 200 else 0)

        pending = orders
        for _ in range(50):
            pending = [order for order in pending if place(order).status_code != 200]
            if not pending:
                break
        assert all(len(service.store.history(f"order-{x['order_id']}")) == 1 for x in orders)


def test_while_the_database_is_away_it_says_so_and_recovers_with_it(database: str) -> None:
    with serving(database, retry_seconds=0.2, is_following=False) as service:
        service.publish_rulebook()
        service.admit("m-1")
        order = service.order("m-1", "b-1")
        service.key("b-1", "buyer")
        is_away(database, True)
        try:
            answer = service.send("PlaceOrder", "buyer", "b-1", idempotency_key="patience", **order)
            assert refused(answer) == (503, "database_away")
            assert answer.headers["Retry-After"] == "1"
            assert refused(service.get("/v1/order_status", "buyer", "b-1")) == (503, "database_away")
            assert refused(service.client.get("/readyz")) == (503, "not_ready")
            assert service.client.get("/healthz").status_code == 200
            assert service.client.get("/metrics").status_code == 200
        finally:
            is_away(database, False)
        eventually_200(lambda: service.send("PlaceOrder", "buyer", "b-1", idempotency_key="patience", **order))
        eventually_200(lambda: service.get("/v1/order_status", "buyer", "b-1"))


RAW_REQUESTS = {
    "a target that is not ASCII": b"GET /v1/order_status/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header that is not ASCII": b"GET /v1/order_status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n",
    "a control character": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Correlation-ID: bell\x07\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target": b"GET http://x/v1/order_status HTTP/1.1\r\nHost: x\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a length that is none": b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "a huge length": b"POST /v1/commands/RateOrder HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "a long target": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
    "a strange method": b"BREW /v1/order_status HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade": b"GET /v1/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", RAW_REQUESTS.values(), ids=RAW_REQUESTS.keys())
def test_whatever_comes_over_the_wire_is_no_fault_of_ours(service: Service, request_bytes: bytes) -> None:
    parts = urlsplit(service.base_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65_536)
    assert not answer or int(answer.split()[1]) < 500
    assert service.client.get("/healthz").status_code == 200


def test_a_caller_who_goes_away_harms_nobody(service: Service) -> None:
    def leave(order: dict[str, Any]) -> None:
        body = json.dumps(order).encode()
        head = f"POST /v1/commands/PlaceOrder HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        fields = service.headers("buyer", "b-1") | {"Idempotency-Key": f"left-{order['order_id']}"}
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        parts = urlsplit(service.base_url)
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(head.encode() + b"\r\n" + body)

    orders = [service.order("m-1", "b-1") for _ in range(20)]
    leaving = [threading.Thread(target=leave, args=[order]) for order in orders]
    for thread in leaving:
        thread.start()
    for thread in leaving:
        thread.join()
    for order in orders:
        key = f"left-{order['order_id']}"
        assert service.accepted("PlaceOrder", "buyer", "b-1", idempotency_key=key, **order)["version"] == 1


# --- words ------------------------------------------------------------------------------------------------------------


def owner(service: Service) -> psycopg.Connection[Any]:
    return psycopg.connect(service.url, autocommit=True, options="-c search_path=guarantee_ledger")


def is_away(url: str, away: bool) -> None:
    """Closes one database of the server to everybody, or opens it again."""
    name = urlsplit(url).path[1:]
    with psycopg.connect(urlsplit(url)._replace(path="/postgres").geturl(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not away}")
        if away:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])


def eventually_200(ask: Callable[[], httpx.Response], seconds: float = 30) -> None:
    ends_at = time.monotonic() + seconds
    while (answer := ask()).status_code == 503 and time.monotonic() < ends_at:
        time.sleep(0.1)
    assert answer.status_code == 200, answer.text


def figures_of(service: Service) -> dict[str, float]:
    lines = service.client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}
