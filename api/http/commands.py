"""Commands by HTTP: one route for each class, and one that takes many at once.

A command is decided at once, and its answer says where its events lie.  Under the same ``Idempotency-Key`` the same
command gives the same answer, byte for byte, for ever; so whoever got no answer simply asks again.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from api import logs
from api.commands import Answer, Desk, Request
from api.http import access, openapi
from api.http.bodies import Body, refusal
from api.http.door import (
    JSON,
    Headers,
    at_position,
    authenticated,
    header,
    headers_of,
    is_name,
    problem_of,
    read_body,
    respond,
    trace_of,
)
from api.http.problems import Problem, problem, rejected
from api.keys import Holder, Keyring
from api.metrics import Metrics
from ledger.decider import Command
from ledger.streams import COMMANDS

PATH = "/v1/commands"
JSON_LINES = "application/jsonl"
MOST_BATCH_BYTES = 16 * 2**20
STREAMS_AT_ONCE = 256
"""How many streams of a batch are served at a time."""

_RESERVED_KEY = re.compile(r"P\d+/.*")
"""The keys of the messages that the ledger carries from stream to stream: nobody else may take them."""

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class BatchLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command of a batch: the name of its class, its idempotency key, and its body."""

    command: str
    key: str
    body: msgspec.Raw


class BatchAnswer(msgspec.Struct, frozen=True):
    """What became of a line, counted from 1.  *accepted*, *repeated* (accepted before: the first answer again),
    *rejected* (nothing happened; ``code`` says why), *invalid* (it will never be accepted as it is), *try_later*
    (nobody could decide it now: send it again)."""

    line: int
    result: Literal["accepted", "repeated", "rejected", "invalid", "try_later"]
    code: str | None = None
    stream: str | None = None
    version: int | None = None
    position: int | None = None
    events: tuple[str, ...] = ()
    detail: str | None = None


class Commands:
    """Serves commands for everybody who has a key."""

    def __init__(self, desk: Desk, keyring: Keyring, metrics: Metrics) -> None:
        self.desk, self.keyring, self.metrics = desk, keyring, metrics
        self.bodies: Mapping[str, Body] = {name: Body(command) for name, command in COMMANDS.items()}

    def add_routes(self, app: FastAPI) -> None:
        """One route for each class of command, and one for batches."""
        for name in self.bodies:
            add_route(app, f"{PATH}/{name}", self._single(name), name, openapi.command(self.bodies[name]))
        add_route(app, PATH, self._batch, "SendCommands", openapi.batch(BatchLine, BatchAnswer))

    # --- one command --------------------------------------------------------------------------------------------------

    def _single(self, name: str) -> Asgi:
        body, metrics = self.bodies[name], self.metrics

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            trace = trace_of(scope)
            trace.event, result = "command_refused", "refused"
            metrics.waiting += 1
            try:
                answer = await self._asked(body, scope, receive)
                trace.fields["stream"], trace.fields["position"] = answer.stream, answer.position
                result = answer.result
                trace.event = f"command_{result}"
                accepted = _accepted(answer)
                await respond(send, msgspec.json.encode(accepted), JSON, [at_position(accepted.position)])
            except Problem as refused:
                if refused.status == 409:
                    trace.event, result = "command_rejected", "rejected"
                raise
            finally:
                metrics.waiting -= 1
                trace.fields["command"] = name
                metrics.command(name, result, trace.seconds())

        return serve

    async def _asked(self, body: Body, scope: Scope, receive: Receive) -> Answer:
        """What the desk says to a request; ``Problem`` if it says no."""
        headers = headers_of(scope)
        holder = await authenticated(scope, self.keyring)
        if not access.may_ask(holder.role, body.command):
            raise problem("not_allowed")
        key = _checked_key(header(headers, b"idempotency-key"))
        _check_media_type(headers, (b"application/json",))
        command = body.decode(await read_body(scope, receive))
        approved_by = await self._approver(headers, body.command)
        return await self._decided(command, key, holder, approved_by, trace_of(scope).correlation_id)

    async def _decided(
        self, command: Command, key: str, holder: Holder, approved_by: str | None, correlation_id: str
    ) -> Answer:
        request = Request(command, key, holder.actor, holder.role, approved_by, correlation_id)
        answer = await self.desk.execute(request)
        if answer.code is not None:
            raise rejected(access.told(holder.role, answer.code, type(command)))
        return answer

    async def _approver(self, headers: Headers, command: type[Command]) -> str | None:
        """Who approves, by a second key.  Whether it is another person is for the stream to say."""
        key = headers.get(b"approval-key")
        if key is None or command.approver is None:
            return None
        approver = await self.keyring.holder(key.decode("latin-1").strip())
        if approver is None or approver.role != command.approver:
            raise problem("approver_not_allowed", f"{command.__name__} is approved by the role {command.approver}.")
        return approver.actor

    # --- many commands ------------------------------------------------------------------------------------------------

    async def _batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, trace = headers_of(scope), trace_of(scope)
        holder = await authenticated(scope, self.keyring)
        _check_media_type(headers, (b"application/jsonl", b"application/x-ndjson"))
        lines = (await read_body(scope, receive, MOST_BATCH_BYTES)).splitlines()
        approvals = {command: await self._approval(headers, command) for command in _approved_commands()}
        trace.event, trace.fields["lines"] = "batch_answered", len(lines)
        await send({"type": "http.response.start", "status": 200, "headers": _BATCH_HEADERS})
        async for part in self._answers(lines, holder, approvals, trace.correlation_id):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _approval(self, headers: Headers, command: type[Command]) -> "str | Problem | None":
        try:
            return await self._approver(headers, command)
        except Problem as refused:
            return refused

    async def _answers(
        self,
        lines: Sequence[bytes],
        holder: Holder,
        approvals: Mapping[type[Command], "str | Problem | None"],
        correlation_id: str,
    ) -> AsyncIterator[bytes]:
        """The answers in the order of the lines.  Lines of one stream are decided one after the other, streams at the
        same time."""
        answers: list[asyncio.Future[BatchAnswer]] = [asyncio.get_running_loop().create_future() for _ in lines]
        by_stream: dict[str, list[tuple[int, BatchLine, Command]]] = {}
        for number, raw in enumerate(lines):
            try:
                line, command = self._line(raw, holder)
            except Problem as refused:
                answers[number].set_result(_refused(number, refused))
            else:
                by_stream.setdefault(command.stream, []).append((number, line, command))
        free = asyncio.Semaphore(STREAMS_AT_ONCE)

        async def decide(asked: Iterable[tuple[int, BatchLine, Command]]) -> None:
            async with free:
                for number, line, command in asked:
                    answer = await self._decided_line(number, line, command, holder, approvals, correlation_id)
                    answers[number].set_result(answer)

        tasks = [asyncio.create_task(decide(asked)) for asked in by_stream.values()]
        try:
            for answer in answers:
                yield msgspec.json.encode(await answer) + b"\n"
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    def _line(self, raw: bytes, holder: Holder) -> tuple[BatchLine, Command]:
        """The command of a line; ``Problem`` if there is none in it."""
        try:
            line = msgspec.json.decode(raw, type=BatchLine)
        except Exception as error:
            raise refusal(error) from error
        body = self.bodies.get(line.command)
        if body is None:
            raise problem("invalid_body", "There is no command of this name.")
        if not access.may_ask(holder.role, body.command):
            raise problem("not_allowed")
        if not is_name(line.key):
            raise problem("invalid_body", "A key has 1 to 200 visible ASCII characters.")
        _checked_key(line.key)
        return line, body.decode(bytes(line.body))

    async def _decided_line(
        self,
        number: int,
        line: BatchLine,
        command: Command,
        holder: Holder,
        approvals: Mapping[type[Command], "str | Problem | None"],
        correlation_id: str,
    ) -> BatchAnswer:
        result, started_at = "refused", asyncio.get_running_loop().time()
        try:
            approved_by = approvals.get(type(command))
            if isinstance(approved_by, Problem):
                raise approved_by
            answer = await self._decided(command, line.key, holder, approved_by, correlation_id)
            result = answer.result
            return BatchAnswer(
                number + 1, answer.result, None, answer.stream, answer.version, answer.position, answer.events
            )
        except Exception as error:
            refused = problem_of(error)
            if refused.status == 500:
                logs.logger("http").error("line_failed", correlation_id=correlation_id, line=number + 1, exc_info=error)
            answered = _refused(number, refused, command.stream)
            result = answered.result
            return answered
        finally:
            self.metrics.command(line.command, result, asyncio.get_running_loop().time() - started_at)


_BATCH_HEADERS = [(b"content-type", JSON_LINES.encode()), (b"cache-control", b"no-store")]


class _Exactly(APIRoute):
    """A route without parameters: its path is compared, not searched."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether it is for us; with another method it is, and will be refused."""
        if scope["type"] != "http" or scope["path"] != self.path:
            return Match.NONE, {}
        found = Match.FULL if scope["method"] == "POST" else Match.PARTIAL
        return found, {"endpoint": self.endpoint, "path_params": {}, "route": self}


def add_route(app: FastAPI, path: str, serve: Asgi, name: str, description: dict[str, Any]) -> None:
    """Adds a route that FastAPI describes, and that is served without the conversions it makes for others."""

    async def endpoint() -> None:
        raise AssertionError(f"{path} is served by itself")

    app.router.add_api_route(
        path, endpoint, methods=["POST"], name=name, operation_id=name, openapi_extra=description,
        route_class_override=_Exactly,
    )  # fmt: skip
    route = app.router.routes[-1]
    assert isinstance(route, APIRoute)
    route.app = serve


def _checked_key(key: str | None) -> str:
    if key is None:
        raise problem("idempotency_key_missing")
    if _RESERVED_KEY.fullmatch(key):
        raise problem("bad_header", "Keys that begin with P, a number and a slash are the ledger's own.")
    return key


def _check_media_type(headers: Headers, known: Sequence[bytes]) -> None:
    sent = headers.get(b"content-type")
    if sent is not None and sent.partition(b";")[0].strip().lower() not in known:
        raise problem("unsupported_media_type", f"Send {known[0].decode()}.")


def _accepted(answer: Answer) -> openapi.Accepted:
    assert answer.version is not None
    assert answer.position is not None
    return openapi.Accepted(answer.stream, answer.version, answer.position, answer.events)


def _approved_commands() -> Iterable[type[Command]]:
    return (command for command in COMMANDS.values() if command.approver)


def _refused(number: int, refused: Problem, stream: str | None = None) -> BatchAnswer:
    result: Literal["rejected", "try_later", "invalid"] = "invalid"
    if refused.status in (403, 409):
        result = "rejected"
    elif refused.status >= 500:
        result = "try_later"
    return BatchAnswer(number + 1, result, refused.code, stream, detail=refused.detail)
