"""The demonstration relived into a ledger: once, however often it is asked for."""

import re
import time
from collections.abc import Callable

import msgspec

from api.demo import cast
from api.demo.admission import RULEBOOK, closing
from api.demo.plans import Plans, Size
from api.demo.world import World
from api.relive import Relive
from api.wiring import Ledger
from api.worker import CARRIER

ORIGIN = "demo"
_EVERY = 50
_ELSEWHERE = "set GUARANTEE_SCHEMA to another name, to make one beside it"
_FIRST_KEY = re.compile(rf"demo/(?P<seed>-?\d+)-(?P<merchants>\d+)-(?P<orders>\d+)/{re.escape(RULEBOOK)}")


class Occupied(ValueError):
    """The ledger holds something else."""


class Made(msgspec.Struct):
    """What came of a run.  ``seconds``: how long it took to append ``events``, ``None`` if all was there before."""

    size: Size
    events: int = 0
    seconds: float | None = None
    rejected: dict[str, int] = msgspec.field(default_factory=dict)


def found(ledger: Ledger) -> Size | None:
    """The demonstration that the ledger holds, or a part of it; ``None`` if the ledger is empty.

    ``Occupied`` if it begins with anything else."""
    first = ledger.store.entries(0, 1)
    if not first:
        return None
    is_ours = _FIRST_KEY.fullmatch(first[0].key or "") if first[0].correlation_id.startswith(f"{ORIGIN}/") else None
    if is_ours is None:
        raise Occupied(f"the ledger in the schema {ledger.schema} holds other events; {_ELSEWHERE}")
    return Size(**{name: int(number) for name, number in is_ours.groupdict().items()})


def size_of(ledger: Ledger, merchants: int | None, orders: int | None, seed: int | None) -> Size:
    """The demonstration that is asked for: what is not said is as in the ledger, or by default.

    ``Occupied`` if the ledger holds another one, or anything else."""
    there = found(ledger)
    asked = {"merchants": merchants, "orders": orders, "seed": seed}
    size = msgspec.structs.replace(there or Size(), **{k: v for k, v in asked.items() if v is not None})
    if there not in (None, size):
        raise Occupied(
            f"the ledger in the schema {ledger.schema} holds a demonstration of {there.merchants} merchants and "
            f"{there.orders} orders, seed {there.seed}; {_ELSEWHERE}"
        )
    return size


def run(ledger: Ledger, size: Size, progress: Callable[[int, int], None] = lambda done, total: None) -> Made:
    """Lives the summer, or the rest of it if an earlier run was broken off; a second time nothing is appended."""
    last_key = closing(size).key
    if ledger.store.find([last_key]):
        return Made(size)
    began, world = time.monotonic(), World(Plans(size))
    with Relive(ledger.store, ORIGIN, world.respond) as relive:
        relive.know(fact.key for fact in world.facts())
        for done, _ in enumerate(relive.run(world.facts(), cast.ENDS), 1):
            if done % _EVERY == 0:
                progress(done, size.orders)
    # every message was carried as it was made: followers of the log need not ask for them again
    ledger.worker.checkpoints.move(CARRIER, ledger.store.head().position)
    return Made(size, relive.tally.events, time.monotonic() - began, relive.tally.rejected)
