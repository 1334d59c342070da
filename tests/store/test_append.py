"""Appending: where events come to lie, and who is turned away."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from ledger.store import Appended, Conflict, KeyReused, Store, Unwritable
from migrations import migrate
from tests.store.bank import NOON, WIRE, AccountOpened, FeeCharged, accepted, append, deposits, positions, refused
from tests.store.conftest import InThreads


def test_events_get_positions_and_versions_without_gaps(store: Store) -> None:
    first = append("account-1", 0, AccountOpened(owner="Ada"), *deposits(100))
    second = append("account-2", 0, AccountOpened(owner="Bob"))
    third = append("account-1", 2, *deposits(200))

    answers = [accepted(answer) for answer in store.append(first, second, third)]

    assert [(a.stream, a.first_version, a.version, a.position) for a in answers] == [
        ("account-1", 1, 2, 2),
        ("account-2", 1, 1, 3),
        ("account-1", 3, 3, 4),
    ]
    assert [(e.position, e.event_id) for e in store.read(0, 10)] == [
        (1, "account-1@1"),
        (2, "account-1@2"),
        (3, "account-2@1"),
        (4, "account-1@3"),
    ]


def test_an_append_decided_at_another_version_is_a_conflict(store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1, 2, 3)))

    stale, early, new = store.append(
        append("account-1", 2, *deposits(4)), append("account-2", 1, *deposits(4)), append("account-3", 0, *deposits(4))
    )

    assert (refused(stale, Conflict).expected, refused(stale, Conflict).actual) == (2, 3)
    assert refused(early, Conflict).actual == 0
    assert accepted(new).position == 4


def test_after_a_conflict_no_later_append_of_the_call_to_that_stream_passes(store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1)))

    answers = store.append(append("account-1", 0, *deposits(2)), append("account-1", 1, *deposits(3)))

    assert [type(answer) for answer in answers] == [Conflict, Conflict]
    assert store.head().position == 1


@pytest.mark.parametrize(
    "bad",
    [
        append("account-\0", 0, *deposits(1)),
        append("", 0, *deposits(1)),
        append("x" * 501, 0, *deposits(1)),
        append("account-1", -1, *deposits(1)),
        append("account-1", 0),
        append("account-1", 0, *deposits(1), key=""),
        append("account-1", 0, *deposits(1), key="\ud800"),
        append("account-1", 0, *deposits(1), occurred_at=datetime(2015, 7, 16)),  # noqa: DTZ001
    ],
)
def test_what_can_never_be_written_is_refused_and_harms_no_other(store: Store, bad: object) -> None:
    before, refusal, after = store.append(append("a", 0, *deposits(1)), bad, append("b", 0, *deposits(1)))  # type: ignore[arg-type]

    refused(refusal, Unwritable)
    assert positions([before, after]) == [1, 2]


def test_what_the_database_refuses_is_refused_alone(store: Store, owner: psycopg.Connection) -> None:
    owner.execute("ALTER TABLE ledger_events ADD CHECK (actor <> 'teller-1' OR originator_id <> 'account-13')")
    batch = [append(f"account-{number}", 0, *deposits(1)) for number in range(20)]

    answers = store.append(*batch)

    assert [number for number, answer in enumerate(answers) if isinstance(answer, Unwritable)] == [13]
    assert store.head().position == 19


def test_recorded_at_is_the_writers_clock_but_never_before_the_head_or_the_receipt(ledger: str) -> None:
    clock = Clock(NOON)
    with Store.open(ledger, wire=WIRE, now=clock) as store:
        by_clock = accepted(store.append(append("a", 0, *deposits(1)))[0])
        received_later = append("b", 0, *deposits(1), received_at=NOON + timedelta(seconds=5))
        by_receipt = accepted(store.append(received_later)[0])
        clock.now = NOON - timedelta(days=1)
        by_head = accepted(store.append(append("c", 0, *deposits(1), received_at=clock.now))[0])

    assert by_clock.recorded_at == NOON
    assert by_receipt.recorded_at == by_head.recorded_at == NOON + timedelta(seconds=5)


def test_instants_of_any_zone_and_age_are_kept_to_the_microsecond(store: Store) -> None:
    shanghai = datetime.fromisoformat("2015-07-16T20:00:00.123457+08:00")
    ancient = datetime(1, 1, 1, tzinfo=UTC)

    store.append(append("a", 0, *deposits(1), occurred_at=ancient, received_at=shanghai))

    [event] = store.read_stream("a")
    assert (event.occurred_at, event.received_at) == (ancient, shanghai)


def test_every_column_comes_back_as_it_went_in(store: Store) -> None:
    given = append("a", 0, FeeCharged(fee_fen=7), key="key-1", source="b@3", occurred_at=NOON - timedelta(days=1))
    given.events[0].causation = "a@9"

    answer = accepted(store.append(given)[0])

    [entry] = store.history("a")
    assert (entry.position, entry.stream, entry.version, entry.type) == (1, "a", 1, "FeeCharged")
    assert (entry.occurred_at, entry.received_at) == (NOON - timedelta(days=1), NOON)
    assert entry.recorded_at == answer.recorded_at
    assert (entry.actor, entry.role, entry.key) == ("teller-1", "teller", "key-1")
    assert (entry.correlation_id, entry.causation, entry.source) == ("about a", "a@9", "b@3")
    assert (entry.rule, entry.data) == ("rulebook-1/fee", FeeCharged(fee_fen=7))
    assert entry.chain_sha256 == store.head().chain


def test_names_in_any_script_are_kept(store: Store) -> None:
    stream, owner = '订单-"1"\\\n', "菜鸟 \u2028 \x01"

    store.append(append(stream, 0, AccountOpened(owner=owner)))

    [event] = store.read_stream(stream)
    assert (event.stream, event.data.owner) == (stream, owner)


def test_threads_append_to_one_store_without_conflict_or_gap(store: Store, in_threads: InThreads) -> None:
    def deposit_often(thread: int) -> None:
        for version in range(25):
            accepted(store.append(append(f"account-{thread}", version, *deposits(1)))[0])

    in_threads(deposit_often, 8)

    assert [event.position for event in store.read(0, 1000)] == list(range(1, 201))


def test_thousands_at_once_are_written_as_one_by_one(database: str) -> None:
    """Many rows go to PostgreSQL by another way than a few; what comes to lie there must be the same."""
    commands = [append(f"a-{n % 400}", 2 * (n // 400), *deposits(n, n), key=f"key-{n}") for n in range(1200)]
    commands[700] = append("stale", 7, *deposits(1), key="key-700")
    commands[900] = append("a-100", 4, *deposits(5), key="key-500", body="another")
    commands[1100] = append("nothing", 0, key="key-1100")
    commands[1199] = commands[3]
    for schema in ("together", "apart"):
        migrate(database, schema)

    with Store.open(database, "together", wire=WIRE, now=lambda: NOON) as store:
        together = store.append(*commands)
        together_entries = store.entries(0, 10_000)
        assert [check for check in store.verify_log() if check.differences] == []
    with Store.open(database, "apart", wire=WIRE, now=lambda: NOON) as store:
        apart = [store.append(command)[0] for command in commands]
        apart_entries = store.entries(0, 10_000)

    assert [str(answer) for answer in together] == [str(answer) for answer in apart]
    assert [type(together[number]) for number in (700, 900, 1100, 1199)] == [Conflict, KeyReused, Appended, Appended]
    assert together_entries == apart_entries


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now
