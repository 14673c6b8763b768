"""Webhooks: keys and signatures, where a webhook may go, and the client that sends it (spec 6.5, 7.1, 12.8, 12.10)."""
