"""The crash sweep: ``kill -9`` of writers and of the server, at random moments under load.

    python -m tests.store.crash_sweep --writers 8 --kills 200 --server-kills 20

Nothing that was acknowledged may be lost, no position may be missing, no command may be half there, and every command
that is submitted again must be answered as it was the first time.  Prints what was counted; exit code 1 if anything
was found.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from api import embedded
from ledger.store import Store
from migrations import migrate
from tests.store.bank import WIRE
from tests.store.hammer import Findings, Hammer, findings

SECONDS_BETWEEN_KILLS = 0.15


def sweep(home: Path, binaries: Path, *, writers: int, kills: int, server_kills: int) -> tuple[Findings, Hammer]:
    """Kills that many writers and servers, in random order; returns what was found after the last recovery."""
    url = embedded.start(home, binaries=binaries)
    try:
        migrate(url)
        (home / "journals").mkdir()
        with Hammer(url, home / "journals", writers) as hammer:
            for victim in random.sample(["writer", "server"], counts=[kills, server_kills], k=kills + server_kills):
                hammer.wait_for_load()
                time.sleep(random.expovariate(1 / SECONDS_BETWEEN_KILLS))
                if victim == "writer":
                    hammer.kill_a_writer()
                else:
                    kill_server(home)
                    embedded.start(home, binaries=binaries)
            hammer.finish()
            with Store.open(url, wire=WIRE) as store:
                return findings(store, hammer.journals()), hammer
    finally:
        embedded.stop(home)


def kill_server(home: Path) -> None:
    """``kill -9`` of the postmaster, and, every other time, of all its children before they notice."""
    postmaster = embedded.status(home).pid
    assert postmaster is not None
    family = [postmaster, *(children(postmaster) if random.random() < 0.5 else ())]
    for pid in family:
        with suppress(ProcessLookupError):  # some notice that the postmaster is dead before it is their turn
            os.kill(pid, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """The processes that a process started and that are there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything but ends with the last bracket: state and parent.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 of writers and server under load; what is lost?")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--server-kills", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        found, hammer = sweep(
            Path(folder) / "home", embedded.find_binaries(),
            writers=asked.writers, kills=asked.kills, server_kills=asked.server_kills,
        )  # fmt: skip
    print(f"writers killed {hammer.kills}, servers killed {asked.server_kills}")
    for name in found.__struct_fields__:
        print(f"{name} {getattr(found, name)}")
    return 0 if found.are_clean() else 1


if __name__ == "__main__":
    sys.exit(main())
