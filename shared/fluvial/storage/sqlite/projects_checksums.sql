-- A checksum in every row, over the row's other columns; see checksums.py.

ALTER TABLE project ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage   ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;

UPDATE project SET checksum = row_checksum(name, life, version, project);
UPDATE usage SET checksum = row_checksum(name, day, byte_count);
