"""JSON becomes commands, and nothing else gets through.

Every command class has a twin, made from it, that says more narrowly what the outside may send: without the fields that
the door fills in, with bounds for every number, text, list and instant.  The twin decodes the body and describes it in
OpenAPI; what it decoded becomes the command.  The bounds stand here and nowhere else:

* ids and references (``*_id``, ``*_ids``, ``*_ref``, and a few by name): 1 to 200 visible ASCII characters, no ``/``
* amounts (``*_fen``): up to 10^13 either way, so that no sum in a read model leaves 64 bits
* positions up to 2^53, other integers within 32 bits
* text: up to 10,000 characters, no NUL; lists: up to 1,000 items; free-form objects: up to 32 levels deep
* instants: with a zone, 1970 to 2999; they go on in UTC.  Dates: the same years
"""

import types
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta

from api.http.problems import Problem, problem
from ledger.decider import Command

MOST_FEN = 10**13
MOST_POSITION = 2**53
MOST_INTEGER = 2**31 - 1
MOST_CHARACTERS = 10_000
MOST_ITEMS = 1_000
MOST_LEVELS = 32

FIRST_YEAR, LAST_YEAR = 1970, 2999

ID_PATTERN = r"^[!-.0-~]{1,200}\Z"
"""In Python, ``$`` would let a line feed pass; OpenAPI says ``$``."""
Id = Annotated[str, Meta(pattern=ID_PATTERN, description="1 to 200 visible ASCII characters, no slash.")]
_Text = Annotated[str, Meta(max_length=MOST_CHARACTERS)]
_Fen = Annotated[int, Meta(ge=-MOST_FEN, le=MOST_FEN, description="Fen: hundredths of a yuan.")]
_Position = Annotated[int, Meta(ge=0, le=MOST_POSITION)]
_Integer = Annotated[int, Meta(ge=-MOST_INTEGER - 1, le=MOST_INTEGER)]
_Instant = Annotated[datetime, Meta(tz=True, description=f"With a zone; {FIRST_YEAR} to {LAST_YEAR}.")]
_Date = Annotated[date, Meta(description=f"A day in Asia/Shanghai; {FIRST_YEAR} to {LAST_YEAR}.")]

_ID_ENDINGS = ("_id", "_ids", "_ref", "_refs")
_ID_NAMES = frozenset({"ref", "rulebook", "payment_key"})

Settle = Callable[[Any], None]
"""Puts the instants in a struct into UTC, and checks them and its dates."""


class Body:
    """What may be sent for one command."""

    def __init__(self, command: type[Command]) -> None:
        self.command = command
        self.twin = _twin(command, command.filled_by_door)
        self._settle = _settling(command)
        self._decoder = msgspec.json.Decoder(self.twin)
        self._is_free_form = any(get_origin(f.type) is dict for f in msgspec.structs.fields(command))

    def decode(self, raw: bytes) -> Command:
        """The command in a body; ``Problem`` if there is none in it."""
        try:
            if self._is_free_form or b"\\u0000" in raw:
                _check(msgspec.json.decode(raw), 0)
            command = msgspec.convert(self._decoder.decode(raw), self.command, from_attributes=True)
            if self._settle:
                self._settle(command)
            return command
        except Exception as error:
            raise refusal(error) from error


def refusal(error: Exception) -> Problem:
    """Why what was sent cannot be read; errors of any other kind are raised again."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, msgspec.ValidationError):
        return problem("invalid_body", str(error))
    if isinstance(error, RecursionError):
        return problem("invalid_body", "The body is nested too deep.")
    if isinstance(error, ValueError):  # of msgspec, of UTF-8, of integers with thousands of digits
        return problem("bad_json", str(error))
    raise error


def parse_instant(text: str) -> datetime:
    """An instant as the query of a read names it, in UTC; ``ValueError`` if it is none, or one without a zone."""
    instant: datetime = msgspec.convert(text, _Instant)
    return _utc(instant)


# --- twins ------------------------------------------------------------------------------------------------------------


@cache
def _twin(struct: type[msgspec.Struct], left_out: frozenset[str] = frozenset()) -> type[msgspec.Struct]:
    """The same struct with bounds, and without some fields."""
    fields = [
        (x.name, _narrowed(x.name, x.type), NODEFAULT if x.required else x.default)
        for x in msgspec.structs.fields(struct)
        if x.name not in left_out
    ]
    return msgspec.defstruct(
        struct.__name__, fields, kw_only=True, forbid_unknown_fields=True, frozen=True, gc=False,
        namespace={"__doc__": struct.__doc__},
    )  # fmt: skip


def _narrowed(name: str, kind: Any) -> Any:
    """A type with its bounds."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _SCALARS:
        return _SCALARS[kind](name)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _twin(kind)
    if origin is tuple:
        items: Any = _narrowed(name, arguments[0])
        return Annotated[tuple[items, ...], Meta(max_length=MOST_ITEMS)]
    if origin in (Union, types.UnionType):
        return _narrowed(name, _unless_null(arguments)) | None
    assert origin in (Literal, dict) or kind is bool, f"{name}: {kind} has no bounds yet"
    return kind


def _unless_null(arguments: tuple[Any, ...]) -> Any:
    [kind] = [x for x in arguments if x is not types.NoneType]
    return kind


def _text(name: str) -> Any:
    return Id if name.endswith(_ID_ENDINGS) or name in _ID_NAMES else _Text


def _integer(name: str) -> Any:
    if name.endswith("_fen"):
        return _Fen
    return _Position if name.endswith("_position") else _Integer


_SCALARS: dict[Any, Callable[[str], Any]] = {
    str: _text, int: _integer, datetime: lambda name: _Instant, date: lambda name: _Date,
}  # fmt: skip


# --- instants and dates -----------------------------------------------------------------------------------------------


def _settling(struct: type[msgspec.Struct]) -> Settle | None:
    """How instances of a struct are settled; ``None`` if there is nothing to settle in them."""
    settles = [(x.name, settle) for x in msgspec.structs.fields(struct) if (settle := _settling_field(x.name, x.type))]
    if not settles:
        return None

    def settle_struct(value: Any) -> None:
        for name, settle in settles:
            if (found := getattr(value, name)) is not None:
                settle(value, found)

    return settle_struct


def _settling_field(name: str, kind: Any) -> Callable[[Any, Any], None] | None:
    """The same for one field: called with the struct and the field's value."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _settling_field(name, _unless_null(arguments))
    if kind is datetime:
        return lambda struct, instant: msgspec.structs.force_setattr(struct, name, _utc(instant))
    if kind is date:
        return lambda struct, day: _check_year(day.year)
    inner = arguments[0] if origin is tuple else kind
    settle = _settling(inner) if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None
    if settle is None:
        return None
    if origin is tuple:
        return lambda _, items: _each(settle, items)
    return lambda _, item: settle(item)


def _each(settle: Settle, items: tuple[Any, ...]) -> None:
    for item in items:
        settle(item)


def _utc(instant: datetime) -> datetime:
    _check_year(instant.year)  # first: a year at either edge of the calendar has no UTC
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)


def _check_year(year: int) -> None:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise msgspec.ValidationError(f"Instants and dates lie in the years {FIRST_YEAR} to {LAST_YEAR}, not {year}")


# --- what types do not say --------------------------------------------------------------------------------------------


def _check(value: Any, level: int) -> None:
    """No NUL in any text, and free-form objects within bounds: everything in them ends up in the log."""
    if level > MOST_LEVELS:
        raise msgspec.ValidationError(f"The body is nested deeper than {MOST_LEVELS} levels")
    if isinstance(value, str):
        if "\0" in value:
            raise msgspec.ValidationError("Text must not hold the character NUL")
    elif isinstance(value, int):
        if not -MOST_POSITION <= value <= MOST_POSITION:
            raise msgspec.ValidationError("Integers lie within 53 bits")
    elif isinstance(value, list):
        for item in value:
            _check(item, level + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, level + 1)
            _check(item, level + 1)
