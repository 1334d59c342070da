"""The catalogue of everything there is, made from the code: events, commands, read models.

``python -m api.catalogue --write docs/catalogue.md`` makes it; ``--check`` says whether it is true.
"""

import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union

import msgspec

from ledger.decider import Command, Decider
from ledger.events import Decision
from ledger.streams import DECIDERS
from projections import PROJECTIONS
from projections.projection import Projection

COMMON_CODES = {
    "not_allowed": "the role may not ask for this, or not for somebody else's order or merchant",
    "approval_missing": "a second person has to approve it",
    "same_approver": "the second person is the first",
    "unknown_stream": "there is no such order, merchant or budget",
    "wrong_state": "not in the state it is in",
    "id_reused": "the business id stands for something else already",
    "no_rulebook_in_force": "no rulebook has taken effect yet",
}


def catalogue() -> str:
    """The whole document."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Catalogue"
    yield ""
    yield "Made from the code: `python -m api.catalogue --write docs/catalogue.md`; `make docs` checks that it is true."
    yield "Units stand at the end of a name: `_fen`, `_bp` (1/10 000), `_at` an instant, `_on` a business day."
    yield ""
    yield "Every command may also be refused with:"
    yield ""
    yield from (f"- `{code}`: {meaning}" for code, meaning in COMMON_CODES.items())
    for decider in DECIDERS.values():
        yield from _stream(decider)
    yield ""
    yield "# Read models"
    for projection in PROJECTIONS.values():
        yield from _read_model(projection)


def _stream(decider: Decider) -> Iterator[str]:
    yield ""
    yield f"# Stream `{decider.name}-…`"
    yield ""
    yield "## Commands"
    for command in sorted(decider.commands, key=lambda x: x.__name__):
        yield ""
        yield f"### {command.__name__}"
        yield ""
        yield _text(command)
        yield ""
        yield f"By {', '.join(sorted(command.roles))}{_approved(command)}."
        yield ""
        hidden = command.filled_by_door
        yield from _fields([x for x in msgspec.structs.fields(command) if x.name not in hidden])
    for title, wanted in (("Facts", False), ("Decisions", True)):
        events = [x for x in decider.events if issubclass(x, Decision) == wanted]
        if events:
            yield ""
            yield f"## {title}"
        for event in sorted(events, key=lambda x: x.__name__):
            yield ""
            yield f"### {event.__name__}"
            yield ""
            yield _text(event) + (f"  By rule `{event.rule}`." if wanted else "")
            yield ""
            yield from _fields(msgspec.structs.fields(event))


def _read_model(projection: Projection) -> Iterator[str]:
    module = inspect.getmodule(projection.row)
    yield ""
    yield f"## {projection.name}"
    yield ""
    yield inspect.cleandoc((module.__doc__ if module else None) or "")
    yield ""
    shown = projection.shown or projection.row
    yield _text(shown)
    yield ""
    yield from _fields(msgspec.structs.fields(shown))


def _approved(command: type[Command]) -> str:
    return f"; approved by {command.approver}" if command.approver else ""


def _fields(fields: Any) -> Iterator[str]:
    yield "| field | type |"
    yield "| --- | --- |"
    for field in fields:
        yield f"| {field.encode_name} | {type_name(field.type)} |"


def type_name(kind: Any) -> str:
    """A type in plain words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        words = [type_name(x) for x in arguments if x is not type(None)]
        return " or ".join(words) + (" or null" if type(None) in arguments else "")
    if origin in (tuple, list):
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"map of {type_name(arguments[0])} to {type_name(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "{" + ", ".join(x.encode_name for x in msgspec.structs.fields(kind)) + "}"
    names = {str: "text", int: "integer", bool: "true or false", Any: "any"}
    return names.get(kind, getattr(kind, "__name__", str(kind)).replace("datetime", "instant"))


def _text(kind: type[Any]) -> str:
    return re.sub(r"``", "`", inspect.cleandoc(kind.__doc__ or ""))


def main() -> None:
    """``--write FILE`` or ``--check FILE``."""
    what, path = sys.argv[1], Path(sys.argv[2])
    if what == "--write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(catalogue(), encoding="utf-8")
    elif path.read_text(encoding="utf-8") != catalogue():
        sys.exit(f"{path} is not what the code says: run python -m api.catalogue --write {path}")


if __name__ == "__main__":
    main()
