"""The eventsourcing package on the ledger: what it promises its users still holds, and its events are ours."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import DataError, IntegrityError, NotSupportedError, StoredEvent, Tracking

from ledger.log_library import LedgerApplication, LedgerEvent
from ledger.store import Store
from tests.store.bank import NOON, WIRE, AccountOpened, FeeCharged, MoneyDeposited, append, deposits

OPENED = LedgerEvent("account-1", 1, AccountOpened(owner="Ada"))


@pytest.fixture
def application(ledger: str) -> Iterator[LedgerApplication]:
    with LedgerApplication(ledger, WIRE) as opened:
        yield opened


def balance(before: Any, events: Iterable[Any]) -> Any:
    for event in events:
        amount = event.data.amount_fen if isinstance(event.data, MoneyDeposited) else 0
        before = (before or 0) + amount
    return before


def deposit(stream: str, version: int, amount_fen: int) -> LedgerEvent:
    return LedgerEvent(stream, version, MoneyDeposited(amount_fen=amount_fen))


def test_what_an_application_saves_lies_in_the_log_without_gaps(application: LedgerApplication, store: Store) -> None:
    store.append(append("account-2", 0, *deposits(5)))

    recordings = application.save(OPENED, deposit("account-1", 2, 100))
    store.append(append("account-1", 2, *deposits(7)))

    assert [recording.notification.id for recording in recordings] == [2, 3]
    assert [event.event_id for event in store.read(0, 10)] == [
        "account-2@1",
        "account-1@1",
        "account-1@2",
        "account-1@3",
    ]
    assert [check for check in store.verify_log() if check.differences] == []


def test_metadata_are_passed_to_save_or_have_a_default(application: LedgerApplication, store: Store) -> None:
    application.save(OPENED)
    fee = LedgerEvent("account-1", 2, FeeCharged(fee_fen=3))
    application.save(
        fee, actor="clerk-1", role="clerk", correlation_id="c", source="b@1", rule="rulebook-1/fee",
        causation="account-1@1", key="key-1", body_sha256=bytes(32), occurred_at=NOON, received_at=NOON,
    )  # fmt: skip

    first, second = store.history("account-1")
    assert (first.actor, first.role, first.key) == ("library", "library", None)
    assert (second.actor, second.role, second.key, second.source) == ("clerk-1", "clerk", "key-1", "b@1")
    assert (second.rule, second.causation, second.occurred_at) == ("rulebook-1/fee", "account-1@1", NOON)
    assert list(store.find(["key-1"])) == ["key-1"]


def test_a_repository_folds_what_was_saved(application: LedgerApplication) -> None:
    application.save(OPENED, deposit("account-1", 2, 100), deposit("account-1", 3, 50))

    assert application.repository.get("account-1", projector_func=balance) == 150
    assert application.repository.get("account-1", version=2, projector_func=balance) == 100
    with pytest.raises(AggregateNotFoundError):
        application.repository.get("account-2", projector_func=balance)


def test_a_version_saved_twice_is_an_integrity_error(application: LedgerApplication) -> None:
    application.save(OPENED)

    with pytest.raises(IntegrityError):
        application.save(OPENED)


def test_a_save_of_many_streams_is_all_or_nothing(application: LedgerApplication, store: Store) -> None:
    application.save(OPENED)

    with pytest.raises(IntegrityError):
        application.save(deposit("account-2", 1, 1), OPENED, deposit("account-3", 1, 1))

    assert store.head().position == 1


def test_a_missing_version_is_an_integrity_error(application: LedgerApplication, store: Store) -> None:
    """The package itself would accept it."""
    with pytest.raises(IntegrityError):
        application.save(deposit("account-1", 2, 1))
    with pytest.raises(IntegrityError):
        application.save(OPENED, deposit("account-1", 3, 1))

    assert store.head().position == 0


def test_a_key_with_another_body_is_an_integrity_error(application: LedgerApplication) -> None:
    application.save(OPENED, key="key-1", body_sha256=bytes(32))

    with pytest.raises(IntegrityError):
        application.save(deposit("account-1", 2, 1), key="key-1", body_sha256=b"x" * 32)


def test_a_command_saved_twice_gets_its_first_positions(application: LedgerApplication, store: Store) -> None:
    first = application.save(OPENED, key="key-1", body_sha256=bytes(32))
    application.save(deposit("account-2", 1, 1))

    second = application.save(OPENED, key="key-1", body_sha256=bytes(32))

    assert [r.notification.id for r in second] == [r.notification.id for r in first] == [1]
    assert store.head().position == 2


def test_the_log_takes_nothing_it_could_not_read(application: LedgerApplication) -> None:
    with pytest.raises(DataError):
        application.recorder.insert_events([StoredEvent("account-1", 1, "bank:Account.Opened", b'{"owner":"Ada"}')])
    with pytest.raises(DataError):
        application.save(LedgerEvent("account-\0", 1, AccountOpened(owner="Ada")))


def test_checkpoints_are_not_kept_with_events(application: LedgerApplication) -> None:
    with pytest.raises(NotSupportedError):
        application.recorder.insert_events(application_events(application), tracking=Tracking("another application", 1))


def application_events(application: LedgerApplication) -> list[StoredEvent]:
    return [application.mapper.to_stored_event(OPENED)]


def test_the_notification_log_shows_everybodys_events(application: LedgerApplication, store: Store) -> None:
    store.append(*[append(f"account-{number}", 0, *deposits(number)) for number in range(1, 21)])

    notifications = application.notification_log.select(start=5, limit=10)

    assert [notification.id for notification in notifications] == list(range(5, 15))
    assert notifications[0].topic == "MoneyDeposited"
    assert application.recorder.max_notification_id() == 20


def test_a_subscription_follows_what_the_store_appends(application: LedgerApplication, store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1)))
    later = threading.Timer(0.2, lambda: store.append(append("account-1", 1, *deposits(2, 3))))
    later.start()

    with application.recorder.subscribe(gt=0) as subscription:
        seen = [next(subscription).id for _ in range(3)]

    later.join()
    assert seen == [1, 2, 3]
