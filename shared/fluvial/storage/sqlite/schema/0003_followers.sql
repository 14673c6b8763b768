-- Estuaries (fan-in streams): their followers, and how far each source was delivered.

ALTER TABLE stream ADD COLUMN delivered INTEGER; -- NULL while the stream has no follower
ALTER TABLE stream ADD COLUMN cursors   BLOB;    -- of an estuary: source -> [incarnation, position], as JSON

CREATE INDEX stream_undelivered ON stream (name) WHERE delivered < tail;

CREATE TABLE follower (
    source       INTEGER NOT NULL, -- the incarnation of the followed life
    estuary      TEXT    NOT NULL,
    mode         TEXT    NOT NULL,
    subscription BLOB    NOT NULL,
    PRIMARY KEY (source, estuary)
) WITHOUT ROWID;
