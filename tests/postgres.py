"""One PostgreSQL for a whole test run, and a fresh database for each test that wants one.

The server is the product's own embedded one. Every test process, pytest-xdist's workers and runs at the same time
included, holds a shared lock while it needs the server; whoever leaves last stops it and removes its home. So nothing
but an empty lock file is left behind, a killed worker counts as gone, and the next run sweeps up after a killed one.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from api import embedded


def chosen_binaries() -> Path:
    """$GUARANTEE_TEST_PG_BIN, to run the tests on another PostgreSQL, else what the product would choose."""
    chosen = os.environ.get("GUARANTEE_TEST_PG_BIN")
    return Path(chosen) if chosen else embedded.find_binaries()


@contextmanager
def server_url(binaries: Path) -> Iterator[str]:
    """The administrator's URL of a server shared with all other tests that run on the same binaries."""
    home = _private_directory() / hashlib.sha256(os.fsencode(binaries.resolve())).hexdigest()[:12]
    with open(f"{home}.users", "w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while the last user of before is leaving
        try:
            url = embedded.start(home, binaries=binaries)
            _forget_the_disk(url)
            yield url
        finally:
            with suppress(BlockingIOError):  # somebody else still needs it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                embedded.stop(home)
                shutil.rmtree(home, ignore_errors=True)


def _forget_the_disk(url: str) -> None:
    """Nobody pulls the plug while these tests run, and what is killed leaves its pages to the system; servers that are
    killed on purpose are others, and keep to the disk."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync TO off")
        connection.execute("SELECT pg_reload_conf()")


def fresh_database(url: str, name: str, *, template: str = "template1") -> str:
    """Makes an empty database, or a copy of a template that nobody is connected to, and returns its URL."""
    drop_database(url, name)
    with psycopg.connect(url, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def drop_database(url: str, name: str) -> None:
    """Drops a database, ending the connections to it; nothing happens if there is none."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _private_directory() -> Path:
    """The same for every run of one user, and closed to all others, although its name in /tmp can be guessed."""
    folder = Path(tempfile.gettempdir()) / f"guarantee-tests-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private directory of this user: remove it")
    return folder
