-- The time of a stream's last append. An append writes it with its batches; the head's row has it as of its last change.

ALTER TABLE stream  ADD COLUMN appended_ms INTEGER;
ALTER TABLE hot_run ADD COLUMN appended_ms INTEGER;
