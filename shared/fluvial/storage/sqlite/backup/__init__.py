"""Backups of a data folder: making one beside a running server, and restoring it elsewhere."""
