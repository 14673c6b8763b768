-- The keys that sign webhooks: one row.

CREATE TABLE signing_keys (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version  INTEGER NOT NULL,
    ring     BLOB    NOT NULL, -- as JSON
    checksum INTEGER NOT NULL
)
