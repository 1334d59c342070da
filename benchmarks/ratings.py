"""A ledger full of orders that wait to be rated: the command of one event that benchmarks ask for again and again."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from api.commands import Desk, Request
from benchmarks.orders_log import Life, rulebook
from ledger import orders, programme
from ledger.decider import ADMIN, BUYER, MERCHANT, PAYMENT, Asked, Decider, Story, handle
from ledger.orders.placing import RateOrder
from ledger.rulebook import Rulebook, shipped
from ledger.store import Append, Appended, Store

_NUMBERS = itertools.count(1)
_ACTORS = {PAYMENT: "payments", ADMIN: "admin"}


class Buyer(msgspec.Struct, frozen=True):
    """Who may rate an order."""

    order_id: str
    buyer_ref: str

    def rates(self) -> Request:
        """A rating that was not given before, with a key of its own."""
        rating_id = f"r-{next(_NUMBERS)}"
        command = RateOrder(order_id=self.order_id, rating_id=rating_id, as_described=5)
        return Request(command, f"{self.order_id}/{rating_id}", self.buyer_ref, BUYER)


def place(store: Store, count: int) -> list[Buyer]:
    """Publishes the rules in an empty ledger, and appends so many orders that were paid for and shipped since."""
    now = datetime.now(UTC)
    publish = Asked(
        programme.PublishRulebook(body=shipped("rulebook-2015.1")), "admin", ADMIN, now, approved_by="supervisor"
    )
    _write(store, [_decided(programme.DECIDER, Story(programme.STREAM, programme.RulebookState()), publish, {})])
    buyers = []
    for number in range(1, count + 1):
        life = Life(number, random.Random(number), now - timedelta(days=3), 1_000)
        _write(store, list(_lived(life)))
        buyers.append(Buyer(life.order_id, life.story.state.buyer_ref))
    return buyers


async def warm(desk: Desk, buyers: list[Buyer]) -> None:
    """Lets the desk read every order, so that its story is remembered."""
    await asyncio.gather(*(desk.execute(buyer.rates()) for buyer in buyers))


def _lived(life: Life) -> Iterator[Append]:
    """The first steps of an order: placed, paid for, shipped; or cancelled, which can be rated as well."""
    for at, step in itertools.islice(life.steps(), 3):
        if step.command is None:
            continue
        state = life.story.state
        buyer_ref = state.buyer_ref or getattr(step.command, "buyer_ref", "")
        actor = {BUYER: buyer_ref, MERCHANT: life.merchant_id}.get(step.role, step.role)
        asked = Asked(step.command, actor, step.role, at)
        yield _decided(orders.DECIDER, life.story, asked, {rulebook().rulebook: rulebook()})


def _decided(decider: Decider, story: Story, asked: Asked, rules: dict[str, Rulebook]) -> Append:
    version = story.version
    outcome = handle(decider, story, asked, rules, rulebook())
    if outcome.rejected:
        raise ValueError(outcome.rejected)
    key = f"{story.stream}/{version}"
    return Append(
        story.stream, version, outcome.events, asked.actor, asked.role, key, bytes(32), f"benchmark/{story.stream}"
    )


def _write(store: Store, appends: list[Append]) -> None:
    for answer in store.append(*appends):
        if not isinstance(answer, Appended):
            raise answer
