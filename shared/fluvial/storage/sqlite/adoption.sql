-- name: begin_adoption
-- The streams that are to be adopted, and what they will be called.
CREATE TEMP TABLE adopted (name TEXT NOT NULL PRIMARY KEY, new_name TEXT NOT NULL) WITHOUT ROWID;

-- name: adopt_names
-- All whose names begin with a prefix.
INSERT OR IGNORE INTO adopted SELECT name, :project || '/' || name FROM stream
 WHERE name >= :prefix AND name < :prefix || char(127);

-- name: spare_project
-- But for those that are a project's already; 0 is the character after the slash.
DELETE FROM adopted WHERE name > :project || '/' AND name < :project || '0';

-- name: adopted_names
-- How many they are, and the first of them.
SELECT count(*) OVER (), name FROM adopted ORDER BY name LIMIT ?;

-- name: taken_name
-- One whose new name another stream has.
SELECT adopted.new_name FROM adopted JOIN stream ON stream.name = adopted.new_name LIMIT 1;

-- name: long_name
-- One whose new name would be too long.
SELECT name FROM adopted WHERE length(new_name) > ? LIMIT 1;

-- name: rename_streams
-- Each gets its new name; its bytes and producers are kept by its incarnation, and stay where they are.
UPDATE stream SET name = (SELECT new_name FROM adopted WHERE adopted.name = stream.name)
 WHERE name IN (SELECT name FROM adopted);

-- name: rename_followers
-- Whoever follows a stream is known by its name.
UPDATE OR REPLACE follower SET estuary = (SELECT new_name FROM adopted WHERE adopted.name = follower.estuary)
 WHERE estuary IN (SELECT name FROM adopted);

-- name: references_by_name
-- The streams that tell the name of another one: forks their source's, estuaries those of what flows into them.
SELECT name, config, cursors FROM stream WHERE cursors IS NOT NULL OR instr(config, '"origin"');

-- name: new_name
-- What a stream will be called.
SELECT new_name FROM adopted WHERE name = ?;

-- name: save_references
-- The names of others, as they are now.
UPDATE stream SET config = ?, cursors = ? WHERE name = ?;
