-- name: project
-- One project, unless it was deleted.
SELECT name, life, version, project, checksum FROM project WHERE name = ? AND project IS NOT NULL;

-- name: put_project
-- Replace a project by its next version, or add the first version of a project where none exists.
INSERT INTO project (name, life, version, project, checksum)
SELECT :name, :life, :version, :project, row_checksum(:name, :life, :version, :project)
 WHERE :version = 1 OR EXISTS (SELECT 1 FROM project WHERE name = :name)
ON CONFLICT (name) DO UPDATE SET life = :life, version = :version, project = :project,
                                checksum = excluded.checksum
 WHERE CASE WHEN project.project IS NULL THEN :version = 1
            ELSE project.life = :life AND project.version = :version - 1 END;

-- name: end_project
-- Delete a project. Its row stays, so that `any_project` still finds it.
UPDATE project SET project = NULL, checksum = row_checksum(name, life, version, NULL)
 WHERE name = :name AND life = :life AND version = :version AND project IS NOT NULL;

-- name: projects_after
-- Projects whose names come after a name, in order.
SELECT name, life, version, project, checksum FROM project
 WHERE name > ? AND project IS NOT NULL ORDER BY name LIMIT ?;

-- name: any_project
-- Whether a project exists or existed.
SELECT 1 FROM project LIMIT 1;

-- name: add_usage
-- Add to the bytes that a project has appended on a day; returns the day's sum.
INSERT INTO usage (name, day, byte_count, checksum)
VALUES (:name, :day, :byte_count, row_checksum(:name, :day, :byte_count))
ON CONFLICT (name) DO UPDATE SET day = :day,
    byte_count = :byte_count + CASE WHEN usage.day = :day THEN usage.byte_count ELSE 0 END,
    checksum = row_checksum(:name, :day,
                            :byte_count + CASE WHEN usage.day = :day THEN usage.byte_count ELSE 0 END)
RETURNING byte_count;

-- name: signing_keys
-- The keys that sign webhooks.
SELECT id, version, ring, checksum FROM signing_keys;

-- name: put_signing_keys
-- Replace the keys by their next version, or add the first one.
INSERT INTO signing_keys (id, version, ring, checksum)
SELECT 1, :version, :ring, row_checksum(1, :version, :ring)
 WHERE :version = 1 OR EXISTS (SELECT 1 FROM signing_keys)
ON CONFLICT (id) DO UPDATE SET version = :version, ring = :ring, checksum = excluded.checksum
 WHERE signing_keys.version = :version - 1;
