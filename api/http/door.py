"""The door itself: every request passes here on its way in and out.

It gives each request a correlation id, turns whatever is raised into problem details, and logs one event when the
request is done.  Plain ASGI, because it lies on the path of every command.
"""

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import psycopg
from eventsourcing.persistence import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs
from api.commands import TryLater
from api.http.problems import MEDIA_TYPE, Problem, problem
from api.keys import Holder, Keyring
from api.metrics import Metrics
from api.queries import NotYet
from ledger.store import KeyReused, Overloaded, Unwritable
from projections.reader import NotBuilt

JSON = b"application/json"
MOST_BODY_BYTES = 2**20

_VISIBLE = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")
_DATABASE_AWAY = (
    OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, ConnectionError,
)  # fmt: skip

Headers = Mapping[bytes, bytes]


class Trace:
    """What is known about a request; whoever serves it adds to it, and the door logs it in the end."""

    __slots__ = ("correlation_id", "event", "fields", "started_at", "status")

    def __init__(self, correlation_id: str) -> None:
        self.correlation_id = correlation_id
        self.event = "request_refused"
        """In the past tense; what serves the request says what it did."""
        self.fields: dict[str, Any] = {}
        self.status = 500
        self.started_at = time.perf_counter()

    def seconds(self) -> float:
        """Since the request came in."""
        return time.perf_counter() - self.started_at


def trace_of(scope: Scope) -> Trace:
    """The trace of a request."""
    trace: Trace = scope["guarantee.trace"]
    return trace


def headers_of(scope: Scope) -> Headers:
    """The headers of a request, names in lower case; of one that was sent twice the last."""
    headers: Headers = scope["guarantee.headers"]
    return headers


class Door:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._ids = made_up_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request; whatever happens, it is answered and logged once."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["guarantee.headers"] = dict(scope["headers"])
        trace = scope["guarantee.trace"] = Trace(next(self._ids))
        is_started = False

        async def send_on(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                trace.status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-correlation-id", trace.correlation_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            trace.correlation_id = header(headers, b"x-correlation-id") or trace.correlation_id
            await self._app(scope, receive, send_on)
        except Exception as error:
            refused = problem_of(error)
            if refused.status == 500:
                logs.logger("http").error("request_failed", correlation_id=trace.correlation_id, exc_info=error)
            if is_started:
                raise
            await refuse(scope, send_on, refused)
        finally:
            self._finish(scope, trace)

    def _finish(self, scope: Scope, trace: Trace) -> None:
        self._metrics.request(trace.event, trace.status)
        logs.logger("http").info(
            trace.event, correlation_id=trace.correlation_id, method=scope["method"], path=scope["path"],
            status=trace.status, **trace.fields, duration_ms=round(1000 * trace.seconds(), 3),
        )  # fmt: skip


def made_up_ids() -> Iterator[str]:
    """Correlation ids: a random word for this process, and a number."""
    word = secrets.token_hex(10)
    return (f"{word}-{number}" for number in count(1))


# --- saying no --------------------------------------------------------------------------------------------------------


def problem_of(error: Exception) -> Problem:
    """What an exception means for whoever asked."""
    match error:
        case Problem():
            return error
        case KeyReused():
            return problem("key_reused")
        case Unwritable():
            return problem("invalid_body", str(error))
        case TryLater():
            return problem("try_later")
        case Overloaded():
            return problem("overloaded")
        case NotBuilt():
            return problem("not_built", f"The read model {error} was not built yet.")
        case NotYet():
            return problem("invalid_parameter", str(error))
        case OverflowError():
            return problem("out_of_range")
    if isinstance(error, _DATABASE_AWAY):
        return problem("database_away")
    return problem("internal_error")


async def refuse(scope: Scope, send: Send, refused: Problem) -> None:
    """Answers with problem details."""
    trace = trace_of(scope)
    trace.fields["code"] = refused.code
    headers = [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    await respond(send, refused.body(trace.correlation_id), MEDIA_TYPE.encode(), headers, refused.status)


async def respond(
    send: Send,
    body: bytes,
    media_type: bytes = JSON,
    headers: list[tuple[bytes, bytes]] | None = None,
    status: int = 200,
) -> None:
    """Sends a whole answer.  No cache keeps it: it is true at one position only, and for one reader."""
    all_headers = [
        (b"content-type", media_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *(headers or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def at_position(position: int) -> tuple[bytes, bytes]:
    """The header that says at which position an answer is true."""
    return b"ledger-position", str(position).encode()


# --- coming in --------------------------------------------------------------------------------------------------------


async def authenticated(scope: Scope, keyring: Keyring) -> Holder:
    """Who is asking, by ``Authorization: Bearer <key>`` or ``X-Api-Key: <key>``; 401 if nobody we know."""
    key = _credential(headers_of(scope))
    holder = await keyring.holder(key) if key else None
    if holder is None:
        raise problem("unauthenticated")
    fields = trace_of(scope).fields
    fields["actor"], fields["role"] = holder.actor, holder.role
    return holder


def _credential(headers: Headers) -> str | None:
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None


def header(headers: Headers, name: bytes) -> str | None:
    """A header that ends up in the ledger: 1 to 200 visible ASCII characters, blanks between them; 400 if it is not."""
    value = headers.get(name)
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if not is_name(text):
        raise problem("bad_header", f"{name.decode().title()} has 1 to 200 visible ASCII characters.")
    return text


def is_name(text: str) -> bool:
    """1 to 200 visible ASCII characters, blanks between them."""
    return _VISIBLE.fullmatch(text) is not None


async def read_body(scope: Scope, receive: Receive, most_bytes: int = MOST_BODY_BYTES) -> bytes:
    """The whole body; 413 as soon as it is known to be too large, 415 if it is packed."""
    headers = headers_of(scope)
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise problem("unsupported_media_type", "Send the body as it is, without Content-Encoding.")
    if _announced(headers) > most_bytes:
        raise _too_large(most_bytes)
    body, more_body = bytearray(), True
    while more_body:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise problem("bad_json", "The body ended early.")
        body += message.get("body", b"")
        more_body = message.get("more_body", False)
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(body)


def _announced(headers: Headers) -> int:
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() and len(length) < 19 else 0


def _too_large(most_bytes: int) -> Problem:
    return problem("body_too_large", f"A body has at most {most_bytes} bytes.", {"Connection": "close"})
