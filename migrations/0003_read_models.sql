-- The read models: which generation of which table is live, and how far into the log it has been folded.
--
-- The tables themselves are named <name>__<generation> and made by the projections, from the type of their rows.  All
-- of it can be thrown away and folded again from the log.

CREATE TABLE read_models (
    version        integer NOT NULL,
    generation     integer NOT NULL CHECK (generation >= 1),
    position       bigint  NOT NULL CHECK (position >= 0),
    error_position bigint,
    name           text    COLLATE "C" NOT NULL PRIMARY KEY,
    error_stream   text    COLLATE "C",
    error          text
) WITH (fillfactor = 50);
