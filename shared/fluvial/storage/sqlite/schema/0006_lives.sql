-- The moment of the last beginning: offset tokens of a later life of a name sort after those of an earlier one.

CREATE TABLE newest_life (born_us INTEGER NOT NULL);

INSERT INTO newest_life VALUES (0);
