-- A checksum in every row, over the row's other columns. Rows of older servers get theirs now, so that each row has one.
-- Segment files of layout 1 are older and have none inside.

ALTER TABLE stream      ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hot_run     ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE producer    ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE follower    ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segment     ADD COLUMN layout   INTEGER NOT NULL DEFAULT 1;
ALTER TABLE segment     ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ended_life  ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE newest_life ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;

UPDATE stream SET checksum = row_checksum(name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms,
                                          references_, soft_deleted, producer_count, delivered, cursors, reader_key,
                                          appended_ms);
UPDATE hot_run SET checksum = row_checksum(incarnation, end_offset, start_offset, batch_count, ends, data, appended_ms);
UPDATE producer SET checksum = row_checksum(incarnation, producer_id, epoch, seq);
UPDATE follower SET checksum = row_checksum(source, estuary, mode, subscription);
UPDATE segment SET checksum = row_checksum(incarnation, end_offset, start_offset, batch_count, layout);
UPDATE ended_life SET checksum = row_checksum(incarnation);
UPDATE newest_life SET checksum = row_checksum(born_us);
