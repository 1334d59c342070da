"""Is it alive, is it ready, how is it doing."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api import logs
from api.http import openapi
from api.http.door import trace_of
from api.http.problems import Problem
from api.metrics import MEDIA_TYPE, Metrics
from api.queries import DoorDatabase
from ledger.store import Store
from projections.reader import ReadModels

T = TypeVar("T")

PATIENCE_SECONDS = 3.0
"""After so long the database counts as away."""


class Status(msgspec.Struct, frozen=True):
    """How it is."""

    status: Literal["alive", "ready"]


class Health:
    """Answers whoever watches the service.  No key is needed; all it tells about the business is how busy it is."""

    def __init__(
        self, store: Store, models: ReadModels, database: DoorDatabase, metrics: Metrics, threads: ThreadPoolExecutor
    ) -> None:
        self.store, self.models, self.database, self.metrics, self._threads = store, models, database, metrics, threads

    def add_routes(self, app: FastAPI) -> None:
        """Three routes for machines."""
        alive = openapi.other("Health", "Alive", self.healthz.__doc__, Status)
        ready = openapi.other("Health", "Ready", self.readyz.__doc__, Status, errors=(503,))
        figures = openapi.other("Health", "Figures", self.prometheus.__doc__, str, media_type="text/plain")
        openapi.add_route(app, "/healthz", self.healthz, alive)
        openapi.add_route(app, "/readyz", self.readyz, ready)
        openapi.add_route(app, "/metrics", self.prometheus, figures)

    async def healthz(self, request: Request) -> Response:
        """The process runs and answers."""
        trace_of(request.scope).event = "health_asked"
        return Response(msgspec.json.encode(Status("alive")), media_type="application/json")

    async def readyz(self, request: Request) -> Response:
        """The database can be reached, its schema is up to date, and every read model is built and follows.

        503 with the reasons if not."""
        trace_of(request.scope).event = "readiness_asked"
        try:
            reasons = await self._in_thread(self._reasons)
        except Exception as error:
            reasons = [f"the database cannot be reached ({type(error).__name__})"]
        if reasons:
            raise Problem(503, "not_ready", "; ".join(reasons), {"Retry-After": "1"})
        return Response(msgspec.json.encode(Status("ready")), media_type="application/json")

    def _reasons(self) -> list[str]:
        missing = self.database.missing_migrations()
        if missing:
            return [f"{name} was not applied" for name in missing]
        found = self.models.status()
        not_built = [f"{name} was not built" for name in self.models.projections if name not in found]
        failed = [f"{name} stopped at position {model.error_position}" for name, model in found.items() if model.error]
        return not_built + failed

    async def prometheus(self, request: Request) -> Response:
        """Commands by name and result, latencies, how many wait, the end of the log, and how far read models lag."""
        trace_of(request.scope).event = "metrics_asked"
        try:
            head, checkpoints = await self._in_thread(self._positions)
        except Exception as error:  # the rest is wanted most of all while the database is away
            logs.logger("http").warning("positions_unknown", error=str(error))
            head, checkpoints = None, {}
        return Response(self.metrics.text(head, checkpoints), media_type=MEDIA_TYPE)

    def _positions(self) -> tuple[int, dict[str, int]]:
        head = self.store.head().position
        return head, {name: found.position for name, found in self.models.status().items()}

    async def _in_thread(self, ask: Callable[[], T]) -> T:
        asked = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return await asyncio.wait_for(asked, PATIENCE_SECONDS)
