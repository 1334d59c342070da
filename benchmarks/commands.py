"""Commands of one event through the whole door, from ``Desk.execute`` until the event is durable: key looked up, story
folded, decided, chained, committed.

So many tasks of one event loop ask at the same time, each for one rating after the other.  Measured in turn with them:

* the eventsourcing package's ``save`` of one-event aggregates from 8 threads, as it comes
* 16 clients that insert single rows of the same size, each in a transaction of its own: pgbench, or threads of ours

    python -m benchmarks.commands [--seconds 4] [--rounds 3]
"""

import argparse
import asyncio
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import uvloop

from api import embedded
from api.commands import Desk
from api.wiring import Ledger
from benchmarks import ground, library, ratings
from benchmarks.ground import Figure
from benchmarks.ratings import Buyer

CALLERS = (64, 512)
ORDERS = 2_048
LIBRARY_THREADS = 8
CLIENTS = 16
ROW_BYTES = 250
"""About what an event takes."""


def main() -> None:
    """Measures, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with ground.ledger(writes_apart=True) as ledger, library.application() as application:
        rows = SingleRows(ledger.url)
        figures = uvloop.run(measure(ledger, application, rows, chosen.seconds, chosen.rounds))
        title = "Commands of one event, decided and durably appended"
        ground.show(title, figures, [f"single-row inserts by {rows.clients}"])


async def measure(
    ledger: Ledger, application: library.Ratings, rows: "SingleRows", seconds: float, rounds: int
) -> list[Figure]:
    """The figures, measured in turn."""
    buyers = ratings.place(ledger.store, ORDERS)
    await ratings.warm(ledger.desk, buyers)
    saved: list[float] = []
    inserted: list[float] = []
    decided: dict[int, list[float]] = {callers: [] for callers in CALLERS}
    for turn in range(rounds):
        ground.note(f"round {turn + 1} of {rounds}")
        saved.append(await asyncio.to_thread(library.saves_a_second, application, LIBRARY_THREADS, seconds))
        for callers in CALLERS:
            decided[callers].append(await commands_a_second(ledger.desk, buyers, callers, seconds))
        inserted.append(await asyncio.to_thread(rows.inserts_a_second, seconds))
    few, many = CALLERS
    return [
        Figure(f"the package's save, {LIBRARY_THREADS} threads", saved),
        Figure(f"commands, {few} callers, to the package", decided[few], against=saved, target="≥ 8"),
        Figure(f"commands, {many} callers, to the package", decided[many], against=saved, target="≥ 12"),
        Figure(f"single-row inserts, {CLIENTS} clients", inserted),
        Figure(f"commands, {few} callers, to the inserts", decided[few], against=inserted),
        Figure(f"commands, {many} callers, to the inserts", decided[many], against=inserted, target="≥ 0.6"),
    ]


async def commands_a_second(desk: Desk, buyers: Sequence[Buyer], callers: int, seconds: float) -> float:
    """How many commands are answered in a second while so many callers ask one after the other."""
    end = time.monotonic() + seconds

    async def ask(mine: Sequence[Buyer]) -> int:
        done = 0
        for buyer in itertools.cycle(mine):
            answer = await desk.execute(buyer.rates())
            if answer.result != "accepted" or len(answer.events) != 1:
                raise AssertionError(f"not one event: {answer}")
            done += 1
            if time.monotonic() > end:
                break
        return done

    begun = time.monotonic()
    counts = await asyncio.gather(*(ask(buyers[caller::callers]) for caller in range(callers)))
    return sum(counts) / (time.monotonic() - begun)


# --- the floor: rows, and nothing else --------------------------------------------------------------------------------

_CREATE = "CREATE TABLE IF NOT EXISTS single_rows (id bigserial PRIMARY KEY, data text NOT NULL)"
_INSERT = f"INSERT INTO single_rows (data) VALUES ('{'x' * ROW_BYTES}')"


class SingleRows:
    """Clients that insert one row a transaction into a table with one index."""

    def __init__(self, url: str) -> None:
        self._url, self._pgbench = url, find_pgbench()
        self.clients = "pgbench" if self._pgbench else "threads of ours, because there is no pgbench on this machine"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_CREATE)

    def inserts_a_second(self, seconds: float) -> float:
        """How many transactions there are in a second."""
        return self._by_pgbench(seconds) if self._pgbench else self._by_threads(seconds)

    def _by_pgbench(self, seconds: float) -> float:
        parts = urlsplit(self._url)
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "insert.sql"
            script.write_text(f"{_INSERT};\n")
            ran = subprocess.run(
                [
                    self._pgbench or "", "--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", "--jobs=2",
                    f"--time={max(1, round(seconds))}", f"--file={script}", f"--host={parts.hostname}",
                    f"--port={parts.port or 5432}", f"--username={unquote(parts.username or '')}",
                    parts.path.removeprefix("/"),
                ],
                env=os.environ | {"PGPASSWORD": unquote(parts.password or "")}, capture_output=True, text=True,
                check=True,
            )  # fmt: skip
        found = re.search(r"tps = ([0-9.]+) \(without", ran.stdout)
        if found is None:
            raise ValueError(f"pgbench said: {ran.stdout}")
        return float(found[1])

    def _by_threads(self, seconds: float) -> float:
        counts = [0] * CLIENTS
        end = time.monotonic() + seconds

        def insert(client: int) -> None:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while time.monotonic() < end:
                    connection.execute(_INSERT, prepare=True)
                    counts[client] += 1

        threads = [threading.Thread(target=insert, args=[client]) for client in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / seconds


def find_pgbench() -> str | None:
    """Beside the programs of the embedded PostgreSQL, or of the system's; ``None`` if there is none."""
    try:
        folders = [embedded.find_binaries()]
    except embedded.EmbeddedPostgresError:
        folders = []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "pgbench").is_file():
            return str(folder / "pgbench")
    return shutil.which("pgbench")


if __name__ == "__main__":
    main()
