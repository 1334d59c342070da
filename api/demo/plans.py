"""What is going to happen to each order of the demonstration: drawn from the seed, or written down where a mechanism
has to be shown.

A plan is a function of the seed and the order's number alone.  So it can be forgotten and drawn again, and however
many orders there are, none depends on another.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from heapq import merge
from random import Random
from typing import Any, Literal, get_args

import msgspec

from api.demo import cast
from api.demo.cast import Merchant
from ledger.calendar import business_date, day_after, parse
from ledger.orders.events import Line, Units

LEAST_MERCHANTS, LEAST_ORDERS = 3, 60
"""Fewer do not hold every mechanism."""

Course = Literal[
    "plain", "unpaid", "paid_twice", "paid_wrong", "buyer_cancels", "stock_cancels", "part_cancelled", "late_dispatch",
    "late", "lost", "returned", "partial", "false_delivered", "recorded_late", "handed_recorded_late", "amended",
    "waived", "moved", "denied", "waybill", "typed_scans", "refund_before", "refund_after", "reduction", "asked_again",
    "asked_too_late", "four_sources", "short_waived",
]  # fmt: skip
"""What becomes of an order, in a word."""
Noise = Literal["none", "twice", "handed_late", "attempted_late", "date_only", "after_delivery", "ahead", "unknown"]
"""What is odd about the scans of its first parcel; it changes no outcome."""
Answer = Literal["agrees", "refuses", "is_silent", "is_withdrawn"]
"""What becomes of a refund request."""

_COURSES: Mapping[Course, int] = {
    "plain": 620, "unpaid": 25, "paid_twice": 8, "paid_wrong": 6, "buyer_cancels": 25, "stock_cancels": 15,
    "part_cancelled": 20, "late_dispatch": 35, "late": 22, "lost": 5, "returned": 2, "partial": 8,
    "false_delivered": 3, "recorded_late": 5, "handed_recorded_late": 3, "amended": 20, "waived": 10, "moved": 14,
    "denied": 6, "waybill": 10, "typed_scans": 7, "refund_before": 30, "refund_after": 28, "reduction": 20,
    "asked_again": 6, "asked_too_late": 6,
}  # fmt: skip
"""Of so many ordinary orders, so many go that way."""
_NOISES: Mapping[Noise, int] = {
    "none": 62, "twice": 9, "handed_late": 10, "attempted_late": 5, "date_only": 6, "after_delivery": 3, "ahead": 1,
    "unknown": 4,
}  # fmt: skip
_ANSWERS: Mapping[Answer, int] = {"agrees": 50, "refuses": 18, "is_silent": 22, "is_withdrawn": 10}

_GOODS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "womens_apparel": (("summer-dress", 6800), ("silk-scarf", 3900), ("linen-blouse", 5450), ("sun-hat", 1880)),
    "mens_apparel": (("polo-shirt", 4200), ("chino-trousers", 7990), ("cotton-socks", 450)),
    "home": (("bamboo-mat", 8900), ("tea-set", 12600), ("cotton-towel", 1250), ("desk-fan", 6300)),
    "food": (("longjing-tea", 9800), ("dried-mango", 1690), ("rice-noodles", 780)),
    "other": (("phone-case", 690), ("hair-clip", 230), ("umbrella", 1990)),
}
"""What is sold, and the price of a unit in fen."""


class Size(msgspec.Struct, frozen=True):
    """How large a demonstration is, and the seed that it is drawn from."""

    merchants: int = 12
    orders: int = 300
    seed: int = 2015

    @property
    def prefix(self) -> str:
        """What the keys of all its commands begin with."""
        return f"demo/{self.seed}-{self.merchants}-{self.orders}"


class Plan(msgspec.Struct, frozen=True):
    """What is going to happen to one order."""

    number: int
    order_id: str
    placed_at: datetime
    merchant: Merchant
    buyer_ref: str
    region: str
    lines: tuple[Line, ...]
    cancelled: tuple[Units, ...]
    """Called off before they are shipped."""
    parcels: tuple[tuple[Units, ...], ...]
    freight_fen: int
    dispatch_due_at: datetime
    arrive_due_at: datetime
    carrier: str
    course: Course
    noise: Noise
    answer: Answer
    is_confirmed: bool
    """The buyer says so when the goods are there; else receipt is presumed."""
    stars: int
    """The buyer's rating, 1 to 5; 0: none."""
    is_paid_again: bool
    """The buyer pays for goods that came after their refund, and pays back a refund that was undone."""
    payout_fails: bool
    """The provider's first attempt to pay a refund fails."""
    asks_at: datetime | None = None
    """When the buyer asks for a refund; else soon after the goods are there, if the course is one of asking."""

    @property
    def total_fen(self) -> int:
        """Goods and freight."""
        return sum(x.line_fen for x in self.lines) + self.freight_fen

    @property
    def kept(self) -> tuple[Units, ...]:
        """What is ordered and not called off."""
        gone = {x.line_id: x.units for x in self.cancelled}
        return tuple(Units(line_id=x.line_id, units=x.units - gone.get(x.line_id, 0)) for x in self.lines)


class Script(msgspec.Struct, frozen=True):
    """An order whose course is written down."""

    placed_at: datetime
    course: Course
    more: dict[str, Any]
    """Other fields of the plan."""


def _script(placed: str, course: Course, **more: Any) -> Script:
    return Script(parse(f"2015-{placed}"), course, more)


_SCRIPTS = (
    _script("07-02 09:10", "plain", noise="handed_late", carrier=cast.CAINIAO, is_confirmed=True, stars=5),
    _script("07-02 14:30", "unpaid"),
    _script("07-03 10:05", "paid_twice"),
    _script("07-03 16:40", "paid_wrong"),
    _script("07-04 09:20", "buyer_cancels"),
    _script("07-04 11:15", "stock_cancels"),
    _script("07-05 15:00", "part_cancelled"),
    _script("07-06 10:00", "late_dispatch"),
    _script("07-06 13:45", "late", is_paid_again=True, payout_fails=True),
    _script("07-07 12:20", "late", is_paid_again=False),
    _script("07-08 09:00", "lost"),
    _script("07-08 17:30", "returned"),
    _script("07-09 10:10", "partial"),
    _script("07-09 19:00", "plain", noise="attempted_late"),
    _script("07-10 11:00", "false_delivered", is_paid_again=False),
    _script("07-10 15:25", "recorded_late", carrier=cast.CAINIAO, is_paid_again=True),
    _script("07-13 09:40", "recorded_late", is_paid_again=False),
    _script("07-13 14:00", "handed_recorded_late", is_paid_again=True),
    _script("07-14 10:30", "amended"),
    _script("07-14 16:00", "waived"),
    _script("07-15 09:50", "moved"),
    _script("07-15 13:10", "denied", answer="agrees"),
    _script("07-16 10:20", "waybill"),
    _script("07-16 18:00", "typed_scans"),
    _script("07-17 09:30", "refund_before", answer="agrees"),
    _script("07-17 14:45", "refund_before", answer="refuses"),
    _script("07-18 10:40", "refund_before", answer="is_silent"),
    _script("07-18 15:50", "refund_before", answer="is_withdrawn"),
    _script("07-19 11:20", "refund_after", answer="agrees", carrier=cast.CAINIAO),
    _script("07-19 16:10", "reduction", answer="agrees"),
    _script("07-21 09:15", "asked_again", answer="agrees"),
    _script("07-21 14:20", "asked_too_late"),
    _script("07-22 10:00", "plain", noise="after_delivery"),
    _script("08-03 10:00", "four_sources", carrier=cast.CAINIAO, answer="agrees", payout_fails=False,
            arrive_due_at=parse("2015-08-12"), asks_at=parse("2015-08-10 09:00")),
    _script("08-04 11:00", "short_waived", arrive_due_at=parse("2015-08-12")),
    _script("09-15 10:00", "late", is_paid_again=False, arrive_due_at=parse("2015-09-24")),
    _script("09-21 09:30", "refund_before", answer="refuses", arrive_due_at=parse("2015-09-28"),
            asks_at=parse("2015-09-29 09:00")),
    _script("09-22 14:00", "part_cancelled", is_confirmed=False, arrive_due_at=parse("2015-09-29"),
            asks_at=parse("2015-09-30 16:00")),
)  # fmt: skip
"""Every mechanism of the programme at least once, whatever the seed."""

_POOR_LINES: Mapping[str, tuple[Line, ...]] = {
    "four_sources": (
        Line(line_id="1", sku="umbrella", units=7200, line_fen=14_400_000),
        Line(line_id="2", sku="phone-case", units=2500, line_fen=1_600_000),
    ),
    "short_waived": (
        Line(line_id="1", sku="umbrella", units=240, line_fen=477_600, is_indivisible=True),
        Line(line_id="2", sku="hair-clip", units=600, line_fen=138_000),
    ),
}
"""What is ordered of the merchant with the small deposit."""

_FIRST_DAY, _DAYS = business_date(cast.FIRST_ORDER), 90
_OPEN_FROM, _OPEN_SECONDS = timedelta(hours=8), 15 * 3600
_MIDNIGHT_BEFORE = cast.FIRST_ORDER - _OPEN_FROM


class Plans:
    """The plans of all orders of a demonstration, by number from 1 in the order of their placement."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.merchants = cast.merchants(size.merchants)
        self._slots = list(merge(self._ordinary(), ((x.placed_at, x) for x in _SCRIPTS), key=lambda slot: slot[0]))
        self.plan = lru_cache(maxsize=20_000)(self._plan)
        """The plan of the order with a number."""

    def __len__(self) -> int:
        return len(self._slots)

    def of(self, order_id: str) -> Plan | None:
        """The plan of an order; ``None`` if it is not of this demonstration."""
        number = order_id.partition("-")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(self):
            return None
        plan: Plan = self.plan(int(number))
        return plan if plan.order_id == order_id else None

    def _ordinary(self) -> list[tuple[datetime, Script | None]]:
        """The instants at which ordinary orders are placed: evenly over the summer, by day only."""
        chance, count = Random(f"{self.size.seed}/instants"), self.size.orders - len(_SCRIPTS)
        whole = _DAYS * _OPEN_SECONDS
        seconds = ((i * whole + chance.randrange(whole)) // count for i in range(count))
        return [
            (_MIDNIGHT_BEFORE + timedelta(days=x // _OPEN_SECONDS, seconds=x % _OPEN_SECONDS) + _OPEN_FROM, None)
            for x in seconds
        ]

    def _plan(self, number: int) -> Plan:
        placed_at, script = self._slots[number - 1]
        chance = Random(f"{self.size.seed}/{number}")
        course = script.course if script else _draw(chance, _COURSES)
        merchant = self._merchant(chance, placed_at, course)
        if merchant.is_poor and script is None:
            course = "plain"
        lines = _POOR_LINES.get(course) or _lines(chance, merchant, course)
        cancelled = _cancelled(lines) if course == "part_cancelled" else ()
        day = business_date(placed_at)
        plan = Plan(
            number=number, order_id=f"{day:%m%d}-{number:04}", placed_at=placed_at, merchant=merchant,
            buyer_ref=f"b-{chance.randint(1, max(20, self.size.orders // 3)):04}", region=chance.choice(cast.REGIONS),
            lines=lines, cancelled=cancelled, parcels=_parcels(chance, lines, cancelled, course),
            freight_fen=100 * chance.randint(8, 90), dispatch_due_at=day_after(day + timedelta(days=2)),
            arrive_due_at=day_after(day + timedelta(days=chance.randint(7, 9))),
            carrier=cast.CAINIAO if course == "typed_scans" or chance.randrange(100) < 62
            else chance.choice(cast.OTHER_CARRIERS),
            course=course, noise=_draw(chance, _NOISES) if course == "plain" else "none",
            answer=_draw(chance, _ANSWERS), is_confirmed=chance.randrange(100) < 58,
            stars=chance.choice((0, 0, 0, 5, 5, 5, 5, 4, 4, 3, 2, 1)), is_paid_again=chance.randrange(100) < 60,
            payout_fails=chance.randrange(100) < 8,
        )  # fmt: skip
        return msgspec.structs.replace(plan, **script.more) if script else plan

    def _merchant(self, chance: Random, at: datetime, course: Course) -> Merchant:
        if course in _POOR_LINES:
            return self.merchants[-1]
        open_now = [x for x in self.merchants if x.takes_orders(at)]
        chosen = chance.choices(open_now, [x.share for x in open_now])[0]
        return self.merchants[0] if chosen.is_poor and course != "plain" else chosen


def _draw(chance: Random, weights: Mapping[Any, int]) -> Any:
    return chance.choices(list(weights), list(weights.values()))[0]


def _lines(chance: Random, merchant: Merchant, course: Course) -> tuple[Line, ...]:
    goods = _GOODS[merchant.category]
    most = 2 if merchant.is_poor else len(goods)
    wanted = chance.sample(goods, chance.randint(2 if course == "asked_again" else 1, most))
    return tuple(
        Line(line_id=str(i), sku=sku, units=units, line_fen=units * price_fen)
        for i, (sku, price_fen) in enumerate(wanted, 1)
        for units in [chance.choice((8, 10, 12, 20, 24, 30, 50, 60, 100, 120, 200))]
    )


def _cancelled(lines: tuple[Line, ...]) -> tuple[Units, ...]:
    return (Units(line_id=lines[0].line_id, units=lines[0].units // 4),)


def _parcels(
    chance: Random, lines: tuple[Line, ...], cancelled: tuple[Units, ...], course: Course
) -> tuple[tuple[Units, ...], ...]:
    """In one parcel, or in two: the first half of every line, and the rest; or one for each line."""
    gone = {x.line_id: x.units for x in cancelled}
    whole = tuple(Units(line_id=x.line_id, units=x.units - gone.get(x.line_id, 0)) for x in lines)
    if course in _POOR_LINES:
        return tuple((x,) for x in whole)
    if course == "partial" or (course == "plain" and chance.randrange(100) < 12):
        first = tuple(Units(line_id=x.line_id, units=x.units // 2) for x in whole)
        return first, tuple(
            Units(line_id=x.line_id, units=x.units - y.units) for x, y in zip(whole, first, strict=True)
        )
    return (whole,)


assert set(_COURSES) | set(_POOR_LINES) == set(get_args(Course))
