"""The eventsourcing package around the log: its users write through the same head row and read the same events.

``PERSISTENCE_MODULE=ledger.log_library`` chooses it; ``LedgerApplication`` does so by itself.  What the package gives
is kept (Application, EventStore, Repository, notification log, subscription, errors); what it writes goes through
``LogWriter``, so that positions have no gaps and nobody skips an event whoever wrote it.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, cast

import msgspec
import psycopg
from eventsourcing import persistence, postgres
from eventsourcing.application import Application
from eventsourcing.persistence import StoredEvent
from eventsourcing.utils import Environment, EnvType
from psycopg import sql
from psycopg.rows import dict_row

from ledger import upcasters
from ledger.events import Event, Wire
from ledger.log import Answer, Appended, Encoded, EncodedEvent, Unwritable
from ledger.log_apart import WriterApart
from ledger.log_writer import Connection, LogWriter

SCHEMA = "guarantee_ledger"
EVENTS_TABLE = "ledger_events"

_NO_SUCH_ROLE = ("22023", "42501", "42704")
"""SQLSTATEs of a role that is not there, or not ours to take."""


def system_clock() -> datetime:
    """The instant now, in UTC."""
    return datetime.now(UTC)


class LedgerDatastore(postgres.PostgresDatastore):
    """The package's connection pool, on a URL, with every connection set up for one ledger's schema."""

    def __init__(self, url: str, schema: str = SCHEMA, *, writer_role: bool = True, pool_size: int = 10) -> None:
        self.url, self.writer_role = url, writer_role
        super().__init__(
            "", "", "", "", "", schema=schema, originator_id_type="text", pool_size=0, max_overflow=pool_size,
            idle_in_transaction_session_timeout=10,
        )  # fmt: skip
        self.pool.conninfo = url
        self.pool.kwargs = {"row_factory": dict_row}

    def connect(self) -> Connection:
        """A connection of its own, beside the pool."""
        connection: Connection = psycopg.connect(self.url, connect_timeout=5)
        self.after_connect_func()(connection)
        return connection

    def after_connect_func(self) -> Callable[[psycopg.Connection[Any]], None]:
        basics = super().after_connect_func()
        settings = sql.SQL(_SETTINGS).format(schema=sql.Identifier(self.schema))
        role = sql.SQL("SET ROLE {}").format(sql.Identifier(writer_role(self.schema)))
        is_role_wanted = self.writer_role

        def after_connect(connection: psycopg.Connection[Any]) -> None:
            basics(connection)
            connection.execute(settings)
            if is_role_wanted:
                _take_role(connection, role)

        return after_connect

    def register_type_adapters(self) -> None:
        """Nothing: no composite type is used, so none is looked for."""


_SETTINGS = """
    SET search_path TO {schema};
    SET application_name TO 'guarantee-ledger';
    SET timezone TO 'UTC';
    SET tcp_keepalives_idle TO 10;
    SET tcp_keepalives_interval TO 5;
    SET tcp_keepalives_count TO 3;
    SET lock_timeout TO '10s';
    SET enable_seqscan TO off;
    SET plan_cache_mode TO force_generic_plan;
    SET jit TO off
"""
# Every query of the log has an index.  A log that grew by a million events since it was last analysed must not be read
# from end to end because a plan still takes it for small.


def writer_role(schema: str) -> str:
    """The role that may add to the log of ``schema`` and change nothing."""
    return f"{schema}_writer"


def _take_role(connection: psycopg.Connection[Any], role: sql.Composed) -> None:
    """Gives up all rights but the writer's, where the database has that role; ``verify`` tells where it has not."""
    try:
        connection.execute(role)
    except psycopg.Error as error:
        if error.sqlstate not in _NO_SUCH_ROLE:
            raise


class LedgerEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the package wants to see it: with the names it uses for stream and version."""

    originator_id: str
    originator_version: int
    data: Event


class LedgerMapper(persistence.Mapper[str]):
    """Between ``LedgerEvent`` and what is stored: the wire's names and bytes, never Python paths."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(transcoder=persistence.JSONTranscoder())
        self.wire = wire

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        data = domain_event.data
        return StoredEvent(
            domain_event.originator_id, domain_event.originator_version, type(data).__name__, self.wire.encode(data)
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        data = upcasters.decode(self.wire, stored_event.state)
        return LedgerEvent(cast(str, stored_event.originator_id), stored_event.originator_version, data)


class LedgerRecorder(postgres.PostgresApplicationRecorder):
    """The package's recorder with the ledger's way of writing."""

    datastore: LedgerDatastore

    def __init__(
        self,
        datastore: LedgerDatastore,
        *,
        events_table_name: str = EVENTS_TABLE,
        now: Callable[[], datetime] = system_clock,
        retry_seconds: float = 30.0,
        writes_apart: bool = False,
    ) -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.channel_name = datastore.schema
        self.now = now
        self.writer: LogWriter | WriterApart = (
            WriterApart(datastore.url, datastore.schema, datastore.writer_role, now, retry_seconds)
            if writes_apart
            else LogWriter(datastore.connect, now, self.channel_name, retry_seconds)
        )

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Writes all or nothing and returns the positions; ``IntegrityError`` on a conflict of versions or keys.

        ``kwargs`` are metadata: actor, role, key and body_sha256, correlation_id, source, occurred_at, received_at,
        rule, causation.
        """
        if not stored_events:
            return []
        metadata = _Metadata.of(kwargs, self.now())
        batch = list(metadata.appends(stored_events))
        return [position for answer in self.writer.write(batch, "whole") for position in _positions(answer)]

    def close(self) -> None:
        """Closes the writing connection and the pool."""
        self.writer.close()
        self.datastore.close()


class _Metadata(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the package's callers may say about the events they save, and what is recorded if they do not."""

    occurred_at: datetime
    received_at: datetime
    actor: str = "library"
    role: str = "library"
    key: str | None = None
    body_sha256: bytes | None = None
    correlation_id: str = "library"
    source: str | None = None
    rule: str | None = None
    causation: str | None = None

    @classmethod
    def of(cls, given: dict[str, Any], now: datetime) -> "_Metadata":
        if given.pop("tracking", None) is not None:
            raise persistence.NotSupportedError(
                "the ledger keeps checkpoints with its projections, not with its events"
            )
        return cls(**({"occurred_at": now, "received_at": now} | given))

    def appends(self, stored_events: Sequence[StoredEvent]) -> Iterator[Encoded]:
        """One append for each run of events to one stream, in order; the command's record goes with the first."""
        key, body_sha256 = self.key, self.body_sha256
        for stream, run in groupby(stored_events, key=lambda stored: cast(str, stored.originator_id)):
            stored = list(run)
            _check_run(stored)
            events = [
                EncodedEvent(x.topic, x.state, self.occurred_at, self.received_at, self.rule, self.causation)
                for x in stored
            ]
            yield Encoded(
                stream, stored[0].originator_version - 1, events, self.actor, self.role, key, body_sha256,
                self.correlation_id, self.source,
            )  # fmt: skip
            key = body_sha256 = None


def _check_run(stored: Sequence[StoredEvent]) -> None:
    """The package would store any version and any bytes; the log holds contiguous versions and wire data only."""
    for version, event in enumerate(stored, start=stored[0].originator_version):
        if event.originator_version != version:
            raise persistence.IntegrityError(f"{event.originator_id}: version {version} is missing")
        if not event.state.startswith(b'{"type":"%s"' % event.topic.encode()):
            raise persistence.DataError(f"{event.originator_id}: not the wire form of an event called {event.topic}")


def _positions(answer: Answer) -> Sequence[int]:
    if isinstance(answer, Unwritable):
        raise persistence.DataError(str(answer)) from answer
    if not isinstance(answer, Appended):
        raise persistence.IntegrityError(str(answer)) from answer
    count = answer.version - answer.first_version + 1
    return range(answer.position - count + 1, answer.position + 1)


class LedgerFactory(persistence.InfrastructureFactory[postgres.PostgresTrackingRecorder]):
    """Makes the package's parts for a ledger.  Settings: GUARANTEE_DATABASE_URL, POSTGRES_SCHEMA."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        url = self.env.get("GUARANTEE_DATABASE_URL")
        if url is None:
            raise persistence.InfrastructureFactoryError("GUARANTEE_DATABASE_URL is not set")
        self.datastore = LedgerDatastore(url, self.env.get("POSTGRES_SCHEMA") or SCHEMA)

    def application_recorder(self) -> LedgerRecorder:
        """The recorder of the log; migrations have made its tables."""
        return LedgerRecorder(self.datastore)

    def aggregate_recorder(self, purpose: str = "events") -> persistence.AggregateRecorder:
        """Not supported: the ledger has one log, and takes no snapshots."""
        raise persistence.NotSupportedError(purpose)

    def tracking_recorder(self, tracking_recorder_class: Any = None) -> postgres.PostgresTrackingRecorder:
        """Not supported: projections keep their checkpoints with their rows."""
        raise persistence.NotSupportedError(str(tracking_recorder_class))

    def process_recorder(self) -> persistence.ProcessRecorder:
        """Not supported, for the same reason."""
        raise persistence.NotSupportedError("process recorder")

    def close(self) -> None:
        """Closes the pool."""
        self.datastore.close()


class LedgerApplication(Application[str]):
    """An application of the eventsourcing package on the ledger at ``url``; its events are ``LedgerEvent``."""

    name = "ledger"

    def __init__(self, url: str, wire: Wire, schema: str = SCHEMA) -> None:
        self.wire = wire
        super().__init__(
            {
                "PERSISTENCE_MODULE": "ledger.log_library:LedgerFactory",
                "GUARANTEE_DATABASE_URL": url,
                "POSTGRES_SCHEMA": schema,
            }
        )

    def construct_mapper(self) -> LedgerMapper:
        """The wire's mapper."""
        return LedgerMapper(self.wire)

    def close(self) -> None:
        """Closes every connection."""
        cast(LedgerRecorder, self.recorder).close()
        super().close()
