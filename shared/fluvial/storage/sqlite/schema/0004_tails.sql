-- An append that changes nothing else does not write the head: its tail is where the hot log ends, if that is further.
-- Older versions do not look there, so the version alone keeps them out.

SELECT 1;
