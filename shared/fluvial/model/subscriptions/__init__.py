"""Subscriptions as data: patterns, links, wakes and leases, and pure functions over them (spec 6 and 7)."""
