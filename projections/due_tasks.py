"""``due_tasks``: every instant at which the clock will decide something, and who can act before it does.
Key: stream, deadline, key."""

from collections.abc import Iterable
from datetime import datetime

from ledger.decider import Story
from ledger.streams import decider_of
from projections.projection import Key, Projection, Row


class DueTask(Row):
    """A deadline that stands.  ``set_by``: the event that set it."""

    stream: str
    deadline: str
    key: str
    fires_at: datetime
    owner_role: str
    owner_id: str
    set_by: str


def rows(story: Story) -> Iterable[DueTask]:
    """The deadlines that the state holds."""
    stream = story.stream
    return [
        DueTask(stream, x.name, x.key, x.fires_at, x.owner_role, x.owner_id, f"{stream}@{x.set_by}")
        for x in story.deadlines(decider_of(stream))
    ]


def stream_of(key: Key) -> str:
    """The first part of the key."""
    return str(key[0])


projection = Projection(
    "due_tasks", 1, DueTask, ("stream", "deadline", "key"), frozenset({"order", "merchant"}), rows=rows, is_sum=False,
    stream_of=stream_of, indexes=(("fires_at",),),
)  # fmt: skip
