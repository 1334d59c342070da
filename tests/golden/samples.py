"""One event of every class with invented values, and the bytes in which it was first written.

``events.jsonl`` is written once per class and never changed: what lies in somebody's ledger cannot be changed either.
A new class gets its line by ``python -m tests.golden.samples``, which only ever appends.
"""

import types
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from ledger.events import Event
from ledger.streams import WIRE

FILE = Path(__file__).parent / "events.jsonl"

BALANCED = {
    "refund_fen": 1101, "was_escrow_fen": 700, "was_deposit_fen": 300, "was_platform_fen": 101, "to_escrow_fen": 725,
    "to_cover_fen": 376, "to_programme_fen": 0, "to_agency_fen": 0, "to_carrier_fen": 0,
}  # fmt: skip
"""A refund that is undone has to add up, or it cannot be posted."""


def lines() -> list[bytes]:
    """The golden lines."""
    return FILE.read_bytes().splitlines() if FILE.exists() else []


def invented(cls: type[Event]) -> Event:
    """An event with a value for every field, the same on every machine."""
    wanted = {name: _value(name, kind) for name, kind in _fields(cls)}
    if {"was_escrow_fen", "to_escrow_fen"} <= set(wanted):
        wanted |= BALANCED
    return cls(**wanted)


def _fields(cls: Any) -> list[tuple[str, Any]]:
    hints = get_type_hints(cls)
    return [(name, hints[name]) for name in cls.__struct_fields__]


def _value(name: str, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return _value(name, next(x for x in arguments if x is not type(None)))
    if origin is tuple:
        inner = [x for x in arguments if x is not Ellipsis]
        return tuple(_value(f"{name}_{number}", x) for number, x in enumerate(inner, 1))
    if origin is dict:
        return {"rulebook": "rulebook-2015.1", "windows": {"payment_hours": 72}, "names": ["一", "二"], "nothing": None}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind(**{field: _value(field, x) for field, x in _fields(kind)})
    seed = sum(name.encode())
    plain = {
        str: f"{name}-保-{seed}",
        int: seed,
        bool: seed % 2 == 0,
        date: date(2015, 7, 1 + seed % 30),
        datetime: datetime(2015, 7, 1 + seed % 30, seed % 24, seed % 60, 7, 123456 if seed % 2 else 0, tzinfo=UTC),
    }
    return plain[kind]


SAMPLES: list[Event] = [WIRE.decode(line) for line in lines()]
"""The golden events, decoded by today's classes."""


def write_missing() -> list[str]:
    """Appends a line for every class that has none, and names them."""
    written = {type(sample).__name__ for sample in SAMPLES}
    missing = [name for name in WIRE.classes if name not in written]
    with FILE.open("ab") as file:
        for name in missing:
            file.write(WIRE.encode(invented(WIRE.classes[name])) + b"\n")
    return missing


if __name__ == "__main__":
    print("written:", ", ".join(write_missing()) or "nothing")  # noqa: T201
