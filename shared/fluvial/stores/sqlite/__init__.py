"""The embedded store: one SQLite database for heads and recent batches, segment files for the rest."""
