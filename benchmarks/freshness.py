"""How soon a committed event is in the read models: from the answer to the command until a reader can see it.

Commands come at a steady rate, whatever became of those before.  All read models follow in the same process, as in
``guarantee serve``; whoever asks waits for the position of its own event.  Then the same of the eventsourcing package:
saves at a steady rate, one small read model, its projection runner and its ``wait``.  It is offered the same rate, and
half of it as long as its runner cannot keep up.

    python -m benchmarks.freshness [--rate 500] [--seconds 5] [--rounds 3]
"""

import argparse
import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from api.wiring import Ledger
from benchmarks import ground, library, ratings
from benchmarks.ground import Figure, percentile
from benchmarks.library import Running
from benchmarks.ratings import Buyer

ORDERS = 2_048
SAVERS, WAITERS = 8, 32
TIMEOUT_SECONDS = 10.0
BEHIND_SECONDS = 1.0
"""Whoever lags so far behind at the end cannot keep up."""


def main() -> None:
    """Measures, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="events offered a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with ground.ledger() as ledger, library.running() as runner:
        figures = asyncio.run(measure(ledger, runner, chosen.rate, chosen.seconds, chosen.rounds))
    ground.show("From commit to read model", figures)


async def measure(ledger: Ledger, runner: Running, rate: int, seconds: float, rounds: int) -> list[Figure]:
    """The figures, measured in turn."""
    buyers = ratings.place(ledger.store, ORDERS)
    await ratings.warm(ledger.desk, buyers)
    await asyncio.to_thread(ledger.projector.catch_up)
    stop = threading.Event()
    following = asyncio.create_task(asyncio.to_thread(ledger.projector.follow, stop))
    sustained = await asyncio.to_thread(sustained_rate, runner, rate, seconds)
    ours: list[Sequence[float]] = []
    theirs: list[Sequence[float]] = []
    for turn in range(rounds):
        ground.note(f"round {turn + 1} of {rounds}")
        theirs.append((await asyncio.to_thread(offer, runner, sustained, seconds)).lags)
        ours.append(await lags(ledger, buyers, rate, seconds))
    stop.set()
    await following
    return [figure for percent in (50, 99) for figure in _figures(percent, rate, ours, sustained, theirs)]


def _figures(
    percent: int, rate: int, ours: Sequence[Sequence[float]], sustained: int, theirs: Sequence[Sequence[float]]
) -> list[Figure]:
    mine, other = ([1_000 * percentile(found, percent) for found in lags] for lags in (ours, theirs))
    return [
        Figure(f"the package's wait, {sustained} events/s, p{percent}", other, "ms"),
        Figure(f"read models, {rate} events/s, p{percent}", mine, "ms", against=other, is_time=True),
    ]


async def lags(ledger: Ledger, buyers: Sequence[Buyer], rate: int, seconds: float) -> list[float]:
    """From each answer until the event was in all read models, in seconds."""
    found: list[float] = []

    async def ask(buyer: Buyer) -> None:
        answer = await ledger.desk.execute(buyer.rates())
        answered = time.monotonic()
        assert answer.position is not None
        if await ledger.models.wait_for_async(answer.position, TIMEOUT_SECONDS) < answer.position:
            raise TimeoutError(f"position {answer.position} is not in the read models")
        found.append(time.monotonic() - answered)

    begun = time.monotonic()
    async with asyncio.TaskGroup() as asking:
        for number, buyer in zip(range(round(rate * seconds)), itertools.cycle(buyers), strict=False):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            asking.create_task(ask(buyer))
    return found


# --- the package ------------------------------------------------------------------------------------------------------


class Offered:
    """What came of saves that were to come at a steady rate."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        """From the end of a save until ``wait`` returned, for as many as there were threads to wait."""
        self.behind_seconds = 0.0
        """How far the last save, and the runner after it, came after their time."""


def sustained_rate(runner: Running, rate: int, seconds: float) -> int:
    """The rate, halved until the package keeps up with it."""
    while offer(runner, rate, seconds).behind_seconds > BEHIND_SECONDS:
        rate //= 2
    return rate


def offer(runner: Running, rate: int, seconds: float) -> Offered:
    """Saves at a steady rate while others wait for what was saved."""
    offered, numbers = Offered(), itertools.count()
    free = threading.Semaphore(WAITERS)
    begun = time.monotonic()

    def save() -> None:
        while (number := next(numbers)) < rate * seconds:
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            position = runner.app.rate(number)
            if free.acquire(blocking=False):
                waiters.submit(wait, position, time.monotonic())

    def wait(position: int, saved: float) -> None:
        runner.wait(position, TIMEOUT_SECONDS)
        offered.lags.append(time.monotonic() - saved)
        free.release()

    with ThreadPoolExecutor(WAITERS) as waiters:
        savers = [threading.Thread(target=save) for _ in range(SAVERS)]
        for saver in savers:
            saver.start()
        for saver in savers:
            saver.join()
        runner.wait(runner.app.recorder.max_notification_id(), 60.0)
        offered.behind_seconds = time.monotonic() - begun - seconds
    return offered


if __name__ == "__main__":
    main()
