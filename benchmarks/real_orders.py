"""The import of real orders into durable storage, deadlines and all: history relived by a virtual door.

Measured from the first fact to the last event on disk, and again with the reading of the files; each import goes into
an empty ledger.  Before each and after the last, the eventsourcing package's ``save`` of one-event aggregates, one at
a time.

The orders are those of ``$GUARANTEE_OLIST``, else of ``../shared/data/olist`` beside the repository, else invented.

    python -m benchmarks.real_orders [--rounds 3] [--orders N]
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api import importing, olist
from api.wiring import Ledger, opened
from benchmarks import ground, library
from benchmarks.ground import Figure
from ledger import calendar

UNTIL = calendar.parse("2018-12-01")
INVENTED = 20_000
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measures, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--orders", type=int, help="only the first so many; by default all")
    chosen = parser.parse_args()
    with real_orders() as directory, ground.database() as url, library.application(url) as application:
        ...
