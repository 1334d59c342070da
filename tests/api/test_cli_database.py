"""Where the ledger is: the embedded database, another one, none at all; settings, keys, and help."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.main import get_command

from api.cli import app
from tests.api.console import Guarantee, database, query


@pytest.fixture(scope="module")
def untouched(postgres: str) -> Iterator[Guarantee]:
    """A shell over an empty ledger, for tests that write nothing."""
    with database(postgres) as url:
        yield Guarantee(url)


@pytest.fixture
def guarantee(postgres: str) -> Iterator[Guarantee]:
    """A shell over an empty ledger."""
    with database(postgres) as url:
        yield Guarantee(url)


# --- the embedded database --------------------------------------------------------------------------------------------


def test_without_a_database_an_embedded_one_is_started_and_left_running(
    tmp_path: Path, postgres_binaries: Path
) -> None:
    home = tmp_path / "home"
    guarantee = Guarantee("", GUARANTEE_HOME=str(home), PG_BIN=str(postgres_binaries))

    assert guarantee("db", "status", "--json").ok().json["running"] is False
    assert guarantee("db", "stop").ok().err == "it was not running\n"
    assert not home.exists()
    try:
        # whichever command comes first starts it, and makes the tables
        assert guarantee("digest", "--json").ok().json["position"] == 0
        status = guarantee("db", "status", "--json").ok().json
        assert status["running"] is True
        url = guarantee("db", "url").ok().text.strip()
        assert urlsplit(url).port == status["port"]
        assert guarantee("db", "start").ok().text.strip() == url
        assert query(url, "SELECT position FROM head") == [(0,)]
        shown = guarantee("db", "status").ok().text
        assert urlsplit(url).password not in shown
        assert f"port      {status['port']}" in shown
        assert guarantee("migrate").ok().err == "up to date\n"
    finally:
        assert guarantee("db", "stop").ok().err == "stopped\n"
    assert guarantee("db", "status", "--json").ok().json["running"] is False


def test_the_database_that_is_named_always_wins(guarantee: Guarantee, tmp_path: Path) -> None:
    home = tmp_path / "home"
    guarantee.environment["GUARANTEE_HOME"] = str(home)

    assert guarantee("db", "url").ok().text.strip() == guarantee.url
    guarantee("digest").ok()
    guarantee("migrate").ok()

    assert not home.exists()


# --- another database -------------------------------------------------------------------------------------------------


def test_migrate_makes_the_tables_once(postgres: str) -> None:
    with database(postgres, is_migrated=False) as url:
        guarantee = Guarantee(url)
        names = sorted(path.name for path in Path("migrations").glob("*.sql"))

        first = guarantee("migrate").ok()

        assert (first.out, first.err) == (b"", f"applied {', '.join(names)}\n")
        assert guarantee("migrate").ok().err == "up to date\n"
        assert guarantee("verify").code == 0


def test_many_ledgers_lie_in_one_database(guarantee: Guarantee) -> None:
    other = Guarantee(guarantee.url, GUARANTEE_SCHEMA="second")
    assert "run guarantee migrate" in other("digest").refused(3)

    other("migrate").ok()
    other("keys", "create", "admin-1", "admin").ok()

    assert len(other("keys", "list", "--json").ok().lines) == 1
    assert guarantee("keys", "list", "--json").ok().lines == []


@pytest.mark.parametrize(
    "typed", ["digest", "verify", "export order_status", "history order-1", "tick", "work", "keys list", "rebuild"]
)
def test_a_schema_that_was_not_migrated_is_said_to_be_so(postgres: str, typed: str) -> None:
    assert Guarantee(postgres)(*typed.split()).refused(3) == (
        "the schema guarantee_ledger is not up to date: run guarantee migrate"
    )


def test_a_migration_that_was_changed_after_it_was_applied_stops_everything(guarantee: Guarantee) -> None:
    query(guarantee.url, "UPDATE migrations SET sha256 = 'x' WHERE name = '0001_log.sql' RETURNING 1")

    for name in ("migrate", "digest"):
        why = guarantee(name).refused(3)
        assert why == "0001_log.sql was changed after it was applied; add a new file instead"


AWAY = {
    "nobody listens": ("postgresql://somebody:secret@127.0.0.1:1/ledger", 3, "Connection refused"),
    "no such host": ("postgresql://somebody:secret@nowhere.invalid/ledger", 3, "nowhere.invalid"),
    "no URL": ("somewhere:secret", 2, "GUARANTEE_DATABASE_URL is no URL of a PostgreSQL: postgresql://"),
}


@pytest.mark.parametrize("name", AWAY)
@pytest.mark.parametrize("command", ["digest", "migrate"])
def test_a_database_that_is_away_is_reported_at_once_and_without_its_password(name: str, command: str) -> None:
    url, code, reason = AWAY[name]

    why = Guarantee(url)(command).refused(code)

    assert reason in why
    assert "secret" not in why


def test_a_wrong_password_and_a_wrong_database_are_named(postgres: str) -> None:
    parts = urlsplit(postgres)
    wrong_password = parts._replace(netloc=parts.netloc.replace(str(parts.password), "guess")).geturl()
    wrong_name = parts._replace(path="/nowhere").geturl()

    assert "password authentication failed" in Guarantee(wrong_password)("digest").refused(3)
    assert 'database "nowhere" does not exist' in Guarantee(wrong_name)("digest").refused(3)


def test_a_home_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")

    why = Guarantee("", GUARANTEE_HOME=str(tmp_path / "home"))("digest").refused(3)

    assert "Not a directory" in why
    assert "GUARANTEE_DATABASE_URL" in why


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("GUARANTEE_PORT", "99999"), ("GUARANTEE_SCHEMA", "My Ledger"), ("GUARANTEE_LOG_LEVEL", "loud")]
)
def test_a_setting_that_makes_no_sense_is_named(untouched: Guarantee, name: str, value: str) -> None:
    why = Guarantee(untouched.url, **{name: value})("digest").refused(2)

    assert why.startswith(f"{name}: ")


def test_a_variable_that_is_empty_counts_as_unset(untouched: Guarantee) -> None:
    empty = dict.fromkeys(("GUARANTEE_PORT", "GUARANTEE_SCHEMA", "GUARANTEE_LOG_LEVEL", "GUARANTEE_HOME"), "")

    Guarantee(untouched.url, **empty)("digest").ok()


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_listed_without_itself_and_revoked_by_its_fingerprint(guarantee: Guarantee) -> None:
    made = guarantee("keys", "create", "auditor-1", "auditor", "--label", "year-end").ok()
    key = made.text.strip()
    assert re.fullmatch(r"gl_[\w-]{43}", key)
    assert made.err == ""

    [listed] = guarantee("keys", "list", "--json").ok().lines
    assert (listed["actor"], listed["role"], listed["label"], listed["revoked_at"]) == (
        "auditor-1", "auditor", "year-end", None,
    )  # fmt: skip
    assert key not in guarantee("keys", "list").ok().text
    assert key.encode() not in b"".join(str(x).encode() for x in query(guarantee.url, "SELECT * FROM api_keys"))

    assert guarantee("keys", "revoke", listed["fingerprint"]).ok().out == b""
    [revoked] = guarantee("keys", "list", "--json").ok().lines
    assert revoked["revoked_at"] is not None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["create", "someone", "king"], "no key can have the role 'king'"),
        (["create", "someone", "policy"], "no key can have the role 'policy'"),
        (["create", "a/b", "buyer"], "an actor has 1 to 200 visible ASCII characters"),
        (["revoke", "0123456789abcdef"], "there is no key '0123456789abcdef'"),
    ],
)
def test_a_key_that_cannot_be_made_or_revoked_is_refused(untouched: Guarantee, arguments: list[str], why: str) -> None:
    assert untouched("keys", *arguments).refused(2).startswith(why)


# --- help -------------------------------------------------------------------------------------------------------------


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command there is, with the words that lead to it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]

    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name}"


def test_help_and_exit_codes_work_from_a_shell(untouched: Guarantee) -> None:
    helped = untouched.apart("--help")

    assert helped.code == 0
    assert "Exit codes: 0 done, 1 the check found something," in " ".join(helped.text.split())
    assert untouched.apart("history", "parcel-1").refused(2)


def test_an_address_that_cannot_be_had_is_no_traceback(untouched: Guarantee) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = untouched.apart("serve", "--port", port)

    assert (ran.code, ran.out) == (3, b"")
    assert ran.err.splitlines()[-1] == f"guarantee: cannot serve on 127.0.0.1:{port}"
    assert "Traceback" not in ran.err
