-- name: load_head
-- The head's row of one name; then the end of the hot log and the time of its last append, NULL if it is empty.
SELECT name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms, references_, soft_deleted,
       producer_count, delivered, cursors, reader_key, appended_ms, checksum,
       (SELECT max(end_offset) FROM hot_run WHERE hot_run.incarnation = stream.incarnation),
       (SELECT appended_ms FROM hot_run WHERE hot_run.incarnation = stream.incarnation ORDER BY end_offset DESC LIMIT 1)
  FROM stream WHERE name = ?;

-- name: load_head_of
-- The same of one incarnation.
SELECT name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms, references_, soft_deleted,
       producer_count, delivered, cursors, reader_key, appended_ms, checksum,
       (SELECT max(end_offset) FROM hot_run WHERE hot_run.incarnation = stream.incarnation),
       (SELECT appended_ms FROM hot_run WHERE hot_run.incarnation = stream.incarnation ORDER BY end_offset DESC LIMIT 1)
  FROM stream WHERE incarnation = ?;

-- name: load_heads
-- The same of the names in a JSON array, in any order.
SELECT name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms, references_, soft_deleted,
       producer_count, delivered, cursors, reader_key, appended_ms, checksum,
       (SELECT max(end_offset) FROM hot_run WHERE hot_run.incarnation = stream.incarnation),
       (SELECT appended_ms FROM hot_run WHERE hot_run.incarnation = stream.incarnation ORDER BY end_offset DESC LIMIT 1)
  FROM stream WHERE name IN (SELECT value FROM json_each(?));

-- name: names_after
-- Names of streams that are not soft-deleted: from the first bound on, after the second, before the third; in order.
SELECT name FROM stream WHERE name >= ? AND name > ? AND name < ? AND NOT soft_deleted ORDER BY name LIMIT ?;

-- name: load_producer
-- The row of one producer of an incarnation.
SELECT incarnation, producer_id, epoch, seq, checksum FROM producer WHERE incarnation = ? AND producer_id = ?;

-- name: producers_of
-- The producers of an incarnation in the order of their ids.
SELECT incarnation, producer_id, epoch, seq, checksum FROM producer WHERE incarnation = ? ORDER BY producer_id LIMIT ?;

-- name: save_new_head
-- Save the head of a new incarnation. It replaces the row that the name had.
INSERT OR REPLACE INTO stream (name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms,
                               references_, soft_deleted, producer_count, delivered, cursors, reader_key, appended_ms, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: save_head
-- Save the head of an incarnation that has a row, whole: see checksums.py. The parameters are those of save_new_head.
UPDATE stream SET config = ?3, tail = ?4, closed = ?5, closed_by = ?6, stream_seq = ?7, live_until_ms = ?8,
                  references_ = ?9, soft_deleted = ?10, producer_count = ?11, delivered = ?12, cursors = ?13,
                  reader_key = ?14, appended_ms = ?15, checksum = ?16
 WHERE name = ?1 AND incarnation = ?2;

-- name: remove_head
-- Remove the head of a deleted stream, so that its name is free.
DELETE FROM stream WHERE name = ?;

-- name: newest_birth
-- The latest `born_us` of all incarnations that the store ever had, in microseconds since 1970.
SELECT born_us FROM newest_life;

-- name: save_newest_birth
-- Save the `born_us` of a new incarnation if it is the latest. The next incarnation is born later, even when the clock
-- was set back and no row of this incarnation is left.
UPDATE newest_life SET born_us = ?1, checksum = ?2 WHERE born_us < ?1;

-- name: save_producer
-- Save the state of a producer after its latest batch.
INSERT OR REPLACE INTO producer (incarnation, producer_id, epoch, seq, checksum) VALUES (?, ?, ?, ?, ?);

-- name: undelivered_names
-- Names, after a name, of streams that are not delivered up to their tail; uses the index stream_undelivered.
SELECT name FROM stream WHERE delivered < tail AND name > ? ORDER BY name LIMIT ?;

-- name: add_follower
-- Add an estuary to the followers of an incarnation; its latest subscription counts. Does nothing when the incarnation
-- has ended meanwhile.
INSERT OR REPLACE INTO follower (source, estuary, mode, subscription, checksum)
SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM stream WHERE incarnation = ?1);

-- name: remove_follower
-- Remove an estuary from the followers of an incarnation, unless it has a later subscription.
DELETE FROM follower WHERE source = ? AND estuary = ? AND subscription = ?;

-- name: followers_after
-- The followers of an incarnation whose names come after a name, in order.
SELECT source, estuary, mode, subscription, checksum FROM follower
 WHERE source = ? AND estuary > ? ORDER BY estuary LIMIT ?;

-- name: load_follower
-- One follower of an incarnation.
SELECT source, estuary, mode, subscription, checksum FROM follower WHERE source = ? AND estuary = ?;

-- name: add_hot_range
-- Add a batch range to the hot log.
INSERT INTO hot_run (incarnation, end_offset, start_offset, batch_count, ends, data, appended_ms, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: add_ended_incarnation
-- Leave an ended incarnation to garbage collection.
INSERT OR IGNORE INTO ended_life (incarnation, checksum) VALUES (?, ?);

-- name: hot_ranges_after
-- The batch ranges of a hot log that end after a position, in offset order.
SELECT incarnation, end_offset, start_offset, batch_count, ends, data, appended_ms, checksum FROM hot_run
 WHERE incarnation = ? AND end_offset > ? ORDER BY end_offset;

-- name: hot_log_sizes
-- The hot logs of the incarnations from the first to the last: the bytes, the batches, and whether the stream is closed.
SELECT incarnation, sum(end_offset - start_offset), sum(batch_count),
       coalesce((SELECT closed FROM stream WHERE stream.incarnation = hot_run.incarnation), 0)
  FROM hot_run WHERE incarnation BETWEEN ? AND ? GROUP BY incarnation;

-- name: segment_after
-- The first segment that ends after a position.
SELECT incarnation, end_offset, start_offset, batch_count, layout, checksum FROM segment
 WHERE incarnation = ? AND end_offset > ? ORDER BY end_offset LIMIT 1;

-- name: add_segment
-- Add a segment whose file is complete. Does nothing when the incarnation has ended meanwhile.
INSERT INTO segment (incarnation, end_offset, start_offset, batch_count, layout, checksum)
SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM stream WHERE incarnation = ?1);

-- name: remove_hot_ranges
-- Remove the batch ranges of a hot log that end at or before a position, because a segment holds them now.
DELETE FROM hot_run WHERE incarnation = ? AND end_offset <= ?;

-- name: has_segment
-- Whether the database refers to a segment file.
SELECT 1 FROM segment WHERE incarnation = ? AND end_offset = ? AND start_offset = ?;

-- name: has_incarnation
-- Whether an incarnation has not ended; it may be soft-deleted.
SELECT 1 FROM stream WHERE incarnation = ?;

-- name: expired_names
-- Deadlines that have passed, and the names of their streams: after a deadline and a name, without soft-deleted streams.
SELECT live_until_ms, name FROM stream INDEXED BY stream_by_deadline
 WHERE live_until_ms <= ? AND (live_until_ms, name) > (?, ?) AND NOT soft_deleted
 ORDER BY live_until_ms, name LIMIT ?;

-- name: ended_incarnations
-- Ended incarnations, after an incarnation, that garbage collection has not deleted yet.
SELECT incarnation FROM ended_life WHERE incarnation > ? ORDER BY incarnation LIMIT ?;

-- name: segments_of
-- The segments of an incarnation.
SELECT start_offset, end_offset FROM segment WHERE incarnation = ? LIMIT ?;

-- name: remove_some_hot_ranges
-- Delete some rows of an ended incarnation, so few that no group commit waits long.
DELETE FROM hot_run WHERE (incarnation, end_offset) IN
    (SELECT incarnation, end_offset FROM hot_run WHERE incarnation = ? LIMIT ?);

-- name: remove_some_producers
-- Delete some rows of an ended incarnation, so few that no group commit waits long.
DELETE FROM producer WHERE (incarnation, producer_id) IN
    (SELECT incarnation, producer_id FROM producer WHERE incarnation = ? LIMIT ?);

-- name: remove_some_followers
-- Delete some rows of an ended incarnation, so few that no group commit waits long.
DELETE FROM follower WHERE (source, estuary) IN (SELECT source, estuary FROM follower WHERE source = ? LIMIT ?);

-- name: remove_segment
-- Delete the row of an ended incarnation's segment after its file was deleted.
DELETE FROM segment WHERE incarnation = ? AND end_offset = ?;

-- name: remove_ended_incarnation
-- Garbage collection has deleted everything of an ended incarnation.
DELETE FROM ended_life WHERE incarnation = ?;

-- name: stream_count
-- Streams that are listed. It reads all of them, so it is asked off the event loop.
SELECT count(*) FROM stream WHERE NOT soft_deleted;

-- name: segment_bytes
-- The batches' bytes in all segment files.
SELECT coalesce(sum(end_offset - start_offset), 0) FROM segment;

-- name: load_subscription
-- One subscription, without its links.
SELECT key, incarnation, version, due_ms, body, checksum FROM subscription WHERE key = ?;

-- name: load_links
-- The links of one subscription, in the order of their paths.
SELECT key, path, acked_born_us, acked_position, kinds, checksum FROM subscription_link WHERE key = ? ORDER BY path;

-- name: add_subscription
-- Add a subscription, unless its key is taken.
INSERT OR IGNORE INTO subscription (key, incarnation, version, due_ms, body, checksum) VALUES (?, ?, ?, ?, ?, ?);

-- name: save_subscription
-- Save the next version of a subscription, if its present one is known.
UPDATE subscription SET version = ?3, due_ms = ?4, body = ?5, checksum = ?6
 WHERE key = ?1 AND incarnation = ?2 AND version = ?7;

-- name: remove_subscription
-- Delete one incarnation of a subscription.
DELETE FROM subscription WHERE key = ? AND incarnation = ?;

-- name: save_link
-- Add a link, or move it.
INSERT OR REPLACE INTO subscription_link (key, path, acked_born_us, acked_position, kinds, checksum)
VALUES (?, ?, ?, ?, ?, ?);

-- name: remove_link
-- Delete a link.
DELETE FROM subscription_link WHERE key = ? AND path = ?;

-- name: remove_links
-- Delete all links of a subscription.
DELETE FROM subscription_link WHERE key = ?;

-- name: subscription_keys_after
-- Keys that begin with a stream root, from one key to the highest, after another, in their order.
SELECT key FROM subscription WHERE key >= ?1 AND key > ?2 AND key < ?3 ORDER BY key LIMIT ?4;

-- name: due_subscriptions
-- When subscriptions must be looked at, after a moment and a key, the earliest first.
SELECT due_ms, key FROM subscription WHERE due_ms IS NOT NULL AND (due_ms, key) > (?, ?) ORDER BY due_ms, key LIMIT ?;
