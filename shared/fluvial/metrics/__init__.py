"""Metrics: what a server counts of its own work, and how Prometheus reads it."""
