"""The import of real orders into durable storage, deadlines and all: years relived by a virtual door.

Each import goes into an empty ledger.  Two rates are told: from the first fact to the last event on disk, and the same
with the reading of the files.  Before and after each, the eventsourcing package's ``save`` of one-event aggregates, one
at a time.

The orders are those in ``$GUARANTEE_OLIST``, else in ``../shared/data/olist`` beside the repository, else invented.

    python -m benchmarks.real_orders [--rounds 3] [--orders N] [--seconds 4]
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from api import importing, olist
from benchmarks import ground, library
from benchmarks.ground import Figure
from ledger import calendar

ROOT = Path(__file__).parents[1]
UNTIL = calendar.parse("2018-12-01")
INVENTED = 20_000


def main() -> None:
    """Measures, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--orders", type=int, help="only the first so many; by default all")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement of the package")
    chosen = parser.parse_args()
    with data_directory() as directory, library.application() as application:
        figures, told = measure(application, directory, chosen.orders, chosen.seconds, chosen.rounds)
        ground.show("Import of real orders", figures, [f"{told}, from {directory}"])


class Imported(NamedTuple):
    """What one import took."""

    commands: int
    events: int
    reading_seconds: float
    living_seconds: float

    @property
    def rate(self) -> float:
        """Events a second, once the files were read."""
        return self.events / self.living_seconds

    @property
    def whole_rate(self) -> float:
        """Events a second, reading included."""
        return self.events / (self.reading_seconds + self.living_seconds)


def measure(
    application: library.Ratings, directory: Path, orders: int | None, seconds: float, rounds: int
) -> tuple[list[Figure], str]:
    """The figures, measured in turn, and what was imported."""
    imports: list[Imported] = []
    saved = [library.saves_a_second(application, 1, seconds)]
    for turn in range(rounds):
        ground.note(f"round {turn + 1} of {rounds}")
        imports.append(import_once(directory, orders))
        saved.append(library.saves_a_second(application, 1, seconds))
    around = [statistics.mean(pair) for pair in itertools.pairwise(saved)]
    figures = [
        Figure("the package's save, 1 thread", saved),
        Figure("import", [x.rate for x in imports], "events/s", against=around, target="≥ 25"),
        Figure("import, reading included", [x.whole_rate for x in imports], "events/s", against=around),
    ]
    return figures, f"{imports[0].events:,} events of {imports[0].commands:,} commands"


def import_once(directory: Path, orders: int | None) -> Imported:
    """Imports the first so many orders, or all, into an empty ledger."""
    with ground.ledger(recorded_from=calendar.BEGINNING, writes_apart=True) as ledger:
        begun = time.monotonic()
        data = olist.read(directory)
        data.pairs = data.pairs[:orders]
        facts = olist.facts(data)
        read = time.monotonic()
        tally = importing.run(ledger, facts, UNTIL, lambda done, total: None)
        return Imported(tally.accepted, tally.events, read - begun, time.monotonic() - read)


@contextmanager
def data_directory() -> Iterator[Path]:
    """Where the orders are; invented ones lie there for the time being only."""
    given = Path(os.environ.get("GUARANTEE_OLIST") or ROOT.parent / "shared" / "data" / "olist")
    if given.is_dir():
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        script = ROOT / "tests" / "olist" / "small.py"
        subprocess.run([sys.executable, script, folder, "--orders", str(INVENTED)], check=True)
        yield Path(folder)


if __name__ == "__main__":
    main()
