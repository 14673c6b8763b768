"""The store of one machine: one SQLite database with group commit, and segment files."""
