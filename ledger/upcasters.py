"""Retired shapes of events: how what was written once is read today.

The log is never rewritten.  When a class changes so that old data no longer decode, the old shape is described here by
one function from the old data to the new, under the type name it was written with, and a golden file keeps a sample
of it for ever.  A shape that decodes as it is costs nothing: this table is only asked after decoding failed.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from ledger.events import Event, Wire

RETIRED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Type name as written -> function from the retired data to data that decode today (or to a later retired shape)."""


def decode(wire: Wire, state: bytes) -> Event:
    """The event in ``state``, whatever shape it was written in; ``msgspec.ValidationError`` if no one knows it."""
    try:
        return wire.decode(state)
    except msgspec.ValidationError:
        data = msgspec.json.decode(state)
        upcast = RETIRED.get(data.get("type"))
        if upcast is None:
            raise
        return decode(wire, msgspec.json.encode(upcast(data)))
