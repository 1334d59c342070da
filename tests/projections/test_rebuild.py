"""Read models folded again beside the live ones, compared, swapped; nobody notices."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from structlog.testing import capture_logs

from ledger.decider import Story
from ledger.store import Store
from ledger.streams import WIRE
from projections import PROJECTIONS
from projections.projection import Projection, Row
from projections.rebuild import Difference, Rebuilt
from projections.runner import Projector
from tests.projections import toys
from tests.projections.conftest import InThreads
from tests.projections.logs import orders, written
from tests.projections.test_runner import (
    check,
    delivered_orders,
    following,
    live_digests,
    replayed_digests,
    wait_until,
)  # fmt: skip
from tests.projections.toys import FRAGILE, LENGTHS, PLACED, Length, Placed, named

TOYS = named(LENGTHS, PLACED)


@pytest.fixture
def toys_live(ledger: str, store: Store) -> Iterator[Projector]:
    """Two read models that follow a short log."""
    written(store, orders(600))
    with Projector.open(ledger, store=store, projections=TOYS) as projector:
        projector.catch_up()
        yield projector


def outcomes(results: list[Rebuilt]) -> dict[str, str]:
    return {x.name: x.outcome for x in results}


def tables_of(owner: psycopg.Connection, name: str) -> list[str]:
    found = owner.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'guarantee_ledger'::regnamespace AND relkind = 'r' "
        "AND relname LIKE %s ORDER BY 1",
        [f"{name}%"],
    )
    return [name for (name,) in found]


def test_the_first_build_is_what_live_would_be(ledger: str, store: Store) -> None:
    position = written(store, orders(2_000))
    with Projector.open(ledger, store=store) as projector:
        assert set(outcomes(projector.build()).values()) == {"built"}
        assert projector.build() == []
        check(projector, position)


def test_an_empty_log_makes_empty_read_models(projector: Projector) -> None:
    assert {(x.outcome, x.rows, x.position) for x in projector.build()} == {("built", 0, 0)}
    check(projector, 0)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_the_work_and_change_nothing(
    ledger: str, store: Store, projector: Projector, processes: int
) -> None:
    projector.build()
    position = written(store, orders(2_000))
    projector.catch_up()
    assert set(outcomes(projector.rebuild(processes=processes)).values()) == {"same"}
    check(projector, position)


def test_progress_is_told_up_to_the_end(toys_live: Projector) -> None:
    told: list[tuple[int, int]] = []
    toys_live.rebuild(progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (toys_live.store.head().position,) * 2


def test_an_unknown_read_model_cannot_be_rebuilt(toys_live: Projector) -> None:
    with pytest.raises(KeyError, match="mistake"):
        toys_live.rebuild(["mistake"])


# --- differences ------------------------------------------------------------------------------------------------------

THE_FOURTH = "WHERE stream = (SELECT stream FROM lengths__1 ORDER BY 1 OFFSET 3 LIMIT 1)"
PLANTS: dict[str, tuple[str, Callable[[list[Length]], Difference]]] = {
    "changed": (
        f"UPDATE lengths__1 SET version = version + 100 {THE_FOURTH}",
        lambda rows: Difference((rows[3].stream,), Length(rows[3].stream, rows[3].version + 100), rows[3]),
    ),
    "missing": (f"DELETE FROM lengths__1 {THE_FOURTH}", lambda rows: Difference((rows[3].stream,), None, rows[3])),
    "added in front": ("INSERT INTO lengths__1 VALUES ('a', 1)", lambda rows: Difference(("a",), Length("a", 1), None)),
    "added at the end": (
        "INSERT INTO lengths__1 VALUES ('z', 1)",
        lambda rows: Difference(("z",), Length("z", 1), None),
    ),
}


@pytest.mark.parametrize("kind", PLANTS)
def test_a_wrong_live_row_is_named_and_nothing_is_swapped(
    toys_live: Projector, owner: psycopg.Connection, kind: str
) -> None:
    with toys_live.models.snapshot("lengths") as snapshot:
        rows = list(snapshot.rows("lengths"))
    statement, expected = PLANTS[kind]
    owner.execute(statement)
    with capture_logs() as logs:
        results = {x.name: x for x in toys_live.rebuild()}
    assert outcomes(list(results.values())) == {"lengths": "different", "placed": "same"}
    assert results["lengths"].first == expected(rows)
    assert results["lengths"].differences == 1
    assert not results["lengths"].is_live
    assert [x["read_model"] for x in logs if x["event"] == "rebuild_differs"] == ["lengths"]
    status = toys_live.models.status()
    assert (status["lengths"].generation, status["placed"].generation) == (1, 2)
    assert tables_of(owner, "lengths") == ["lengths__1"]


def test_all_differences_are_counted_and_the_first_is_shown(toys_live: Projector, owner: psycopg.Connection) -> None:
    owner.execute("UPDATE placed__1 SET orders = orders + 1, by_region = '{}'")
    [result] = toys_live.rebuild(["placed"])
    assert result.differences == result.rows > 1
    assert result.first is not None
    assert isinstance(result.first.live, Placed)
    assert result.first.live.by_region == {}


def test_a_difference_is_found_in_a_large_table_wherever_it_lies(
    ledger: str, store: Store, owner: psycopg.Connection
) -> None:
    wordy = msgspec.structs.replace(LENGTHS, name="wordy", key=("stream", "number"), row=Wordy, rows=many_words)
    written(store, orders(300))
    with Projector.open(ledger, store=store, projections=named(wordy)) as projector:
        projector.catch_up()
        for at in ("ASC", "DESC"):
            owner.execute(
                f"UPDATE wordy__1 SET words = '' WHERE (stream, number) = "  # type: ignore[arg-type]
                f"(SELECT stream, number FROM wordy__1 ORDER BY stream {at}, number {at} LIMIT 1)"
            )
        [result] = projector.rebuild()
        assert (result.outcome, result.differences) == ("different", 2)
        assert result.first is not None
        assert result.first.live == Wordy(result.first.key[0], 0, "")
        assert result.rows > 10_000


# --- versions ---------------------------------------------------------------------------------------------------------


def counted_twice(story: object) -> list[Length]:
    [row] = toys.lengths(story)  # type: ignore[arg-type]
    return [Length(row.stream, row.version * 2)]


class Wider(Length):
    is_long: bool = False


class Wordy(Row):
    stream: str
    number: int
    words: str


def many_words(story: Story) -> list[Wordy]:
    return [Wordy(story.stream, number, "word " * 100) for number in range(400)]


def test_a_projection_of_a_new_version_takes_the_place_of_the_old_one(ledger: str, toys_live: Projector) -> None:
    newer = msgspec.structs.replace(LENGTHS, version=2, rows=counted_twice)
    with Projector.open(ledger, store=toys_live.store, projections=named(newer, PLACED)) as upgraded:
        [result] = upgraded.build()
        assert result.outcome == "changed"
        assert result.differences == result.rows
        assert upgraded.models.status()["lengths"].version == 2
        check(upgraded, toys_live.store.head().position)


def test_a_new_version_that_changes_nothing_has_no_differences(ledger: str, toys_live: Projector) -> None:
    newer = msgspec.structs.replace(LENGTHS, version=2)
    with Projector.open(ledger, store=toys_live.store, projections=named(newer)) as upgraded:
        [result] = upgraded.build()
        assert (result.outcome, result.differences) == ("changed", 0)


def test_a_new_version_may_have_other_columns(ledger: str, toys_live: Projector) -> None:
    newer = msgspec.structs.replace(
        LENGTHS, version=2, row=Wider, rows=lambda story: [Wider(story.stream, story.version, story.version > 9)]
    )
    with Projector.open(ledger, store=toys_live.store, projections=named(newer)) as upgraded:
        [result] = upgraded.build()
        assert (result.outcome, result.differences) == ("changed", result.rows)
        check(upgraded, toys_live.store.head().position)


def test_an_old_process_runs_on_beside_the_new_one_and_stops_where_it_was_replaced(
    ledger: str, toys_live: Projector
) -> None:
    newer = msgspec.structs.replace(LENGTHS, version=2, rows=counted_twice)
    with Projector.open(ledger, store=toys_live.store, projections=named(newer, PLACED)) as upgraded:
        upgraded.build()
        position = written(toys_live.store, renamed_orders(100))
        toys_live.catch_up()
        assert upgraded.models.status()["placed"].position == position
        assert upgraded.models.status()["lengths"].position < position
        upgraded.catch_up()
        check(upgraded, position)


def renamed_orders(events: int) -> list:  # type: ignore[type-arg]
    return [msgspec.structs.replace(x, stream=x.stream + "-2", key=None, body_sha256=None) for x in orders(events)]


# --- folds that raise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fold_that_raises_leaves_its_live_table_and_stops_no_other(
    ledger: str, store: Store, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    position = written(store, orders(1_000))
    with Projector.open(ledger, store=store, projections=named(FRAGILE, LENGTHS)) as projector:
        projector.catch_up()
        bad = delivered_orders(store)[0]
        monkeypatch.setenv("BAD_ORDERS", bad)
        results = {x.name: x for x in projector.rebuild(processes=processes)}
        assert outcomes(list(results.values())) == {"fragile": "failed", "lengths": "same"}
        assert f"Spoiled('{bad}')" in (results["fragile"].error or "")
        status = projector.models.status()
        assert (status["fragile"].generation, status["lengths"].generation) == (1, 2)
        assert "Spoiled" in (status["fragile"].error or "")
        monkeypatch.delenv("BAD_ORDERS")
        check(projector, position)


def test_one_that_had_stopped_is_rebuilt_to_where_it_stands(
    ledger: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Projector.open(ledger, store=store, projections=named(FRAGILE, LENGTHS)) as projector:
        projector.build()
        position = written(store, orders(1_000))
        monkeypatch.setenv("BAD_ORDERS", delivered_orders(store)[0])
        projector.catch_up()
        at = projector.models.status()["fragile"].position
        assert at < position
        results = {x.name: x for x in projector.rebuild()}
        assert outcomes(list(results.values())) == {"fragile": "same", "lengths": "same"}
        assert (results["fragile"].position, results["lengths"].position) == (at, position)
        projector.catch_up()
        assert projector.models.status()["fragile"].error is not None
    monkeypatch.delenv("BAD_ORDERS")
    with Projector.open(ledger, store=store, projections=named(FRAGILE, LENGTHS)) as repaired:
        repaired.catch_up()
        check(repaired, position)


UNSTORABLE: dict[str, Projection] = {
    "too large a number": msgspec.structs.replace(
        LENGTHS, name="bad", rows=lambda story: [Length(story.stream, 2**63)]
    ),
    "text with NUL": msgspec.structs.replace(
        LENGTHS, name="bad", rows=lambda story: [Length(story.stream + "\0", 1)]
    ),
    "two rows of one key": msgspec.structs.replace(
        LENGTHS, name="bad", rows=lambda story: [Length(story.stream, 1), Length(story.stream, 2)]
    ),
    "sums too large": msgspec.structs.replace(
        PLACED, name="bad", contributions=lambda event: [Placed(event.data.merchant_id, 2**62)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNSTORABLE)
def test_rows_that_cannot_be_stored_fail_their_own_read_model_only(ledger: str, store: Store, kind: str) -> None:
    written(store, orders(400))
    with Projector.open(ledger, store=store, projections=named(UNSTORABLE[kind], LENGTHS)) as projector:
        assert outcomes(projector.build()) == {"bad": "failed", "lengths": "built"}


# --- while life goes on -----------------------------------------------------------------------------------------------


def test_rebuilding_while_writers_write_and_readers_read(ledger: str, store: Store, in_threads: InThreads) -> None:
    """No reader ever sees an error, fewer rows, an earlier position, or rows that are not those of its position."""
    is_over = threading.Event()
    seen = []

    def write() -> None:
        appends = orders(3_000, seed=7)
        for start in range(0, len(appends), 20):
            written(store, appends[start : start + 20])
            time.sleep(0.01)
        wait_until(lambda: len({generation for _, generation in seen}) >= 3)
        is_over.set()

    def read() -> None:
        position = rows = 0
        with Projector.open(ledger, store=store, projections=TOYS) as mine:
            while not is_over.is_set():
                with mine.models.snapshot() as snapshot:
                    lengths = list(snapshot.rows("lengths"))
                    placed = sum(row.orders for row in snapshot.rows("placed"))
                    assert snapshot.position >= position
                    assert len(lengths) == placed >= rows
                    assert sum(row.version for row in lengths) == snapshot.position
                    position, rows = snapshot.position, placed
                    seen.append((position, snapshot.registered["lengths"].generation))

    def rebuild() -> None:
        while not is_over.is_set():
            assert set(outcomes(projector.rebuild()).values()) == {"same"}

    with Projector.open(ledger, store=store, projections=TOYS) as projector:
        projector.build()
        with following(projector):
            in_threads(write, read, read, rebuild)
        projector.catch_up()
        check(projector, store.head().position)
    assert len(seen) > 10


def test_two_rebuilds_at_once_come_one_after_the_other(toys_live: Projector, in_threads: InThreads) -> None:
    in_threads(toys_live.rebuild, toys_live.rebuild)
    assert {x.generation for x in toys_live.models.status().values()} == {3}
    check(toys_live, toys_live.store.head().position)


def test_many_processes_that_start_together_build_once(ledger: str, store: Store, in_threads: InThreads) -> None:
    position = written(store, orders(500))
    results = []

    def start() -> None:
        with Store.open(ledger, wire=WIRE) as mine, Projector.open(ledger, store=mine, projections=TOYS) as projector:
            results.append(projector.build())
            projector.catch_up()

    in_threads(*[start] * 8)
    assert sorted(map(len, results)) == [0] * 7 + [2]
    with Projector.open(ledger, store=store, projections=TOYS) as projector:
        check(projector, position)


def test_what_a_rebuild_left_that_was_killed_is_swept_by_the_next(
    toys_live: Projector, owner: psycopg.Connection
) -> None:
    owner.execute("CREATE TABLE lengths__2 (nonsense text)")
    owner.execute("CREATE TABLE lengths__7 (nonsense text)")
    owner.execute("CREATE TABLE lengths__kept (nonsense text)")
    assert outcomes(toys_live.rebuild(["lengths"])) == {"lengths": "same"}
    assert tables_of(owner, "lengths") == ["lengths__2", "lengths__kept"]
    check(toys_live, toys_live.store.head().position)


REBUILDER = """
import sys
from ledger.store import Store
from ledger.streams import WIRE
from projections.runner import Projector
if __name__ == "__main__":
    with Store.open(sys.argv[1], wire=WIRE) as store, Projector.open(sys.argv[1], store=store) as projector:
        print("rebuilding", flush=True)
        while True:
            projector.rebuild(processes=2)
"""


def test_rebuilds_that_are_killed_leave_the_ledger_as_it_was(
    ledger: str, store: Store, projector: Projector, owner: psycopg.Connection, tmp_path: Path
) -> None:
    projector.build()
    position = written(store, orders(2_000))
    projector.catch_up()
    script = tmp_path / "rebuilder.py"
    script.write_text(REBUILDER)
    for seconds in (0.1, 0.7):
        with subprocess.Popen(
            [sys.executable, script, ledger],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seconds)
            process.kill()
        assert set(outcomes(projector.rebuild(processes=2)).values()) == {"same"}
        check(projector, position)
    for name, found in projector.models.status().items():
        assert tables_of(owner, f"{name}__") == [f"{name}__{found.generation}"]


def test_a_table_that_is_still_read_is_dropped_later(toys_live: Projector, owner: psycopg.Connection) -> None:
    with toys_live.models.snapshot("lengths") as snapshot:
        before = iter(snapshot.rows("lengths"))
        first = next(before)
        toys_live.rebuild(["lengths"])
        assert tables_of(owner, "lengths") == ["lengths__1", "lengths__2"]
        assert first.stream < next(before).stream
    toys_live.rebuild(["lengths"])
    assert tables_of(owner, "lengths") == ["lengths__3"]


def test_a_rebuild_of_some_leaves_the_others_alone(toys_live: Projector) -> None:
    toys_live.rebuild(["placed"])
    status = toys_live.models.status()
    assert (status["lengths"].generation, status["placed"].generation) == (1, 2)


def test_every_real_read_model_is_the_same_rebuilt(projector: Projector, store: Store) -> None:
    projector.build()
    appends = orders(2_000, seed=3, a_day=1_000)
    for start in range(0, len(appends), 100):
        written(store, appends[start : start + 100])
        projector.run_once()
    projector.catch_up()
    assert outcomes(projector.rebuild(processes=2)) == dict.fromkeys(PROJECTIONS, "same")
    assert live_digests(projector) == replayed_digests(store, PROJECTIONS)


def test_spawned_processes_get_projections_by_name() -> None:
    import pickle

    for projection in (*PROJECTIONS.values(), LENGTHS, PLACED, FRAGILE):
        copy: Projection = pickle.loads(pickle.dumps(projection))
        assert copy == projection
