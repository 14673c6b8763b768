-- What caches may keep a stream's pages under; a stream of before has none until it is given one.

ALTER TABLE stream ADD COLUMN reader_key TEXT;
