-- Old batches move to segment files. Garbage collection deletes the rows and files of ended incarnations.

CREATE TABLE segment (
    incarnation  INTEGER NOT NULL,
    end_offset   INTEGER NOT NULL,
    start_offset INTEGER NOT NULL,
    batch_count  INTEGER NOT NULL,
    PRIMARY KEY (incarnation, end_offset)
) WITHOUT ROWID;

CREATE TABLE ended_life (
    incarnation INTEGER NOT NULL PRIMARY KEY
) WITHOUT ROWID;
