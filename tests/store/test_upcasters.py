"""Retired shapes: what was written in a shape of the past is read in today's, whichever way it is read."""

from typing import Any

import msgspec
import psycopg
import pytest

from ledger import upcasters
from ledger.events import Fact, Wire
from ledger.log_library import LedgerApplication
from ledger.store import Store
from tests.store.bank import WIRE, AccountOpened, MoneyDeposited, append


class MoneyPaidIn(Fact, frozen=True, gc=False, kw_only=True, tag=True):
    """The first shape of a deposit, in yuan."""

    yuan: int


class AccountMade(Fact, frozen=True, gc=False, kw_only=True, tag=True):
    """The first name of an opened account; its second shape was called AccountStarted."""

    name: str


OLD_WIRE = Wire([MoneyPaidIn, AccountMade])


@pytest.fixture
def retired(monkeypatch: pytest.MonkeyPatch) -> None:
    def deposited(old: dict[str, Any]) -> dict[str, Any]:
        return {"type": "MoneyDeposited", "amount_fen": old["yuan"] * 100}

    def started(old: dict[str, Any]) -> dict[str, Any]:
        return {"type": "AccountStarted", "holder": old["name"]}

    def opened(old: dict[str, Any]) -> dict[str, Any]:
        return {"type": "AccountOpened", "owner": old["holder"]}

    shapes = {"MoneyPaidIn": deposited, "AccountMade": started, "AccountStarted": opened}
    for name, upcast in shapes.items():
        monkeypatch.setitem(upcasters.RETIRED, name, upcast)


@pytest.fixture
def old_log(ledger: str) -> str:
    """A log written long ago, with one event of today's shape at its end."""
    with Store.open(ledger, wire=OLD_WIRE) as store:
        store.append(append("account-1", 0, AccountMade(name="Ada"), MoneyPaidIn(yuan=3)))
    with Store.open(ledger, wire=WIRE) as store:
        store.append(append("account-1", 2, MoneyDeposited(amount_fen=7)))
    return ledger


TODAY = [AccountOpened(owner="Ada"), MoneyDeposited(amount_fen=300), MoneyDeposited(amount_fen=7)]


@pytest.mark.usefixtures("retired")
def test_retired_shapes_are_read_in_todays(old_log: str) -> None:
    with Store.open(old_log, wire=WIRE) as store:
        assert [event.data for event in store.read_stream("account-1")] == TODAY
        assert [event.data for events in store.scan() for event in events] == TODAY
        assert [entry.data for entry in store.history("account-1")] == TODAY
        assert [entry.type for entry in store.history("account-1")] == ["AccountMade", "MoneyPaidIn", "MoneyDeposited"]
    with LedgerApplication(old_log, WIRE) as application:
        assert [event.data for event in application.events.get("account-1")] == TODAY  # type: ignore[attr-defined]


@pytest.mark.usefixtures("retired")
def test_retired_shapes_stay_in_the_log_as_they_were_written(old_log: str) -> None:
    with Store.open(old_log, wire=WIRE) as store, psycopg.connect(old_log) as connection:
        assert [check for check in store.verify_log() if check.differences] == []
        row = connection.execute("SELECT data FROM guarantee_ledger.events WHERE position = 2").fetchone()

    assert row == ({"type": "MoneyPaidIn", "yuan": 3},)


def test_a_shape_that_no_one_knows_is_an_error_and_never_skipped(old_log: str) -> None:
    with Store.open(old_log, wire=WIRE) as store, pytest.raises(msgspec.ValidationError, match="AccountMade"):
        store.read_stream("account-1")
