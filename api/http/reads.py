"""Read models, streams and digests by HTTP: as they are, as they will be in a moment, and as they were.

Every answer carries ``Ledger-Position``, the position at which it is true.  ``?after=<position>`` waits until the read
model has come so far, so that whoever wrote at that position reads their own writes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api import asof, audit, exports, queries
from api.asof import Moment
from api.http import access, openapi
from api.http.bodies import MOST_POSITION
from api.http.door import JSON, authenticated, trace_of
from api.http.problems import problem
from api.keys import Holder, Keyring
from ledger.decider import Story
from ledger.store import Entry, Store
from ledger.streams import DECIDERS
from projections.projection import Key, Projection
from projections.reader import Where
from projections.runner import Projector

T = TypeVar("T")

MOST_ROWS = 1_000
ROWS = 100
"""Rows of a page, unless the request says otherwise."""
WAIT_SECONDS = 10.0
"""How long a read waits for its read model to reach ``?after``."""
FOLDS_WAITING = 8
"""How many reads of the past may wait for each other; they are worked out one at a time."""

MOMENT = ("at", "recorded_as_of", "occurred_as_of")


class StreamRead(msgspec.Struct, frozen=True):
    """A stream: its events with everything the log holds about them, and the state they fold to."""

    stream: str
    events: tuple[dict[str, Any], ...]
    state: dict[str, Any]


class DigestRead(msgspec.Struct, frozen=True):
    """``chain``: of the log at the position, in hex.  ``read_models``: the SHA-256 of each, as it is exported."""

    position: int
    chain: str
    read_models: dict[str, str]


class Reads:
    """Serves what is read."""

    def __init__(self, store: Store, projector: Projector, keyring: Keyring, threads: ThreadPoolExecutor) -> None:
        self.store, self.projector, self.models, self.keyring = store, projector, projector.models, keyring
        self._threads = threads
        self._folding = asyncio.Semaphore(1)
        self._folds = 0

    def add_routes(self, app: FastAPI) -> None:
        """Two routes for each read model, and those for streams and digests."""
        for name, projection in self.models.projections.items():
            described = openapi.page(projection, queries.searchable(projection))
            openapi.add_route(app, f"/v1/{name}", self._page_route(projection), described)
            one = openapi.row(projection)
            openapi.add_route(app, f"/v1/{name}/{{key:path}}", self._row_route(projection), one)
        stream = openapi.other(
            "Streams and events", "One stream", self.stream.__doc__, StreamRead,
            parameters=[openapi.STREAM, *openapi.MOMENTS], errors=(400, 401, 403, 404, 422, 503),
        )  # fmt: skip
        openapi.add_route(app, "/v1/streams/{stream}", self.stream, stream)
        digest = openapi.other(
            "Streams and events", "Digest", self.digest.__doc__, DigestRead, parameters=openapi.DIGEST,
            errors=(400, 401, 403, 422, 503),
        )  # fmt: skip
        openapi.add_route(app, "/v1/digest", self.digest, digest)

    # --- read models --------------------------------------------------------------------------------------------------

    def _page_route(self, projection: Projection) -> Callable[[Request], Awaitable[Response]]:
        columns = queries.searchable(projection)

        async def endpoint(request: Request) -> Response:
            holder = await authenticated(request.scope, self.keyring)
            scope = _scope(holder, projection)
            given = parameters(request, {*columns, *MOMENT, "after", "limit", "cursor"})
            where = [Where(name, "=", _valued(name, columns[name], given[name])) for name in columns if name in given]
            limit = number(given, "limit", ROWS, MOST_ROWS, least=1)
            after_key = _cursor(projection, given.get("cursor"))
            moment = await self._moment(given, projection)
            page = await self._page(projection, moment, [*scope, *where], after_key, limit)
            body = b"[" + b",".join(page.rows) + b"]"
            return self._answer(request, "rows_read", projection, page, body, _next(request, page))

        return endpoint

    async def _page(
        self, projection: Projection, moment: Moment, where: Sequence[Where], after_key: Key | None, limit: int
    ) -> queries.Page:
        if moment.is_now:
            return await self.in_thread(
                lambda: queries.page(self.models, projection, where=where, after_key=after_key, limit=limit)
            )
        return await self._fold(
            lambda: queries.page_as_of(self.store, projection, moment, where=where, after_key=after_key, limit=limit)
        )

    def _row_route(self, projection: Projection) -> Callable[[Request], Awaitable[Response]]:
        prefix = f"/v1/{projection.name}/"

        async def endpoint(request: Request) -> Response:
            holder = await authenticated(request.scope, self.keyring)
            scope = _scope(holder, projection)
            key = _key_in_path(projection, request, prefix)
            moment = await self._moment(parameters(request, {*MOMENT, "after"}), projection)
            page = await self._row(projection, moment, key, scope)
            if not page.rows:
                raise problem("not_found")
            return self._answer(request, "row_read", projection, page, page.rows[0], {})

        return endpoint

    async def _row(self, projection: Projection, moment: Moment, key: Key, scope: Sequence[Where]) -> queries.Page:
        if moment.is_now:
            return await self.in_thread(
                lambda: queries.page(self.models, projection, key_prefix=key, where=scope, limit=1)
            )
        if projection.stream_of is not None:
            return await self.in_thread(lambda: queries.row_as_of(self.store, projection, key, moment, scope))
        return await self._fold(lambda: queries.row_as_of(self.store, projection, key, moment, scope))

    async def _moment(self, given: Mapping[str, str], projection: Projection) -> Moment:
        """The moment a request asks about, once the read model is far enough."""
        moment = moment_of(given)
        if "after" not in given:
            return moment
        if not moment.is_now:
            raise problem("invalid_parameter", "after is about the present; it goes with no moment of the past.")
        after = number(given, "after", 0, MOST_POSITION)
        reached = await self.models.wait_for_async(after, WAIT_SECONDS, projection.name)
        if reached < after:
            raise problem("not_reached", f"{projection.name} stands at position {reached}.", {"Retry-After": "1"})
        return moment

    def _answer(
        self,
        request: Request,
        event: str,
        projection: Projection,
        page: queries.Page,
        body: bytes,
        headers: Mapping[str, str],
    ) -> Response:
        trace = trace_of(request.scope)
        trace.event = event
        trace.fields |= {"read_model": projection.name, "rows": len(page.rows), "position": page.position}
        return answer(body, page.position, headers)

    # --- streams and digests ------------------------------------------------------------------------------------------

    async def stream(self, request: Request) -> Response:
        """The events of a stream with everything the log holds about them, and the state they fold to.

        ``at`` is a position, ``recorded_as_of`` and ``occurred_as_of`` are instants: strictly before them."""
        holder = await authenticated(request.scope, self.keyring)
        name = request.path_params["stream"]
        moment = moment_of(parameters(request, set(MOMENT)))
        if name.partition("-")[0] not in DECIDERS or not name.isprintable():
            raise problem("not_found")
        entries, story, position = await self.in_thread(lambda: self._history(holder, name, moment))
        trace = trace_of(request.scope)
        trace.event = "stream_read"
        trace.fields |= {"stream": name, "events": len(entries), "position": position}
        events = [exports.entry_dict(entry) for entry in entries]
        body = {"stream": name, "events": events, "state": msgspec.to_builtins(story.state)}
        return answer(msgspec.json.encode(body), position)

    def _history(self, holder: Holder, name: str, moment: Moment) -> tuple[list[Entry], Story, int]:
        position = queries.position_of(self.store, moment)
        entries, story = asof.history(self.store, name, moment)
        whole = story if moment.is_now else asof.history(self.store, name, Moment())[1]
        if not entries or not access.may_read_stream(holder.role, holder.actor, whole):
            raise problem("not_found")
        return entries, story, position

    async def digest(self, request: Request) -> Response:
        """The position, the log's chain there, and the SHA-256 of every read model.

        Without ``at`` of the live read models; with it, worked out again from the log up to that position.  Equal at
        two times for one position: nothing before it was altered."""
        holder = await authenticated(request.scope, self.keyring)
        if not access.reads_everything(holder.role):
            raise problem("not_allowed")
        given = parameters(request, {"at"})
        at = number(given, "at", 0, MOST_POSITION) if "at" in given else None
        found = await self._fold(lambda: self._digests(at))
        trace = trace_of(request.scope)
        trace.event = "digest_read"
        trace.fields["position"] = found["position"]
        return answer(msgspec.json.encode(found), found["position"])

    def _digests(self, at: int | None) -> dict[str, Any]:
        queries.position_of(self.store, Moment(at))
        return audit.digests(self.store, self.projector, at)

    # --- threads ------------------------------------------------------------------------------------------------------

    async def in_thread(self, ask: Callable[[], T]) -> T:
        """The answer to a question that waits for the database."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    async def _fold(self, ask: Callable[[], T]) -> T:
        """The same for one that folds the whole log: one at a time, and not too many in line."""
        if self._folds >= FOLDS_WAITING:
            raise problem("too_busy")
        self._folds += 1
        try:
            async with self._folding:
                return await self.in_thread(ask)
        finally:
            self._folds -= 1


# --- what requests say ------------------------------------------------------------------------------------------------


def parameters(request: Request, known: set[str]) -> dict[str, str]:
    """The query parameters; 422 if one is unknown or given twice, because a filter that is overlooked tells lies."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise problem("invalid_parameter", f"Known parameters are {', '.join(sorted(known))}.")
        if name in given:
            raise problem("invalid_parameter", f"{name} is given twice.")
        given[name] = value
    return given


def number(given: Mapping[str, str], name: str, default: int, most: int, least: int = 0) -> int:
    """An integer among the parameters, within bounds."""
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise problem("invalid_parameter", f"{name} is a whole number from {least} to {most}.")
    return int(text)


def moment_of(given: Mapping[str, str]) -> Moment:
    """The moment that the parameters name; the present if they name none."""
    at = number(given, "at", 0, MOST_POSITION) if "at" in given else None
    recorded, occurred = [
        _instant(name, given[name]) if name in given else None for name in ("recorded_as_of", "occurred_as_of")
    ]
    return _checked(lambda: Moment(at, recorded, occurred))


def answer(body: bytes, position: int, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that is true at a position."""
    return Response(
        body,
        media_type=JSON.decode(),
        headers={"Ledger-Position": str(position), "Cache-Control": "no-store", **(headers or {})},
    )


def _scope(holder: Holder, projection: Projection) -> list[Where]:
    scope = access.scope(holder.role, holder.actor, projection)
    if scope is None:
        raise problem("not_allowed")
    return scope


def _instant(name: str, text: str) -> Any:
    return _checked(lambda: queries.instant_of(text), name)


def _valued(name: str, kind: Any, text: str) -> Any:
    return _checked(lambda: queries.value_of(kind, text), name)


def _checked(ask: Callable[[], T], name: str = "") -> T:
    """What is asked; a ``ValueError`` is the fault of a parameter."""
    try:
        return ask()
    except ValueError as error:
        raise problem("invalid_parameter", f"{name}: {error}" if name else str(error)) from error


def _key_in_path(projection: Projection, request: Request, prefix: str) -> Key:
    """The key behind the name of the read model; each part is decoded by itself, so that one may hold a slash."""
    raw = request.scope["raw_path"].decode("latin-1")
    try:
        parts = [unquote(part, errors="strict") for part in raw[len(prefix) :].split("/")]
        return queries.key_of_parts(projection, parts)
    except ValueError as error:
        raise problem("not_found", f"{error}".capitalize()) from error


def _cursor(projection: Projection, text: str | None) -> Key | None:
    if text is None:
        return None
    return _checked(
        lambda: queries.key_of_parts(projection, [unquote(part, errors="strict") for part in text.split("/")]), "cursor"
    )


def _next(request: Request, page: queries.Page) -> dict[str, str]:
    """The way to the rows behind a page."""
    if page.last_key is None:
        return {}
    cursor = "/".join(quote(str(part), safe="") for part in page.last_key)
    return link_to(request, {"cursor": cursor}, leave_out=("after",))


def link_to(request: Request, changes: Mapping[str, str], leave_out: Sequence[str] = ()) -> dict[str, str]:
    """A link to the next page: the same request with other parameters."""
    left = {k: v for k, v in request.query_params.items() if k not in leave_out}
    return {"Link": f'<{request.url.path}?{urlencode({**left, **changes})}>; rel="next"'}
