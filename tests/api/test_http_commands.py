"""Commands by HTTP."""

import json
from typing import Any

import httpx
import pytest

from tests.api.service import Service

HUGE = 10**30
PROBLEM = "application/problem+json"


def test_an_accepted_command_says_where_its_events_lie(service: Service) -> None:
    order = service.order("m-1", "b-1")
    answer = service.send("PlaceOrder", "buyer", "b-1", **order)

    assert answer.status_code == 200
    stream = f"order-{order['order_id']}"
    position = service.store.head().position
    assert answer.json() == {"stream": stream, "version": 1, "position": position, "events": [f"{stream}@1"]}
    assert answer.headers["Ledger-Position"] == str(position)


def test_the_events_carry_who_asked_and_in_which_role(service: Service) -> None:
    order = service.order("m-1", "b-1")
    service.accepted("PlaceOrder", "buyer", "b-1", idempotency_key="who-asked", **order)

    [event] = service.store.history(f"order-{order['order_id']}")
    assert (event.actor, event.role, event.key) == ("b-1", "buyer", "who-asked")


def test_the_same_key_and_body_give_the_first_answer_byte_for_byte(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    body = {"order_id": order_id, "amount_fen": 31_000, "payment_ref": "p-1"}

    first = service.send("CapturePayment", "payment", idempotency_key="pay-once", **body)
    service.accepted("RateOrder", "buyer", "b-1", order_id=order_id, rating_id="r-1", service=5)
    again = service.send("CapturePayment", "payment", idempotency_key="pay-once", **body)

    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert first.headers["Ledger-Position"] == again.headers["Ledger-Position"]


def test_the_order_of_fields_and_blanks_do_not_make_another_body(service: Service) -> None:
    order = service.order("m-1", "b-1")
    first = service.send("PlaceOrder", "buyer", "b-1", idempotency_key="blanks", **order)
    shuffled = json.dumps(dict(reversed(order.items())), indent=3).encode()
    headers = service.headers("buyer", "b-1") | {"Idempotency-Key": "blanks", "Content-Type": "application/json"}
    assert service.client.post("/v1/commands/PlaceOrder", content=shuffled, headers=headers).content == first.content


def test_another_body_under_the_same_key_is_refused(service: Service) -> None:
    order_id = service.place("m-1", "b-1")
    rating = {"order_id": order_id, "rating_id": "r-1"}
    service.accepted("RateOrder", "buyer", "b-1", idempotency_key="rate-once", **rating, service=5)
    other = service.send("RateOrder", "buyer", "b-1", idempotency_key="rate-once", **rating, service=1)
    assert_problem(other, 422, "key_reused")


def test_a_rejected_command_leaves_its_key_free(service: Service) -> None:
    order = service.order("m-1", "b-1")
    payment = {"order_id": order["order_id"], "amount_fen": 31_000, "payment_ref": "p"}
    assert_problem(service.send("CapturePayment", "payment", idempotency_key="early", **payment), 409, "unknown_stream")
    service.accepted("PlaceOrder", "buyer", "b-1", **order)
    service.accepted("CapturePayment", "payment", idempotency_key="early", **payment)


def test_an_order_that_was_placed_is_not_placed_again_under_another_key(service: Service) -> None:
    order = service.order("m-1", "b-1")
    service.accepted("PlaceOrder", "buyer", "b-1", idempotency_key="placed-once", **order)
    service.accepted("PlaceOrder", "buyer", "b-1", idempotency_key="placed-once", **order)
    assert_problem(service.send("PlaceOrder", "buyer", "b-1", **order), 409, "wrong_state")


def test_a_rejected_command_is_409_with_its_code(service: Service) -> None:
    order = service.order("m-1", "b-1", total_fen=5)
    refused = service.send("PlaceOrder", "buyer", "b-1", **order)
    assert_problem(refused, 409, "total_wrong")
    assert refused.json()["type"] == "urn:guarantee-ledger:problem:total_wrong"


def test_an_instant_is_kept_in_utc_whatever_its_zone(service: Service) -> None:
    order = service.order("m-1", "b-1", occurred_at="2015-07-01T11:30:00+08:00")
    service.accepted("PlaceOrder", "buyer", "b-1", idempotency_key="zones", **order)
    order["occurred_at"] = "2015-07-01T03:30:00Z"
    again = service.send("PlaceOrder", "buyer", "b-1", idempotency_key="zones", **order)
    assert again.status_code == 200
    [event] = service.store.history(f"order-{order['order_id']}")
    assert event.occurred_at.isoformat() == "2015-07-01T03:30:00+00:00"


# --- keys and headers -------------------------------------------------------------------------------------------------


def test_a_command_without_an_idempotency_key_is_refused(service: Service) -> None:
    answer = service.client.post("/v1/commands/RateOrder", json={}, headers=service.headers("buyer"))
    assert_problem(answer, 400, "idempotency_key_missing")


@pytest.mark.parametrize("key", ["", "a" * 201, "tab\there", "\xe9t\xe9"])
def test_an_idempotency_key_is_visible_ascii_and_not_too_long(service: Service, key: str) -> None:
    headers = {name: value.encode() for name, value in service.headers("buyer").items()}
    headers["Idempotency-Key"] = key.encode("latin-1")
    answer = service.client.post("/v1/commands/RateOrder", json={}, headers=headers)
    assert_problem(answer, 400, "bad_header")


def test_the_keys_of_carried_messages_cannot_be_taken(service: Service) -> None:
    answer = service.send("RateOrder", "buyer", idempotency_key="P3/o-1/r-1", order_id="o", rating_id="r")
    assert_problem(answer, 400, "bad_header")


def test_a_correlation_id_goes_with_the_events_and_comes_back(service: Service) -> None:
    order = service.order("m-1", "b-1")
    answer = service.send("PlaceOrder", "buyer", "b-1", headers={"X-Correlation-ID": "checkout 17"}, **order)
    assert answer.headers["X-Correlation-ID"] == "checkout 17"
    assert service.store.history(f"order-{order['order_id']}")[0].correlation_id == "checkout 17"


def test_a_correlation_id_is_made_where_none_is_given(service: Service) -> None:
    order = service.order("m-1", "b-1")
    made = service.send("PlaceOrder", "buyer", "b-1", **order).headers["X-Correlation-ID"]
    assert made
    assert made != service.send("PlaceOrder", "buyer", "b-1").headers["X-Correlation-ID"]
    assert service.store.history(f"order-{order['order_id']}")[0].correlation_id == made


def test_an_unknown_key_is_401_and_says_how_to_do_it(service: Service) -> None:
    for headers in ({}, {"Authorization": "Bearer gl_nobody"}, {"Authorization": "Basic Z2w6"}, {"X-Api-Key": "é"}):
        sent = {name: value.encode() for name, value in headers.items()}
        answer = service.client.post("/v1/commands/RateOrder", json={}, headers=sent)
        assert_problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_key_may_come_as_x_api_key(service: Service) -> None:
    headers = {"X-Api-Key": service.key("auditor-1", "auditor")}
    assert service.client.get("/v1/order_status", headers=headers).status_code == 200


# --- four eyes --------------------------------------------------------------------------------------------------------


def test_a_command_that_needs_four_eyes_is_rejected_without_the_second_pair(service: Service) -> None:
    assert_problem(service.send("AuthoriseBudget", "finance", **budget(2101)), 409, "approval_missing")


def test_the_second_pair_of_eyes_belongs_to_another_person(service: Service) -> None:
    same = {"Approval-Key": service.key("finance-1", "supervisor")}
    answer = service.send("AuthoriseBudget", "finance", headers=same, **budget(2102))
    assert_problem(answer, 409, "same_approver")


@pytest.mark.parametrize("role", ["finance", "handler", "admin", "auditor"])
def test_only_the_role_that_approves_can_approve(service: Service, role: str) -> None:
    answer = service.send("AuthoriseBudget", "finance", approver=role, **budget(2103))
    assert_problem(answer, 403, "approver_not_allowed")


def test_an_unknown_approval_key_is_refused(service: Service) -> None:
    unknown = {"Approval-Key": "gl_nobody"}
    answer = service.send("AuthoriseBudget", "finance", headers=unknown, **budget(2103))
    assert_problem(answer, 403, "approver_not_allowed")


def test_who_approved_stands_in_the_event(service: Service) -> None:
    service.accepted("AuthoriseBudget", "finance", approver="supervisor", **budget(2104))
    assert service.store.history("budget-quality-2104")[0].data.approved_by == "supervisor-2"


def test_approved_by_cannot_be_sent_in_the_body(service: Service) -> None:
    answer = service.send("AuthoriseBudget", "finance", **budget(2105), approved_by="supervisor-2")
    assert_problem(answer, 422, "invalid_body")


# --- what is no command -----------------------------------------------------------------------------------------------

RATING = {"order_id": "o", "rating_id": "r", "service": 5}
BAD_BODIES: list[tuple[str, bytes, int]] = [
    ("nothing", b"", 400),
    ("no json", b"order_id=o", 400),
    ("half of it", b'{"order_id": "o', 400),
    ("two of them", json.dumps(RATING).encode() * 2, 400),
    ("not utf-8", b'{"order_id": "\xff"}', 400),
    ("utf-16", '{"order_id": "o"}'.encode("utf-16"), 400),
    ("a lone surrogate", b'{"order_id": "o", "rating_id": "r", "service": 5, "x": "\\ud800"}', 422),
    ("a lone surrogate where text is", b'{"order_id": "\\ud800", "rating_id": "r"}', 400),
    ("a raw control character", b'{"order_id": "a\x00b"}', 400),
    ("null", b"null", 422),
    ("a list", b"[]", 422),
    ("a number", b"1", 422),
    ("not a number", b'{"service": NaN}', 400),
    ("deep lists", b"[" * 100_000, 422),
    ("deep objects", b'{"a":' * 100_000, 422),
    ("an unknown field", json.dumps(RATING | {"stars": 5}).encode(), 422),
    ("a missing field", b'{"order_id": "o"}', 422),
    ("a field of another type", json.dumps(RATING | {"service": "5"}).encode(), 422),
    ("a float", json.dumps(RATING | {"service": 5.0}).encode(), 422),
    ("a huge integer", json.dumps(RATING | {"service": HUGE}).encode(), 422),
    ("an integer of 5,000 digits", b'{"order_id": "o", "rating_id": "r", "service": ' + b"9" * 5_000 + b"}", 422),
    ("an empty id", json.dumps(RATING | {"order_id": ""}).encode(), 422),
    ("an id with a slash", json.dumps(RATING | {"order_id": "a/b"}).encode(), 422),
    ("an id with a blank", json.dumps(RATING | {"order_id": "a b"}).encode(), 422),
    ("an id with a line feed behind", json.dumps(RATING | {"order_id": "a\n"}).encode(), 422),
    ("an id that is too long", json.dumps(RATING | {"order_id": "a" * 201}).encode(), 422),
    ("an id with NUL", json.dumps(RATING | {"order_id": "a\0"}).encode(), 422),
    ("an id that is not ASCII", json.dumps(RATING | {"order_id": "订单"}).encode(), 422),
    ("an instant without a zone", json.dumps(RATING | {"occurred_at": "2015-07-01T00:00:00"}).encode(), 422),
    ("an instant before the calendar", json.dumps(RATING | {"occurred_at": "0001-01-01T00:00:00+08:00"}).encode(), 422),
    ("an instant after it", json.dumps(RATING | {"occurred_at": "9999-12-31T23:59:59-08:00"}).encode(), 422),
    ("a date for an instant", json.dumps(RATING | {"occurred_at": "2015-07-01"}).encode(), 422),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), [bad[1:] for bad in BAD_BODIES], ids=[bad[0] for bad in BAD_BODIES])
def test_what_is_no_command_is_refused(service: Service, body: bytes, status: int) -> None:
    answer = post(service, "RateOrder", body)
    assert_problem(answer, status, "bad_json" if status == 400 else "invalid_body")


@pytest.mark.parametrize("amount", [2**63, -(2**63) - 1, 10**13 + 1, HUGE])
def test_amounts_that_read_models_cannot_add_up_are_refused(service: Service, amount: int) -> None:
    order = service.order("m-1", "b-1")
    for changed in (
        order | {"total_fen": amount},
        order | {"freight_fen": amount},
        order | {"lines": [order["lines"][0] | {"line_fen": amount}]},
    ):
        assert_problem(service.send("PlaceOrder", "buyer", "b-1", **changed), 422, "invalid_body")


def test_many_large_amounts_are_refused_as_a_sum_and_never_break_a_read_model(service: Service) -> None:
    lines = [{"line_id": str(n), "sku": "gold", "units": 2**31 - 1, "line_fen": 10**13} for n in range(1_000)]
    order = service.order("m-1", "b-1", lines=lines, promises=[], total_fen=10**13, freight_fen=0)
    assert_problem(service.send("PlaceOrder", "buyer", "b-1", **order), 409, "total_wrong")
    service.caught_up()


@pytest.mark.parametrize("day", ["0000-01-01", "0001-01-01", "9999-12-31", "2015-02-29", "2015-07-01T00:00:00Z"])
def test_days_at_the_edge_of_the_calendar_are_refused(service: Service, day: str) -> None:
    body = {"merchant_id": "m-9", "trustpass_id": "t", "valid_from_on": day, "valid_to_on": day}
    assert_problem(service.send("RegisterTrustPass", "officer", **body), 422, "invalid_body")


def test_what_the_door_fills_in_cannot_be_sent(service: Service) -> None:
    for value in (None, 1):
        order = service.order("m-1", "b-1", merchant_version=value)
        assert_problem(service.send("PlaceOrder", "buyer", "b-1", **order), 422, "invalid_body")


@pytest.mark.parametrize(
    "body",
    [
        {"rulebook": "x\0"},
        {"rulebook": "x", "a\0b": 1},
        {"rulebook": "x", "score": {"weight": HUGE}},
        {"rulebook": "x", "score": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]},
    ],
)
def test_a_free_form_body_has_bounds_too(service: Service, body: Any) -> None:
    answer = service.send("PublishRulebook", "admin", approver="supervisor", body=body)
    assert_problem(answer, 422, "invalid_body")


def test_a_body_over_a_mebibyte_is_refused(service: Service) -> None:
    large = b'{"order_id": "' + b"a" * 2**20 + b'"}'
    assert_problem(post(service, "RateOrder", large), 413, "body_too_large")


def test_a_large_body_of_unknown_length_is_refused(service: Service) -> None:
    parts = (b" " * 65_536 for _ in range(17))
    headers = service.headers("buyer") | {"Idempotency-Key": "large", "Content-Type": "application/json"}
    answer = service.client.post("/v1/commands/RateOrder", content=parts, headers=headers)
    assert_problem(answer, 413, "body_too_large")


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x", ""])
def test_another_media_type_is_refused(service: Service, media_type: str) -> None:
    assert_problem(post(service, "RateOrder", b"{}", {"Content-Type": media_type}), 415, "unsupported_media_type")


def test_a_packed_body_is_refused(service: Service) -> None:
    assert_problem(post(service, "RateOrder", b"{}", {"Content-Encoding": "gzip"}), 415, "unsupported_media_type")


def test_an_unknown_command_is_404_and_another_method_405(service: Service) -> None:
    assert_problem(post(service, "EraseHistory", b"{}"), 404, "not_found")
    answer = service.client.delete("/v1/commands/RateOrder", headers=service.headers("buyer"))
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


# --- many at once -----------------------------------------------------------------------------------------------------


def test_a_batch_is_answered_line_by_line_each_judged_on_its_own(service: Service) -> None:
    good, wrong = service.order("m-1", "b-1"), service.order("m-1", "b-1", total_fen=1)
    answers = batch(
        service,
        "integrator",
        {"command": "PlaceOrder", "key": "batch-1", "body": good},
        {"command": "PlaceOrder", "key": "batch-2", "body": wrong},
        {"command": "PlaceOrder", "key": "batch-1", "body": good},
        {"command": "PlaceOrder", "key": "batch-1", "body": good | {"region": "GD"}},
        {"command": "NoSuchThing", "key": "batch-3", "body": {}},
        {"command": "PlaceOrder", "key": "batch-4", "body": {}},
        {"command": "SuspendMerchant", "key": "batch-5", "body": {"merchant_id": "m-1", "reason": "envy"}},
    )
    assert [(x["line"], x["result"], x["code"]) for x in answers] == [
        (1, "accepted", None),
        (2, "rejected", "total_wrong"),
        (3, "repeated", None),
        (4, "invalid", "key_reused"),
        (5, "invalid", "invalid_body"),
        (6, "invalid", "invalid_body"),
        (7, "rejected", "not_allowed"),
    ]
    assert answers[2]["events"] == answers[0]["events"] == [f"order-{good['order_id']}@1"]


def test_lines_of_one_stream_are_decided_in_their_order(service: Service) -> None:
    orders = [service.order("m-1", "b-1") for _ in range(30)]
    placed = [{"command": "PlaceOrder", "key": f"place-{o['order_id']}", "body": o} for o in orders]
    rated = [
        {
            "command": "RateOrder",
            "key": f"rate-{o['order_id']}-{n}",
            "body": {"order_id": o["order_id"], "rating_id": f"r-{n}", "service": 5},
        }
        for n in range(3)
        for o in orders
    ]
    answers = batch(service, "integrator", *placed, *rated)
    assert {x["result"] for x in answers} == {"accepted"}
    for order in orders:
        events = service.store.history(f"order-{order['order_id']}")
        assert [x.key for x in events[1:]] == [f"rate-{order['order_id']}-{n}" for n in range(3)]


def test_a_line_that_is_no_json_spoils_no_other(service: Service) -> None:
    good = json.dumps({"command": "PlaceOrder", "key": "after-rubbish", "body": service.order("m-1", "b-1")}).encode()
    text = b"\n".join([b"{", b"[1]", b"\xff\xfe", good, b'{"command": "PlaceOrder"}'])
    answers = [json.loads(x) for x in post_batch(service, "integrator", text).iter_lines()]
    assert [x["result"] for x in answers] == ["invalid", "invalid", "invalid", "accepted", "invalid"]


def test_a_large_batch_comes_back_whole_and_in_order(service: Service) -> None:
    lines = [
        {"command": "PlaceOrder", "key": f"large-{n}", "body": service.order("m-1", "b-1", f"large-{n}")}
        for n in range(600)
    ]
    answers = batch(service, "integrator", *lines)
    assert [x["line"] for x in answers] == list(range(1, 601))
    assert [x["stream"] for x in answers] == [f"order-large-{n}" for n in range(600)]


def test_a_batch_over_its_limit_is_refused(service: Service) -> None:
    assert_problem(post_batch(service, "integrator", b"\n" * (16 * 2**20 + 1)), 413, "body_too_large")


# --- words ------------------------------------------------------------------------------------------------------------


def budget(year: int) -> dict[str, Any]:
    return {"budget": "quality", "year": year, "authorised_fen": 1_000_000}


def post(service: Service, command: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    sent = {"Content-Type": "application/json", "Idempotency-Key": "some-key"} | service.headers("buyer")
    return service.client.post(f"/v1/commands/{command}", content=body, headers=sent | (headers or {}))


def post_batch(service: Service, role: str, text: bytes) -> httpx.Response:
    headers = service.headers(role) | {"Content-Type": "application/jsonl"}
    return service.client.post("/v1/commands", content=text, headers=headers)


def batch(service: Service, role: str, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    answer = post_batch(service, role, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/jsonl"
    return [json.loads(line) for line in answer.iter_lines()]


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert problem["type"] == f"urn:guarantee-ledger:problem:{code}"
    assert problem["correlation_id"] == answer.headers["X-Correlation-ID"]
