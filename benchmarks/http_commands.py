"""Commands by HTTP against routes that do nothing: one server process, 64 connections, ratios of one run.

* *bare*      a route of the same kind in an empty application: reads the body, sends an answer of the same size
* *plain*     the same as an ordinary FastAPI endpoint
* *idle*      the same route doing nothing: key, role, decoding, figures and log, before a desk that decides nothing
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import fastapi
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
PATHS = {
    "bare": "/bare", "plain": "/plain", "idle": "/v1/commands/PlaceOrder", "command": "/v1/commands/PlaceOrder",
}  # fmt: skip
IDLE = "idle"
"""The merchant whose orders the benchmark's desk does not decide."""
ANSWER = b'{"stream":"order-12345-12345","version":1,"position":12345,"events":["order-12345-12345@1"]}'


class Rate(NamedTuple):
    """What one route did for a while."""

    requests: float
    """A second."""
    cpu_us: float
    """Of the server's process, for each request."""


def main() -> None:
    """Prints the medians of all rounds, and the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each route and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    with _database() as url, _server(url) as (port, key, cpu_seconds):
        client = Client(port, key, given.connections)
        measure(client, cpu_seconds, 1.0)
        rounds = [measure(client, cpu_seconds, given.seconds) for _ in range(given.rounds)]
    _report(rounds)


def measure(client: "Client", cpu_seconds: Callable[[], float], seconds: float) -> dict[str, Rate]:
    """One round: every route for so many seconds."""
    found = {}
    for route in PATHS:
        cpu_before, started_at = cpu_seconds(), time.perf_counter()
        answered = uvloop.run(client.ask(route, seconds))
        elapsed, cpu = time.perf_counter() - started_at, cpu_seconds() - cpu_before
        found[route] = Rate(answered / elapsed, 1e6 * cpu / answered)
    return found


def _report(rounds: list[dict[str, Rate]]) -> None:
    print(f"medians of {len(rounds)} rounds   requests/s   server CPU us/request   rate of command against it")
    for route in PATHS:
        requests = statistics.median(found[route].requests for found in rounds)
        cpu_us = statistics.median(found[route].cpu_us for found in rounds)
        ratio = statistics.median(found["command"].requests / found[route].requests for found in rounds)
        print(f"{route:>19}   {requests:>10,.0f}   {cpu_us:>21,.0f}   {ratio:>26.2f}")


# --- the client -------------------------------------------------------------------------------------------------------


class Client:
    """Sends requests on many connections, one after the other on each."""

    def __init__(self, port: int, key: str, connections: int) -> None:
        self._port, self._connections, self._numbers = port, connections, count(1)
        self._head = (
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        ).encode()

    async def ask(self, route: str, seconds: float) -> int:
        """Asks for so long; returns the number of answers."""
        stop_at = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(self._ask(route, stop_at) for _ in range(self._connections))))

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
        return b"POST %b HTTP/1.1\r\n%bIdempotency-Key: bench-%d-%d\r\nContent-Length: %d\r\n\r\n%b" % (
            PATHS[route].encode(), self._head, os.getpid(), number, len(body), body,
        )  # fmt: skip


def _order(order_id: str, merchant_id: str) -> bytes:
    return f'{{"order_id":"{order_id}","merchant_id":"{merchant_id}",{_REST}}}'.encode()


_REST = (
    '"buyer_ref":"b-1","checkout_id":"c-1","category":"other","address_ref":"a-1","region":"ZJ",'
    '"lines":[{"line_id":"1","sku":"red","units":3,"line_fen":30000}],"freight_fen":1000,"total_fen":31000,'
    '"promises":[{"promise_id":"arrival","kind":"arrive_by","line_ids":["1"],"due_at":"2999-01-01T00:00:00+08:00",'
    '"remedy":"full_refund"}]'
)


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
def _server(url: str) -> Iterator[tuple[int, str, Callable[[], float]]]:
    """A server in a process of its own: its port, a key, and how to ask for the CPU seconds it has used."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=[url, theirs], daemon=True)
    process.start()
    theirs.close()

    def cpu_seconds() -> float:
        ours.send("cpu")
        return float(ours.recv())

    try:
        yield ours.recv(), keys.create(url, SCHEMA, "b-1", BUYER), cpu_seconds
    finally:
        ours.send("stop")
        process.join()


def _serve(url: str, pipe: Connection) -> None:
    with open(os.devnull, "w") as nowhere:
        logs.configure("info", is_json=True, stream=nowhere)
        with Store.open(url, SCHEMA, wire=WIRE) as store, Projector.open(url, SCHEMA, store) as projector:
            projector.build()
            desk = HalfIdleDesk(store, SystemClock())
            app = _both(create_app(store, desk, projector), _nothing())
            uvloop.run(_run(uvicorn.Server(server_config(app, "127.0.0.1", 0)), desk, pipe))


async def _run(server: uvicorn.Server, desk: Desk, pipe: Connection) -> None:
    await _admit(desk)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    pipe.send(server.servers[0].sockets[0].getsockname()[1])
    while await asyncio.to_thread(pipe.recv) == "cpu":
        pipe.send(time.process_time())
    server.should_exit = True
    await serving


def _nothing() -> FastAPI:
    """An application that does nothing, in two ways."""
    app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False})

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        scope["guarantee.headers"] = dict(scope["headers"])
        await read_body(scope, receive)
        await respond(send, ANSWER)

    async def plain(request: fastapi.Request) -> fastapi.Response:
        await request.body()
        return fastapi.Response(ANSWER, media_type="application/json")

    add_route(app, "/bare", bare, "bare", {})
    app.post("/plain")(plain)
    return app


def _both(app: FastAPI, nothing: FastAPI) -> Any:
    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        await (nothing if scope.get("path") in ("/bare", "/plain") else app)(scope, receive, send)

    return choose


async def _admit(desk: Desk) -> None:
    """A rulebook in force, and a merchant who may take orders."""
    m: dict[str, Any] = {"merchant_id": "m-1"}
    published = {"body": shipped("rulebook-2015.1")}
    passed: dict[str, Any] = {"checks": [], "on_time_bp": None, "as_described_bp": None, "score_position": 0}
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
