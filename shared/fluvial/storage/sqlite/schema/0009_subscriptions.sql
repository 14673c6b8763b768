-- Subscriptions (spec 6 and 7), and the streams that they are linked to.

CREATE TABLE subscription (
    key         TEXT    NOT NULL PRIMARY KEY, -- the stream root, `__ds/`, the id
    incarnation INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    due_ms      INTEGER,                      -- when it must be looked at; NULL when nothing has to happen
    body        BLOB    NOT NULL,             -- everything but the links, as JSON
    checksum    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX subscription_due ON subscription (due_ms) WHERE due_ms IS NOT NULL;

CREATE TABLE subscription_link (
    key            TEXT    NOT NULL,
    path           TEXT    NOT NULL,
    acked_born_us  INTEGER NOT NULL, -- the acked offset
    acked_position INTEGER NOT NULL,
    kinds          INTEGER NOT NULL, -- 1: explicit, 2: a match of the pattern, 3: both
    checksum       INTEGER NOT NULL,
    PRIMARY KEY (key, path)
) WITHOUT ROWID;
