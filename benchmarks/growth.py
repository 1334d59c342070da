"""Rates and memory while the log grows: what holds for a hundred thousand events should hold for millions.

The log of one seeded history is appended until it has each size.  Then are measured: the next appends in bulk, a full
rebuild of all read models in a process of its own, and that process's peak memory.

    python -m benchmarks.growth [--large] [--rounds 3]
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks import ground
from benchmarks.ground import Figure
from benchmarks.orders_log import BEGINNING, OrdersLog
from ledger.store import Append, Appended, Store
from ledger.streams import WIRE
from projections import PROJECTIONS
from projections.rebuild import rebuild

SIZES = (100_000, 1_000_000)
LARGE = 5_000_000
BATCH = 2_000
"""Appends in one transaction."""
TIMED_BATCHES = 9
FOREVER = 10**12


def main() -> None:
    """Measures, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help=f"up to {LARGE:,} events, which takes half an hour")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    figures = measure([*SIZES, LARGE] if chosen.large else SIZES, chosen.rounds)
    ground.show("While the log grows", figures)


class Rebuild(NamedTuple):
    """What a rebuild of all read models took."""

    events_a_second: float
    peak_megabytes: float


def measure(sizes: Sequence[int], rounds: int) -> list[Figure]:
    """The figures at each size, against those at the first."""
    appended: dict[int, list[float]] = {}
    rebuilds: dict[int, list[Rebuild]] = {}
    with ground.ledger(recorded_from=BEGINNING) as ledger:
        appends = OrdersLog().appends(FOREVER)
        for size in sizes:
            ground.note(f"{size:,} events")
            while ledger.store.head().position < size:
                append_a_second(ledger.store, list(islice(appends, BATCH)))
            rebuilds[size] = [rebuild_elsewhere(ledger.url, ledger.schema) for _ in range(rounds)]
            batches = [list(islice(appends, BATCH)) for _ in range(TIMED_BATCHES)]
            appended[size] = [append_a_second(ledger.store, batch) for batch in batches]
    return [
        *_figures("appended in bulk", "events/s", appended),
        *_figures(
            "rebuilt", "events/s", {size: [x.events_a_second for x in found] for size, found in rebuilds.items()}
        ),
        *_figures(
            "peak of the rebuild", "MB", {size: [x.peak_megabytes for x in found] for size, found in rebuilds.items()}
        ),
    ]


def _figures(name: str, unit: str, by_size: Mapping[int, Sequence[float]]) -> list[Figure]:
    first = min(by_size)
    return [
        Figure(
            f"{name}, {size:,} events",
            found,
            unit,
            None if size == first else by_size[first],
            target="" if size == first else "1: flat",
        )
        for size, found in by_size.items()
    ]


def append_a_second(store: Store, appends: Sequence[Append]) -> float:
    """Appends in one transaction; returns the events a second."""
    begun = time.monotonic()
    for answer in store.append(*appends):
        if not isinstance(answer, Appended):
            raise answer
    return sum(len(append.events) for append in appends) / (time.monotonic() - begun)


def rebuild_elsewhere(url: str, schema: str) -> Rebuild:
    """Rebuilds all read models in another process, so that its memory is the rebuild's alone."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_rebuild, args=(url, schema, theirs))
    process.start()
    theirs.close()
    found: Rebuild = mine.recv()
    process.join()
    return found


def _rebuild(url: str, schema: str, pipe: Connection) -> None:
    with Store.open(url, schema, wire=WIRE) as store:
        events = store.head().position
        begun = time.monotonic()
        results = rebuild(url, schema, store, PROJECTIONS)
        seconds = time.monotonic() - begun
    if not all(result.is_live for result in results):
        raise AssertionError(f"not rebuilt: {results}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(Rebuild(events / seconds, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)))


if __name__ == "__main__":
    main()
