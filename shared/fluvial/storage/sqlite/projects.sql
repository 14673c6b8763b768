-- name: project
-- One project, unless it has ended.
SELECT project FROM project WHERE name = ? AND project IS NOT NULL;

-- name: put_project
-- A version in the place of the one before it in its life; a first version where no project is.
INSERT INTO project (name, life, version, project)
SELECT :name, :life, :version, :project WHERE :version = 1 OR EXISTS (SELECT 1 FROM project WHERE name = :name)
ON CONFLICT (name) DO UPDATE SET life = :life, version = :version, project = :project
 WHERE CASE WHEN project.project IS NULL THEN :version = 1
            ELSE project.life = :life AND project.version = :version - 1 END;

-- name: end_project
-- The row stays, to tell that there was a project.
UPDATE project SET project = NULL
 WHERE name = :name AND life = :life AND version = :version AND project IS NOT NULL;

-- name: projects_after
-- Projects whose names come after a name, in order.
SELECT project FROM project WHERE name > ? AND project IS NOT NULL ORDER BY name LIMIT ?;

-- name: any_project
-- Whether there is or was a project.
SELECT 1 FROM project LIMIT 1;

-- name: add_usage
-- A project has appended more on a day; the day's sum.
INSERT INTO usage (name, day, byte_count) VALUES (:name, :day, :byte_count)
ON CONFLICT (name) DO UPDATE SET day = :day,
    byte_count = :byte_count + CASE WHEN usage.day = :day THEN usage.byte_count ELSE 0 END
RETURNING byte_count;
