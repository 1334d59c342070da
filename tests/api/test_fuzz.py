"""Whatever is sent, right or wrong, the door answers as it describes itself, and never with a fault of its own.

``GUARANTEE_FUZZ_EXAMPLES`` says how many requests are made up for each operation; a few on ordinary days.
"""

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ledger.streams import COMMANDS
from tests.api.service import NUMBERS, Service
from tests.api.test_http_roles import MAY_ASK

EXAMPLES = int(os.environ.get("GUARANTEE_FUZZ_EXAMPLES", "2"))
CHECKS = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
BATCH_CHECKS = CHECKS[:3]
"""A batch is answered line by line, whatever is in them."""
ROLE_OF = {name: role for role, names in MAY_ASK.items() for name in names.split()}

load_all_checks()


@schemathesis.serializer("application/jsonl")
def one_line(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """A batch of one."""
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def described(service: Service) -> Iterator[Any]:
    """The door as it describes itself, with orders under way that commands can be about."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("api.http.reads.WAIT_SECONDS", 0.05)
        patched.setattr("api.http.feed.LOOK_AGAIN_SECONDS", 0.1)
        for order_id in ("known-1", "known-2"):
            service.place("m-1", "buyer-1", order_id)
            service.pay(order_id)
        parcel = {"shipment_id": "s-1", "lines": [{"line_id": "1", "units": 2}], "waybill": "w", "is_cainiao": True}
        service.accepted("CreateShipment", "merchant", "m-1", order_id="known-1", carrier="cainiao", **parcel)
        scan = {"scan_id": "scan-1", "shipment_id": "s-1", "status": "delivered"}
        service.accepted("RecordScan", "carrier", "cainiao", order_id="known-1", **scan)
        refund = {"refund_id": "r-1", "lines": [{"line_id": "1", "units": 1}], "reason": "quality"}
        service.accepted("RequestRefund", "buyer", order_id="known-1", **refund)
        yield schemathesis.openapi.from_url(f"{service.base_url}/openapi.json")


def test_every_answer_is_as_it_is_described(service: Service, described: Any, subtests: pytest.Subtests) -> None:
    for found in described.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            with (
                subtests.test(operation.label, mode=mode.value),
                suppress(Unsatisfiable),
            ):  # takes nothing: no wrong way
                fuzz(service, operation.as_strategy(generation_mode=mode))


def fuzz(service: Service, cases: Any) -> None:
    """Sends some requests of one operation, each with a key that may."""

    @given(case=cases)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Case) -> None:
        name = case.path.rpartition("/")[2]
        role = ROLE_OF.get(name, "auditor")
        headers = service.headers(role, "m-1" if role == "merchant" else None)
        if isinstance(case.body, dict) and name in COMMANDS:
            chance = random.Random(repr(case.body))
            aim(case.body, chance)
            if approver := COMMANDS[name].approver:
                headers["Approval-Key"] = service.key("second-1", approver)
            if chance.random() < 0.8:  # what is made up is often the same
                headers["Idempotency-Key"] = f"fuzz-{next(NUMBERS)}"
        answer = case.call(headers=headers)
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=BATCH_CHECKS if name == "commands" else CHECKS)

    send()


def test_the_read_models_still_follow_whatever_was_accepted(service: Service) -> None:
    head = service.store.head().position
    assert service.projector.models.wait_for(head, 20) == head
    assert not [found.error for found in service.projector.models.status().values() if found.error]


KNOWN: dict[str, list[Any]] = {
    "order_id": ["known-1", "known-2"], "merchant_id": ["m-1", "m-2"], "line_id": ["1"], "promise_id": ["arrival"],
    "buyer_ref": ["buyer-1"], "category": ["other"], "shipment_id": ["s-1", "s-2"], "scan_id": ["scan-1", "scan-2"],
    "refund_id": ["r-1", "r-2", "arrival"], "status": ["delivered", "lost", "handed", "signed"], "units": [0, 1, 2, 3],
}  # fmt: skip


def aim(value: Any, chance: random.Random) -> None:
    """Most commands are to be about something that is there."""
    if isinstance(value, list):
        for item in value:
            aim(item, chance)
    if isinstance(value, dict):
        for field, old in value.items():
            if field in KNOWN and type(old) is type(KNOWN[field][0]) and chance.random() < 0.8:
                value[field] = chance.choice(KNOWN[field])
            else:
                aim(old, chance)
