-- Heads, the newest batches, and the states of producers.

CREATE TABLE stream (
    name           TEXT    NOT NULL PRIMARY KEY,
    incarnation    INTEGER NOT NULL UNIQUE,
    config         BLOB    NOT NULL, -- what never changes in a life, as JSON
    tail           INTEGER NOT NULL,
    closed         INTEGER NOT NULL,
    closed_by      BLOB,             -- the closing producer's stamp, as JSON
    stream_seq     TEXT,
    live_until_ms  INTEGER,
    references_    INTEGER NOT NULL,
    soft_deleted   INTEGER NOT NULL,
    producer_count INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX stream_by_deadline ON stream (live_until_ms) WHERE live_until_ms IS NOT NULL;

-- The hot log: one row holds the batches that one group commit added to one stream.
CREATE TABLE hot_run (
    incarnation  INTEGER NOT NULL,
    end_offset   INTEGER NOT NULL,
    start_offset INTEGER NOT NULL,
    batch_count  INTEGER NOT NULL,
    ends         BLOB,             -- where each batch ends, 64-bit little-endian; NULL for a single batch
    data         BLOB    NOT NULL,
    PRIMARY KEY (incarnation, end_offset)
) WITHOUT ROWID;

CREATE TABLE producer (
    incarnation INTEGER NOT NULL,
    producer_id TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    PRIMARY KEY (incarnation, producer_id)
) WITHOUT ROWID;
