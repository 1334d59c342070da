"""The description of the door: ``/openapi.json`` for programs, ``/docs`` for people.

Schemas are made from the same structs that decode bodies and make up rows; the words are their docstrings.  The page
needs nothing from anywhere else.
"""

import hashlib
import inspect
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response

from api.http import access
from api.http.bodies import Body
from api.http.door import trace_of
from api.http.problems import CODES, MEDIA_TYPE, TYPE_PREFIX, ProblemDetails
from api.keys import KEY_ROLES
from ledger.decider import Command
from projections.projection import Projection

try:
    VERSION = version("guarantee-ledger")
except PackageNotFoundError:  # run from a checkout that was not installed
    VERSION = "0"

DESCRIPTION = f"""The ledger of guaranteed orders: every order, shipment, refund and rebate is an immutable event, and
every number a fold of them.

**Keys.** `Authorization: Bearer <key>` (or `X-Api-Key`). A key belongs to one actor in one role; without one nothing is
answered but health and this description.

**Commands** say what happened or is wanted. Each has an `Idempotency-Key`, unique in the ledger for ever: the same key
and body give the first answer again, byte for byte, so repeat whatever was not answered. Commands that need four eyes
take the second person's key in `Approval-Key`.

**Reads** carry `Ledger-Position`, the position they are true at. Give a command's position as `?after=` to read what
you wrote; give `?at=`, `?recorded_as_of=` or `?occurred_as_of=` to read what was.

**Ids and references** (fields that end in `_id` or `_ref`) have 1 to 200 visible ASCII characters and no slash.
Instants carry a zone. Amounts are integer fen. Bodies have at most 1 MiB.

**Errors** are problem details (RFC 9457) whose `type` is `{TYPE_PREFIX}<code>`:

| code | status | meaning |
| --- | --- | --- |
""" + "\n".join(f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in CODES.items())

_SCHEMAS = "#/components/schemas/"
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
_DOCS_PAGE = Path(__file__).with_name("docs.html")

Operation = dict[str, Any]
"""A part of an operation object, to be merged into what FastAPI knows of a route."""


class Accepted(msgspec.Struct, frozen=True):
    """Where the events of an accepted command lie.  ``version`` is the stream's, ``position`` that of the last event
    in the whole ledger: reads with ``?after=<position>`` have seen it.  No events: it had been so already."""

    stream: str
    version: int
    position: int
    events: tuple[str, ...]


# --- operations -------------------------------------------------------------------------------------------------------


def command(body: Body) -> Operation:
    """The route of a command."""
    kind = body.command
    return _operation(
        "Commands",
        kind.__name__,
        f"{_words(kind)}\n\n{_who(kind)}",
        parameters=[_IDEMPOTENCY_KEY, *([_approval_key(kind)] if kind.approver else []), _CORRELATION_ID],
        body={"application/json": body.twin},
        answer=("application/json", Accepted, "Accepted, now or before under the same key.", True),
        errors=(400, 401, 403, 409, 413, 415, 422, 503),
    )


def batch(line: type[msgspec.Struct], answer: type[msgspec.Struct]) -> Operation:
    """The route that takes many commands."""
    return _operation(
        "Commands",
        "Many commands at once",
        "JSON lines in, one answer a line out, in the same order. Each is judged on its own. Lines of one stream are "
        "decided one after the other; different streams at the same time, so what must come first in another stream "
        "(a merchant before its orders) belongs in an earlier batch. At most 16 MiB.",
        parameters=[_parameter("Approval-Key", "A second person's key, for the lines that need one.", "header"),
                    _CORRELATION_ID],
        body={"application/jsonl": line},
        answer=("application/jsonl", answer, "One answer a line.", False),
        errors=(400, 401, 413, 415, 422, 503),
    )  # fmt: skip


def page(projection: Projection, columns: Mapping[str, Any]) -> Operation:
    """The route of a read model."""
    rows: Any = _row(projection)
    return _operation(
        "Read models",
        projection.name,
        f"{_words(rows)}\n\nRows in key order ({', '.join(projection.key)}), as many as the key's role may "
        "see; `Link: rel=next` leads to those behind.",
        parameters=[
            *(_parameter(x, f"Only rows with this {x}.", "query", _schema_of(kind)) for x, kind in columns.items()),
            _LIMIT,
            _parameter("cursor", "Only rows behind this key; from `Link`.", "query"),
            _AFTER,
            *MOMENTS,
        ],
        answer=("application/json", tuple[rows, ...], "The rows.", True),
        errors=(400, 401, 403, 422, 503, 504),
    )  # fmt: skip


def row(projection: Projection) -> Operation:
    """The route of one row."""
    return _operation(
        "Read models",
        f"{projection.name}, one row",
        f"The row with this key: {'/'.join(projection.key)}, each part percent-encoded by itself.",
        parameters=[_parameter("key", "/".join(projection.key), "path"), _AFTER, *MOMENTS],
        answer=("application/json", _row(projection), "The row.", True),
        errors=(400, 401, 403, 404, 422, 503, 504),
    )


def other(
    tag: str, title: str, words: str | None, kind: Any, *, parameters: Iterable[Operation] = (),
    errors: tuple[int, ...] = (), media_type: str = "application/json",
) -> Operation:  # fmt: skip
    """Any other route that is read; ``words`` are those of its endpoint."""
    is_positioned = 401 in errors
    return _operation(
        tag, title, _markdown(words or ""), parameters=list(parameters),
        answer=(media_type, kind, "The answer.", is_positioned), errors=errors,
    )  # fmt: skip


def _operation(
    tag: str,
    title: str,
    words: str,
    *,
    parameters: list[Operation],
    answer: tuple[str, Any, str, bool],
    errors: tuple[int, ...],
    body: Mapping[str, Any] | None = None,
) -> Operation:
    media_type, kind, meaning, is_positioned = answer
    succeeded: Operation = {"description": meaning, "content": {media_type: {"schema": _schema_of(kind)}}}
    if is_positioned:
        succeeded["headers"] = {
            "Ledger-Position": {"description": "The position the answer is true at.", "schema": {"type": "integer"}}
        }
    found: Operation = {
        "tags": [tag],
        "summary": title,
        "description": words,
        "parameters": parameters,
        "responses": {"200": succeeded, **{str(status): _refusal(status) for status in errors}},
        "security": _SECURITY if 401 in errors else [],
    }
    if body:
        content = {media: {"schema": _schema_of(kind)} for media, kind in body.items()}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _refusal(status: int) -> Operation:
    codes = [f"`{code}`" for code, (its_status, _) in CODES.items() if its_status == status]
    if status == 409:
        meaning = (
            "The command was rejected, nothing happened. `code` is one of those named above, or `unknown_stream`, "
            "`wrong_state`, `no_rulebook_in_force`, `approval_missing`, `same_approver`."
        )
    else:
        meaning = ", ".join(codes)
    return {"description": meaning, "content": {MEDIA_TYPE: {"schema": _schema_of(ProblemDetails)}}}


def _who(kind: type[Command]) -> str:
    roles = [role for role in KEY_ROLES if access.may_ask(role, kind)]
    if not roles:
        return "The ledger sends this to itself; no key may."
    asked = f"Asked by: {', '.join(roles)}."
    return asked + (f" Approved by: {kind.approver}." if kind.approver else "")


def _words(kind: type) -> str:
    return _markdown(kind.__doc__ or "")


def _markdown(words: str) -> str:
    """A docstring as Markdown."""
    return re.sub("``", "`", inspect.cleandoc(words))


def _row(projection: Projection) -> Any:
    return projection.shown or projection.row


# --- parameters -------------------------------------------------------------------------------------------------------

_NAME = {"type": "string", "pattern": "^[!-~]([ -~]{0,198}[!-~])?$"}
_POSITION = {"type": "integer", "minimum": 0, "maximum": 2**53}


def _parameter(
    name: str, words: str, where: str, schema: Operation | None = None, *, is_required: bool = False
) -> Operation:
    return {
        "name": name,
        "in": where,
        "required": is_required or where == "path",
        "description": words,
        "schema": schema or {"type": "string"},
    }


def _approval_key(kind: type[Command]) -> Operation:
    return _parameter("Approval-Key", f"The key of another person, of role {kind.approver}.", "header")


_IDEMPOTENCY_KEY = _parameter(
    "Idempotency-Key", "Names this command for ever. Not `P<number>/…`: those are the ledger's own.", "header", _NAME,
    is_required=True,
)  # fmt: skip
_CORRELATION_ID = _parameter(
    "X-Correlation-ID", "Goes with the events into the log, and comes back; made if it is not given.", "header", _NAME
)
_AFTER = _parameter("after", "Wait until the read model has reached this position.", "query", _POSITION)
_LIMIT = _parameter("limit", "At most so many.", "query", {"type": "integer", "minimum": 1, "maximum": 1000})
_INSTANT = {"type": "string", "format": "date-time"}
MOMENTS = [
    _parameter("at", "As it stood at this position.", "query", _POSITION),
    _parameter("recorded_as_of", "As recorded before this instant.", "query", _INSTANT),
    _parameter("occurred_as_of", "As it had occurred before this instant.", "query", _INSTANT),
]
"""At most one of them."""
STREAM = _parameter("stream", "For example `order-<order_id>` or `merchant-<merchant_id>`.", "path")
FEED = [
    _parameter("after", "Only events behind this position.", "query", _POSITION),
    _LIMIT,
    _parameter("Last-Event-ID", "The same as `after`; what browsers send when they come back.", "header", _POSITION),
]
DIGEST = [_parameter("at", "Worked out again from the log up to this position.", "query", _POSITION)]


# --- schemas ----------------------------------------------------------------------------------------------------------

_wanted: dict[Any, None] = {}
"""Every type that some operation speaks of."""


def _schema_of(kind: Any) -> Operation:
    _wanted[kind] = None
    [schema], _ = msgspec.json.schema_components([kind], ref_template=_SCHEMAS + "{name}")
    tidied: Operation = _tidied(schema)
    return tidied


def _components() -> Operation:
    _, schemas = msgspec.json.schema_components(list(_wanted), ref_template=_SCHEMAS + "{name}")
    return {
        "schemas": _tidied(schemas),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        },
    }


def _tidied(value: Any) -> Any:
    """Schemas as others read them: docstrings as Markdown, and patterns as JavaScript knows them."""
    if isinstance(value, list | tuple):
        return [_tidied(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidied = {name: _tidied(item) for name, item in value.items()}
    if isinstance(tidied.get("description"), str):
        tidied["description"] = _markdown(tidied["description"])
    if isinstance(tidied.get("pattern"), str):
        tidied["pattern"] = tidied["pattern"].replace(r"\Z", "$")
    return tidied


# --- routes -----------------------------------------------------------------------------------------------------------

Endpoint = Callable[[Request], Awaitable[Response]]


def add_route(app: FastAPI, path: str, endpoint: Endpoint, described: Operation) -> None:
    """Adds a route that is read, with its description."""
    app.add_api_route(path, endpoint, methods=["GET"], operation_id=f"get {path}", openapi_extra=described)


def add_routes(app: FastAPI) -> None:
    """The description and its page; to be added last, when all other routes are there."""
    document = _document(app)
    page = _DOCS_PAGE.read_bytes()
    policy = _policy(page.decode())
    app.openapi = lambda: document  # type: ignore[method-assign]
    text = msgspec.json.encode(document)

    async def openapi_json(request: Request) -> Response:
        trace_of(request.scope).event = "description_read"
        return Response(text, media_type="application/json")

    async def docs(request: Request) -> Response:
        trace_of(request.scope).event = "description_read"
        return Response(
            page, media_type="text/html", headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
        )

    app.add_route("/openapi.json", openapi_json, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)


def _document(app: FastAPI) -> Operation:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes,
        tags=[{"name": name} for name in ("Commands", "Read models", "Streams and events", "Health")],
    )  # fmt: skip
    document["components"] = _components()
    return document


def _policy(page: str) -> str:
    """Nothing may run or load on the page but what stands in it, and the description from here."""
    hashes = {
        tag: " ".join(f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found)
        for tag in ("script", "style")
        if (found := re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL))
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
