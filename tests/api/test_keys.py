"""API keys: made, listed, revoked, looked up."""

import asyncio
import threading
import time

import psycopg
import pytest

from api import keys
from api.keys import Holder, KeyRefused, Keyring
from api.queries import DoorDatabase
from ledger.log_library import writer_role
from migrations import SCHEMA, migrate


@pytest.fixture
def ledger(database: str) -> str:
    migrate(database)
    return database


def test_a_key_is_shown_once_and_only_its_hash_is_kept(ledger: str) -> None:
    key = keys.create(ledger, SCHEMA, "b-1", "buyer", "the buyer's phone")
    assert key.startswith("gl_")
    assert len(key) == 3 + 43
    with psycopg.connect(ledger) as connection:
        [row] = connection.execute(f"SELECT * FROM {SCHEMA}.api_keys").fetchall()
    assert key not in str(row)
    assert key[3:] not in str(row)


def test_no_two_keys_are_alike(ledger: str) -> None:
    assert len({keys.create(ledger, SCHEMA, "b-1", "buyer") for _ in range(20)}) == 20


def test_a_key_belongs_to_one_actor_in_one_role(ledger: str) -> None:
    key = keys.create(ledger, SCHEMA, "m-1", "merchant")
    assert keys.holder(ledger, SCHEMA, key) == Holder("m-1", "merchant")
    assert keys.holder(ledger, SCHEMA, key + "x") is None


@pytest.mark.parametrize("role", ["policy", "clock", "root", "", "Auditor"])
def test_nobody_gets_a_key_for_a_role_that_is_none_or_the_ledgers_own(ledger: str, role: str) -> None:
    with pytest.raises(KeyRefused):
        keys.create(ledger, SCHEMA, "somebody", role)


@pytest.mark.parametrize("actor", ["", "a/b", "a b", "a\n", "a" * 201, "买家"])
def test_an_actor_is_named_like_any_id(ledger: str, actor: str) -> None:
    with pytest.raises(KeyRefused):
        keys.create(ledger, SCHEMA, actor, "buyer")


def test_keys_are_listed_without_being_shown(ledger: str) -> None:
    first = keys.create(ledger, SCHEMA, "m-1", "merchant", "shop")
    second = keys.create(ledger, SCHEMA, "auditor-1", "auditor")
    keys.revoke(ledger, SCHEMA, first)
    listed = keys.listing(ledger, SCHEMA)
    assert [(x.fingerprint, x.actor, x.role, x.label, x.revoked_at is not None) for x in listed] == [
        (keys.fingerprint_of(first), "m-1", "merchant", "shop", True),
        (keys.fingerprint_of(second), "auditor-1", "auditor", "", False),
    ]


def test_a_key_is_revoked_by_its_fingerprint_or_by_itself_once(ledger: str) -> None:
    by_itself, by_name = keys.create(ledger, SCHEMA, "a", "auditor"), keys.create(ledger, SCHEMA, "b", "auditor")
    first = keys.revoke(ledger, SCHEMA, by_itself)
    keys.revoke(ledger, SCHEMA, keys.fingerprint_of(by_name).upper())
    assert keys.holder(ledger, SCHEMA, by_itself) is None
    assert keys.holder(ledger, SCHEMA, by_name) is None
    assert keys.revoke(ledger, SCHEMA, by_itself).revoked_at == first.revoked_at


@pytest.mark.parametrize("fingerprint", ["", "%", "0123456789abcdef", "gl_nobody", "'; --"])
def test_a_key_that_is_not_there_cannot_be_revoked(ledger: str, fingerprint: str) -> None:
    keys.create(ledger, SCHEMA, "a", "auditor")
    with pytest.raises(KeyRefused):
        keys.revoke(ledger, SCHEMA, fingerprint)
    assert keys.listing(ledger, SCHEMA)[0].revoked_at is None


def test_the_role_that_appends_can_neither_make_nor_change_keys(ledger: str) -> None:
    key = keys.create(ledger, SCHEMA, "a", "auditor")
    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute(f"SET ROLE {writer_role(SCHEMA)}")
        assert connection.execute(f"SELECT count(*) FROM {SCHEMA}.api_keys").fetchone() == (1,)
        for change in ("UPDATE {} SET role = 'admin'", "DELETE FROM {}", "INSERT INTO {} SELECT * FROM {}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(change.replace("{}", f"{SCHEMA}.api_keys"))
    assert keys.holder(ledger, SCHEMA, key) == Holder("a", "auditor")


def test_the_door_sees_a_new_key_at_once_and_a_revoked_one_not_for_long(ledger: str) -> None:
    database = DoorDatabase(ledger, SCHEMA)
    database.open()

    async def come_and_go() -> None:
        keyring = Keyring(database.holder, remembered_seconds=0.3)
        assert await keyring.holder("gl_nobody") is None
        key = keys.create(ledger, SCHEMA, "a", "auditor")
        assert await keyring.holder(key) == Holder("a", "auditor")
        keys.revoke(ledger, SCHEMA, key)
        await asyncio.sleep(0.35)
        assert await keyring.holder(key) is None

    asyncio.run(come_and_go())
    database.close()


def test_many_requests_with_one_key_ask_once() -> None:
    asked = []

    def find(key_sha256: bytes) -> Holder:
        asked.append(threading.get_ident())
        time.sleep(0.05)
        return Holder("a", "auditor")

    async def ask() -> None:
        keyring = Keyring(find)
        assert set(await asyncio.gather(*(keyring.holder("gl_key") for _ in range(100)))) == {Holder("a", "auditor")}
        assert await keyring.holder("gl_key") == Holder("a", "auditor")

    asyncio.run(ask())
    assert len(asked) == 1


def test_keys_that_cannot_be_are_not_looked_up() -> None:
    def find(key_sha256: bytes) -> Holder:
        raise AssertionError

    async def ask() -> None:
        for key in ("ключ", "gl_" + "a" * 1_000):
            assert await Keyring(find).holder(key) is None

    asyncio.run(ask())


def test_a_failed_look_up_is_not_remembered() -> None:
    answers = iter([psycopg.OperationalError("away"), Holder("a", "auditor")])

    def find(key_sha256: bytes) -> Holder:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask() -> None:
        keyring = Keyring(find)
        with pytest.raises(psycopg.OperationalError):
            await keyring.holder("gl_key")
        assert await keyring.holder("gl_key") == Holder("a", "auditor")

    asyncio.run(ask())
