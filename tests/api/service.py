"""The real application on a real socket over a real database, and short words for talking to it."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import uvicorn

from api import keys
from api.app import create_app, server_config
from api.clock import VirtualClock
from api.commands import Desk
from ledger.rulebook import shipped
from ledger.store import Store
from ledger.streams import WIRE
from migrations import SCHEMA, migrate
from projections.runner import Projector

JULY = datetime(2015, 7, 1, 4, tzinfo=UTC)
NUMBERS = count(1)


class Service:
    """One running door.  Its clock stands still unless it is moved; its read models follow by themselves."""

    def __init__(self, base_url: str, url: str, store: Store, projector: Projector, clock: VirtualClock) -> None:
        self.base_url, self.url, self.store, self.projector, self.clock = base_url, url, store, projector, clock
        self.client = httpx.Client(base_url=base_url, timeout=30)
        self._keys: dict[tuple[str, str], str] = {}

    def key(self, actor: str, role: str) -> str:
        """The API key of an actor in a role."""
        if (actor, role) not in self._keys:
            self._keys[actor, role] = keys.create(self.url, SCHEMA, actor, role)
        return self._keys[actor, role]

    def headers(self, role: str, actor: str | None = None) -> dict[str, str]:
        """What shows who is asking."""
        return {"Authorization": f"Bearer {self.key(actor or f'{role}-1', role)}"}

    def send(
        self,
        command: str,
        role: str,
        actor: str | None = None,
        *,
        idempotency_key: str | None = None,
        approver: str | None = None,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """Sends one command; ``approver`` is the role of somebody else who approves."""
        all_headers = self.headers(role, actor) | {"Idempotency-Key": idempotency_key or f"key-{next(NUMBERS)}"}
        if approver:
            all_headers["Approval-Key"] = self.key(f"{approver}-2", approver)
        return self.client.post(f"/v1/commands/{command}", json=body, headers=all_headers | dict(headers or {}))

    def accepted(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Sends a command that has to be accepted."""
        answer = self.send(*args, **kwargs)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def get(self, path: str, role: str = "auditor", actor: str | None = None, **parameters: Any) -> httpx.Response:
        """Reads something."""
        return self.client.get(path, params=parameters, headers=self.headers(role, actor))

    # --- stories ------------------------------------------------------------------------------------------------------

    def publish_rulebook(self) -> None:
        """The programme's first rulebook."""
        self.accepted("PublishRulebook", "admin", approver="supervisor", body=shipped("rulebook-2015.1"))

    def admit(self, merchant_id: str) -> str:
        """An active merchant, with everything it takes."""
        m: dict[str, Any] = {"merchant_id": merchant_id}
        trustpass = {"trustpass_id": f"tp-{merchant_id}", "valid_from_on": "2015-01-01", "valid_to_on": "2030-12-31"}
        year = {"period_from_on": "2015-07-01", "period_to_on": "2025-06-30"}
        self.accepted("RegisterTrustPass", "officer", **m, **trustpass)
        self.accepted("ApplyForProgramme", "merchant", merchant_id, **m, category="other", contact_ref="c-1")
        self.accepted("StartReview", "officer", **m, officer_id="officer-1", checklist=["licence"])
        check = {"name": "licence", "evidence_sha256": "0" * 64}
        self.accepted(
            "PassReview", "officer", **m, checks=[check], on_time_bp=None, as_described_bp=None, score_position=0
        )
        promised = {"guarantees": ["quality", "delivery", "exchange"], "exchange_days": 7, "return_address_ref": "a-1"}
        self.accepted("AcceptGuarantees", "merchant", merchant_id, **m, **promised)
        self.accepted("RecordAnnualFee", "payment", **m, fee_fen=2_800_000, **year, payment_ref=f"fee-{merchant_id}")
        self.accepted("RecordDeposit", "payment", **m, amount_fen=2_000_000, payment_ref=f"deposit-{merchant_id}")
        return merchant_id

    def order(self, merchant_id: str, buyer_ref: str, order_id: str | None = None, **changes: Any) -> dict[str, Any]:
        """The body of an order that can be placed."""
        return {
            "order_id": order_id or f"o-{next(NUMBERS)}",
            "merchant_id": merchant_id,
            "buyer_ref": buyer_ref,
            "checkout_id": "checkout-1",
            "category": "other",
            "address_ref": "address-1",
            "region": "ZJ",
            "lines": [{"line_id": "1", "sku": "red", "units": 3, "line_fen": 30_000}],
            "freight_fen": 1_000,
            "total_fen": 31_000,
            "promises": [
                {
                    "promise_id": "arrival",
                    "kind": "arrive_by",
                    "line_ids": ["1"],
                    "due_at": (self.clock.now() + timedelta(days=14)).isoformat(),
                    "remedy": "full_refund",
                }
            ],
        } | changes

    def place(self, merchant_id: str, buyer_ref: str, order_id: str | None = None) -> str:
        """An order that was placed by its buyer."""
        order = self.order(merchant_id, buyer_ref, order_id)
        self.accepted("PlaceOrder", "buyer", buyer_ref, **order)
        return str(order["order_id"])

    def pay(self, order_id: str, amount_fen: int = 31_000) -> dict[str, Any]:
        """The provider holds the money."""
        return self.accepted(
            "CapturePayment", "payment", order_id=order_id, amount_fen=amount_fen, payment_ref=f"pay-{order_id}"
        )

    def caught_up(self) -> int:
        """The position at which all read models stand, which is the end of the log."""
        head = self.store.head().position
        assert self.projector.models.wait_for(head, 20) >= head
        return head


@contextmanager
def serving(
    url: str, *, now: datetime = JULY, queue_limit: int = 10_000, retry_seconds: float = 30.0, is_following: bool = True
) -> Iterator[Service]:
    """The application on a free port, over a fresh database."""
    migrate(url)
    clock, stop = VirtualClock(now), threading.Event()
    with (
        Store.open(url, wire=WIRE, now=clock.now, queue_limit=queue_limit, retry_seconds=retry_seconds) as store,
        Projector.open(url, SCHEMA, store) as projector,
    ):
        projector.build()
        follower = threading.Thread(target=projector.follow, args=[stop])
        if is_following:
            follower.start()
        app = create_app(store, Desk(store, clock), projector)
        server = uvicorn.Server(server_config(app, "127.0.0.1", 0))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            service = Service(f"http://127.0.0.1:{_port(server, thread)}", url, store, projector, clock)
            yield service
            service.client.close()
        finally:
            stop.set()
            server.should_exit = True
            thread.join()
            if is_following:
                follower.join()


def _port(server: uvicorn.Server, thread: threading.Thread) -> int:
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
