"""A small invented data set of marketplace orders, in the files and columns that the import reads.

    python small.py DIRECTORY [--seed 1] [--orders 200]

Nothing in it is copied: ids are hashes of names, everything else comes out of a seeded generator, and the same seed
gives the same bytes. The first orders are irregular, one for each function marked ``@irregular``, whose name says
what is wrong with it, or at the edge; the rest are ordinary. ``order_id(seed, name)`` finds such an order again.
Kinds marked ``@unseen`` have not been met in real data and are only written when asked for.

No order arrives at the very instant it is due: whether that is on time is the one question the import leaves open.
"""

import argparse
import csv
import gzip
import hashlib
import io
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
FIRST_PURCHASE = datetime.fromisoformat("2017-01-05 00:00:00")
PURCHASE_DAYS = 510
"""Purchases lie within so many days from the first, up to the end of May 2018."""

LONG_AGO = datetime.fromisoformat("2017-02-14 09:41:07")
"""The purchase of orders with a long story, so that it has ended when the rest have."""

COLUMNS = {
    "orders": (
        "order_id", "customer_unique_id", "customer_state", "order_status", "order_purchase_timestamp",
        "order_approved_at", "order_delivered_carrier_date", "order_delivered_customer_date",
        "order_estimated_delivery_date",
    ),
    "order_items": (
        "order_id", "order_item_id", "product_id", "seller_id", "shipping_limit_date", "price", "freight_value",
    ),
    "payments": ("order_id", "payment_sequential", "payment_type", "payment_installments", "payment_value"),
    "reviews": (
        "review_id", "order_id", "review_score", "review_comment_title", "review_comment_message",
        "review_creation_date", "review_answer_timestamp", "text_intact",
    ),
    "sellers": ("seller_id", "seller_city", "seller_state"),
    "products": ("product_id", "product_category_name", "product_category_name_english", "product_weight_g"),
}  # fmt: skip

SELLERS = {
    "Acacia": ("sao paulo", "SP"),
    "Buriti": ("campinas", "SP"),
    "Caju": ("curitiba", "PR"),
    "Dende": ("salvador", "BA"),
    "Embauba": ("santos", "SP"),
    "Figueira": ("belo horizonte", "MG"),
    "Guarana": ("manaus", "AM"),
    "Ipe": ("ribeirao preto", "SP"),
    "Jatoba, Irmaos": ("mogi das cruzes, centro", "SP"),
    "only cancelled": ("osasco", "SP"),
}
PRODUCTS = {
    "novel": ("livros", "books", "350"),
    "kite": ("brinquedos", "toys", "180"),
    "notebook": ("papelaria", "stationery", "420"),
    "rake": ("jardim", "garden", "2300"),
    "loudspeaker": ("som_portatil", "portable_sound", "1250"),
    "hammock": ("jardim", "garden", "1900"),
    "no category": ("", "", "600"),
    "no English category": ("cordel", "", "90"),
    "no weight": ("livros", "books", ""),
}
STATES = ("SP", "RJ", "MG", "RS", "PR", "BA", "AM")
PRAISE = (("", ""), ("", "Chegou antes do prazo, recomendo!"), ("Muito bom", "Produto ótimo."), ("", ""))
BLAME = (("", "Ainda não chegou, já reclamei três vezes"), ("Atrasado", ""), ("", ""))


def ident(seed: int, *name: object) -> str:
    """An id: 32 hexadecimal digits that only depend on the seed and the name."""
    return hashlib.sha256("/".join(map(str, (seed, *name))).encode()).hexdigest()[:32]


def order_id(seed: int, name: str) -> str:
    """The id of the order that a kind, named as its function, gave rise to."""
    return ident(seed, "order", name)


# --- an order and its rows -------------------------------------------------------------------------------------------


@dataclass
class Item:
    """One unit of a product, sold by a seller."""

    product: str
    seller: str
    limit: datetime
    price: int
    freight: int


@dataclass
class Payment:
    """One part of what was paid for an order."""

    number: int
    kind: str
    cents: int
    installments: int = 1


@dataclass
class Review:
    """One review; reviews of several orders may share a name and so an id."""

    name: str
    score: int
    created: datetime | None
    answered: datetime | None
    title: str = ""
    message: str = ""
    is_intact: bool = True


@dataclass
class Order:
    """An order while it is being made up. Payments and reviews left at None are made up last, to fit the rest."""

    name: str
    seed: int
    purchased: datetime
    approved: datetime | None
    carrier: datetime | None
    arrived: datetime | None
    due: datetime
    dice: random.Random
    status: str = "delivered"
    items: list[Item] = field(default_factory=list)
    payments: list[Payment] | None = None
    reviews: list[Review] | None = None
    is_listed: bool = True

    @property
    def id(self) -> str:
        """The order's id."""
        return order_id(self.seed, self.name)

    @property
    def owed(self) -> int:
        """What its items and their freight cost."""
        return sum(item.price + item.freight for item in self.items)

    @property
    def limit(self) -> datetime:
        """The shipping limit of its first item."""
        return self.items[0].limit

    def limit_to(self, limit: datetime) -> None:
        """Set the shipping limit of all items."""
        for item in self.items:
            item.limit = limit

    def sell(self, price: int, seller: str, freight: int = 1234, product: str = "novel") -> None:
        """Add an item, shipped within the limit of the others."""
        self.items.append(Item(product, seller, self.limit, price, freight))

    def sell_only(self, price: int, seller: str) -> None:
        """Replace the items by a single one."""
        self.items[:] = [Item("kite", seller, self.limit, price, 990)]

    def shift_to(self, purchased: datetime) -> None:
        """Move the whole order to another instant of purchase; the due date stays a midnight."""
        by = purchased - self.purchased
        self.purchased, self.due = purchased, midnight(self.due + by)
        self.approved, self.carrier, self.arrived = (
            when + by if when else None for when in (self.approved, self.carrier, self.arrived)
        )
        self.limit_to(self.limit + by)

    def undeliver(self, status: str) -> None:
        """Take back the arrival, and what else the status says has not happened."""
        self.status, self.arrived = status, None
        if status != "shipped":
            self.carrier = None
        if status == "created":
            self.approved = None

    def pay(self, *parts: tuple[int, str, int]) -> None:
        """Set the payments by number, kind and centavos."""
        self.payments = [Payment(*part) for part in parts]

    def review(
        self, score: int, created: datetime | None, *, title: str = "", message: str = "", name: str = ""
    ) -> Review:
        """Add a review, answered two days after it was created."""
        self.reviews = self.reviews or []
        name = name or f"{self.name} {len(self.reviews)}"
        answered = created + 2 * DAY + 3 * HOUR + 7 * SECOND if created else None
        self.reviews.append(Review(name, score, created, answered, title, message))
        return self.reviews[-1]


def midnight(when: datetime) -> datetime:
    """The first instant of the day."""
    return when.replace(hour=0, minute=0, second=0)


def some(dice: random.Random, low: timedelta, high: timedelta) -> timedelta:
    """A span of whole seconds between the two."""
    return timedelta(seconds=dice.randrange(int(low / SECOND), int(high / SECOND)))


def draft(seed: int, name: str) -> Order:
    """A delivered order in which nothing is wrong: shipped within its limit, arrived after it and before it is due."""
    dice = random.Random(f"{seed}/{name}")
    purchased = FIRST_PURCHASE + some(dice, DAY * 0, DAY * PURCHASE_DAYS)
    approved = purchased + some(dice, MINUTE, DAY)
    carrier = approved + some(dice, DAY, 4 * DAY)
    arrived = approved + some(dice, 6 * DAY, 13 * DAY)
    due = midnight(purchased) + DAY * dice.randrange(18, 30)
    order = Order(name, seed, purchased, approved, carrier, arrived, due, dice)
    seller = dice.choice([seller for seller in SELLERS if seller != "only cancelled"])
    for _ in range(dice.choice((1, 1, 1, 1, 1, 2, 2, 3))):
        product = dice.choice([product for product in PRODUCTS if product != "no category"])
        price, freight = dice.randrange(500, 40_000), dice.randrange(400, 5_000)
        order.items.append(Item(product, seller, approved + 5 * DAY, price, freight))
    return order


def complete(order: Order) -> Order:
    """Make up the payments and the reviews that nothing was said about."""
    if order.payments is None:
        kind = order.dice.choice(("credit_card", "credit_card", "boleto", "debit_card"))
        installments = order.dice.randrange(1, 11) if kind == "credit_card" else 1
        order.payments = [Payment(1, kind, order.owed or 4990, installments)]
    if order.reviews is None:
        is_good = order.arrived is not None and order.arrived <= order.due
        title, message = order.dice.choice(PRAISE if is_good else BLAME)
        score = order.dice.choice((3, 4, 5, 5, 5) if is_good else (1, 1, 2, 3))
        order.review(score, midnight(order.arrived or order.due) + DAY, title=title, message=message)
    return order


def ordinary(seed: int, number: int) -> Order:
    """An order of the usual kind: most are on time, some late, a few lost on the way or shipped late."""
    order = draft(seed, f"ordinary {number}")
    fate = order.dice.random()
    if fate < 0.08:
        order.arrived = order.due + some(order.dice, HOUR, 15 * DAY)
    elif fate < 0.11:
        order.undeliver("shipped")
    elif fate < 0.15:
        order.carrier = order.limit + some(order.dice, HOUR, DAY)
        order.arrived = order.carrier + 2 * DAY
    return order


# --- irregular kinds -------------------------------------------------------------------------------------------------

Kind = Callable[[Order], None]
IRREGULAR: dict[str, Kind] = {}
UNSEEN: dict[str, Kind] = {}


def irregular(kind: Kind) -> Kind:
    """Register a kind that real data is known to contain."""
    IRREGULAR[kind.__name__] = kind
    return kind


def unseen(kind: Kind) -> Kind:
    """Register a kind that no real data is known to contain."""
    UNSEEN[kind.__name__] = kind
    return kind


# Each function turns a regular order into the kind that its name says. First: what an order consists of.


@irregular
def unavailable_without_items(order: Order) -> None:
    order.undeliver("unavailable")
    order.items.clear()


@irregular
def cancelled_without_items_or_approval(order: Order) -> None:
    order.undeliver("canceled")
    order.approved = None
    order.items.clear()


@irregular
def created_without_items(order: Order) -> None:
    order.undeliver("created")
    order.items.clear()
    order.reviews = []


@irregular
def without_payment(order: Order) -> None:
    order.payments = []


@irregular
def without_review(order: Order) -> None:
    order.reviews = []


@irregular
def several_sellers(order: Order) -> None:
    order.sell_only(4590, "Acacia")
    order.sell(8910, "Caju", product="rake")
    order.sell(1790, "Caju", product="kite")


@irregular
def several_sellers_and_reviews_arrived_late(order: Order) -> None:
    several_sellers(order)
    order.arrived = order.due + 3 * DAY + 5 * HOUR
    order.review(1, midnight(order.arrived) + DAY, message="não gostei")
    order.review(4, midnight(order.arrived) + 2 * DAY)


@irregular
def several_sellers_cancelled(order: Order) -> None:
    several_sellers(order)
    order.undeliver("canceled")


@irregular
def several_sellers_shipped_in_time_and_not(order: Order) -> None:
    several_sellers(order)
    order.carrier = order.limit
    order.items[0].limit -= SECOND


@irregular
def several_ship_limits(order: Order) -> None:
    order.sell_only(2490, "Buriti")
    order.sell(2490, "Buriti")
    order.items[0].limit -= 3 * DAY
    order.carrier = order.limit + DAY


@irregular
def many_items_of_one_seller(order: Order) -> None:
    order.sell_only(1190, "Ipe")
    for _ in range(20):
        order.sell(1190, "Ipe", freight=745, product="kite")


@irregular
def free_freight(order: Order) -> None:
    for item in order.items:
        item.freight = 0


@irregular
def lowest_price(order: Order) -> None:
    order.sell_only(85, "Dende")


@irregular
def high_price(order: Order) -> None:
    order.sell_only(673_519, "Embauba")


@irregular
def product_without_category(order: Order) -> None:
    order.items[0].product = "no category"


# Five per cent of the price ends on half a centavo, or half of that commission does; halves go to the even centavo.


@irregular
def commission_half_to_even_below(order: Order) -> None:
    order.sell_only(490, "Acacia")  # 24.5 -> 24, rebate 12


@irregular
def commission_half_to_even_above(order: Order) -> None:
    order.sell_only(510, "Acacia")  # 25.5 -> 26, rebate 13


@irregular
def rebate_half_to_even_below(order: Order) -> None:
    order.sell_only(500, "Buriti")  # 25, rebate 12.5 -> 12


@irregular
def rebate_half_to_even_above(order: Order) -> None:
    order.sell_only(540, "Buriti")  # 27, rebate 13.5 -> 14


@irregular
def commission_half_without_rebate(order: Order) -> None:
    order.sell_only(530, "Figueira")  # 26.5 -> 26, no rebate outside SP


@irregular
def commission_half_in_the_sum_only(order: Order) -> None:
    order.sell_only(505, "Acacia")  # 25.25 each, 50.5 -> 50 together
    order.sell(505, "Acacia")


# Approval.


@irregular
def approved_at_purchase(order: Order) -> None:
    order.approved = order.purchased


@irregular
def delivered_without_approval(order: Order) -> None:
    order.approved = None


@irregular
def delivered_late_without_approval(order: Order) -> None:
    order.approved = None
    order.arrived = order.due + 4 * DAY + 11 * HOUR


@irregular
def approved_after_due(order: Order) -> None:
    order.approved = order.due + 2 * DAY + 3 * HOUR
    order.carrier = order.approved + 5 * DAY
    order.arrived = order.carrier + 9 * DAY


@irregular
def approved_after_due_and_never_shipped(order: Order) -> None:
    order.undeliver("processing")
    order.approved = order.due + DAY + MINUTE


@irregular
def approved_after_ship_limit(order: Order) -> None:
    order.approved = order.limit + 2 * HOUR
    order.carrier = order.approved + DAY
    order.arrived = order.carrier + 3 * DAY


@irregular
def approved_at_ship_limit(order: Order) -> None:
    order.approved = order.limit
    order.carrier = order.approved + DAY
    order.arrived = order.carrier + 3 * DAY


@irregular
def approved_one_second_after_ship_limit(order: Order) -> None:
    order.approved = order.limit + SECOND
    order.carrier = order.approved + DAY
    order.arrived = order.carrier + 3 * DAY


@irregular
def approved_at_due_before_ship_limit(order: Order) -> None:
    order.limit_to(order.due + 5 * DAY)
    order.approved = order.due
    order.carrier = order.due + DAY
    order.arrived = order.due + 3 * DAY


@irregular
def cancelled_and_approved_after_ship_limit(order: Order) -> None:
    order.undeliver("canceled")
    order.approved = order.limit + 3 * DAY


# The carrier and the arrival.


@irregular
def delivered_without_carrier_date(order: Order) -> None:
    order.carrier = None


@irregular
def delivered_late_without_carrier_date(order: Order) -> None:
    order.carrier, order.arrived = None, order.due + 2 * DAY + HOUR


@irregular
def delivered_without_arrival_date(order: Order) -> None:
    order.arrived = None


@irregular
def delivered_without_carrier_and_arrival_date(order: Order) -> None:
    order.carrier = order.arrived = None


@irregular
def carrier_before_approval(order: Order) -> None:
    order.approved = order.purchased + 6 * HOUR
    order.carrier = order.approved - 2 * HOUR


@irregular
def carrier_at_approval(order: Order) -> None:
    order.carrier = order.approved


@irregular
def carrier_before_approval_after_due(order: Order) -> None:
    order.approved = order.due + DAY + HOUR


@irregular
def carrier_before_purchase(order: Order) -> None:
    order.carrier = order.purchased - HOUR - 31 * MINUTE


@irregular
def carrier_in_the_month_before_purchase(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2017-08-01 00:20:00"))
    order.carrier = order.purchased - HOUR


@irregular
def carrier_before_purchase_and_lost(order: Order) -> None:
    order.undeliver("shipped")
    order.carrier = order.purchased - HOUR


@irregular
def arrival_before_carrier(order: Order) -> None:
    order.carrier = order.purchased + 9 * DAY
    order.arrived = order.carrier - DAY - 2 * HOUR


@irregular
def arrival_in_time_before_carrier_after_due(order: Order) -> None:
    order.arrived, order.carrier = order.due - DAY + HOUR, order.due + DAY + HOUR


@irregular
def arrival_within_ship_limit_before_carrier_after_it(order: Order) -> None:
    order.arrived, order.carrier = order.limit - HOUR, order.limit + HOUR


@irregular
def arrival_at_carrier(order: Order) -> None:
    order.carrier = order.arrived


@irregular
def arrival_before_approval(order: Order) -> None:
    order.carrier = order.purchased + DAY
    order.arrived = order.purchased + 2 * DAY
    order.approved = order.purchased + 3 * DAY


@irregular
def arrived_one_second_before_due(order: Order) -> None:
    order.arrived = order.due - SECOND


@irregular
def arrived_one_second_after_due(order: Order) -> None:
    order.arrived = order.due + SECOND


@irregular
def arrived_on_the_due_day_after_midnight(order: Order) -> None:
    order.arrived = order.due + 15 * HOUR + 4 * MINUTE + 9 * SECOND


@irregular
def arrived_in_the_last_second_of_the_due_day(order: Order) -> None:
    order.arrived = order.due + DAY - SECOND


@irregular
def arrived_long_after_purchase(order: Order) -> None:
    order.shift_to(LONG_AGO)
    order.arrived = order.purchased + 195 * DAY + 5 * HOUR


@irregular
def approved_shipped_and_arrived_very_late(order: Order) -> None:
    order.shift_to(LONG_AGO)
    order.due = midnight(order.purchased) + 155 * DAY
    order.approved = order.purchased + 60 * DAY + HOUR
    order.carrier = order.purchased + 125 * DAY + HOUR
    order.arrived = order.purchased + 140 * DAY + HOUR


# The shipping limit.


@irregular
def shipped_one_second_before_limit(order: Order) -> None:
    order.carrier = order.limit - SECOND


@irregular
def shipped_at_limit(order: Order) -> None:
    order.carrier = order.limit


@irregular
def shipped_one_second_after_limit(order: Order) -> None:
    order.carrier = order.limit + SECOND


@irregular
def shipped_after_due(order: Order) -> None:
    order.carrier = order.due + 2 * DAY + HOUR
    order.arrived = order.carrier + 5 * DAY


@irregular
def ship_limit_at_due(order: Order) -> None:
    order.limit_to(order.due)


@irregular
def ship_limit_after_due(order: Order) -> None:
    order.limit_to(order.due + 3 * DAY + 4 * HOUR)


@irregular
def ship_limit_after_due_and_never_shipped(order: Order) -> None:
    order.undeliver("invoiced")
    order.limit_to(order.due + 2 * DAY + HOUR)


@irregular
def shipped_between_due_and_a_later_limit(order: Order) -> None:
    order.limit_to(order.due + 4 * DAY)
    order.carrier = order.due + DAY
    order.arrived = order.due + 6 * DAY + HOUR


@irregular
def ship_limit_over_a_year_late(order: Order) -> None:
    order.limit_to(order.purchased + 1052 * DAY)


@irregular
def ship_limit_over_a_year_late_and_cancelled(order: Order) -> None:
    order.undeliver("canceled")
    order.limit_to(order.purchased + 1056 * DAY)


# What ended otherwise.


@irregular
def undelivered_created(order: Order) -> None:
    order.undeliver("created")


@irregular
def undelivered_approved(order: Order) -> None:
    order.undeliver("approved")


@irregular
def undelivered_invoiced(order: Order) -> None:
    order.undeliver("invoiced")


@irregular
def undelivered_processing(order: Order) -> None:
    order.undeliver("processing")


@irregular
def undelivered_shipped(order: Order) -> None:
    order.undeliver("shipped")


@irregular
def cancelled(order: Order) -> None:
    order.undeliver("canceled")


@irregular
def cancelled_without_approval(order: Order) -> None:
    order.undeliver("canceled")
    order.approved = None


@irregular
def cancelled_with_carrier_date(order: Order) -> None:
    order.status, order.arrived = "canceled", None


@irregular
def cancelled_with_arrival_date(order: Order) -> None:
    order.status = "canceled"


@irregular
def cancelled_with_late_arrival_date(order: Order) -> None:
    order.status, order.arrived = "canceled", order.due + 5 * DAY + HOUR


@irregular
def cancelled_by_a_seller_with_only_cancelled_orders(order: Order) -> None:
    order.undeliver("canceled")
    order.sell_only(7990, "only cancelled")


@irregular
def unavailable_by_a_seller_with_only_cancelled_orders(order: Order) -> None:
    order.undeliver("unavailable")
    order.sell_only(3390, "only cancelled")


@irregular
def unavailable(order: Order) -> None:
    order.undeliver("unavailable")


# Edges of months: the state before the first instant of a month, and the month of the purchase.


@irregular
def purchased_in_the_last_second_of_a_year(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2017-12-31 23:59:59"))


@irregular
def purchased_at_the_first_instant_of_a_month(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2017-06-01 00:00:00"))


@irregular
def shipped_at_the_first_instant_of_a_month(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2017-09-27 10:00:00"))
    order.approved = order.purchased + HOUR
    order.carrier = datetime.fromisoformat("2017-10-01 00:00:00")
    order.arrived = order.carrier + 4 * DAY + HOUR


@irregular
def arrived_at_the_first_instant_of_a_month(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2017-10-20 11:12:13"))
    order.arrived, order.due = datetime.fromisoformat("2017-11-01 00:00:00"), datetime.fromisoformat("2017-11-09")


@irregular
def arrived_in_the_last_second_of_a_month(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2018-01-18 12:13:14"))
    order.arrived, order.due = datetime.fromisoformat("2018-01-31 23:59:59"), datetime.fromisoformat("2018-02-06")


@irregular
def due_and_missed_at_the_first_instant_of_a_month(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2018-02-09 13:14:15"))
    order.due = datetime.fromisoformat("2018-03-01")
    order.arrived = order.due + 2 * DAY + HOUR


@irregular
def due_and_lost_at_the_first_instant_of_a_month(order: Order) -> None:
    order.shift_to(datetime.fromisoformat("2018-03-07 14:15:16"))
    order.due = datetime.fromisoformat("2018-04-01")
    order.undeliver("shipped")


# Reviews.


@irregular
def several_reviews(order: Order) -> None:
    for days, score in enumerate((2, 5, 3)):
        order.review(score, order.due + days * DAY)


@irregular
def review_shared_with_another_order(order: Order) -> None:
    order.shift_to(LONG_AGO)
    order.review(5, midnight(LONG_AGO) + 20 * DAY, name="shared", message="Tudo certo com os dois pedidos")


@irregular
def review_shared_with_one_more_order(order: Order) -> None:
    order.shift_to(LONG_AGO + 2 * MINUTE)
    order.review(5, midnight(LONG_AGO) + 20 * DAY, name="shared", message="Tudo certo com os dois pedidos")


@irregular
def review_without_creation_date(order: Order) -> None:
    order.review(4, order.due).created = None


@irregular
def review_without_answer_timestamp(order: Order) -> None:
    order.review(4, order.due).answered = None


@irregular
def review_without_any_time(order: Order) -> None:
    order.review(5, None, message="texto, com vírgulas").is_intact = False


@irregular
def review_without_any_time_of_an_order_never_arrived(order: Order) -> None:
    order.undeliver("shipped")
    order.review(1, None).is_intact = False


@irregular
def review_created_before_purchase(order: Order) -> None:
    order.review(1, midnight(order.purchased) - 15 * DAY)


@irregular
def review_created_before_purchase_of_a_cancelled_order(order: Order) -> None:
    order.undeliver("canceled")
    order.review(3, midnight(order.purchased) - 40 * DAY)


@irregular
def review_created_on_the_day_of_arrival(order: Order) -> None:
    order.review(5, midnight(order.arrived or order.due))


@irregular
def review_created_long_before_arrival(order: Order) -> None:
    order.shift_to(LONG_AGO)
    order.arrived = order.purchased + 190 * DAY
    order.review(1, order.due + 2 * DAY, message="Até agora nada...")


@irregular
def review_created_long_after_arrival(order: Order) -> None:
    order.review(2, midnight(order.arrived or order.due) + 106 * DAY)


@irregular
def review_created_long_after_a_purchase_never_arrived(order: Order) -> None:
    order.undeliver("shipped")
    order.due = midnight(order.purchased) + 50 * DAY
    order.review(1, midnight(order.purchased) + 146 * DAY)


@irregular
def review_created_at_a_time_of_day(order: Order) -> None:
    order.review(5, order.due + DAY + 13 * HOUR + 5 * MINUTE + 42 * SECOND)


@irregular
def review_answered_over_a_year_later(order: Order) -> None:
    order.shift_to(LONG_AGO)
    order.review(3, order.due).answered = order.due + 518 * DAY + HOUR


@irregular
def review_answered_before_created(order: Order) -> None:
    order.review(3, order.due).answered = order.due - 3 * HOUR


@irregular
def review_with_newlines_and_quotes(order: Order) -> None:
    order.review(2, order.due, title='"Péssimo", disse', message='Veio um "rádio",\n\nnão o que pedi.\nE agora?')


@irregular
def review_in_portuguese(order: Order) -> None:
    order.review(5, order.due, title="Ótimo; à altura", message="Coração, maçã, pé-de-moleque: tudo às ordens! ÃÕÇÊ")


@irregular
def review_in_chinese(order: Order) -> None:
    order.review(4, order.due, title="很好", message="质量不错。\n物流很快。“下次再来” 👍")


# Payments.


@irregular
def payment_of_zero(order: Order) -> None:
    order.pay((1, "credit_card", order.owed), (2, "voucher", 0))


@irregular
def payment_sequence_not_from_1(order: Order) -> None:
    order.pay((2, "credit_card", order.owed - 300), (3, "voucher", 300))


@irregular
def payment_sequence_with_gaps(order: Order) -> None:
    order.pay((1, "credit_card", order.owed - 250), (3, "voucher", 250))


@irregular
def payment_in_many_vouchers(order: Order) -> None:
    order.sell_only(6990, "Caju")
    order.pay(*((number, "voucher", 100) for number in range(1, 29)), (29, "voucher", order.owed - 2800))


@irregular
def payment_of_a_centavo_less(order: Order) -> None:
    order.pay((1, "boleto", order.owed - 1))


@irregular
def payment_with_interest(order: Order) -> None:
    order.pay((1, "credit_card", order.owed + 2198))


@irregular
def payment_not_defined(order: Order) -> None:
    order.pay((1, "not_defined", 0))


# Never met so far.


@unseen
def items_without_order(order: Order) -> None:
    order.is_listed, order.payments, order.reviews = False, [], []


@unseen
def due_before_purchase(order: Order) -> None:
    order.due = midnight(order.purchased)


@unseen
def due_not_midnight(order: Order) -> None:
    order.due += 17 * HOUR


@unseen
def ship_limit_before_purchase(order: Order) -> None:
    order.limit_to(order.purchased - DAY)


# --- writing ---------------------------------------------------------------------------------------------------------

Row = tuple[object, ...]


def order_row(order: Order) -> Row:
    """The order's row."""
    buyer, state = ident(order.seed, "buyer", order.dice.randrange(150)), order.dice.choice(STATES)
    times = order.purchased, order.approved, order.carrier, order.arrived, order.due
    return order.id, buyer, state, order.status, *map(text, times)


def item_rows(order: Order) -> Iterator[Row]:
    """A row for each item."""
    for number, item in enumerate(order.items, 1):
        product, seller = ident(order.seed, "product", item.product), ident(order.seed, "seller", item.seller)
        yield order.id, number, product, seller, text(item.limit), money(item.price), money(item.freight)


def payment_rows(order: Order) -> Iterator[Row]:
    """A row for each payment."""
    for payment in order.payments or ():
        yield order.id, payment.number, payment.kind, payment.installments, money(payment.cents)


def review_rows(order: Order) -> Iterator[Row]:
    """A row for each review."""
    for review in order.reviews or ():
        times = text(review.created), text(review.answered)
        review_id = ident(order.seed, "review", review.name)
        yield review_id, order.id, review.score, review.title, review.message, *times, int(review.is_intact)


def text(when: datetime | None) -> str:
    """A time as the files have it."""
    return str(when) if when else ""


def money(cents: int) -> str:
    """An amount as the files have it."""
    return f"{cents // 100}.{cents % 100:02}"


def make(seed: int, orders: int, kinds: dict[str, Kind]) -> list[Order]:
    """The orders by purchase: one of each kind, and ordinary ones up to the number asked for."""
    if orders < len(kinds):
        raise ValueError(f"at least {len(kinds)} orders are needed, one for each irregular kind")
    made = [draft(seed, name) for name in kinds]
    for order, kind in zip(made, kinds.values(), strict=True):
        kind(order)
    made += [ordinary(seed, number) for number in range(orders - len(kinds))]
    return sorted(map(complete, made), key=lambda order: (order.purchased, order.id))


def tables(seed: int, orders: list[Order]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each file; reviews lie in no order of time."""
    yield "orders", [order_row(order) for order in orders if order.is_listed]
    yield "order_items", [row for order in orders for row in item_rows(order)]
    yield "payments", [row for order in orders for row in payment_rows(order)]
    yield "reviews", sorted(row for order in orders for row in review_rows(order))
    yield "sellers", sorted((ident(seed, "seller", name), *rest) for name, rest in SELLERS.items())
    yield "products", sorted((ident(seed, "product", name), *rest) for name, rest in PRODUCTS.items())


def gzipped_csv(rows: Iterable[Row]) -> bytes:
    """The rows as gzipped CSV, without name, time or system in the header."""
    lines = io.StringIO(newline="")
    csv.writer(lines, lineterminator="\n").writerows(rows)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as file:
        file.write(lines.getvalue().encode())
    return buffer.getvalue()


def write(directory: Path, seed: int = 1, orders: int = 200, *, with_unseen: bool = False) -> None:
    """Write the six files into ``directory``: ``orders`` orders, every irregular kind among them."""
    directory.mkdir(parents=True, exist_ok=True)
    kinds = IRREGULAR | UNSEEN if with_unseen else IRREGULAR
    for name, rows in tables(seed, make(seed, orders, kinds)):
        (directory / f"{name}.csv.gz").write_bytes(gzipped_csv([COLUMNS[name], *rows]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write a small invented data set of marketplace orders.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--orders", type=int, default=200)
    arguments = parser.parse_args()
    write(arguments.directory, arguments.seed, arguments.orders)


if __name__ == "__main__":
    main()
