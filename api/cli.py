"""``guarantee``: the ledger from the command line.

Data go to stdout, words for people and progress bars to stderr.  Exit codes: 0 done, 1 the check found something,
2 wrong usage or bad input, 3 the system could not do it.
"""

import asyncio
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn

import msgspec
import psycopg
import pydantic
import typer
from eventsourcing.persistence import PersistenceError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from api import asof, audit, embedded, exports, importing, keys, lines, olist, olist_check
from api.clock import VirtualClock
from api.demo import plans, running, story
from api.logs import configure
from api.settings import Settings
from api.wiring import Ledger, database_url, opened, spare_collector
from benchmarks import BENCHMARKS
from ledger import calendar
from ledger.store import Check, StoreError
from ledger.streams import DECIDERS
from migrations import MigrationError, migrate
from projections import PROJECTIONS, replay
from projections.projection import Projection
from projections.rebuild import Rebuilt
from projections.rebuild import rebuild as rebuild_models

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__)
db = typer.Typer(no_args_is_help=True, help="The embedded PostgreSQL.")
imports = typer.Typer(no_args_is_help=True, help="Import real orders.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys: who may come in by HTTP, and as what.")
app.add_typer(db, name="db")
app.add_typer(imports, name="import")
app.add_typer(keys_app, name="keys")

err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
At = Annotated[int | None, typer.Option("--at", min=0, max=2**63 - 1, help="As it stood at this position.")]
RecordedAsOf = Annotated[str | None, typer.Option(help="As recorded before this instant.")]
OccurredAsOf = Annotated[str | None, typer.Option(help="As it had occurred before this instant.")]
Model = Annotated[str, typer.Argument(help=f"One of {', '.join(PROJECTIONS)}.")]


class BadInput(Exception):
    """The user's input cannot be used; exit code 2."""


UNUSABLE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ValueError)
"""What comes of input that cannot be used; other errors of the operating system are not the user's."""


def main() -> None:
    """The entry point: errors become one line and an exit code."""
    try:
        configure(Settings().log_level)
        spare_collector()
        app()
    except pydantic.ValidationError as error:
        fail(2, "; ".join(f"{_variable(str(x['loc'][0]))}: {x['msg']}" for x in error.errors()))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(2 if isinstance(error, UNUSABLE) else 3, f"{where}{error.strerror or error}")
    except msgspec.MsgspecError as error:  # lines of commands are judged where they are read
        fail(3, f"the log holds what cannot be read: {error}")
    except (BadInput, *UNUSABLE) as error:
        fail(2, str(error))
    except (embedded.EmbeddedPostgresError, MigrationError, PersistenceError, StoreError, psycopg.Error) as error:
        fail(3, str(error))
    except Exception:
        traceback.print_exc()
        fail(3, "this should not happen; please report what stands above")


def fail(code: int, message: str) -> NoReturn:
    """Says in one line on stderr what is wrong, and exits."""
    err.print(f"guarantee: {' '.join(message.split())}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def say(text: str) -> None:
    """Words for people, a line of them, on stderr."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _variable(setting: str) -> str:
    return setting if setting.startswith("GUARANTEE_") else f"GUARANTEE_{setting.upper()}"


# --- The database -------------------------------------------------------------------------------------------------


@db.command("start")
def db_start() -> None:
    """Start the embedded PostgreSQL, if it does not run yet, and print its URL."""
    print(embedded.start(Settings().home))


@db.command("stop")
def db_stop() -> None:
    """Stop the embedded PostgreSQL."""
    say("stopped" if embedded.stop(Settings().home) else "it was not running")


@db.command("status")
def db_status(as_json: Json = False) -> None:
    """Say whether the embedded PostgreSQL runs, and where."""
    status = msgspec.to_builtins(embedded.status(Settings().home))
    _print_pairs(status, as_json)


@db.command("url")
def db_url() -> None:
    """Print the URL of the ledger's database, password included."""
    print(database_url(Settings()))


@app.command("migrate")
def migrate_() -> None:
    """Bring the schema up to date; nothing happens if it is."""
    settings = Settings()
    done = migrate(database_url(settings), settings.ledger_schema)
    say(f"applied {', '.join(done)}" if done else "up to date")


# --- Keys ---------------------------------------------------------------------------------------------------------


@keys_app.command("create")
def keys_create(
    actor: Annotated[str, typer.Argument(help="Whose it is: a merchant_id, a buyer_ref, a carrier, a person.")],
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(keys.KEY_ROLES)}.")],
    label: Annotated[str, typer.Option(help="What it is for, to tell it from others.")] = "",
) -> None:
    """Make a key for an actor in a role, and print it: it is shown this once."""
    with opened(Settings()) as ledger:
        print(keys.create(ledger.url, ledger.schema, actor, role, label))


@keys_app.command("revoke")
def keys_revoke(fingerprint: Annotated[str, typer.Argument(help="As `keys list` shows it.")]) -> None:
    """Revoke a key by its fingerprint (see ``keys list``)."""
    with opened(Settings()) as ledger:
        keys.revoke(ledger.url, ledger.schema, fingerprint)


@keys_app.command("list")
def keys_list(as_json: Json = False) -> None:
    """List the keys: whose they are, never what they are."""
    with opened(Settings()) as ledger:
        _print_rows([msgspec.to_builtins(x) for x in keys.listing(ledger.url, ledger.schema)], as_json)


# --- Service ------------------------------------------------------------------------------------------------------


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address; by default GUARANTEE_HOST, or 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; by default GUARANTEE_PORT, or 8000; 0: any.")
    ] = None,
) -> None:
    """Serve the API, and project, carry and tick beside it."""
    import uvloop

    settings = Settings()
    with opened(settings, writes_apart=True) as ledger:
        uvloop.run(_serve(ledger, host or settings.host, settings.port if port is None else port))


async def _serve(ledger: Ledger, host: str, port: int) -> None:
    """The API and its workers, in one event loop; whichever ends first ends the other."""
    import uvicorn  # only here: it and the API take as long to load as all other commands together

    from api.app import create_app, server_config

    server = uvicorn.Server(server_config(create_app(ledger.store, ledger.desk, ledger.projector), host, port))
    stop = asyncio.Event()
    working = asyncio.create_task(ledger.worker.run(stop))
    working.add_done_callback(lambda _: setattr(server, "should_exit", True))
    err.print(f"http://{host}:{port}/docs", highlight=False)
    try:
        await server.serve()
    except SystemExit:  # the server's word for an address that it cannot have; it has logged why
        fail(3, f"cannot serve on {host}:{port}")
    finally:
        stop.set()
        await working


@app.command()
def work() -> None:
    """Project, carry and tick, without the API."""
    with opened(Settings()) as ledger:
        asyncio.run(_work(ledger))


async def _work(ledger: Ledger) -> None:
    stop = asyncio.Event()
    for name in ("SIGINT", "SIGTERM"):
        asyncio.get_running_loop().add_signal_handler(getattr(signal, name), stop.set)
    await ledger.worker.run(stop)


@app.command()
def command(
    file: Annotated[str, typer.Option("--file", help="JSON lines, - for standard input.")],
    virtual_clock: Annotated[bool, typer.Option(help="Time is what the lines say (received_at).")] = False,
    approver_key: Annotated[str | None, typer.Option(help="The second person's API key, for four eyes.")] = None,
) -> None:
    """Execute commands, one a line, and print what came of each."""
    clock = VirtualClock(calendar.BEGINNING) if virtual_clock else None
    with opened(Settings(), clock) as ledger, _input(file) as stream:
        if clock is not None:
            clock.move_to(ledger.store.head().recorded_at)
        holder = None if approver_key is None else keys.holder(ledger.url, ledger.schema, approver_key)
        if approver_key is not None and holder is None:
            raise BadInput("the approver's key is unknown or revoked")
        found = asyncio.run(_command(lines.run(ledger.desk, stream, holder, clock)))
    sys.exit(2 if "invalid" in found else 1 if "rejected" in found else 0)


async def _command(results: AsyncIterator[lines.Result]) -> set[str]:
    """Prints each result as soon as it is there; what was done is known even if the next line fails."""
    found = set()
    async for result in results:
        print(_json(result), flush=True)
        found.add(result.result)
    return found


@app.command()
def tick(now: Annotated[str | None, typer.Option(help="The instant; by default the clock's.")] = None) -> None:
    """Fire every deadline that is due, in order, once, and carry what it says to other streams."""
    clock = None if now is None else VirtualClock(_instant(now))
    with opened(Settings(), clock) as ledger:
        if clock is not None:
            clock.move_to(ledger.store.head().recorded_at)
        at = ledger.desk.clock.now() if now is None else _instant(now)
        fired = asyncio.run(ledger.worker.tick(at))
        say(f"{fired} decisions; the log is at position {ledger.store.head().position}")


# --- Reading ------------------------------------------------------------------------------------------------------


@app.command()
def history(
    stream: Annotated[str, typer.Argument(help="For example order-O-1, merchant-M-1, programme-rulebook.")],
    at: At = None,
    recorded_as_of: RecordedAsOf = None,
    occurred_as_of: OccurredAsOf = None,
    as_json: Json = False,
) -> None:
    """Show the events of a stream, and the state they fold to."""
    if stream.partition("-")[0] not in DECIDERS:
        raise BadInput(f"no such stream: {stream}; streams begin with {', '.join(f'{x}-' for x in DECIDERS)}")
    moment = _moment(at, recorded_as_of, occurred_as_of)
    with opened(Settings()) as ledger:
        _position(ledger, moment)
        entries, story = asof.history(ledger.store, stream, moment)
    if not entries:
        raise BadInput(f"no events in {stream}" + ("" if at is None else f" at position {at}"))
    if as_json:
        state = msgspec.to_builtins(story.state)
        print(_json({"stream": stream, "events": [exports.entry_dict(x) for x in entries], "state": state}))
        return
    table = Table("position", "version", "type", "occurred", "recorded", "by", "rule or data", title=stream)
    for x in entries:
        said = x.rule or _brief(exports.entry_dict(x)["data"])
        table.add_row(
            str(x.position), str(x.version), x.type, _local(x.occurred_at), _local(x.recorded_at),
            f"{x.actor} ({x.role})", said,
        )  # fmt: skip
    _print_table(table)
    _print_pairs(_summary(story.state), False)


@app.command()
def show(
    read_model: Model,
    key: Annotated[str, typer.Argument(help="The row's key; its parts are joined by /: m-17/2015-07.")],
    at: At = None,
    recorded_as_of: RecordedAsOf = None,
    occurred_as_of: OccurredAsOf = None,
    as_json: Json = False,
) -> None:
    """Show one row of a read model; the parts of its key are joined by /."""
    projection = _projection(read_model)
    moment = _moment(at, recorded_as_of, occurred_as_of)
    with opened(Settings()) as ledger:
        row_key = asof.key_of_text(projection, key)
        if moment.is_now:
            ledger.projector.catch_up()
            with ledger.models.snapshot(read_model) as snapshot:
                row = next(snapshot.rows(read_model, key_prefix=row_key), None)
                position = snapshot.position
        else:
            position = _position(ledger, moment)
            row = asof.row(ledger.store, projection, row_key, moment)
    if row is None:
        raise BadInput(f"no row {key} in {read_model}")
    say(f"position {position}")
    _print_pairs(exports.plain(row), as_json)


@app.command()
def export(
    what: Annotated[str, typer.Argument(help="A read model, or events.")],
    form: Annotated[str, typer.Option("--format", help="csv or jsonl")] = "csv",
    at: At = None,
    recorded_as_of: RecordedAsOf = None,
    occurred_as_of: OccurredAsOf = None,
    output: Annotated[Path | None, typer.Option("-o", help="A file; by default standard output.")] = None,
) -> None:
    """Write out a whole read model, or the log; the same live and replayed."""
    moment = _moment(at, recorded_as_of, occurred_as_of)
    projection = None if what == "events" else _projection(what)
    if form not in ("csv", "jsonl") or (projection is None and form != "jsonl"):
        raise BadInput(f"{what} cannot be exported as {form}")
    with opened(Settings()) as ledger:
        position = _position(ledger, moment)
        if moment.is_now and projection is not None:
            ledger.projector.catch_up()
            with ledger.models.snapshot(what) as snapshot, _output(output) as file:
                file.writelines(exports.read_model(projection, snapshot.rows(what), form))  # type: ignore[arg-type]
                position = snapshot.position
        else:
            with _output(output) as file:
                if projection is None:
                    file.writelines(exports.events(ledger.store, moment))
                else:
                    rows = asof.rows(ledger.store, projection, moment)
                    file.writelines(exports.read_model(projection, rows, form))  # type: ignore[arg-type]
    say(f"position {position}")


@app.command()
def digest(at: At = None, as_json: Json = False) -> None:
    """Print the SHA-256 of every read model, live or as of a position, and of the log's chain."""
    with opened(Settings()) as ledger:
        _position(ledger, asof.Moment(at))
        found = audit.digests(ledger.store, ledger.projector, at)
    if as_json:
        print(_json(found))
        return
    print(f"position      {found['position']}")
    print(f"chain         {found['chain']}")
    for name, value in found["read_models"].items():
        print(f"{name:<17} {value}")


# --- Checking -----------------------------------------------------------------------------------------------------


@app.command()
def verify(as_json: Json = False) -> None:
    """Check the log, the read models and the money; exit code 1 if anything differs."""
    with opened(Settings()) as ledger:
        with suppress(msgspec.MsgspecError):  # an event that cannot be read is what a check below will say
            asyncio.run(ledger.worker.catch_up())
        with _progress("verifying") as progress:
            position, checks = audit.verify(ledger.store, ledger.models, progress)
    _report(position, checks, as_json)


@app.command()
def rebuild(
    read_models: Annotated[list[str] | None, typer.Argument(help="By default all.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="How many share the work.")] = 1,
    as_json: Json = False,
) -> None:
    """Rebuild read models beside the live ones, compare, and swap them; exit code 1 if one differs."""
    chosen = {name: _projection(name) for name in read_models or PROJECTIONS}
    with opened(Settings()) as ledger, _progress("rebuilding") as progress:
        ledger.projector.catch_up()
        results = rebuild_models(
            ledger.url, ledger.schema, ledger.store, chosen, processes=processes, progress=progress
        )
    if as_json:
        print(_json([exports.plain(result) for result in results]))
    else:
        _print_rebuilt(results)
    sys.exit(0 if all(result.is_live for result in results) else 1)


def _print_rebuilt(results: list[Rebuilt]) -> None:
    for result in results:
        print(f"{result.name:<17} {result.outcome:<10} {result.rows} rows at position {result.position}")
        if result.first:
            print(f"  first difference at {result.first.key}: live {result.first.live}, rebuilt {result.first.rebuilt}")
        if result.error:
            print(f"  {result.error}")


# --- Real orders and the demonstration ----------------------------------------------------------------------------


@imports.command("olist")
def import_olist(
    directory: Annotated[Path, typer.Argument(help="Holds orders.csv.gz and the others.")],
    order: Annotated[str, typer.Option(help="time, or shuffled: every fact is received late by chance.")] = "time",
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 1,
    as_of: Annotated[str, typer.Option(help="The clock goes on until then.")] = "2018-12-01 00:00",
    check: Annotated[Path | None, typer.Option(help="Compare with the tables in this directory.")] = None,
    as_json: Json = False,
) -> None:
    """Import real orders, reliving their history; safe to run again, and after a kill."""
    if order not in ("time", "shuffled"):
        raise BadInput("--order is time or shuffled")
    until = _instant(as_of)
    if check is not None:
        olist_check.require_tables(check)
    with opened(Settings(), recorded_from=calendar.BEGINNING, writes_apart=True) as ledger:
        data = olist.read(directory)
        facts = olist.facts(data, shuffle_seed=seed if order == "shuffled" else None)
        if importing.has_strangers(ledger, facts, data.first_at):
            raise BadInput("the ledger holds other events, recorded after the first of these facts")
        with _progress("importing") as progress:
            tally = importing.run(ledger, facts, until, progress)
        for kind, count in sorted(data.report.items()):
            say(f"{count:>8}  {kind}")
        say(
            f"{tally.accepted} commands accepted, {tally.known} known before, {tally.events} events appended; "
            f"position {ledger.store.head().position}"
        )
        for kind, count in sorted(tally.rejected.items()):
            say(f"{count:>8}  rejected {kind}")
        if check is not None:
            say("building the read models")
            rebuild_models(ledger.url, ledger.schema, ledger.store, importing.not_built(ledger), processes=2)
            ledger.projector.catch_up()
            with ledger.models.snapshot("merchant_months") as snapshot:
                position, months = snapshot.position, list(snapshot.rows("merchant_months"))
            checks = olist_check.check(check, months, ledger.store.scan())
            _report(position, checks, as_json)


@app.command()
def demo(
    merchants: Annotated[int | None, typer.Option(min=plans.LEAST_MERCHANTS, help="How many; by default 12.")] = None,
    orders: Annotated[int | None, typer.Option(min=plans.LEAST_ORDERS, help="How many; by default 300.")] = None,
    seed: Annotated[int | None, typer.Option(help="What chance is drawn from; by default 2015.")] = None,
) -> None:
    """Live a seeded programme through all its mechanisms, then tell its story; exit code 1 if a check finds anything.

    Into an empty ledger, or the one that holds it already: then nothing is appended, and the story is told again."""
    with opened(Settings(), recorded_from=calendar.BEGINNING) as ledger:
        size = running.size_of(ledger, merchants, orders, seed)
        with _progress("living the summer of 2015") as progress:
            made = running.run(ledger, size, progress)
        for kind, count in sorted(made.rejected.items()):
            say(f"{count:>8}  rejected {kind}")
        with _progress("verifying") as progress:
            tale = story.look(ledger, made, story.console(), progress)
        story.tell(tale)
    sys.exit(0 if tale.is_sound else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help=f"One of {', '.join(BENCHMARKS)}; by default all.")] = None,
) -> None:
    """Measure and print ratios, each benchmark in a process of its own; what stands behind NAME is passed on to it."""
    if name is not None and name not in BENCHMARKS:
        raise BadInput(f"no such benchmark: {name}; there are {', '.join(BENCHMARKS)}")
    failed = []
    for module, what in BENCHMARKS.items() if name is None else [(name, BENCHMARKS[name])]:
        say(f"{module}: {what}")
        if subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *context.args]).returncode:
            failed.append(module)
    if failed:
        fail(3, f"could not be measured: {', '.join(failed)}")


# --- Output -------------------------------------------------------------------------------------------------------


def _print_table(table: Table) -> None:
    """Nothing is cut off: a terminal wraps what is long, and whoever reads a file gets it as wide as it is."""
    for column in table.columns:
        column.overflow = "fold"
    Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)


_FILE_WIDTH = 200


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _print_pairs(pairs: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(_json(pairs))
        return
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        text = value if isinstance(value, str) else _json(value)
        print(f"{name:<{width}}  {text}")


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(_json(row))
    elif rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*("" if x is None else str(x) for x in row.values()))
        _print_table(table)


def _report(position: int, checks: list[Check], as_json: bool) -> None:
    """One line a check; exits with 1 if anything differs."""
    if as_json:
        plain = [{"name": x.name, "differences": x.differences, "first": x.first} for x in checks]
        print(_json({"position": position, "checks": plain}))
    else:
        for x in checks:
            note = f"  ({x.note})" if x.note else ""
            print(f"{'ok  ' if x.differences == 0 else 'FAIL'}  {x.differences:>6} differences  {x.name}{note}")
            if x.first:
                print(f"      first: {_json(x.first)}")
        print(f"position {position}")
    sys.exit(1 if any(x.differences for x in checks) else 0)


def _summary(state: Any) -> dict[str, Any]:
    """The plain values of a state, without what is empty."""
    found = {name: replay.plain(getattr(state, name)) for name in state.__struct_fields__}
    return {name: value for name, value in found.items() if isinstance(value, str | int) and value not in ("", False)}


def _brief(data: dict[str, Any]) -> str:
    skipped = {"order_id", "merchant_id", "placed_on"}
    pairs = [f"{k}={v}" for k, v in data.items() if k not in skipped and isinstance(v, str | int) and v is not None]
    return " ".join(pairs)[:80]


def _local(instant: datetime) -> str:
    return instant.astimezone(calendar.ZONE).strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def _progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; the callback takes what is done and what there is in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- Input --------------------------------------------------------------------------------------------------------


def _instant(text: str) -> datetime:
    try:
        return calendar.parse(text)
    except (ValueError, OverflowError):
        raise BadInput(f"not an instant: {text}") from None


def _moment(at: int | None, recorded: str | None, occurred: str | None) -> asof.Moment:
    try:
        recorded_before, occurred_before = (None if text is None else _instant(text) for text in (recorded, occurred))
        return asof.Moment(at, recorded_before, occurred_before)
    except ValueError as error:
        raise BadInput(str(error)) from None


def _position(ledger: Ledger, moment: asof.Moment) -> int:
    """The position at which an answer about a moment is true: the one it names, else the present end of the log."""
    head = ledger.store.head().position
    if moment.position is not None and moment.position > head:
        raise BadInput(f"the log ends at position {head}")
    return head if moment.position is None else moment.position


def _projection(name: str) -> Projection:
    if name not in PROJECTIONS:
        raise BadInput(f"no such read model: {name}; there are {', '.join(PROJECTIONS)}")
    return PROJECTIONS[name]


@contextmanager
def _input(file: str) -> Iterator[Iterable[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
    else:
        with Path(file).open("rb") as stream:
            yield stream


@contextmanager
def _output(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with file.open("wb") as stream:
            yield stream


if __name__ == "__main__":
    main()
