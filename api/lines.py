"""Commands as JSON lines: ``guarantee command --file``.

One object a line: ``{"command", "key", "actor", "role", "received_at"?, "body": {…}}``.  Each is answered by one line
and judged on its own; lines are taken in order.  The same bounds hold as for bodies sent by HTTP; an instant without a
zone is read in the business zone.
"""

import re
import types
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from api.clock import VirtualClock
from api.commands import Answer, Desk, Request
from api.http.bodies import FIRST_YEAR, LAST_YEAR, Body, Id
from api.http.problems import Problem
from api.keys import KEY_ROLES, Holder
from ledger import calendar
from ledger.decider import Command
from ledger.store import KeyReused
from ledger.streams import COMMANDS

_RESERVED_KEY = re.compile(r"P\d+/.*")
"""The keys of the messages that the ledger carries from stream to stream: nobody else may take them."""


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line, as it is written."""

    command: str
    key: Annotated[str, Meta(pattern=r"^[!-~]([ -~]{0,198}[!-~])?\Z")]
    actor: Id
    role: str
    body: msgspec.Raw
    received_at: str | None = None


class Result(msgspec.Struct, omit_defaults=True):
    """What came of a line.  ``code`` is stable; ``detail`` says to people what is invalid about it."""

    line: int
    result: str
    code: str | None = None
    stream: str | None = None
    version: int | None = None
    position: int | None = None
    events: tuple[str, ...] = ()
    detail: str | None = None


class Invalid(ValueError):
    """The line is no command; says why."""


async def run(
    desk: Desk, lines: Iterable[bytes], approver: Holder | None, clock: VirtualClock | None
) -> AsyncIterator[Result]:
    """Executes the lines, in order, and says what came of each as soon as it is done.  ``clock``: the virtual one that
    ``received_at`` moves; without it no line may have one."""
    for number, line in _numbered(lines):
        yield await _one(desk, number, line, approver, clock)


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


async def _one(desk: Desk, number: int, text: bytes, approver: Holder | None, clock: VirtualClock | None) -> Result:
    try:
        request = parse(text, approver)
        _set_clock(clock, request.received_at)
    except (ValueError, OverflowError, RecursionError) as error:
        return Result(number, "invalid", "invalid_line", detail=str(error))
    except Problem as problem:
        return Result(number, "invalid", problem.code, detail=problem.detail)
    try:
        answer = await desk.execute(request)
    except KeyReused as error:
        return Result(number, "invalid", "key_reused", request.command.stream, detail=str(error))
    except OverflowError as error:
        return Result(number, "invalid", "out_of_range", request.command.stream, detail=str(error))
    return _result(number, answer)


def _result(number: int, answer: Answer) -> Result:
    return Result(number, answer.result, answer.code, answer.stream, answer.version, answer.position, answer.events)


def _set_clock(clock: VirtualClock | None, received_at: datetime | None) -> None:
    if received_at is not None:
        if clock is None:
            raise Invalid("received_at is for --virtual-clock only")
        clock.move_to(received_at)


def parse(text: bytes, approver: Holder | None) -> Request:
    """The request that a line stands for; ``ValueError`` (of which msgspec's errors are) or ``Problem`` if none."""
    line = msgspec.json.decode(text, type=Line)
    if line.role not in KEY_ROLES:
        raise Invalid(f"no such role: {line.role}; the roles are {', '.join(KEY_ROLES)}")
    if _RESERVED_KEY.fullmatch(line.key):
        raise Invalid("keys that begin with P, a number and a slash are the ledger's own")
    kind = COMMANDS.get(line.command)
    if kind is None:
        raise Invalid(f"no such command: {line.command}")
    command = _body(kind).decode(msgspec.json.encode(_with_zones(kind, msgspec.json.decode(line.body))))
    approved_by = approver.actor if approver and approver.role == command.approver else None
    received_at = None if line.received_at is None else _instant(line.received_at)
    return Request(command, line.key, line.actor, line.role, approved_by, received_at=received_at)


@cache
def _body(kind: type[Command]) -> Body:
    return Body(kind)


def _instant(text: str) -> datetime:
    try:
        instant = calendar.parse(text)
    except (ValueError, OverflowError):
        raise Invalid(f"not an instant: {text}") from None
    if not FIRST_YEAR <= instant.year <= LAST_YEAR:
        raise Invalid(f"instants lie in the years {FIRST_YEAR} to {LAST_YEAR}")
    return instant


def _with_zones(kind: Any, value: Any) -> Any:
    """JSON of a type, with every instant in UTC; what is not of the type is left for others to refuse."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        [kind] = [x for x in arguments if x is not types.NoneType]
        return None if value is None else _with_zones(kind, value)
    if origin is tuple and isinstance(value, list):
        return [_with_zones(arguments[0], item) for item in value]
    if kind is datetime and isinstance(value, str):
        return _instant(value).astimezone(UTC).isoformat()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        types_of = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        return {name: _with_zones(types_of.get(name), item) for name, item in value.items()}
    return value
