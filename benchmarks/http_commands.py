"""Commands by HTTP against the same route doing nothing: one server process, 64 connections, ratios of one run.

* *nothing*   the same kind of route in a bare application: the body is read, an answer of the same size is sent
* *door*      all that the door does (key, role, decoding, figures, log), before a desk that answers without deciding
* *command*   an order is placed: decided, and answered when its event is durable

    python -m benchmarks.http_commands [--seconds 3] [--rounds 5] [--connections 64]

``GUARANTEE_DATABASE_URL`` names a PostgreSQL in which a schema of its own is made and dropped; without it an embedded
one is started in a temporary directory.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import uvicorn
import uvloop
from fastapi import FastAPI
from psycopg import sql
from starlette.types import Receive, Scope, Send

from api import embedded, keys, logs
from api.app import create_app, server_config
from api.clock import SystemClock
from api.commands import Answer, Desk, Request
from api.http.commands import add_route
from api.http.door import read_body, respond
from ledger.decider import ADMIN, BUYER, MERCHANT, OFFICER, PAYMENT, Command
from ledger.rulebook import shipped
from ledger.store import Store
from ledger.streams import COMMANDS, WIRE
from migrations import migrate
from projections.runner import Projector

SCHEMA = "guarantee_http_benchmark"
ROUTES = ("nothing", "door", "command")
PATH = "/v1/commands/PlaceOrder"
IDLE = "idle"
"""The merchant whose orders the benchmark's desk does not decide."""


def main() -> None:
    """Prints the rates of each round, and the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each route and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    with _database() as url, _server(url) as (port, key):
        client = Client(port, key, given.connections)
        for route in ROUTES:
            uvloop.run(client.rate(route, 1.0))
        rounds = [{route: uvloop.run(client.rate(route, given.seconds)) for route in ROUTES} for _ in range(given.rounds)]
    _report(rounds)


def _report(rounds: list[dict[str, float]]) -> None:
    print(f"{'requests/s':>12}" + "".join(f"{route:>10}" for route in ROUTES) + f"{'door':>10}{'command':>10}")
    for number, rates in enumerate(rounds, 1):
        ratios = [rates[route] / rates["nothing"] for route in ROUTES[1:]]
        print(f"{number:>12}" + "".join(f"{rates[r]:>10,.0f}" for r in ROUTES) + "".join(f"{r:>10.2f}" for r in ratios))
    medians = [statistics.median(rates[route] / rates["nothing"] for rates in rounds) for route in ROUTES[1:]]
    print(f"{'median':>12}" + " " * 30 + "".join(f"{ratio:>10.2f}" for ratio in medians))


# --- the client -------------------------------------------------------------------------------------------------------


class Client:
    """Sends requests on many connections, one after the other on each."""

    def __init__(self, port: int, key: str, connections: int) -> None:
        self._port, self._connections, self._numbers = port, connections, count(1)
        self._head = (
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        ).encode()

    async def rate(self, route: str, seconds: float) -> float:
        """Answers a second."""
        started_at = time.perf_counter()
        stop_at = started_at + seconds
        answered = await asyncio.gather(*(self._ask(route, stop_at) for _ in range(self._connections)))
        return sum(answered) / (time.perf_counter() - started_at)

    async def _ask(self, route: str, stop_at: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        answered = 0
        while time.perf_counter() < stop_at:
            writer.write(self._request(route))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            start = head.index(b"content-length: ") + 16
            await reader.readexactly(int(head[start : head.index(b"\r", start)]))
            answered += 1
        writer.close()
        return answered

    def _request(self, route: str) -> bytes:
        number = next(self._numbers)
        body = _order(f"{os.getpid()}-{number}", "m-1" if route == "command" else IDLE)
        path = "/nothing" if route == "nothing" else PATH
        return b"POST %b HTTP/1.1\r\n%bIdempotency-Key: bench-%d-%d\r\nContent-Length: %d\r\n\r\n%b" % (
            path.encode(), self._head, os.getpid(), number, len(body), body,
        )  # fmt: skip


def _order(order_id: str, merchant_id: str) -> bytes:
    return (
        '{"order_id":"%s","merchant_id":"%s","buyer_ref":"b-1","checkout_id":"c-1","category":"other",'
        '"address_ref":"a-1","region":"ZJ","lines":[{"line_id":"1","sku":"red","units":3,"line_fen":30000}],'
        '"freight_fen":1000,"total_fen":31000,"promises":[{"promise_id":"arrival","kind":"arrive_by",'
        '"line_ids":["1"],"due_at":"2999-01-01T00:00:00+08:00","remedy":"full_refund"}]}' % (order_id, merchant_id)
    ).encode()


# --- the server -------------------------------------------------------------------------------------------------------


class HalfIdleDesk(Desk):
    """Decides every request but those for the idle merchant."""

    async def execute(self, request: Request) -> Answer:
        """The answer to an order that was placed, for nothing."""
        if getattr(request.command, "merchant_id", None) == IDLE:
            stream = request.command.stream
            return Answer("accepted", stream, None, 1, 1, (f"{stream}@1",))
        return await super().execute(request)


@contextmanager
def _server(url: str) -> Iterator[tuple[int, str]]:
    """A server in a process of its own; its port, and a key."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=[url, theirs], daemon=True)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        yield port, keys.create(url, SCHEMA, "b-1", BUYER)
    finally:
        ours.send("stop")
        process.join()


def _serve(url: str, pipe: Connection) -> None:
    with open(os.devnull, "w") as nowhere:
        logs.configure("info", is_json=True, stream=nowhere)
        with Store.open(url, SCHEMA, wire=WIRE) as store, Projector.open(url, SCHEMA, store) as projector:
            projector.build()
            desk = HalfIdleDesk(store, SystemClock())
            server = uvicorn.Server(server_config(_both(create_app(store, desk, projector), _nothing()), "127.0.0.1", 0))
            uvloop.run(_run(server, desk, pipe))


async def _run(server: uvicorn.Server, desk: Desk, pipe: Connection) -> None:
    await _admit(desk)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    pipe.send(server.servers[0].sockets[0].getsockname()[1])
    await asyncio.to_thread(pipe.recv)
    server.should_exit = True
    await serving


def _nothing() -> FastAPI:
    """A bare application with one route that does nothing."""
    app = FastAPI(openapi_url=None)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        scope["guarantee.headers"] = dict(scope["headers"])
        await read_body(scope, receive)
        await respond(send, b'{"stream":"order-12345-12345","version":1,"position":1,"events":["order-12345-12345@1"]}')

    add_route(app, "/nothing", serve, "nothing", {})
    return app


def _both(app: FastAPI, nothing: FastAPI) -> Any:
    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        await (nothing if scope.get("path") == "/nothing" else app)(scope, receive, send)

    return choose


async def _admit(desk: Desk) -> None:
    """A rulebook in force, and a merchant who may take orders."""
    m: dict[str, Any] = {"merchant_id": "m-1"}
    published = {"body": shipped("rulebook-2015.1")}
    passed = {"checks": [], "on_time_bp": None, "as_described_bp": None, "score_position": 0}
    promised = {"guarantees": ["quality", "delivery", "exchange"], "exchange_days": 7, "return_address_ref": "a"}
    days = {"valid_from_on": "2015-01-01", "valid_to_on": "2999-12-31"}
    year = {"period_from_on": "2015-01-01", "period_to_on": "2999-12-31"}
    story: list[tuple[str, str, str, dict[str, Any]]] = [
        ("PublishRulebook", "admin-1", ADMIN, published),
        ("RegisterTrustPass", "officer-1", OFFICER, m | {"trustpass_id": "t"} | days),
        ("ApplyForProgramme", "m-1", MERCHANT, m | {"category": "other", "contact_ref": "c"}),
        ("StartReview", "officer-1", OFFICER, m | {"officer_id": "officer-1", "checklist": []}),
        ("PassReview", "officer-1", OFFICER, m | passed),
        ("AcceptGuarantees", "m-1", MERCHANT, m | promised),
        ("RecordAnnualFee", "payment-1", PAYMENT, m | year | {"fee_fen": 2_800_000, "payment_ref": "fee"}),
        ("RecordDeposit", "payment-1", PAYMENT, m | {"amount_fen": 2_000_000, "payment_ref": "deposit"}),
    ]
    for number, (name, actor, role, body) in enumerate(story):
        command: Command = msgspec.json.decode(json.dumps(body), type=COMMANDS[name])
        answer = await desk.execute(Request(command, f"setup-{number}", actor, role, approved_by="supervisor-1"))
        assert answer.result == "accepted", (name, answer)


# --- the database -----------------------------------------------------------------------------------------------------


@contextmanager
def _database() -> Iterator[str]:
    """The URL of a database with a fresh schema, gone afterwards."""
    given = os.environ.get("GUARANTEE_DATABASE_URL")
    if given:
        yield from _fresh_schema(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            yield from _fresh_schema(embedded.start(home))
        finally:
            embedded.stop(home)


def _fresh_schema(url: str) -> Iterator[str]:
    _drop_schema(url)
    migrate(url, SCHEMA)
    try:
        yield url
    finally:
        _drop_schema(url)


def _drop_schema(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))


if __name__ == "__main__":
    main()
