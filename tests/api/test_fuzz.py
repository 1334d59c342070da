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
from tests.api.service import Service
from tests.api.test_http_roles import MAY_ASK

EXAMPLES = int(os.environ.get("GUARANTEE_FUZZ_EXAMPLES", "4"))
CHECKS = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
ROLE_OF = {name: role for role, names in MAY_ASK.items() for name in names.split()}

load_all_checks()


@schemathesis.serializer("application/jsonl")
def one_line(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """A batch of one."""
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def described(service: Service) -> Iterator[Any]:
    """The door as it describes itself, with two orders under way that commands can be about."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("api.http.reads.WAIT_SECONDS", 0.05)
        patched.setattr("api.http.feed.LOOK_AGAIN_SECONDS", 0.1)
        for order_id in ("known-1", "known-2"):
            service.place("m-1", "integrator-1", order_id)
            service.pay(order_id)
        yield schemathesis.openapi.from_url(f"{service.base_url}/openapi.json")


def test_every_answer_is_as_it_is_described(service: Service, described: Any, subtests: pytest.Subtests) -> None:
    for found in described.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            with subtests.test(operation.label, mode=mode.value), suppress(Unsatisfiable):  # takes nothing: no wrong way
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
        headers = service.headers(role)
        if isinstance(case.body, dict) and name in COMMANDS:
            aim(case.body, random.Random(repr(case.body)))
            if approver := COMMANDS[name].approver:
                headers["Approval-Key"] = service.key("second-1", approver)
        answer = case.call(headers=headers)
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=CHECKS)

    send()


def test_the_read_models_still_follow_whatever_was_accepted(service: Service) -> None:
    head = service.store.head().position
    assert service.projector.models.wait_for(head, 20) == head
    assert not [found.error for found in service.projector.models.status().values() if found.error]


def aim(body: dict[str, Any], chance: random.Random) -> None:
    """Most commands are to be about something that is there."""
    known = {
        "order_id": ["known-1", "known-2"], "merchant_id": ["m-1", "m-2"], "line_id": ["1"], "promise_id": ["arrival"],
        "buyer_ref": ["integrator-1"], "category": ["other"],
    }  # fmt: skip
    for field, values in known.items():
        if isinstance(body.get(field), str) and chance.random() < 0.8:
            body[field] = chance.choice(values)
