-- How far those who follow the log (and are no read model) have come.  A loss costs time, not correctness: what they do
-- carries a key, and is done once.

CREATE TABLE followers (
    name     text   COLLATE "C" NOT NULL PRIMARY KEY,
    position bigint NOT NULL CHECK (position >= 0)
);
