"""The HTTP door put together: ``create_app`` makes the one application there is.

What it serves is described at ``/openapi.json``, and for people at ``/docs``.  One process, one event loop; start more
processes for more cores, they need not know of each other.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.commands import Desk
from api.http import openapi
from api.http.commands import Commands
from api.http.door import Door, trace_of
from api.http.feed import Feed
from api.http.health import Health
from api.http.problems import CODES, MEDIA_TYPE, Problem, problem
from api.http.reads import Reads
from api.keys import Keyring
from api.metrics import Metrics
from api.queries import DoorDatabase
from ledger.store import Store
from projections.runner import Projector

READING_THREADS = 8
"""How many reads wait for the database at a time."""
SHUTDOWN_SECONDS = 5
"""How long a server that was told to stop lets requests end; event streams never do by themselves."""


def create_app(store: Store, desk: Desk, projector: Projector) -> FastAPI:
    """The application for one open ledger, which it neither opens nor closes; what it opens for itself (keys, the
    feed's listener) it closes when it is shut down.

    It runs no workers: read models follow, messages are carried and deadlines fire only while somebody sees to it."""
    metrics, threads = Metrics(), ThreadPoolExecutor(READING_THREADS, "reads")
    database = DoorDatabase(projector.url, projector.schema)
    keyring = Keyring(database.holder)
    feed = Feed(store, keyring, metrics, threads)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database.open()
        _collect_garbage_seldom()
        yield
        await asyncio.to_thread(feed.close)
        threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(database.close)

    app = FastAPI(
        title="Guarantee ledger", version=openapi.VERSION, description=openapi.DESCRIPTION, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asked anew for each request otherwise
    )  # fmt: skip
    Commands(desk, keyring, metrics).add_routes(app)
    Reads(store, projector, keyring, threads).add_routes(app)
    feed.add_routes(app)
    Health(store, projector.models, database, metrics, threads).add_routes(app)
    openapi.add_routes(app)
    app.add_exception_handler(HTTPException, _refused_by_router)
    app.add_middleware(Door, metrics=metrics)
    return app


def server_config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """How the application is served: ``uvicorn.Server(server_config(app, host, port)).run()``.

    The door logs each request itself, names no software in its answers, and asks nobody's address."""
    return uvicorn.Config(
        app, host=host, port=port, loop="uvloop", http="httptools", ws="none", lifespan="on", access_log=False,
        log_config=None, server_header=False, proxy_headers=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )  # fmt: skip


def _collect_garbage_seldom() -> None:
    """A process that serves keeps much (modules, streams folded in memory) and makes hardly any circles.  Looking for
    them at the usual pace costs a fifth of its time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _refused_by_router(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    known = {status: code for code, (status, _) in CODES.items() if code in ("not_found", "method_not_allowed")}
    code = known.get(error.status_code)
    refused = problem(code) if code else Problem(error.status_code, "http_error", str(error.detail))
    trace = trace_of(request.scope)
    trace.fields["code"] = refused.code
    return Response(
        refused.body(trace.correlation_id), refused.status, {**refused.headers, **(error.headers or {})}, MEDIA_TYPE
    )
