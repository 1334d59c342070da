"""A reader that follows positions sees every event once, in order, while writers race, conflict and are killed."""

import random
import time
from pathlib import Path

from ledger.store import Store
from tests.store.conftest import NIGHTLY
from tests.store.hammer import Hammer, findings

WRITERS = 8
COMMANDS = 29_000 if NIGHTLY else 1_200
"""They make about 1.75 events each: 50,000 by night."""
KILLS = 150 if NIGHTLY else 8
SECONDS_BETWEEN_KILLS = 0.2


def test_three_readers_see_the_same_set_in_order_while_writers_are_killed(
    store: Store, ledger: str, tmp_path: Path
) -> None:
    with Hammer(ledger, tmp_path, WRITERS, most=COMMANDS // WRITERS) as hammer:
        hammer.start_readers()
        for _ in range(KILLS):
            time.sleep(random.expovariate(1 / SECONDS_BETWEEN_KILLS))
            hammer.kill_a_writer()
        hammer.wait_for_writers()
        hammer.finish()

    found = findings(store, hammer.journals())
    print(found, "writers killed:", hammer.kills)  # noqa: T201
    assert found.are_clean()
    assert found.acknowledged == COMMANDS
    written = [(event.position, event.event_id) for events in store.scan() for event in events]
    assert [position for position, _ in written] == list(range(1, len(written) + 1))
    for reader, seen in hammer.seen().items():
        assert len(seen) == len(set(seen)), f"{reader} saw something twice"
        assert set(seen) == set(written), f"{reader} saw another set"
        assert seen == written, f"{reader} saw another order"
