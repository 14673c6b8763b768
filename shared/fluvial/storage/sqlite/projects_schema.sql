-- Projects, and the bytes that each has appended on its latest day.

CREATE TABLE IF NOT EXISTS project (
    name    TEXT    NOT NULL PRIMARY KEY,
    life    INTEGER NOT NULL,
    version INTEGER NOT NULL,
    project BLOB    -- as JSON; NULL once it has ended
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS usage (
    name       TEXT    NOT NULL PRIMARY KEY,
    day        INTEGER NOT NULL, -- since 1970
    byte_count INTEGER NOT NULL
) WITHOUT ROWID;
