-- The reader key of a stream's pages in caches. Older streams have none until they are given one.

ALTER TABLE stream ADD COLUMN reader_key TEXT;
