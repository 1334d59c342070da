"""What benchmarks stand on: a database of their own, and figures told as ratios.

A ratio is taken between two rates that were measured one right after the other, and what is printed is the median of
several such pairs: so whatever else the machine does weighs on both alike.
"""

import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg import sql

from api.settings import Settings
from api.wiring import Ledger, database_url, opened, spare_collector
from migrations import migrate


@contextmanager
def database(name: str) -> Iterator[str]:
    """The URL of an empty database beside the ledger's, on the same server; it is dropped afterwards."""
    server, full_name = database_url(Settings()), f"guarantee_benchmark_{name}"
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(full_name))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(full_name)))
    try:
        yield urlsplit(server)._replace(path=f"/{full_name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(drop)


@contextmanager
def ledger(*, recorded_from: datetime | None = None, writes_apart: bool = False) -> Iterator[Ledger]:
    """An empty ledger in a database of its own, dropped afterwards; opened as by ``wiring.opened``."""
    spare_collector()
    with database("ledger") as url:
        migrate(url)
        settings = Settings(database_url=url)
        with opened(settings, recorded_from=recorded_from, writes_apart=writes_apart) as ledger:
            yield ledger


def machine() -> str:
    """What the figures were measured on."""
    with psycopg.connect(database_url(Settings())) as connection:
        settings = {name: connection.execute(f"SHOW {name}").fetchone() for name in ("server_version", "fsync")}
    version, fsync = (found[0] if found else "?" for found in settings.values())
    return (
        f"{os.cpu_count()} cores, PostgreSQL {version.split()[0]}, fsync {fsync}, "
        f"Python {platform.python_version()}, {platform.system()}"
    )


def note(text: str) -> None:
    """What is being done, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


# --- figures ----------------------------------------------------------------------------------------------------------


class Figure(msgspec.Struct):
    """One thing that was measured several times, and what it was measured against each time."""

    name: str
    values: Sequence[float]
    unit: str = "/s"
    against: Sequence[float] | None = None
    """The values of another figure, from the same rounds."""
    is_time: bool = False
    """Less is better, so that the ratio is taken the other way round."""
    target: str = ""

    def ratios(self) -> list[float]:
        """How many times better than the other one, round by round."""
        pairs = zip(self.values, self.against or (), strict=self.against is not None)
        return [other / value if self.is_time else value / other for value, other in pairs]

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        ratios = self.ratios()
        return (
            self.name,
            f"{number(statistics.median(self.values))} {self.unit}",
            _range(self.values),
            f"{number(statistics.median(ratios))} x" if ratios else "",
            _range(ratios) if ratios else "",
            self.target,
        )


def show(title: str, figures: Sequence[Figure], notes: Sequence[str] = ()) -> None:
    """Prints a table of figures."""
    head = ("", "median", "min to max", "ratio", "min to max", "target")
    rows = [head, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}\n{machine()}\n")
    for row in rows:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        print("  ".join(cells).rstrip())
    for text in notes:
        print(text)
    print(flush=True)


def number(value: float) -> str:
    """Three digits at least, and no more than mean anything."""
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _range(values: Sequence[float]) -> str:
    return f"{number(min(values))} to {number(max(values))}"


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
