"""Commands as JSON lines: ``guarantee command --file``.

One object a line: ``{"command", "key", "actor", "role", "received_at"?, "body": {…}}``.  Each is answered by one line
and judged on its own; lines are taken in order.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from api.clock import VirtualClock
from api.commands import Desk, Request
from api.keys import Holder
from ledger.decider import ROLES, Command
from ledger.store import KeyReused
from ledger.streams import COMMANDS


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line, as it is written."""

    command: str
    key: str
    actor: str
    role: str
    body: msgspec.Raw
    received_at: datetime | None = None


class Result(msgspec.Struct, omit_defaults=True):
    """What came of a line."""

    line: int
    result: str
    code: str | None = None
    stream: str | None = None
    version: int | None = None
    position: int | None = None
    events: tuple[str, ...] = ()


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
        request = parse(text, approver, clock)
    except (Invalid, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Result(number, "invalid", str(error))
    try:
        answer = await desk.execute(request)
    except KeyReused:
        return Result(number, "invalid", "key_reused", request.command.stream)
    return Result(number, answer.result, answer.code, answer.stream, answer.version, answer.position, answer.events)


def parse(text: bytes, approver: Holder | None, clock: VirtualClock | None) -> Request:
    """The request that a line stands for; ``Invalid`` or msgspec's errors if it is none."""
    line = msgspec.json.decode(text, type=Line)
    if line.role not in ROLES:
        raise Invalid(f"no such role: {line.role}")
    if line.received_at is not None:
        if clock is None:
            raise Invalid("received_at is for --virtual-clock only")
        if line.received_at.tzinfo is None:
            raise Invalid("received_at has no zone")
        clock.move_to(line.received_at)
    command = body_of(line.command, line.body)
    approved_by = approver.actor if approver and approver.role == command.approver else None
    return Request(command, line.key, line.actor, line.role, approved_by)


def body_of(name: str, body: Any) -> Command:
    """The command of a name with the fields of a JSON body; what only the door may fill in is refused."""
    kind = COMMANDS.get(name)
    if kind is None:
        raise Invalid(f"no such command: {name}")
    command: Command = msgspec.json.decode(body, type=kind)
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    for name in kind.filled_by_door:
        if getattr(command, name) != defaults[name]:
            raise Invalid(f"{name} is filled in by the ledger")
    return command
