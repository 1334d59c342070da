-- The log: every event of the ledger, once, in one order, for ever.
--
-- Table and columns are named as the eventsourcing package reads them (originator_id is the stream, notification_id
-- the position); the view "events" says the same in the ledger's own words.  Nothing has a default: every value is
-- supplied by the writer, so that the same schema also runs where tables are spread over machines.

CREATE TABLE ledger_events (
    notification_id    bigint      NOT NULL CHECK (notification_id >= 1),
    originator_version bigint      NOT NULL CHECK (originator_version >= 1),
    occurred_at        timestamptz NOT NULL,
    received_at        timestamptz NOT NULL,
    recorded_at        timestamptz NOT NULL,
    originator_id      text        COLLATE "C" NOT NULL,
    topic              text        COLLATE "C" NOT NULL,
    actor              text        COLLATE "C" NOT NULL,
    role               text        COLLATE "C" NOT NULL,
    key                text        COLLATE "C",
    correlation_id     text        COLLATE "C" NOT NULL,
    causation          text        COLLATE "C",
    source             text        COLLATE "C",
    rule               text        COLLATE "C",
    state              bytea       NOT NULL,
    chain_sha256       bytea       NOT NULL CHECK (octet_length(chain_sha256) = 32),
    CHECK (recorded_at >= received_at),
    PRIMARY KEY (originator_id, originator_version)
);

CREATE UNIQUE INDEX ledger_events_notification_id_idx ON ledger_events (notification_id);

-- One row per accepted command: asked twice, it answers from here.
CREATE TABLE commands (
    first_version bigint      NOT NULL CHECK (first_version >= 1),
    version       bigint      NOT NULL CHECK (version >= 0),
    position      bigint      NOT NULL CHECK (position >= 0),
    recorded_at   timestamptz NOT NULL,
    key           text        COLLATE "C" NOT NULL PRIMARY KEY,
    stream        text        COLLATE "C" NOT NULL,
    body_sha256   bytea       NOT NULL CHECK (octet_length(body_sha256) = 32),
    CHECK (version >= first_version - 1)
);

-- The end of the log.  Whoever appends locks this row first: hence one order, no gaps, one chain.
CREATE TABLE head (
    id           smallint    NOT NULL PRIMARY KEY CHECK (id = 1),
    position     bigint      NOT NULL CHECK (position >= 0),
    recorded_at  timestamptz NOT NULL,
    chain_sha256 bytea       NOT NULL CHECK (octet_length(chain_sha256) = 32)
);

INSERT INTO head (id, position, recorded_at, chain_sha256)
VALUES (1, 0, '0001-01-01 00:00:00+00', decode(repeat('00', 32), 'hex'));

-- The log in the ledger's words, for auditors.
CREATE VIEW events AS
SELECT notification_id AS position,
       originator_id AS stream,
       originator_version AS version,
       topic AS type,
       occurred_at,
       received_at,
       recorded_at,
       actor,
       role,
       key,
       correlation_id,
       causation,
       source,
       rule,
       convert_from(state, 'UTF8')::json AS data,
       chain_sha256
FROM ledger_events;
