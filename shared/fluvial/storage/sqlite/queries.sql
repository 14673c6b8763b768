-- name: load_head
-- The head of one name; its tail is where the hot log ends, unless that is empty.
SELECT incarnation, config, max(tail, coalesce((SELECT max(end_offset) FROM hot_run
                                                 WHERE hot_run.incarnation = stream.incarnation), 0)),
       closed, closed_by, stream_seq, live_until_ms, references_, soft_deleted, producer_count, delivered, cursors,
       reader_key
  FROM stream WHERE name = ?;

-- name: names_after
-- Names from a first one on, after another one, and before a last one, of streams that can be seen.
SELECT name FROM stream WHERE name >= ? AND name > ? AND name < ? AND NOT soft_deleted ORDER BY name LIMIT ?;

-- name: load_producer
-- How far one producer of one life has got.
SELECT epoch, seq FROM producer WHERE incarnation = ? AND producer_id = ?;

-- name: save_new_head
-- A head with all that it has, in the place of whatever was at its name.
INSERT OR REPLACE INTO stream (name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms,
                               references_, soft_deleted, producer_count, delivered, cursors, reader_key)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: save_head
-- What can change in a life.
UPDATE stream SET tail = ?, closed = ?, closed_by = ?, stream_seq = ?, live_until_ms = ?, references_ = ?,
                  soft_deleted = ?, producer_count = ?, delivered = ?, cursors = ?, reader_key = ?
 WHERE name = ?;

-- name: remove_head
-- A name becomes free.
DELETE FROM stream WHERE name = ?;

-- name: newest_life
-- After which moment the next life begins, in microseconds since 1970.
SELECT born_us FROM newest_life;

-- name: save_newest_life
-- A life has begun; its name's next one begins later, also when the clock was set back and nothing is left of this one.
UPDATE newest_life SET born_us = max(born_us, ?);

-- name: save_producer
-- A producer has got further.
INSERT OR REPLACE INTO producer (incarnation, producer_id, epoch, seq) VALUES (?, ?, ?, ?);

-- name: undelivered
-- Names after a name of streams whose followers may lack something; uses stream_undelivered.
SELECT name FROM stream WHERE delivered < tail AND name > ? ORDER BY name LIMIT ?;

-- name: add_follower
-- An estuary follows a life, by its latest subscription; nothing happens when the life has ended meanwhile.
INSERT OR REPLACE INTO follower (source, estuary, mode, subscription)
SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM stream WHERE incarnation = ?1);

-- name: remove_follower
-- An estuary follows a life no more, if it still does by this subscription.
DELETE FROM follower WHERE source = ? AND estuary = ? AND subscription = ?;

-- name: followers_after
-- The followers of a life after an estuary, in order.
SELECT estuary, mode, subscription FROM follower WHERE source = ? AND estuary > ? ORDER BY estuary LIMIT ?;

-- name: follower
-- One follower of a life.
SELECT estuary, mode, subscription FROM follower WHERE source = ? AND estuary = ?;

-- name: add_hot_run
-- Batches that were just committed.
INSERT INTO hot_run (incarnation, end_offset, start_offset, batch_count, ends, data) VALUES (?, ?, ?, ?, ?, ?);

-- name: add_ended_life
-- What is left of a life waits for its collection.
INSERT OR IGNORE INTO ended_life (incarnation) VALUES (?);

-- name: hot_runs_after
-- The hot runs that end after a position, in offset order.
SELECT start_offset, end_offset, ends, data FROM hot_run
 WHERE incarnation = ? AND end_offset > ? ORDER BY end_offset;

-- name: hot_size
-- How much of a life is in the hot log: bytes and batches.
SELECT coalesce(sum(end_offset - start_offset), 0), coalesce(sum(batch_count), 0) FROM hot_run WHERE incarnation = ?;

-- name: overfull_lives
-- Lives whose hot log a rotation is due for: full, or of a closed stream.
SELECT hot_run.incarnation FROM hot_run LEFT JOIN stream USING (incarnation)
 GROUP BY hot_run.incarnation
HAVING sum(hot_run.end_offset - hot_run.start_offset) >= ? OR sum(hot_run.batch_count) >= ? OR max(stream.closed);

-- name: overfull_life
-- One life, if a rotation is due for what its hot log still holds.
SELECT hot_run.incarnation FROM hot_run LEFT JOIN stream USING (incarnation)
 WHERE hot_run.incarnation = ?
 GROUP BY hot_run.incarnation
HAVING sum(hot_run.end_offset - hot_run.start_offset) >= ? OR sum(hot_run.batch_count) >= ? OR max(stream.closed);

-- name: segment_after
-- The first segment that ends after a position.
SELECT start_offset, end_offset, batch_count FROM segment
 WHERE incarnation = ? AND end_offset > ? ORDER BY end_offset LIMIT 1;

-- name: add_segment
-- A segment file is complete; nothing happens when the life has ended meanwhile.
INSERT INTO segment (incarnation, end_offset, start_offset, batch_count)
SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM stream WHERE incarnation = ?1);

-- name: cut_hot_runs
-- What a segment file holds now leaves the hot log.
DELETE FROM hot_run WHERE incarnation = ? AND end_offset <= ?;

-- name: note_tail
-- What leaves the hot log still counts to the tail.
UPDATE stream SET tail = max(tail, ?) WHERE incarnation = ?;

-- name: has_segment
-- Whether a segment file is in use.
SELECT 1 FROM segment WHERE incarnation = ? AND end_offset = ? AND start_offset = ?;

-- name: has_life
-- Whether a life still goes on, visible or hidden.
SELECT 1 FROM stream WHERE incarnation = ?;

-- name: expired_names
-- Deadlines that have passed, after a deadline and a name, of streams that are not hidden already.
SELECT live_until_ms, name FROM stream INDEXED BY stream_by_deadline
 WHERE live_until_ms <= ? AND (live_until_ms, name) > (?, ?) AND NOT soft_deleted
 ORDER BY live_until_ms, name LIMIT ?;

-- name: ended_lives
-- Lives after a life that wait for their collection.
SELECT incarnation FROM ended_life WHERE incarnation > ? ORDER BY incarnation LIMIT ?;

-- name: segments_of
-- Every segment of a life.
SELECT start_offset, end_offset FROM segment WHERE incarnation = ? LIMIT ?;

-- name: remove_some_hot_runs
-- A part of an ended life, small enough not to hold up a group commit.
DELETE FROM hot_run WHERE (incarnation, end_offset) IN
    (SELECT incarnation, end_offset FROM hot_run WHERE incarnation = ? LIMIT ?);

-- name: remove_some_producers
-- A part of an ended life, small enough not to hold up a group commit.
DELETE FROM producer WHERE (incarnation, producer_id) IN
    (SELECT incarnation, producer_id FROM producer WHERE incarnation = ? LIMIT ?);

-- name: remove_some_followers
-- A part of an ended life, small enough not to hold up a group commit.
DELETE FROM follower WHERE (source, estuary) IN (SELECT source, estuary FROM follower WHERE source = ? LIMIT ?);

-- name: remove_segment
-- A segment of an ended life, whose file is gone.
DELETE FROM segment WHERE incarnation = ? AND end_offset = ?;

-- name: remove_ended_life
-- Nothing is left of the life.
DELETE FROM ended_life WHERE incarnation = ?;
