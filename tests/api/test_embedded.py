"""The embedded PostgreSQL, tried with real processes: started, shared, killed, moved and run by different users."""

import encodings.idna  # noqa: F401 - sockets load it late, when the ordinary user of one test may not reach it
import fcntl
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from api import embedded

PROJECT = Path(embedded.__file__).parents[1]
START = """
import pathlib, sys
from api import embedded
print(embedded.start(pathlib.Path(sys.argv[1]), binaries=pathlib.Path(sys.argv[2])))
"""
DAC_OVERRIDE = 1 << 1

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give up rights")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def binaries(postgres_binaries: Path) -> Path:
    return postgres_binaries


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that is not there yet; as root it is to be in a directory closed to the server's account."""
    yield tmp_path / "home"
    remove(tmp_path / "home")


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A home that is not there yet, in a directory that everybody can pass."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"
        remove(Path(folder) / "home")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binaries: Path) -> Iterator[Path]:
    """A home with a table and no running server, to be copied."""
    home = tmp_path_factory.mktemp("cluster") / "home"
    query(embedded.start(home, binaries=binaries), "CREATE TABLE kept AS SELECT 42 AS answer")
    embedded.stop(home)
    yield home
    remove(home)


@pytest.fixture
def stopped(home: Path, cluster: Path) -> Path:
    """A home with a table and no running server; as root, with everything in it owned by root, as after a restore."""
    shutil.copytree(cluster, home)
    return home


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, binaries: Path) -> Iterator[Path]:
    """The home of a running server, for the tests that only look at it; with blanks, quotes and Chinese letters."""
    home = tmp_path_factory.mktemp("it's my “first” $1") / "担保 账本"
    embedded.start(home, binaries=binaries)
    yield home
    remove(home)


def remove(home: Path) -> None:
    embedded.stop(home)
    link = home / "postgres"
    if link.is_symlink():
        shutil.rmtree(link.resolve())
    shutil.rmtree(home, ignore_errors=True)


def query(url: str, text: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        answer = connection.execute(text.encode())
        return str(answer.fetchall()[0][0]) if answer.description else ""


def starter(home: Path, binaries: Path, *prefix: str, code: str = START) -> "subprocess.Popen[str]":
    command = [*prefix, sys.executable, "-c", code, str(home), str(binaries)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def pid_of(home: Path) -> int:
    pid = embedded.status(home).pid
    assert pid is not None
    return pid


def about(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(field))


def password(home: Path) -> str:
    return (home / "postgres" / "password").read_text()


def at_work(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and about(pid, "State") != "Z"


def rights(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# --- one server -------------------------------------------------------------------------------------------------------


def test_starting_again_shares_the_server(running: Path) -> None:
    pid = pid_of(running)
    assert embedded.start(running) == embedded.start(running) == embedded.url(running)
    assert pid_of(running) == pid


def test_eight_commands_started_together_share_one_server(home: Path, binaries: Path) -> None:
    processes = [starter(home, binaries) for _ in range(8)]
    urls = {finished(process) for process in processes}
    assert urls == {embedded.url(home)}
    assert query(urls.pop(), "SELECT current_database()") == "guarantee"


def test_the_server_outlives_the_command_that_started_it_and_keeps_nothing_of_it(home: Path, binaries: Path) -> None:
    finished(starter(home, binaries))  # reads the command's output to its end, so the server does not hold it open
    assert os.getsid(pid_of(home)) == pid_of(home)
    with (home / "postgres.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_status_tells_everything_but_the_password(running: Path) -> None:
    url, status = embedded.url(running), embedded.status(running)
    assert status.running
    assert url == f"postgresql://guarantee:{password(running)}@127.0.0.1:{status.port}/guarantee?sslmode=disable"
    assert status.url == url.replace(f":{password(running)}@", "@")
    assert status.version == query(url, "SHOW server_version")
    assert status.data_dir == query(url, "SHOW data_directory") == str(running / "postgres" / "data")


def test_a_stopped_server_comes_back_with_its_data_and_its_url(stopped: Path, binaries: Path) -> None:
    url = embedded.start(stopped, binaries=binaries)
    assert embedded.stop(stopped)
    assert embedded.status(stopped) == embedded.Status(running=False, data_dir=str(stopped / "postgres" / "data"))
    with pytest.raises(embedded.EmbeddedPostgresError, match="guarantee db start"):
        embedded.url(stopped)
    assert not embedded.stop(stopped)
    assert embedded.start(stopped, binaries=binaries) == url
    assert query(url, "SELECT answer FROM kept") == "42"


def test_asking_or_stopping_what_was_never_started_makes_nothing(home: Path) -> None:
    assert not embedded.status(home).running
    assert not embedded.stop(home)
    assert not home.exists()


# --- accidents --------------------------------------------------------------------------------------------------------


def test_a_killed_server_comes_back_with_everything_committed(stopped: Path, binaries: Path) -> None:
    url = embedded.start(stopped, binaries=binaries)
    query(url, "CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS number")
    with unfinished(url, "BEGIN; DELETE FROM numbers"):
        os.kill(pid_of(stopped), signal.SIGKILL)  # it stays a zombie: its parent is this process, which never asks
        assert embedded.start(stopped, binaries=binaries) == url
    assert query(url, "SELECT count(*) FROM numbers") == "1000"


@on_linux
def test_a_busy_backend_that_outlives_its_postmaster_is_ended(
    stopped: Path, binaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "GRACE_S", 0.3)
    url = embedded.start(stopped, binaries=binaries)
    with unfinished(url, "DO $$ BEGIN LOOP END LOOP; END $$") as backend:
        os.kill(pid_of(stopped), signal.SIGKILL)
        time.sleep(0.2)
        assert at_work(backend)
        assert embedded.start(stopped, binaries=binaries) == url
        assert not at_work(backend)
    assert query(url, "SELECT answer FROM kept") == "42"


@contextmanager
def unfinished(url: str, text: str) -> Iterator[int]:
    """A backend in the middle of something, by its pid."""
    connection = psycopg.connect(url)
    connection.pgconn.send_query(text.encode())
    connection.pgconn.flush()
    time.sleep(0.1)
    try:
        yield connection.info.backend_pid
    finally:
        connection.close()


def test_a_command_killed_in_the_middle_of_initdb_leaves_nothing_in_the_way(home: Path, binaries: Path) -> None:
    first = starter(home, binaries)
    until((home / "postgres" / "data.new").exists)
    first.kill()
    first.communicate()
    assert not (home / "postgres" / "data").exists()
    assert query(embedded.start(home, binaries=binaries), "SELECT 1") == "1"
    assert not (home / "postgres" / "data.new").exists()


def test_a_command_killed_while_the_server_starts_leaves_a_server_to_share(stopped: Path, binaries: Path) -> None:
    log = stopped / "postgres" / "server.log"
    log.unlink()
    first = starter(stopped, binaries)
    until(log.exists)
    first.kill()
    first.communicate()
    assert query(embedded.start(stopped, binaries=binaries), "SELECT answer FROM kept") == "42"


def test_another_port_is_taken_if_somebody_has_taken_ours(stopped: Path, binaries: Path) -> None:
    port = (stopped / "postgres" / "port").read_text()
    with socket.create_server(("127.0.0.1", int(port))):  # takes connections and never says a word
        url = embedded.start(stopped, binaries=binaries)
        assert f":{port}/" not in url
        assert query(url, "SELECT answer FROM kept") == "42"


def test_a_copied_home_gets_a_server_of_its_own(cluster: Path, stopped: Path, binaries: Path) -> None:
    original = embedded.start(cluster, binaries=binaries)
    try:
        assert not embedded.status(stopped).running
        assert embedded.start(stopped, binaries=binaries) != original
        assert embedded.stop(cluster)
        assert embedded.status(stopped).running
    finally:
        embedded.stop(cluster)


def test_a_server_that_cannot_start_says_why(stopped: Path, binaries: Path) -> None:
    (stopped / "postgres" / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(embedded.EmbeddedPostgresError, match=r"initialized by PostgreSQL version 9\.6"):
        embedded.start(stopped, binaries=binaries)


# --- what is made -----------------------------------------------------------------------------------------------------


def test_the_cluster_is_durable_and_the_same_everywhere(running: Path) -> None:
    url = embedded.url(running)
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert query(url, f"SHOW {setting}") == "on"
    for setting, value in {**embedded.SETTINGS, "server_encoding": "UTF8"}.items():
        assert query(url, f"SHOW {setting}") == value
    assert query(url, "SELECT string_agg(t, '' ORDER BY t) FROM unnest('{z,中,é,Z}'::text[]) t") == "Zzé中"


def test_nothing_of_the_home_is_open_to_others(running: Path) -> None:
    everything = [running, *running.rglob("*")]
    assert len(everything) > 500
    assert [path for path in everything if path.lstat().st_mode & 0o077] == []
    assert stat.S_IMODE((running / "postgres" / "password").stat().st_mode) == 0o600


def test_nobody_enters_without_the_password(running: Path) -> None:
    url = embedded.url(running)
    assert len(password(running)) > 40
    for database in ("guarantee", "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url.replace(password(running), "wrong"), dbname=database)


def test_binaries_named_in_the_environment_come_first(
    binaries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BIN", str(binaries))
    assert embedded.find_binaries() == binaries
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(embedded.EmbeddedPostgresError, match="PG_BIN"):
        embedded.find_binaries()


# --- who runs it ------------------------------------------------------------------------------------------------------


def passable(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


@as_root
@on_linux
def test_root_starts_it_as_nobody_without_any_right(open_home: Path, binaries: Path) -> None:
    if not passable(binaries):
        pytest.skip(f"{binaries} is closed to others")
    embedded.start(open_home, binaries=binaries)
    assert pwd.getpwuid(int(about(pid_of(open_home), "Uid"))).pw_name == "nobody"
    assert int(about(pid_of(open_home), "CapEff"), 16) == int(about(pid_of(open_home), "CapPrm"), 16) == 0


@as_root
def test_root_starts_it_as_the_owner_of_the_home(open_home: Path, binaries: Path) -> None:
    open_home.mkdir()
    os.chown(open_home, pwd.getpwnam("daemon").pw_uid, -1)
    embedded.start(open_home, binaries=binaries)
    assert {path.owner() for path in open_home.rglob("*")} == {"daemon"}


@as_root
@on_linux
def test_root_under_a_closed_directory_leaves_it_closed(tmp_path: Path, binaries: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    copy = embedded.copy_binaries(binaries, closed / "postgresql")
    before = {path: rights(path) for path in (closed, *closed.parents, *(closed / "postgresql").rglob("*"))}
    home = closed / "home"
    try:
        embedded.start(home, binaries=copy)
        assert about(pid_of(home), "Uid") != "0"
        assert {int(about(pid_of(home), kind), 16) for kind in ("CapEff", "CapPrm", "CapAmb")} == {DAC_OVERRIDE}
        assert {path: rights(path) for path in before} == before
    finally:
        remove(home)


@as_root
@on_linux
def test_root_without_ambient_capabilities_uses_a_private_directory_elsewhere(tmp_path: Path, binaries: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    copy = embedded.copy_binaries(binaries, closed / "postgresql")
    home = closed / "home"
    # PR_SET_SECUREBITS with SECBIT_NO_CAP_AMBIENT_RAISE, and locked: what a strict container comes to
    no_ambient_raise = "import ctypes; assert ctypes.CDLL(None).prctl(28, 1 << 6 | 1 << 7) == 0"
    try:
        url = finished(starter(home, copy, code=no_ambient_raise + START))
        refuge = Path(embedded.status(home).data_dir).parent
        assert refuge.parent == Path("/var/tmp")
        assert stat.S_IMODE(refuge.stat().st_mode) == 0o700
        assert int(about(pid_of(home), "CapEff"), 16) == 0
        assert embedded.stop(home)
        assert finished(starter(home, copy, code=no_ambient_raise + START)) == url
    finally:
        remove(home)


@as_root
@on_linux
def test_root_that_is_the_only_user_there_is(tmp_path: Path, binaries: Path) -> None:
    alone = ("unshare", "--user", "--map-root-user")
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    try:
        url = finished(starter(home, binaries, *alone))
        assert finished(starter(home, binaries, *alone)) == url
        assert query(url, "SELECT 1") == "1"
    finally:
        remove(home)


def test_an_ordinary_user_needs_nothing(open_home: Path, binaries: Path) -> None:
    if not passable(binaries):
        binaries = embedded.copy_binaries(binaries, open_home.parent / "postgresql")
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(open_home.parent, user.pw_uid, user.pw_gid)

    def life_of_a_server() -> None:
        url = embedded.start(open_home, binaries=binaries)
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(pid_of(open_home), signal.SIGKILL)
        assert query(embedded.start(open_home, binaries=binaries), "SELECT answer FROM kept") == "42"
        assert embedded.stop(open_home)

    assert run_as(user, life_of_a_server) == "done"
    assert {path.owner() for path in open_home.rglob("*")} == {user.pw_name}


def run_as(user: pwd.struct_passwd, work: Callable[[], None]) -> str:
    """Does the work in a fork, which has all it needs in memory: root's Python may be closed to the user."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        outcome = "done"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            work()
        except BaseException:
            outcome = traceback.format_exc()
        os.write(writing, outcome.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as pipe:
        return pipe.read()
