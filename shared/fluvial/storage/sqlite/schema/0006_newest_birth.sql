-- The latest birth of an incarnation: offset tokens of a name's later incarnations sort after those of earlier ones.

CREATE TABLE newest_life (born_us INTEGER NOT NULL);

INSERT INTO newest_life VALUES (0);
