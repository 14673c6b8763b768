-- name: begin_adoption
-- Create the table of the streams to adopt, with their new names.
CREATE TEMP TABLE adopted (name TEXT NOT NULL PRIMARY KEY, new_name TEXT NOT NULL) WITHOUT ROWID;

-- name: adopt_names
-- Choose all streams whose names begin with a prefix.
INSERT OR IGNORE INTO adopted SELECT name, :project || '/' || name FROM stream
 WHERE name >= :prefix AND name < :prefix || char(127);

-- name: spare_project
-- Leave out the streams that belong to a project already; 0 is the character after the slash.
DELETE FROM adopted WHERE name > :project || '/' AND name < :project || '0';

-- name: adopted_names
-- The number of chosen streams, and the first names.
SELECT count(*) OVER (), name FROM adopted ORDER BY name LIMIT ?;

-- name: taken_name
-- A new name that another stream has.
SELECT adopted.new_name FROM adopted JOIN stream ON stream.name = adopted.new_name LIMIT 1;

-- name: long_name
-- A stream whose new name would be too long.
SELECT name FROM adopted WHERE length(new_name) > ? LIMIT 1;

-- name: rename_streams
-- Give each chosen stream its new name. Its bytes and producers stay where they are: their key is the incarnation.
UPDATE stream SET name = (SELECT new_name FROM adopted WHERE adopted.name = stream.name)
 WHERE name IN (SELECT name FROM adopted);

-- name: rename_followers
-- Give followers that are chosen streams their new names.
UPDATE OR REPLACE follower SET estuary = (SELECT new_name FROM adopted WHERE adopted.name = follower.estuary)
 WHERE estuary IN (SELECT name FROM adopted);

-- name: references_by_name
-- The streams that hold names of other streams: forks that of their source, estuaries those of their sources.
SELECT name, config, cursors FROM stream WHERE cursors IS NOT NULL OR instr(config, '"origin"');

-- name: new_name
-- The new name of a stream.
SELECT new_name FROM adopted WHERE name = ?;

-- name: save_references
-- Save the new names of other streams in a stream's row.
UPDATE stream SET config = ?, cursors = ? WHERE name = ?;

-- name: damaged_row
-- A row whose checksum is wrong; adoption would give it a valid one.
SELECT name FROM stream
 WHERE checksum <> row_checksum(name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms,
                                references_, soft_deleted, producer_count, delivered, cursors, reader_key, appended_ms)
UNION ALL
SELECT estuary FROM follower WHERE checksum <> row_checksum(source, estuary, mode, subscription) LIMIT 1;

-- name: save_stream_checksums
-- Save the checksums of the streams' rows that have changed.
UPDATE stream SET checksum = row_checksum(name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms,
                                          references_, soft_deleted, producer_count, delivered, cursors, reader_key,
                                          appended_ms)
 WHERE checksum <> row_checksum(name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms,
                                references_, soft_deleted, producer_count, delivered, cursors, reader_key, appended_ms);

-- name: save_follower_checksums
-- Save the checksums of the followers' rows that have changed.
UPDATE follower SET checksum = row_checksum(source, estuary, mode, subscription)
 WHERE checksum <> row_checksum(source, estuary, mode, subscription);
