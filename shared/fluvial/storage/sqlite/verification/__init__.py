"""Verification: what can be found wrong in a data folder or a backup, without changing it."""
